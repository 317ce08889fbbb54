"""MediaPipe's Face Landmarker through its TFLite parts: faces, their 478 points and 52 scores.

Coordinates are frame pixels with centres at whole numbers. The parts are run by LiteRT; how their
inputs are cut and their outputs read follows the papers and model cards.

References:
    Bazarevsky et al., BlazeFace: sub-millisecond neural face detection on mobile GPUs,
    CV4ARVR 2019.
    Kartynnik et al., Real-time facial surface geometry from monocular video on mobile GPUs,
    CV4ARVR 2019.
    Grishchenko et al., Attention mesh: high-fidelity face mesh prediction in real-time,
    CV4ARVR 2020.
    Model cards "MediaPipe Face Detection (short range)", "MediaPipe Face Mesh V2", "MediaPipe
    Blendshape V2", Google 2022 (Apache-2.0).
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlx_faceau.core.geometry import invert, similarity_matrix, transform_points
from mlx_faceau.errors import BackendError, MissingDependency

MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
    "face_landmarker.task"
)
NUM_POINTS, NUM_SCORES = 478, 52

_DETECTOR_SIDE, _MESH_SIDE = 128, 256  # px of the nets' inputs
_GRIDS = ((16, 2), (8, 6))  # cells along a side, anchors in each cell
_DETECTED = 0.5  # least score of a detection
_OVERLAP = 0.3  # intersection over union from which two boxes are one face
_DETECTED_MARGIN = 1.5  # side of a region / longer side of the detector's box
# The same region from the points' box: its margin, and how far its centre lies below the box's, in
# sides. Both are means over 165 photographs; the net's points depend a little on what it is shown.
_MESH_MARGIN, _MESH_DROP = 1.375, 0.038
_EYES = [33, 263]  # outer corners, the subject's right and left
_MARKS = ((33, 133), (362, 263), (1,), (13, 14))  # the detector's first four points: their means
_CHECKED = 4 / 3  # region in which the detector verifies a face / region of the face
# Mean distance of these points between both nets, in sides of the face's region: of photographs 99
# in 100 are below the first, and what is no face begins at the second.
_DISAGREEMENT = (0.06, 0.18)

# The points that the blendshape net reads, in its order.
_SCORED_POINTS = np.fromstring(
    """
    0 1 4 5 6 7 8 10 13 14 17 21 33 37 39 40 46 52 53 54 55 58 61 63 65 66 67 70 78 80 81 82 84 87
    88 91 93 95 103 105 107 109 127 132 133 136 144 145 146 148 149 150 152 153 154 155 157 158 159
    160 161 162 163 168 172 173 176 178 181 185 191 195 197 234 246 249 251 263 267 269 270 276 282
    283 284 285 288 291 293 295 296 297 300 308 310 311 312 314 317 318 321 323 324 332 334 336 338
    356 361 362 365 373 374 375 377 378 379 380 381 382 384 385 386 387 388 389 390 397 398 400 402
    405 409 415 454 466 468 469 470 471 472 473 474 475 476 477
    """,
    int,
    sep=" ",
)


@dataclass(frozen=True)
class Region:
    """A turned square that shows one face."""

    centre: np.ndarray  # (2,) px
    side: float  # px
    angle: float  # of the line through the eyes, from x towards y, radians

    @property
    def box(self) -> np.ndarray:
        """(4,) left, top, right, bottom of the face, px."""
        half = self.side / (2 * _DETECTED_MARGIN)
        return np.concatenate([self.centre - half, self.centre + half])

    def matrix(self, size: int) -> np.ndarray:
        """(2, 3) from the image to a square of ``size`` pixels, edges on edges."""
        matrix = similarity_matrix(size / self.side, -self.angle, (0.0, 0.0))
        matrix[:, 2] = (size - 1) / 2 - matrix[:, :2] @ self.centre
        return matrix


@dataclass(frozen=True)
class Mesh:
    """The mesh of the face in a region."""

    points: np.ndarray  # (478, 3) float64 px; depth in the same unit, smaller is nearer
    presence: float  # the net's confidence that this is a face, [0, 1]

    @property
    def box(self) -> np.ndarray:
        """(4,) left, top, right, bottom of the points, px."""
        return np.concatenate([self.points[:, :2].min(axis=0), self.points[:, :2].max(axis=0)])

    @property
    def region(self) -> Region:
        """The region in which to fit the same face again."""
        low, high = self.box[:2], self.box[2:]
        angle = _angle(*self.points[_EYES, :2])
        side = _MESH_MARGIN * float((high - low).max())
        down = np.array([-np.sin(angle), np.cos(angle)])
        return Region((low + high) / 2 + _MESH_DROP * side * down, side, angle)


class FaceMesh:
    """The three nets of ``face_landmarker.task``. Not safe with threads: each needs its own.

    Raises:
        BackendError: if the file is missing or another one; it says where to get it.
        MissingDependency: if LiteRT is not installed.
    """

    def __init__(self, model: Path | str) -> None:
        try:
            content = Path(model).read_bytes()
        except OSError as error:
            raise BackendError(f"{model}: {error.strerror}; get it from {MODEL_URL}") from None
        found = hashlib.sha256(content).hexdigest()
        if found != MODEL_SHA256:
            raise BackendError(
                f"{model}: SHA-256 is {found[:12]}..., expected {MODEL_SHA256[:12]}... (MediaPipe "
                f"Face Landmarker, float16, version 1); get it from {MODEL_URL}"
            )
        parts = zipfile.ZipFile(io.BytesIO(content))
        self._detector = _Net(parts.read("face_detector.tflite"))
        self._mesh = _Net(parts.read("face_landmarks_detector.tflite"))
        self._scores = _Net(parts.read("face_blendshapes.tflite"))
        self._anchors = anchors()

    def detect(self, image: "Pyramid", region: Region) -> list[tuple[float, Region]]:
        """Faces in a square part of an image, by falling score in [0, 1]."""
        outputs, scores, back = self._detections(image, region)
        found = []
        for score, points in decode(outputs, scores, self._anchors):
            shown = transform_points(back, points)
            extent = np.abs(points[1] - points[0]).max() * region.side / _DETECTOR_SIDE
            centre, angle = shown[:2].mean(axis=0), _angle(shown[2], shown[3])
            found.append((score, Region(centre, _DETECTED_MARGIN * extent, angle)))
        return found

    def _detections(
        self, image: "Pyramid", region: Region
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(896, 8, 2) outputs, (896,) scores, and the (2, 3) way back to the image."""
        matrix = region.matrix(_DETECTOR_SIDE)
        pixels = image.warp(matrix, _DETECTOR_SIDE) / np.float32(127.5) - np.float32(1)
        outputs, logits = self._detector(pixels)
        back = invert(matrix)
        back[:, 2] -= back[:, :2].sum(axis=1) / 2  # the net counts from its input's corner
        return outputs.reshape(-1, 8, 2), _sigmoid(logits.reshape(-1)), back

    def fit(self, image: "Pyramid", region: Region) -> Mesh:
        """The points of the face that a region shows."""
        matrix = region.matrix(_MESH_SIDE)
        pixels = image.warp(matrix, _MESH_SIDE)
        points, presence, _ = self._mesh(pixels / np.float32(255))
        points = points.reshape(NUM_POINTS, 3).astype(np.float64)
        flat = transform_points(invert(matrix), points[:, :2] - 0.5)
        depth = points[:, 2:] * (region.side / _MESH_SIDE)
        return Mesh(np.hstack([flat, depth]), float(_sigmoid(presence).item()))

    def verified(self, image: "Pyramid", mesh: Mesh) -> Mesh:
        """The mesh, its presence lowered where the detector finds eyes, nose and mouth elsewhere.

        The mesh net also fits faces to letters and clouds, sometimes with high presence.
        """
        around = replace(mesh.region, side=_CHECKED * mesh.region.side)
        outputs, scores, back = self._detections(image, around)
        best = int(scores.argmax())
        marks = transform_points(back, outputs[best, 2:6] + self._anchors[best])
        own = np.stack([mesh.points[list(points), :2].mean(axis=0) for points in _MARKS])
        distance = np.linalg.norm(marks - own, axis=1).mean() / mesh.region.side
        agreement = np.interp(distance, _DISAGREEMENT, (1.0, 0.0))
        return replace(mesh, presence=mesh.presence * float(agreement))

    def scores(self, mesh: Mesh) -> np.ndarray:
        """(52,) float32 blendshape scores in [0, 1], in the model's order."""
        (scores,) = self._scores(mesh.points[_SCORED_POINTS, :2].astype(np.float32))
        return scores.reshape(NUM_SCORES).copy()


