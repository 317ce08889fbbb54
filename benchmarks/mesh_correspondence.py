"""Where MediaPipe's 478 mesh points lie on ICT-FaceKit.

    python benchmarks/mesh_correspondence.py ICT_FACEKIT.npz MESHES.npz OUTPUT.npz

MESHES holds ``mesh (N, 478, 3)`` of faces at rest, in pixels (MediaPipe Face Landmarker). Lips and
eyelids are bound by arc length along ICT-FaceKit's own contours between the 68 iBUG vertices, so
that an upper lip or lid never meets a lower one; brows and nose by those vertices. Every other
point goes to the nearest surface after a rigid alignment and a thin-plate warp (linear radial
basis) of the mean mesh by the bound points; irises to the eyeballs.

OUTPUT: ``tri (478, 3)`` vertices and ``bary (478, 3)`` weights of a triangle for every point,
``mirror478 (478,)`` the point on the other side, ``mean (478, 3)`` the mean mesh.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from facs_reading import procrustes_mean, symmetric
from scipy.interpolate import RBFInterpolator
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.distance import cdist

FACE = 9409  # ICT-FaceKit's vertices below belong to the face's skin
EYEBALLS = (21451, 24591)
# Chains of mesh points; iBUG vertices are known for some, the others are placed by arc length.
LIP_ROWS = {  # outer contour, two rows between, inner contour; from the right corner to the left
    "upper": ((61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
              (76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306),
              (62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292),
              (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)),
    "lower": ((61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
              (76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306),
              (62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292),
              (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)),
}  # fmt: skip
LIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (263, 466, 388, 387, 386, 385, 384, 398, 362), (263, 249, 390, 373, 374, 380, 381, 382, 362),
)  # fmt: skip
CONTOUR = {  # mesh point: iBUG point
    61: 48, 39: 49, 37: 50, 0: 51, 267: 52, 269: 53, 291: 54, 181: 59, 84: 58, 17: 57, 314: 56,
    405: 55, 78: 60, 82: 61, 13: 62, 312: 63, 308: 64, 87: 67, 14: 66, 317: 65,
    33: 36, 160: 37, 158: 38, 133: 39, 144: 41, 153: 40, 263: 45, 387: 44, 385: 43, 362: 42,
    373: 46, 380: 47,
}  # fmt: skip
POINTS = {70: 17, 63: 18, 105: 19, 66: 20, 107: 21, 336: 22, 296: 23, 334: 24, 293: 25, 300: 26,
          168: 27, 197: 28, 5: 29, 4: 30, 98: 31, 97: 32, 2: 33, 326: 34, 327: 35}  # fmt: skip
JAW = {127: 0, 93: 2, 58: 4, 150: 6, 152: 8, 379: 10, 288: 12, 323: 14, 356: 16}  # soft
IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
# Points whose mirror image is known, to start the search for all of them.
PAIRS = ((33, 263), (133, 362), (61, 291), (159, 386), (145, 374), (78, 308), (234, 454),
         (127, 356), (70, 300), (105, 334), (107, 336), (98, 327), (162, 389), (468, 473), (10, 10),
         (152, 152), (1, 1), (4, 4), (168, 168), (13, 13), (14, 14), (0, 0), (17, 17))  # fmt: skip


def similarity(source: np.ndarray, target: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` moved by the similarity that brings `source` nearest to `target` (Umeyama 1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    left, values, right = np.linalg.svd(a.T @ b)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    scale = (values * signs).sum() / (a**2).sum()
    return scale * (points - source.mean(0)) @ (left * signs) @ right + target.mean(0)


def mirror_points(mesh: np.ndarray) -> np.ndarray:
    """(478,) index of the point on the other side, by assignment to the mirrored mesh."""
    first, second = np.array(PAIRS + tuple((b, a) for a, b in PAIRS)).T
    flipped = mesh * [-1.0, 1.0, 1.0]
    moved = similarity(flipped[second], mesh[first], flipped)
    for _ in range(6):
        mirror = linear_sum_assignment(cdist(mesh, moved) ** 2)[1]
        moved = similarity(flipped[mirror], mesh, flipped)
    if (mirror[mirror] != np.arange(len(mirror))).any():
        raise SystemExit("the mesh's points do not pair left with right: too few faces?")
    return mirror


def barycentric(point: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(T, 3) weights of a 2-d point in triangles (T, 3, 2)."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    u, v, w = b - a, c - a, point - a
    area = u[:, 0] * v[:, 1] - v[:, 0] * u[:, 1]
    area = np.where(np.abs(area) < 1e-14, 1e-14, area)
    second = (w[:, 0] * v[:, 1] - v[:, 0] * w[:, 1]) / area
    third = (u[:, 0] * w[:, 1] - w[:, 0] * u[:, 1]) / area
    return np.stack([1 - second - third, second, third], 1)


def inside(point: np.ndarray, triangles: np.ndarray) -> tuple[int, np.ndarray]:
    """The triangle of (T, 3, 2) that holds a point, and its weights."""
    weights = barycentric(point, triangles)
    best = int(weights.min(1).argmax())
    clipped = weights[best].clip(0)
    return best, clipped / clipped.sum()


def nearest(point: np.ndarray, triangles: np.ndarray) -> tuple[int, np.ndarray]:
    """The triangle of (T, 3, 3) nearest to a point, and the weights of its nearest point."""
    a, u, v = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    w = point - a
    uu, uv, vv, wu, wv = ((x * y).sum(1) for x, y in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    area = np.maximum(uu * vv - uv**2, 1e-12)
    second, third = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    candidates = [np.stack([1 - second - third, second, third], 1)]
    outside = (candidates[0] < 0).any(1)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = triangles[:, j] - triangles[:, i]
        along = ((point - triangles[:, i]) * edge).sum(1) / np.maximum((edge**2).sum(1), 1e-12)
        weights = np.zeros((len(triangles), 3))
        weights[:, j] = along.clip(0, 1)
        weights[:, i] = 1 - weights[:, j]
        candidates.append(weights)
    places = np.einsum("knb,nbd->knd", np.stack(candidates), triangles)
    distances = np.linalg.norm(places - point, axis=2)
    distances[0, outside] = np.inf
    kind, best = np.unravel_index(distances.argmin(), distances.shape)
    return int(best), candidates[kind][best]


class Surface:
    """ICT-FaceKit's skin: triangles, texture coordinates (one layer, lips and lids open), edges."""

    def __init__(self, model: Path) -> None:
        with np.load(model) as file:
            self.neutral = file["neutral"].astype(np.float64)
            self.landmarks, faces, texture = file["landmarks68"], file["faces"], file["uv"]
            texture_faces = file["uv_faces"]
        skin = (faces < FACE).all(1)
        quads = faces[skin]
        self.triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        self.uv = np.zeros((FACE, 2))
        self.uv[quads.ravel()] = texture[texture_faces[skin].ravel()]
        edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
        edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
        lengths = np.linalg.norm(self.neutral[edges[:, 0]] - self.neutral[edges[:, 1]], axis=1)
        self.graph = coo_matrix((lengths, edges.T), shape=(FACE, FACE)).tocsr()
        balls = faces[((faces >= EYEBALLS[0]) & (faces < EYEBALLS[1])).all(1)]
        self.eyeballs = np.concatenate([balls[:, [0, 1, 2]], balls[:, [0, 2, 3]]])

    def path(self, start: int, end: int) -> list[int]:
        """Vertices of the shortest way along edges."""
        before = dijkstra(self.graph, indices=start, return_predecessors=True)[1]
        way = [end]
        while way[-1] != start:
            way.append(int(before[way[-1]]))
        return way[::-1]

    def locate(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and weights of the triangle at a texture coordinate."""
        index, weights = inside(place, self.uv[self.triangles])
        return self.triangles[index], weights

    def along(self, chain: tuple[int, ...], mesh: np.ndarray) -> dict[int, np.ndarray]:
        """Texture coordinates of a chain of mesh points between those of `CONTOUR`."""
        places: dict[int, np.ndarray] = {}
        fixed = [i for i, point in enumerate(chain) if point in CONTOUR]
        for i, j in pairwise(fixed):
            part = list(chain[i : j + 1])
            ends = (int(self.landmarks[CONTOUR[part[k]]]) for k in (0, -1))
            way = self.path(*ends)
            for point, share in zip(part, run_length(mesh[part]), strict=True):
                places[point] = interpolate(share, run_length(self.neutral[way]), self.uv[way])
        return places


def run_length(points: np.ndarray) -> np.ndarray:
    """(N,) length along a polyline, from 0 to 1."""
    length = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return length / length[-1]


def interpolate(share: float, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The 2-d value at a share of a polyline."""
    return np.array([np.interp(share, at, column) for column in values.T])


def contours(surface: Surface, mesh: np.ndarray) -> dict[int, np.ndarray]:
    """Texture coordinates of lips, lids, brows and nose."""
    places: dict[int, np.ndarray] = {}
    for chain in (*LIDS, *(rows[k] for rows in LIP_ROWS.values() for k in (0, 3))):
        places |= surface.along(chain, mesh)
    for rows in LIP_ROWS.values():
        for outer, second, third, inner in zip(*rows, strict=True):
            shares = run_length(mesh[[outer, second, third, inner]])
            line = places[outer] + np.linspace(0, 1, 41)[:, None] * (places[inner] - places[outer])
            located = [surface.locate(place) for place in line]
            solid = np.array([weights @ surface.neutral[tri] for tri, weights in located])
            for point, share in ((second, shares[1]), (third, shares[2])):
                places[point] = interpolate(share, run_length(solid), line)
    return places | {point: surface.uv[surface.landmarks[k]] for point, k in POINTS.items()}


def open_skin(surface: Surface, places: dict[int, np.ndarray]) -> np.ndarray:
    """Indices of triangles that free points may meet: not lips, eyes, ears or nostrils."""
    from matplotlib.path import Path as Polygon

    centre = surface.uv[surface.triangles].mean(1)
    loops = [LIP_ROWS["upper"][0] + LIP_ROWS["lower"][0][::-1]]
    loops += [LIDS[k] + LIDS[k + 1][::-1] for k in (0, 2)]
    closed = np.zeros(len(centre), bool)
    for loop in loops:
        closed |= Polygon([places[point] for point in loop]).contains_points(centre)
    closed |= (np.abs(centre[:, 0] - 0.5) > 0.385) & (np.abs(centre[:, 1] - 0.53) < 0.15)
    closed |= np.hypot(np.abs(centre[:, 0] - 0.5) - 0.043, centre[:, 1] - 0.557) < 0.012
    return np.flatnonzero(~closed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("meshes", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    with np.load(args.meshes) as file:
        meshes = file["mesh"].astype(np.float64)
    meshes = meshes[np.isfinite(meshes).all((1, 2))]
    mean = procrustes_mean(meshes)
    mirror = mirror_points(mean)
    mean = symmetric(mean, mirror)
    surface = Surface(args.model)
    places = contours(surface, mean)
    bound = {point: surface.locate(place) for point, place in places.items()}
    controls = [*bound, *JAW]
    targets = np.array(
        [weights @ surface.neutral[tri] for tri, weights in bound.values()]
        + [surface.neutral[surface.landmarks[k]] for k in JAW.values()]
    )
    aligned = similarity(mean[controls], targets, mean)
    smoothing = np.r_[np.full(len(bound), 0.003), np.full(len(JAW), 0.15)]
    warp = RBFInterpolator(
        aligned[controls], targets - aligned[controls], kernel="linear", smoothing=smoothing
    )
    warped = aligned + warp(aligned)
    vertices, weights = np.zeros((478, 3), int), np.zeros((478, 3))
    free = surface.triangles[open_skin(surface, places)]
    for point in range(468):
        if point in bound:
            vertices[point], weights[point] = bound[point]
        else:
            index, weights[point] = nearest(warped[point], surface.neutral[free])
            vertices[point] = free[index]
    solid = surface.neutral[surface.eyeballs]
    for iris in IRISES:
        side = np.sign(solid.mean(1)[:, 0]) == np.sign(warped[iris[0], 0])
        front = solid.mean(1)[:, 2] > solid[side].mean(1)[:, 2].max() - 1.5
        shown = surface.eyeballs[side & front]
        for point in iris:
            index, weights[point] = inside(warped[point, :2], surface.neutral[shown][..., :2])
            vertices[point] = shown[index]
    np.savez(
        args.output, tri=vertices.astype(np.int32), bary=weights.astype(np.float32),
        mirror478=mirror.astype(np.int32), mean=mean.astype(np.float32),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
