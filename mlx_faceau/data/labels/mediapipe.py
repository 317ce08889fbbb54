"""The open labeller: MediaPipe's Face Landmarker labels any photograph or video.

    478 points and 52 scores -> 68 iBUG points, parameters of the open PDM, 17 action units

The action units are read from the points and the scores by
:mod:`mlx_faceau.data.labels.facs_reading`.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.core.pdm import OPEN_PDM, OPEN_PDM_NOISE, PDM, fit_pdm, read_pdm
from mlx_faceau.errors import BackendError
from mlx_faceau.video.results import Frame

from .face_labels import FaceLabels, Labels, is_photograph
from .face_mesh import MODEL_URL, FaceMesh, Mesh, Pyramid, Region, overlap
from .facs_reading import read_action_units

LICENCE = (
    "labels of MediaPipe's Face Landmarker (Apache-2.0) and the open PDM (from ICT-FaceKit, MIT): "
    "nets trained on them may be used for any purpose that the pictures' licences allow"
)
LICENCE_GIVEN_PDM = (
    "labels of MediaPipe's Face Landmarker (Apache-2.0) and a PDM of your own, whose licence holds "
    "for nets trained on them"
)

# The mesh's points in the order of the 68 (iBUG, 300-W): jaw, brows, nose, eyes, lips.
IBUG = np.fromstring(
    """
    127 234 93 132 58 136 150 176 152 400 379 365 288 361 323 454 356
    70 63 105 66 107  336 296 334 293 300
    168 197 5 4  98 97 2 326 327
    33 160 158 133 153 144  362 385 387 263 373 380
    61 39 37 0 267 269 291 405 314 17 84 181  78 82 13 312 308 317 14 87
    """,
    int,
    sep=" ",
)

_PRESENT = 0.5  # least presence of a face
_SAME_FACE = 0.3  # overlap of boxes
_MOVED = 0.1  # of a region's side, from which the mesh is fitted again at the new place
_SEARCH_EVERY = 1.0  # seconds of video between searches for further faces
_LEAST_TILE = 256  # px; smaller tiles show faces too coarse for training


class MediaPipeLabeller:
    """Runs the Face Landmarker's nets on each frame.

    In photographs every face is found; faces of videos are followed from frame to frame, and
    searched for once a second and whenever one is lost. The given PDM, or the open one, is fitted
    to the 68 points.

    Raises:
        BackendError: if the model file is missing or another one; it says where to get it.
        MissingDependency: if LiteRT is not installed.
        DatasetError: if the open PDM cannot be read.
    """

    name = "mediapipe"

    def __init__(self, model: Path | str | None, pdm: PDM | None = None) -> None:
        if model is None:
            raise BackendError(
                "labels by mediapipe need its model file (--label-model face_landmarker.task); "
                f"get it from {MODEL_URL}"
            )
        self._mesh = FaceMesh(model)
        if pdm is None:
            self.pdm, self.pdm_name, self.licence = read_pdm(OPEN_PDM), "open", LICENCE
        else:
            self.pdm, self.pdm_name, self.licence = pdm, "given", LICENCE_GIVEN_PDM

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """See :class:`~mlx_faceau.data.labels.face_labels.Labeller`."""
        if is_photograph(video):
            return lambda frame: self._labels(
                dict(enumerate(find_faces(self._mesh, Pyramid(frame.image))))
            )
        track = FaceTracks(self._mesh)
        return lambda frame: self._labels(track(frame))

    def _labels(self, meshes: dict[int, Mesh]) -> Labels:
        if not meshes:
            return []
        points = np.stack([mesh.points for mesh in meshes.values()])
        scores = np.stack([self._mesh.scores(mesh) for mesh in meshes.values()])
        units = read_action_units(points.astype(np.float32), scores)
        landmarks = points[:, IBUG, :2]
        crops = np.stack([geometry.standard_crop_matrix(each) for each in landmarks])
        fit = fit_pdm(self.pdm, geometry.transform_points(crops, landmarks), OPEN_PDM_NOISE)
        poses = geometry.transform_global_params(geometry.invert(crops), fit.global_params)
        return [
            FaceLabels(
                landmarks[row],
                poses[row],
                fit.local_params[row],
                units[row],
                confidence=mesh.presence,
                face_id=number,
            )
            for row, (number, mesh) in enumerate(meshes.items())
        ]


def find_faces(
    net: FaceMesh, image: Pyramid, known: Sequence[Mesh] = (), tiles: Sequence[int] = (2, 4)
) -> list[Mesh]:
    """All faces of an image except known ones, by falling confidence; see search_regions()."""
    regions = search_regions(*image.size, tiles)
    found = [each for region in regions for each in net.detect(image, region)]
    meshes: list[Mesh] = []
    for _, region in sorted(found, key=lambda each: -each[0]):
        if _is_one_of([*known, *meshes], region):
            continue
        # The region of the fitted points varies less than the detector's.
        mesh = net.verified(image, net.fit(image, net.fit(image, region).region))
        if mesh.presence >= _PRESENT and not _is_one_of([*known, *meshes], mesh):
            meshes.append(mesh)
    return meshes


def search_regions(width: int, height: int, tiles: Sequence[int]) -> list[Region]:
    """The squares of an image in which faces are searched.

    The whole; the image with room around it, for faces that fill it; and overlapping tiles, for
    faces down to an eighth of a tile. ``tiles`` says how many fit into the longer side, for each
    size of tiles; the second and further sizes only down to tiles of 256 px.
    """
    side, centre = float(max(width, height)), np.array([width - 1, height - 1]) / 2
    regions = [Region(centre, side, 0.0), Region(centre, 2 * side, 0.0)]
    for tile in (side / count for count in tiles):
        if tile < min(_LEAST_TILE, side / tiles[0]):
            break
        rows, columns = _tile_centres(height, tile), _tile_centres(width, tile)
        regions += [Region(np.array([x, y]), tile, 0.0) for y in rows for x in columns]
    return regions


def _tile_centres(extent: int, tile: float) -> np.ndarray:
    """Half a tile apart at most, from edge to edge; one in the middle where a tile is longer."""
    if extent <= tile:
        return np.array([(extent - 1) / 2])
    count = 1 + int(np.ceil((extent - tile) / (tile / 2)))
    return np.asarray(np.linspace(tile / 2, extent - tile / 2, count) - 0.5)


def _is_one_of(meshes: Iterable[Mesh], face: Mesh | Region) -> bool:
    boxes = np.array([mesh.box for mesh in meshes]).reshape(-1, 4)
    return bool((overlap(face.box, boxes) > _SAME_FACE).any())


class FaceTracks:
    """Tracks the faces of one video; call it with the frames in order."""

    def __init__(self, net: FaceMesh) -> None:
        self._net = net
        self._last: dict[int, Mesh] = {}  # faces of the last frame
        self._numbers = itertools.count()
        self._searched = -np.inf

    def __call__(self, frame: Frame) -> dict[int, Mesh]:
        """The faces of a frame by their numbers."""
        image = Pyramid(frame.image)
        found: dict[int, Mesh] = {}
        for number, last in self._last.items():
            old, mesh = last.region, self._net.fit(image, last.region)
            moved = np.r_[mesh.region.centre - old.centre, mesh.region.side - old.side]
            if np.abs(moved).max() > _MOVED * old.side:
                mesh = self._net.fit(image, mesh.region)
            mesh = self._net.verified(image, mesh)
            if mesh.presence >= _PRESENT and not _is_one_of(found.values(), mesh):
                found[number] = mesh
        lost = {number: mesh for number, mesh in self._last.items() if number not in found}
        if lost or not found or frame.timestamp - self._searched >= _SEARCH_EVERY:
            self._searched = frame.timestamp
            for mesh in find_faces(self._net, image, list(found.values()), tiles=(2,)):
                again = [n for n, other in lost.items() if _is_one_of([other], mesh)]
                number = again[0] if again else next(self._numbers)
                lost.pop(number, None)
                found[number] = mesh
        self._last = dict(sorted(found.items()))
        return self._last
