"""New faces from those there are: the brows and eyes of one, the nose, mouth and chin of another.

Action units of the upper and of the lower face come in every combination, of which photographs hold
few. Nobody has labelled a composed face; a
:class:`~mlx_faceau.data.labels.openface_au_models.OpenFaceAUModels` predicts its labels, and
landmarks, pose and shape are one fit of the labels' shape model.

References:
    Yun et al., CutMix, ICCV 2019 (training on parts of two images).
    Reinhard et al., Color transfer between images, IEEE CG&A 2001 (means and deviations matched).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.geometry import project, transform_points
from mlx_faceau.core.landmarks import GROUPS
from mlx_faceau.core.pdm import fit_pdm
from mlx_faceau.core.plural import counted
from mlx_faceau.data.format.labelled_faces import LabelledFaces
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.errors import DatasetError

_LOWER = np.r_[2:15, 31:36, 48:68]  # jaw, nostrils and mouth: the other landmarks are the upper's
_NOSTRILS, _NOSE_TIP = slice(31, 36), 30
_SHARED = np.r_[27:31, 36:48, 31:36]  # nose and eyes, by which one face is aligned to the other
_SEAM = 2.0  # px over which one face fades into the other
_BAND = 14.0  # px on both sides of the seam, where the tones of both are matched
_TONE_LIMITS = 0.5, 2.0  # of the factor on contrast
_LEAST_DEVIATION = 4.0  # of grey values, below which a band says nothing about contrast
_NOISE = 0.5  # px by which two people's landmarks together may miss the shape model
_INSIDE = 2.0, 110.0  # as augmented landmarks
_DRAWN, _NEAREST = 120, 3  # candidates for each face, and how many of them may be taken
# Differences of equal weight: yaw and pitch (radians), brightness and colourfulness (grey values).
_ALIKE = np.array([0.05, 0.12, 15.0, 4.0])
_MOST_TRIES = 20  # for each face wanted
_READ_AT_ONCE = 256


@dataclass(frozen=True)
class ComposedFaces:
    """Faces of two people each, in memory: a part of a data set like a file's."""

    images: np.ndarray  # (n, 112, 112, 3) uint8 RGB
    # landmarks (n, 68, 2), global_params (n, 6), local_params (n, 34) and, once they are
    # known, au_intensities (n, 17); float32
    labels: dict[str, np.ndarray]
    pairs: np.ndarray  # (n, 2) int64, samples that gave the upper and the lower part
    subjects: None = None
    videos: None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """All parameters are usable."""
        return {name: np.ones(len(self), np.float32) for name in ("global_mask", "local_mask")}

    @property
    def blocks(self) -> np.ndarray:
        """(n,) int64; each face is read by itself."""
        return np.arange(len(self))

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        """(k, 112, 112, 3) uint8 RGB."""
        return np.asarray(self.images[indices])