class Pyramid:
    """An image, (H, W, 3) uint8 BGR, and its halves, so that small copies show no moire."""

    def __init__(self, image: np.ndarray) -> None:
        self.size: tuple[int, int] = image.shape[1::-1]  # width and height, px
        self._levels = [image]
        while min(image.shape[:2]) > 1:
            half = (image.shape[1] // 2, image.shape[0] // 2)
            image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
            self._levels.append(image)

    def warp(self, matrix: np.ndarray, size: int) -> np.ndarray:
        """(size, size, 3) uint8 RGB of a map from the image to it; edges replicate."""
        ratio = 1 / float(np.hypot(matrix[0, 0], matrix[1, 0]))
        halvings = max(0, math.frexp(ratio)[1] - 1)  # until it is shown less than 2 times smaller
        image = self._levels[min(halvings, len(self._levels) - 1)]
        fx, fy = (a / b for a, b in zip(self.size, image.shape[1::-1], strict=True))
        # Centre x of the level lies at (x + 0.5) f - 0.5 of the image.
        enlarge = np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]])
        crop = cv2.warpAffine(
            image,
            matrix @ enlarge,
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return crop[..., ::-1]


def anchors() -> np.ndarray:
    """(896, 2) centres of the detector's anchors in its input, px; all have the size of one."""
    grids = []
    for cells, repeats in _GRIDS:
        centres = (np.arange(cells) + 0.5) * (_DETECTOR_SIDE / cells)
        x, y = np.meshgrid(centres, centres)
        grids.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeats, axis=0))
    return np.concatenate(grids)


