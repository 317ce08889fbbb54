"""Draws docs/pictures/measured-face.png: python docs/scripts/readme_picture.py ict_facekit.npz

Renders a head of ICT-FaceKit (MIT licence), measures it with the built-in pair, draws the overlay
and prints the error of the landmarks. Run it again when the built-in pair changes, and look at it.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from mlx_faceau import FacePipeline
from mlx_faceau.core.geometry import euler_to_matrix
from mlx_faceau.data.labels.ict_facekit import ICTFaceKit, read_ict_facekit

PICTURE = Path(__file__).resolve().parents[1] / "pictures" / "measured-face.png"
# The first identity components: an average face by the landmarks that the network was trained on.
PERSON = (-0.37, 0.0, -0.62, 0.6, 1.32, -0.49, 0.45, 1.43, 1.53, 0.2, 1.15, 1.14)
SMILE = {
    "mouthSmile": 0.9,
    "cheekRaiser": 0.5,
    "mouthUpperUp": 0.4,
    "jawOpen": 0.12,
    "eyeWide": 0.3,
}
ANGLES = np.radians([10.0, 5.0, 2.0])  # pitch, yaw, roll
SIZE, FINE = (640, 520), 3  # px; drawn larger and reduced
DISTANCE, MM_PER_PIXEL, CENTRE = 900.0, 0.56, (0.36, 0.56)
LIGHTS = (((-0.45, -0.5, -0.74), 0.62), ((0.8, -0.1, -0.6), 0.22))  # direction, strength
# Vertices of the model's parts, as its authors number them; what follows them is transparent.
SKIN, OPAQUE, EYES = 11248, 24591, ((21451, 23021), (23021, 24591))
TONE, BROW, LIP, HAIR = (128, 158, 205), (100, 125, 165), (98, 98, 178), (52, 74, 104)  # BGR
BLUSH, IRIS, PUPIL, EYEBALL = (90, 100, 200), (50, 80, 110), (15, 15, 15), (222, 226, 230)
INNER = ((11248, (60, 50, 110)), (14062, (90, 90, 170)), (17039, (215, 225, 230)))  # from a vertex


def main() -> None:
    picture, truth = render(read_ict_facekit(sys.argv[1]))
    found = FacePipeline().image(picture)
    error = np.linalg.norm(found.faces[0].landmarks - truth, axis=1).mean()
    print(f"landmark error {100 * error / np.linalg.norm(truth[36] - truth[45]):.1f} % of the eyes")
    found.save(PICTURE)


def render(model: ICTFaceKit) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 BGR picture and its (68, 2) landmarks."""
    moves = [SMILE.get(name.split("_")[0], 0.0) for name in model.expression_names]
    shape = model.neutral + np.tensordot(PERSON, model.identity[: len(PERSON)], 1)
    shape = (shape + np.tensordot(moves, model.expression, 1)) @ euler_to_matrix(ANGLES[None])[0].T
    shape -= shape[model.landmarks68].mean(axis=0)
    depth = DISTANCE + shape[:, 2]
    seen = shape[:, :2] * DISTANCE / depth[:, None] / MM_PER_PIXEL + np.multiply(SIZE, CENTRE)
    quads = model.faces[model.faces.max(axis=1) < OPAQUE]
    triangles = np.concatenate([quads[:, :3], quads[quads[:, 3] >= 0][:, [0, 2, 3]]])
    triangles = triangles[np.argsort(-depth[triangles].mean(axis=1))]
    width, height = SIZE[0] * FINE, SIZE[1] * FINE
    owner = np.full((height, width), -1, np.int32)  # the nearest triangle
    for index, corner in enumerate(np.rint(seen[triangles] * FINE * 16).astype(np.int32)):
        cv2.fillConvexPoly(owner, corner, index, cv2.LINE_8, 4)
    where = np.flatnonzero(owner >= 0)
    drawn = triangles[owner.ravel()[where]]
    ends = np.concatenate([seen[drawn] * FINE, np.ones((*drawn.shape, 1))], axis=2)
    places = np.stack([where % width, where // width, np.ones(len(where))], axis=1)
    shares = (np.linalg.pinv(ends.transpose(0, 2, 1)) @ places[..., None])[..., 0].clip(1e-6, 1)
    shares /= shares.sum(axis=1, keepdims=True)
    colours, across = (
        sum(shares[:, [k]] * values[drawn[:, k]] for k in range(3))
        for values in (albedo(model), normals(shape, triangles))
    )
    pixels = np.repeat(np.linspace(200, 120, height), width)[:, None] * (1.0, 0.97, 0.94)
    pixels[where] = colours * light(across)[:, None]
    image = cv2.resize(pixels.reshape(height, width, 3), SIZE, interpolation=cv2.INTER_AREA)
    return np.clip(image, 0, 255).astype(np.uint8), seen[model.landmarks68]


def albedo(model: ICTFaceKit) -> np.ndarray:
    """(V, 3) BGR of the vertices."""
    points, marks = model.neutral, model.neutral[model.landmarks68, :2]
    x, y, z = points.T
    colours = np.tile(np.array(TONE, np.float64), (len(points), 1))

    def paint(amount: np.ndarray, colour: tuple[int, int, int], part: np.ndarray) -> None:
        share = np.where(part, np.clip(amount, 0, 1), 0)[:, None]
        colours[:] += share * (np.array(colour) - colours)

    skin = np.arange(len(points)) < SKIN
    front = skin & (z < -20)
    for cheek in (marks[[2, 31, 36]].mean(axis=0), marks[[14, 35, 45]].mean(axis=0)):
        paint(0.3 * np.exp(-((points[:, :2] - cheek) ** 2).sum(axis=1) / 400), BLUSH, front)
    for first, last, wide in ((17, 22, 2.6), (22, 27, 2.6), (36, 40, 0.9), (42, 46, 0.9)):
        steps = np.linspace(first, last - 1, 60)  # brows and the edges of the upper lids
        curve = np.stack([np.interp(steps, range(68), marks[:, k]) for k in (0, 1)], axis=1)
        away = np.linalg.norm(points[:, None, :2] - curve, axis=2).min(axis=1)
        paint(1.6 - away / wide, BROW, front)
    lips = marks[48:60].astype(np.float32)
    inside = [cv2.pointPolygonTest(lips, (float(u), float(v)), True) for u, v in points[:, :2]]
    paint(0.5 + np.array(inside) / 1.5, LIP, front)
    hairline = (x / 13) ** 2 + 1.5 * np.sin(x / 3) - 86
    paint(0.5 + np.maximum(hairline - y, np.minimum(z - 8, 20 - y)) / 6, HAIR, skin)
    for start, colour in INNER:
        colours[start:] = colour
    for part in (slice(*eye) for eye in EYES):
        ball = points[part] - points[part].mean(axis=0)
        radius = np.where(ball[:, 2] < 0, np.linalg.norm(ball[:, :2], axis=1), np.inf)[:, None]
        colours[part] = EYEBALL
        for limit, colour in ((5.8, IRIS), (2.6, PUPIL)):
            colours[part] += np.clip((limit - radius) / 0.8 + 0.5, 0, 1) * (colour - colours[part])
    return colours


def normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    first, second, third = vertices[triangles].swapaxes(0, 1)
    total = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(total, triangles[:, corner], np.cross(second - first, third - first))
    return total


def light(normal: np.ndarray) -> np.ndarray:
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-6)
    wrapped = [s * np.clip(0.8 * normal @ d / np.linalg.norm(d) + 0.2, 0, 1) for d, s in LIGHTS]
    return np.asarray(0.36 + np.sum(wrapped, axis=0))


if __name__ == "__main__":
    main()