def composed_faces(
    faces: LabelledFaces,
    people: np.ndarray,
    rows: np.ndarray,
    au_models: OpenFaceAUModels,
    count: int,
    seed: int,
) -> ComposedFaces:
    """Compose faces of pairs of people of similar pose, light and colour.

    Args:
        faces: labelled ones.
        people: (N,) who each is; nobody is paired with a face of the same name, those without
            one count as one person.
        rows: (m,) those to take, such as a training side; the others stay unseen.
        au_models: linear models of the labels.
        count: how many to compose, >= 1.
        seed: decides the pairs; the same arguments give the same faces.

    Raises:
        DatasetError: if fewer than two people have usable PDM parameters, if a scale is not
            positive, or if too many pairs' landmarks leave the crop.
    """
    rows = rows[faces.masks["global_mask"][rows] > 0]
    named = np.unique(people[rows])
    if len(named) < 2:
        raise DatasetError(
            f"each face is composed of two people's, and the {len(rows)} with pose and shape name "
            f"{(named != '').sum()}"
        )
    landmarks, pose, pdm = faces.labels["landmarks"], faces.labels["global_params"], au_models.pdm
    if wrong := int((pose[rows, 0] <= 0).sum()):
        raise DatasetError(
            f"the scale of {counted(wrong, 'face')} is not positive, so none can be composed of "
            "them ('mlx-faceau data check' says more)"
        )
    pairs = _draw_pairs(faces, people, rows, np.random.default_rng((seed, count)))
    images = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    at_once = min(_READ_AT_ONCE, count)
    made: list[tuple[np.ndarray, ...]] = []  # landmarks, parameters, and the pair they come from
    for _ in range(-(-_MOST_TRIES * count // at_once)):
        drawn = np.array(list(islice(pairs, at_once)))
        parts = [faces.read_images(drawn[:, part]) for part in (0, 1)]
        for pair, upper, lower in zip(drawn, *parts, strict=True):
            both = landmarks[pair]
            if len(made) == count or not (_are_inside(both) and np.ptp(both, axis=1).min() > 0):
                continue
            image, points = compose(upper, both[0], lower, both[1])
            fit = fit_pdm(pdm, points, _NOISE, start=pose[pair[0]])
            found = project(pdm.mean, pdm.basis, fit.global_params, fit.local_params)
            if _are_inside(found):
                images[len(made)] = image
                made.append((found, fit.global_params, fit.local_params, pair))
        if len(made) == count:
            break
    else:
        raise DatasetError(
            f"only {len(made)} of {count} faces could be composed: in the others landmarks leave "
            "the crop"
        )
    *found_labels, kept = map(np.stack, zip(*made, strict=True))
    names = ("landmarks", "global_params", "local_params")
    labels = {n: v.astype(np.float32) for n, v in zip(names, found_labels, strict=True)}
    unlabelled = ComposedFaces(images, labels, kept)
    intensities = au_models.predict(unlabelled, np.arange(count))
    return replace(unlabelled, labels={**labels, "au_intensities": intensities})


def _are_inside(landmarks: np.ndarray) -> bool:
    return bool(landmarks.min() >= _INSIDE[0] and landmarks.max() <= _INSIDE[1])


def compose(
    upper: np.ndarray, upper_points: np.ndarray, lower: np.ndarray, lower_points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One face of two, in the crop of the first.

    The second is aligned to the first by nose and eyes, given its tones around the seam, and takes
    over below a line parallel to the eyes, half-way from the tip of the nose to the nostrils.

    Args:
        upper: (112, 112, 3) uint8, whose brows and eyes are wanted.
        upper_points: (68, 2) its landmarks.
        lower: (112, 112, 3) uint8, whose nostrils, mouth and chin are wanted.
        lower_points: (68, 2) its landmarks.

    Returns:
        (112, 112, 3) uint8 and (68, 2) landmarks; no shape model need be able to form these.
    """
    # The similarity that lays the shared points of the second nearest to those of the first.
    wanted, given = upper_points[_SHARED], lower_points[_SHARED]
    start, goal = ((p - p.mean(axis=0)) @ np.array([1, 1j]) for p in (given, wanted))
    turn = (goal * start.conj()).sum() / (np.abs(start) ** 2).sum()
    matrix = np.array([[turn.real, -turn.imag, 0.0], [turn.imag, turn.real, 0.0]])
    matrix[:, 2] = wanted.mean(axis=0) - matrix[:, :2] @ given.mean(axis=0)
    moved = transform_points(matrix, lower_points)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    laid = cv2.warpAffine(
        lower, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    above = upper.astype(np.float32)

    # How far each pixel lies below the seam, px.
    nostrils = (upper_points[_NOSTRILS].mean(axis=0) + moved[_NOSTRILS].mean(axis=0)) / 2
    middle = (upper_points[_NOSE_TIP] + nostrils) / 2
    right, left = (upper_points[list(GROUPS[f"{s}_eye"])].mean(axis=0) for s in ("right", "left"))
    along = (left - right) / np.linalg.norm(left - right)
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32)
    below = np.float32((y - middle[1]) * along[0] - (x - middle[0]) * along[1])

    # Means and deviations of the first face in a band around the seam.
    band = np.abs(below) < _BAND
    means, deviations = zip(
        *((part[band].mean(axis=0), part[band].std(axis=0)) for part in (above, laid)), strict=True
    )
    factor = (deviations[0] + _LEAST_DEVIATION) / (deviations[1] + _LEAST_DEVIATION)
    laid = (laid - means[1]) * np.clip(factor, *_TONE_LIMITS) + means[0]
    share = (1 / (1 + np.exp(-below / _SEAM)))[..., None]
    image = np.rint(np.clip(above + share * (laid - above), 0, 255)).astype(np.uint8)
    points = upper_points.astype(np.float64)
    points[_LOWER] = moved[_LOWER]
    return image, points


def _draw_pairs(
    faces: LabelledFaces, people: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Samples among ``rows``: a face, and another person's, one of the most similar candidates."""
    person = np.unique(people[rows], return_inverse=True)[1]
    appearance = []  # brightness of the face and colourfulness, grey values
    for start in range(0, len(rows), _READ_AT_ONCE):
        images = faces.read_images(rows[start : start + _READ_AT_ONCE])
        brightness = images[:, 40:80, 30:80].mean(axis=(1, 2, 3))
        small = images[:, ::4, ::4].astype(np.float32)
        colours = np.abs(small - small.mean(axis=-1, keepdims=True)).mean(axis=(1, 2, 3))
        appearance.append(np.stack([brightness, colours], axis=1))
    yaw_pitch = faces.labels["global_params"][rows][:, [2, 1]]
    features = np.concatenate([yaw_pitch, np.concatenate(appearance)], axis=1) / _ALIKE
    while True:
        one = int(rng.integers(len(rows)))
        others = rng.integers(len(rows), size=_DRAWN)
        others = others[person[others] != person[one]]
        if not len(others):  # almost all are of one person
            others = np.flatnonzero(person != person[one])
        difference = np.abs(features[others] - features[one]).sum(axis=1)
        nearest = others[np.argsort(difference, kind="stable")[:_NEAREST]]
        yield rows[one], rows[rng.choice(nearest)]