def decode(
    outputs: np.ndarray, scores: np.ndarray, centres: np.ndarray
) -> Iterator[tuple[float, np.ndarray]]:
    """The best score of each face and its (8, 2) px: two corners of the box, six points.

    Overlapping faces are averaged by their scores (A,) in [0, 1]. Outputs (A, 8, 2) px of the
    anchors at ``centres`` (A, 2) are the box's centre, its size and the points: right and left eye,
    nose, mouth, right and left ear. All but the size are offsets from the anchor.
    """
    likely = np.flatnonzero(scores >= _DETECTED)
    order = likely[np.argsort(-scores[likely], kind="stable")]
    faces = outputs[order].astype(np.float64)
    half = faces[:, 1] / 2
    middle = faces[:, 0] + centres[order]
    faces[:, 2:] += centres[order][:, None]
    faces[:, 0], faces[:, 1] = middle - half, middle + half
    left, weights = np.ones(len(order), bool), scores[order]
    for best in range(len(order)):
        if not left[best]:
            continue
        boxes = faces[:, :2].reshape(-1, 4)
        same = left & (overlap(boxes[best], boxes) > _OVERLAP)
        same[best] = True  # a box without area overlaps nothing
        left &= ~same
        yield float(weights[best]), np.average(faces[same], axis=0, weights=weights[same])


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) and others (N, 4): left, top, right, bottom."""
    shared = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    both = shared.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + areas - both
    return np.asarray(both / np.where(union > 0, union, 1))


def _angle(right: np.ndarray, left: np.ndarray) -> float:
    """Of the line from the subject's right eye to the left, from x towards y, radians."""
    x, y = left - right
    return float(np.arctan2(y, x))


class _Net:
    """A TFLite model of one input, on one thread."""

    def __init__(self, model: bytes) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingDependency("ai-edge-litert", extra="label") from None
        self._interpreter: Any = Interpreter(model_content=model, num_threads=1)
        self._interpreter.allocate_tensors()
        (entry,) = self._interpreter.get_input_details()
        self._input, self._shape = entry["index"], tuple(entry["shape"])
        self._outputs = [entry["index"] for entry in self._interpreter.get_output_details()]

    def __call__(self, values: np.ndarray) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input, values.reshape(self._shape))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values.astype(np.float64).clip(-100, 100))))
