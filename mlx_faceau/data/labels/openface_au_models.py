"""What OpenFace's action unit models saw in a face and would have said without limits.

Their intensities are linear in the gradients of the aligned face and in the PDM's shape
parameters, and are cut off at 0 and 5: of half the faces a file tells no more than "absent". Fitted
to many labelled faces, the same linear form gives back how absent, and the directions in which
faces differ most give the rest of what the labels looked at.

References:
    Baltrusaitis, Mahmoud, Robinson, Cross-dataset learning and person-specific normalisation for
    automatic action unit detection, FG 2015 (the labels' models).
    Tobin, Estimation of relationships for limited dependent variables, Econometrica 1958.
    Halko, Martinsson, Tropp, Finding structure with randomness, SIAM Review 2011, algorithm 4.4.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mlx_faceau.core.facs import MAX_INTENSITY, NUM_AUS
from mlx_faceau.core.pdm import PDM
from mlx_faceau.data.loading.mirror import LabelledFaces, Mirrored
from mlx_faceau.video.mean_shape import align_to_mean_shape, mean_shape_matrix

from .fhog import HOG_SIZE, fhog
from .implied_pdm import implied_pdm

COMPONENTS = 256  # of the gradients, the largest
ANSWERS = NUM_AUS + COMPONENTS
_SHRINKAGE = 3.0  # ridge of the fit, chosen on people of the training side
_LOCAL_SCALE = 0.1  # of standardised shape parameters beside the gradients, which lie in [0, 0.4]
_PDM_PARTS = ("mean", "basis", "variances")
_PARTS = ("centre", "weights", "means", "deviations")
_MOST_FACES = 30_000  # to fit to: 540 MB of features
_LEAST_DEVIATION = 1e-3
_SPARE = 32  # directions that are dropped at the end: they make the others exact
_PASSES = 4
_ROUNDS = 40  # of filling in what was cut off; later ones change no third digit
_CHUNK = 256  # faces aligned together


@dataclass(frozen=True)
class Teacher:
    """Linear maps from a face's features: 4464 gradients and 34 shape parameters.

    Attributes:
        pdm: the shape model of the labels, which aligns the faces.
        centre: (4498,) mean features.
        weights: (4498, 17 + 256): to intensities without limits, and to components.
        means: (17 + 256,) of what comes out, on the faces it was fitted to.
        deviations: (17 + 256,) of the same.
    """

    pdm: PDM
    centre: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    def fit(cls, faces: LabelledFaces, rows: np.ndarray) -> "Teacher":
        """Fit a teacher to labelled faces.

        The same faces give the same teacher on the same machine; on another one, rounding turns
        components of nearly equal variance into one another.

        Args:
            faces: labelled by OpenFace, or by what works as it does.
            rows: (n,) those to look at, in ascending order; of more than 30,000 a random part.

        Raises:
            DatasetError: if too few have PDM parameters, or landmarks that do not belong to them.
        """
        rows = rows[faces.masks["global_mask"][rows] > 0]
        if len(rows) > _MOST_FACES:
            rows = np.sort(np.random.default_rng(0).choice(rows, _MOST_FACES, replace=False))
        names = ("landmarks", "global_params", "local_params")
        pdm = implied_pdm(*(faces.labels[name][rows] for name in names))
        features = np.concatenate(list(features_of(faces, rows, pdm)))
        centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        features -= centre
        weights = np.zeros((features.shape[1], ANSWERS), np.float32)
        weights[:HOG_SIZE, NUM_AUS:] = _main_directions(features[:, :HOG_SIZE])
        intensities = faces.labels["au_intensities"][rows]
        weights[:, :NUM_AUS], scores = uncensored_fit(features, intensities)
        components = features[:, :HOG_SIZE] @ weights[:HOG_SIZE, NUM_AUS:]
        said = np.concatenate([scores, components], axis=1)
        deviations = np.maximum(said.std(axis=0), _LEAST_DEVIATION)
        return cls(pdm, centre, weights, said.mean(axis=0), deviations)

    def answers(self, faces: LabelledFaces, rows: np.ndarray) -> np.ndarray:
        """What the teacher says about labelled faces, standardised.

        Args:
            faces: see :meth:`fit`.
            rows: (n,) which of them.

        Returns:
            (n, 17 + 256) float32: scores, which are the labels where these lie inside (0, 5), and
            components; NaN for a face without usable PDM parameters.
        """
        said = self._said(faces, rows)
        labels = faces.labels["au_intensities"][rows]
        scores = _uncensored(said[:, :NUM_AUS], labels)
        said[:, :NUM_AUS] = np.where(np.isnan(said[:, :NUM_AUS]), np.nan, scores)
        return self._standardised(said)

    def mirrored_answers(self, faces: LabelledFaces, rows: np.ndarray) -> "MirroredAnswers":
        """What the teacher says about the faces' mirror images, which nobody has labelled.

        Args:
            faces: see :meth:`fit`.
            rows: (n,) which of them.

        Raises:
            DatasetError: if the scale of a face is not positive.
        """
        known = faces.masks["global_mask"][rows] > 0
        images = Mirrored(faces, rows[known], self.pdm)
        answers = np.full((len(rows), ANSWERS), np.nan, np.float32)
        shape = np.full((len(rows), len(self.pdm.variances)), np.nan, np.float32)
        answers[known] = self._standardised(self._said(images, np.arange(len(images.rows))))
        shape[known] = images.labels["local_params"]
        return MirroredAnswers(answers, shape)

    def labelled(self, faces: LabelledFaces, rows: np.ndarray) -> np.ndarray:
        """(n, 17) float32 in [0, 5]: intensities of faces that nobody has labelled.

        Args:
            faces: see :meth:`fit`; they need no intensities.
            rows: (n,) which of them; they must have usable PDM parameters.
        """
        return np.asarray(np.clip(self._said(faces, rows)[:, :NUM_AUS], 0, MAX_INTENSITY))

    def intensities(self, answers: np.ndarray) -> np.ndarray:
        """(n, 17) in [0, 5]: the labels that follow from standardised answers (n, 17 + 256)."""
        scores = answers[:, :NUM_AUS] * self.deviations[:NUM_AUS] + self.means[:NUM_AUS]
        return np.asarray(np.clip(scores, 0, MAX_INTENSITY), np.float32)

    def _said(self, faces: LabelledFaces, rows: np.ndarray) -> np.ndarray:
        """(n, 17 + 256) of the teacher alone; NaN without usable PDM parameters."""
        known = np.flatnonzero(faces.masks["global_mask"][rows] > 0)
        said = np.full((len(rows), ANSWERS), np.nan, np.float32)
        chunks = features_of(faces, rows[known], self.pdm)
        found = [(features - self.centre) @ self.weights for features in chunks]
        said[known] = np.concatenate([np.zeros((0, ANSWERS), np.float32), *found])
        said[:, :NUM_AUS] += self.means[:NUM_AUS]
        return said

    def _standardised(self, said: np.ndarray) -> np.ndarray:
        return np.asarray((said - self.means) / self.deviations, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, as checkpoints keep it."""
        return {
            **{f"pdm.{name}": getattr(self.pdm, name) for name in _PDM_PARTS},
            **{name: getattr(self, name) for name in _PARTS},
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Teacher":
        """Read back what :meth:`arrays` gave.

        Raises:
            KeyError: if something is missing.
        """
        pdm = PDM(*(arrays[f"pdm.{name}"] for name in _PDM_PARTS))
        return cls(pdm, *(arrays[name] for name in _PARTS))


@dataclass(frozen=True)
class MirroredAnswers:
    """What a teacher says about mirror images; NaN for a face without usable PDM parameters.

    Attributes:
        said: (n, 17 + 256) float32, standardised: scores and components.
        shape: (n, 34) float32 shape parameters of the images.
    """

    said: np.ndarray
    shape: np.ndarray


def features_of(faces: LabelledFaces, rows: np.ndarray, pdm: PDM) -> Iterator[np.ndarray]:
    """What a teacher looks at: gradients of the aligned face, and shape parameters.

    Args:
        faces: labelled ones.
        rows: (n,) which of them.
        pdm: the shape model of their labels.

    Yields:
        (256, 4498) float32, fewer rows at the end.
    """
    landmarks, pose = faces.labels["landmarks"], faces.labels["global_params"]
    scale = shape_scale(pdm)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        aligned = [
            align_to_mean_shape(image, points, mean_shape_matrix(pdm, points, params))
            for image, points, params in zip(
                faces.read_images(chunk), landmarks[chunk], pose[chunk], strict=True
            )
        ]
        shape = faces.labels["local_params"][chunk] * scale
        yield np.concatenate([fhog(np.stack(aligned)), shape], axis=1)


def shape_scale(pdm: PDM) -> np.ndarray:
    """(K,) float32 factors that take shape parameters to features."""
    deviations = np.maximum(np.sqrt(pdm.variances), _LEAST_DEVIATION)  # one may be constant
    return np.asarray(_LOCAL_SCALE / deviations, np.float32)


def uncensored_fit(features: np.ndarray, intensities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear weights of intensities that were cut off at 0 and 5.

    Ridge regression, repeated with what was cut off filled in by its own answer.

    Args:
        features: (N, F) float32, centred.
        intensities: (N, 17) in [0, 5].

    Returns:
        Weights (F, 17), and scores (N, 17): the intensities, beyond the limits where they lie on
        them.
    """
    regress = _ridge(features)
    scores = np.asarray(intensities, np.float32)
    for _ in range(_ROUNDS):
        mean = scores.mean(axis=0)
        weights = regress(scores - mean)
        scores = _uncensored(features @ weights + mean, intensities)
    return weights, scores


def _ridge(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression on fixed features (N, F), through the smaller of two matrices."""
    few = len(features) < features.shape[1]
    products = features @ features.T if few else features.T @ features
    products[np.diag_indices_from(products)] += _SHRINKAGE
    inverse = np.linalg.inv(products.astype(np.float64)).astype(np.float32)
    if few:
        return lambda wanted: features.T @ (inverse @ wanted)
    return lambda wanted: inverse @ (features.T @ wanted)


def _uncensored(scores: np.ndarray, intensities: np.ndarray) -> np.ndarray:
    """The labels where they are not cut off, else the scores beyond the limit."""
    below = np.where(intensities <= 0, np.minimum(scores, 0), intensities)
    return np.where(intensities >= MAX_INTENSITY, np.maximum(scores, MAX_INTENSITY), below)


def _main_directions(features: np.ndarray) -> np.ndarray:
    """(F, 256) orthonormal directions in which centred features vary most: subspace iteration.

    The largest weight of each is positive, so that every machine finds the same one of the two
    signs. Directions of nearly equal variance still turn into one another with its rounding.
    """
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((features.shape[1], COMPONENTS + _SPARE), dtype=np.float32)
    for _ in range(_PASSES):
        basis = np.linalg.qr(features.T @ (features @ basis))[0]
    seen = features @ basis
    turns = np.linalg.eigh(seen.T @ seen)[1]  # by ascending variance
    directions = (basis @ turns)[:, ::-1][:, :COMPONENTS]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
    return np.asarray(directions * np.where(largest < 0, -1, 1).astype(np.float32))
