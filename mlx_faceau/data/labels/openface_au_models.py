"""OpenFace's action unit models, recovered from many labelled faces as linear regressions.

OpenFace's static AU intensities are linear in the HOG features of the aligned face and in the PDM's
shape parameters, clipped to [0, 5]: about half of all labels are 0. A censored (Tobit) ridge
regression on the same features recovers the unclipped scores, and the principal components of the
HOG features describe the rest of what the labels were computed from. Both are the targets of the
auxiliary head.

References:
    Baltrusaitis, Mahmoud, Robinson, Cross-dataset learning and person-specific normalisation for
    automatic action unit detection, FG 2015 (the labels' models).
    Tobin, Estimation of relationships for limited dependent variables, Econometrica 1958.
    Halko, Martinsson, Tropp, Finding structure with randomness, SIAM Review 2011, algorithm 4.4.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlx_faceau.core.facs import MAX_INTENSITY, NUM_AUS
from mlx_faceau.core.geometry import euler_to_matrix, flip_global_params, flip_landmarks
from mlx_faceau.core.hog import HOG_SIZE, align, hog_constants, hog_features, to_units
from mlx_faceau.core.pdm import PDM, fit_pdm
from mlx_faceau.core.preprocess import PIXEL_MAX
from mlx_faceau.data.format.dataset import LabelledFaces
from mlx_faceau.errors import DatasetError, counted

COMPONENTS = 256  # principal components of the HOG features
NUM_TARGETS = NUM_AUS + COMPONENTS
VERSION = 2  # of the features that the models read
_SHRINKAGE = 6.0  # ridge penalty, chosen on training subjects
_LOCAL_SCALE = 0.2  # of standardised shape parameters beside HOG features, which lie in [0, 0.71]
_LABELS = ("landmarks", "global_params", "local_params")
_PDM_ARRAYS = ("mean", "basis", "variances")
_ARRAYS = ("centre", "weights", "means", "deviations")
_ALIGNMENT = ("template", "shift.weight", "shift.bias")
_MAX_FACES = 30_000  # to fit to: 540 MB of features
_MIN_DEVIATION = 1e-3
_OVERSAMPLING = 32  # extra directions of the subspace iteration, dropped at the end
_SUBSPACE_ITERATIONS = 4
_TOBIT_ITERATIONS = 40  # later ones change no third digit
_MAX_ERROR = 0.5  # px, rms: labels of a PDM have far less, any others have pixels
_EQUATIONS = 4  # for each unknown, at least
_MIN_VARIANCE = 1e-9  # of a constant mode
_SCALE, _ORIGIN = 0.7, 56.0  # of the aligned face: px per mm, and where the PDM's origin lies
_CHUNK = 64  # faces aligned together
_SMALLEST_SHARE = 1e-5  # of the largest singular value: smaller ones are no shift's
# px. A mirrored face differs from OpenFace's PDM, whose mean is asymmetric, by some tenths of a
# pixel: with much less noise assumed, the fit would use weak modes for that difference.
_MIRROR_NOISE = 0.2


@dataclass(frozen=True)
class Mirrored:
    """Mirror images of some faces of a data set, without action unit labels."""

    faces: LabelledFaces  # the data set
    rows: np.ndarray  # (n,) samples with usable PDM parameters
    pdm: PDM  # the shape model of their labels

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """``landmarks`` (n, 68, 2), ``global_params`` (n, 6), ``local_params`` (n, 34); float32.

        A model that is not quite symmetric has no exact mirror of a shape: the parameters are those
        that its labeller would fit to the mirrored landmarks (see ``fit_pdm``). It raises
        DatasetError if the scale of a face is not positive.
        """
        given = self.faces.labels
        landmarks = flip_landmarks(given["landmarks"][self.rows])
        pose = flip_global_params(given["global_params"][self.rows])
        if wrong := int((pose[:, 0] <= 0).sum()):
            raise DatasetError(
                f"the scale of {counted(wrong, 'face')} is not positive, so they have no mirror "
                "image ('mlx-faceau data check' says more)"
            )
        fit = fit_pdm(self.pdm, landmarks, _MIRROR_NOISE, start=pose)
        return {
            "landmarks": landmarks,
            "global_params": fit.global_params.astype(np.float32),
            "local_params": fit.local_params.astype(np.float32),
        }

    @property
    def masks(self) -> dict[str, np.ndarray]:
        return {name: mask[self.rows] for name, mask in self.faces.masks.items()}

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        """(k, 112, 112, 3) uint8 RGB mirror images; ``indices`` (k,) count among the rows."""
        return np.ascontiguousarray(self.faces.read_images(self.rows[indices])[:, :, ::-1])


@dataclass(frozen=True)
class MirroredTargets:
    """Targets of mirror images; NaN for a face without usable PDM parameters."""

    targets: np.ndarray  # (n, 17 + 256) float32, standardised scores and components
    local_params: np.ndarray  # (n, 34) float32 shape parameters of the mirror images


@dataclass(frozen=True)
class OpenFaceAUModels:
    """Linear maps from a face's features: 4464 HOG features and 34 shape parameters."""

    pdm: PDM  # the shape model of the labels
    alignment: Mapping[str, np.ndarray]  # weights of the faces' alignment, see core/hog.py
    centre: np.ndarray  # (4498,) mean features
    weights: np.ndarray  # (4498, 17 + 256): to unclipped intensities, and to principal components
    means: np.ndarray  # (17 + 256,) of both outputs over the faces it was fitted to
    deviations: np.ndarray  # (17 + 256,) standard deviations of the same

    @classmethod
    def fit(cls, faces: LabelledFaces, rows: np.ndarray) -> "OpenFaceAUModels":
        """Fit to labelled faces.

        The same faces give the same result on the same machine; on another one, rounding may rotate
        components of nearly equal variance into one another. Of more than 30,000 ``rows`` a random
        subset is taken.

        Raises:
            DatasetError: if too few have PDM parameters, or landmarks that do not belong to them.
        """
        rows = rows[faces.masks["global_mask"][rows] > 0]
        if len(rows) > _MAX_FACES:
            rows = np.sort(np.random.default_rng(0).choice(rows, _MAX_FACES, replace=False))
        pdm = implied_pdm(*(faces.labels[name][rows] for name in _LABELS))
        alignment = alignment_of(pdm, *(faces.labels[name][rows] for name in _LABELS[:2]))
        features = np.concatenate(list(features_of(faces, rows, pdm, alignment)))
        centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        features -= centre
        weights = np.zeros((features.shape[1], NUM_TARGETS), np.float32)
        weights[:HOG_SIZE, NUM_AUS:] = _principal_components(features[:, :HOG_SIZE])
        intensities = faces.labels["au_intensities"][rows]
        weights[:, :NUM_AUS], scores = uncensored_fit(features, intensities)
        components = features[:, :HOG_SIZE] @ weights[:HOG_SIZE, NUM_AUS:]
        outputs = np.concatenate([scores, components], axis=1)
        deviations = np.maximum(outputs.std(axis=0), _MIN_DEVIATION)
        return cls(pdm, alignment, centre, weights, outputs.mean(axis=0), deviations)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, 17) intensities without limits, of features (N, 4498) (see :func:`features_of`)."""
        linear = self.weights[:, :NUM_AUS]
        return np.asarray((features - self.centre) @ linear + self.means[:NUM_AUS])

    def targets(self, faces: LabelledFaces, rows: np.ndarray) -> np.ndarray:
        """Standardised targets (n, 17 + 256) float32 of labelled faces, samples ``rows`` (n,).

        Scores are the labels where these lie inside (0, 5). NaN for a face without usable PDM
        parameters.
        """
        outputs = self._outputs(faces, rows)
        labels = faces.labels["au_intensities"][rows]
        scores = _uncensored(outputs[:, :NUM_AUS], labels)
        outputs[:, :NUM_AUS] = np.where(np.isnan(outputs[:, :NUM_AUS]), np.nan, scores)
        return self._standardised(outputs)

    def mirrored_targets(self, faces: LabelledFaces, rows: np.ndarray) -> MirroredTargets:
        """Predicted targets of the mirror images of samples ``rows`` (n,), which have no labels."""
        usable = faces.masks["global_mask"][rows] > 0
        images = Mirrored(faces, rows[usable], self.pdm)
        targets = np.full((len(rows), NUM_TARGETS), np.nan, np.float32)
        local_params = np.full((len(rows), len(self.pdm.variances)), np.nan, np.float32)
        targets[usable] = self._standardised(self._outputs(images, np.arange(len(images.rows))))
        local_params[usable] = images.labels["local_params"]
        return MirroredTargets(targets, local_params)

    def intensities(self, targets: np.ndarray) -> np.ndarray:
        """(n, 17) intensities in [0, 5] that belong to standardised targets (n, 17 + 256)."""
        scores = targets[:, :NUM_AUS] * self.deviations[:NUM_AUS] + self.means[:NUM_AUS]
        return np.asarray(np.clip(scores, 0, MAX_INTENSITY), np.float32)

    def _outputs(self, faces: LabelledFaces | Mirrored, rows: np.ndarray) -> np.ndarray:
        """(n, 17 + 256) of the linear maps; NaN without usable PDM parameters."""
        usable = np.flatnonzero(faces.masks["global_mask"][rows] > 0)
        outputs = np.full((len(rows), NUM_TARGETS), np.nan, np.float32)
        start = 0
        for features in features_of(faces, rows[usable], self.pdm, self.alignment):
            found = (features - self.centre) @ self.weights
            outputs[usable[start : start + len(found)]] = found
            start += len(found)
        outputs[:, :NUM_AUS] += self.means[:NUM_AUS]
        return outputs

    def _standardised(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray((outputs - self.means) / self.deviations, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, as checkpoints store them."""
        pdm = {f"pdm.{name}": getattr(self.pdm, name) for name in _PDM_ARRAYS}
        alignment = {f"alignment.{name}": self.alignment[name] for name in _ALIGNMENT}
        own = {name: getattr(self, name) for name in _ARRAYS}
        return pdm | alignment | own | {"version": np.array([VERSION])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "OpenFaceAUModels":
        """The inverse of :meth:`arrays`; a missing one is a KeyError."""
        pdm = PDM(*(arrays[f"pdm.{name}"] for name in _PDM_ARRAYS))
        alignment = {name: arrays[f"alignment.{name}"] for name in _ALIGNMENT}
        return cls(pdm, alignment, *(arrays[name] for name in _ARRAYS))


def alignment_of(
    pdm: PDM, landmarks: np.ndarray, global_params: np.ndarray
) -> dict[str, np.ndarray]:
    """Weights by which core/hog.py aligns faces as OpenFace does: the PDM's origin to one place.

    The origin's place is found from the landmarks alone, by least squares over labelled faces
    (N, 68, 2) and (N, 6).
    """
    size = 2 * landmarks.shape[1]
    found = {
        "template": to_units(_SCALE * pdm.mean[:, :2] + _ORIGIN),
        "shift.weight": np.zeros((2, size), np.float32),
        "shift.bias": np.zeros(2, np.float32),
    }
    alignment, aligned = align(to_units(landmarks), found, hog_constants())
    origins = alignment.to_face(to_units(global_params[:, None, 4:6]))[:, 0]
    shifts = to_units(np.array(_ORIGIN)) - origins
    design = np.concatenate([aligned.reshape(-1, size), np.ones((len(aligned), 1))], axis=1)
    weights = np.linalg.lstsq(design, shifts, rcond=_SMALLEST_SHARE)[0].T.astype(np.float32)
    return {**found, "shift.weight": weights[:, :-1].copy(), "shift.bias": weights[:, -1].copy()}


def shape_scale(pdm: PDM) -> np.ndarray:
    """Factors (34,) float32 of the shape parameters among the features."""
    deviations = np.maximum(np.sqrt(pdm.variances), _MIN_DEVIATION)  # a mode may be constant
    return np.asarray(_LOCAL_SCALE / deviations, np.float32)


def features_of(
    faces: LabelledFaces | Mirrored,
    rows: np.ndarray,
    pdm: PDM,
    alignment: Mapping[str, np.ndarray],
) -> Iterator[np.ndarray]:
    """The regressions' inputs: HOG features of the aligned face, and scaled shape parameters.

    Yields (64, 4498) float32 of samples ``rows`` (n,), fewer rows at the end. ``pdm`` is the shape
    model of the labels.
    """
    constants, scale = hog_constants(), shape_scale(pdm)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        grey = faces.read_images(chunk) @ (constants["luminance"] / np.float32(PIXEL_MAX))
        points = to_units(faces.labels["landmarks"][chunk])
        features = hog_features(grey, points, alignment, constants)
        yield np.concatenate([features, faces.labels["local_params"][chunk] * scale], axis=1)


def uncensored_fit(features: np.ndarray, intensities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear weights (F, 17) for intensities (N, 17) that were censored at 0 and 5, and scores.

    Ridge regression on centred features (N, F), repeated with its own predictions in place of the
    censored values. Scores (N, 17) are the intensities, beyond the limits where they lie on them.
    """
    regress = _ridge(features)
    scores = np.asarray(intensities, np.float32)
    for _ in range(_TOBIT_ITERATIONS):
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
        return lambda targets: features.T @ (inverse @ targets)
    return lambda targets: inverse @ (features.T @ targets)


def _uncensored(scores: np.ndarray, intensities: np.ndarray) -> np.ndarray:
    """The labels where they are not censored, else the scores beyond the limit."""
    below = np.where(intensities <= 0, np.minimum(scores, 0), intensities)
    return np.where(intensities >= MAX_INTENSITY, np.maximum(scores, MAX_INTENSITY), below)


def _principal_components(features: np.ndarray) -> np.ndarray:
    """(F, 256) orthonormal principal directions of centred features, by subspace iteration.

    The largest weight of each is positive, which fixes the sign on every machine.
    """
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((features.shape[1], COMPONENTS + _OVERSAMPLING), dtype=np.float32)
    for _ in range(_SUBSPACE_ITERATIONS):
        basis = np.linalg.qr(features.T @ (features @ basis))[0]
    projected = features @ basis
    rotation = np.linalg.eigh(projected.T @ projected)[1]  # by ascending variance
    directions = (basis @ rotation)[:, ::-1][:, :COMPONENTS]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
    return np.asarray(directions * np.where(largest < 0, -1, 1).astype(np.float32))


def implied_pdm(landmarks: np.ndarray, global_params: np.ndarray, local_params: np.ndarray) -> PDM:
    """Recover the PDM whose projections landmarks (N, 68, 2) are, by linear least squares.

    Mean and basis are in mm; the variances are those of ``local_params`` (N, 34). It raises
    DatasetError if the faces are too few, or their landmarks are no projections.
    """
    count, modes = local_params.shape
    unknowns = 3 * (1 + modes)
    if 2 * count < _EQUATIONS * unknowns:
        raise DatasetError(
            f"{count} faces with usable PDM parameters are too few to recover their shape model; "
            f"it takes {_EQUATIONS * unknowns // 2}"
        )
    params = np.asarray(global_params, np.float64)
    views = params[:, :1, None] * np.stack(
        [euler_to_matrix(angles)[:2] for angles in params[:, 1:4]]
    )
    # Around their mean: the mean shape absorbs a constant mode.
    local = np.asarray(local_params, np.float64)
    centre = local.mean(axis=0)
    shapes = np.concatenate([np.ones((count, 1)), local - centre], axis=1)
    # (2 N, 3 (1 + K)): the projection of mean and modes along each axis
    design = np.einsum("nia,nk->niak", views, shapes).reshape(2 * count, unknowns)
    observed = (landmarks - params[:, None, 4:6]).transpose(0, 2, 1).reshape(2 * count, -1)
    found = np.linalg.lstsq(design, observed, rcond=None)[0]
    error = float(np.sqrt(np.mean((design @ found - observed) ** 2)))
    if not error < _MAX_ERROR:
        raise DatasetError(
            f"landmarks differ from the projection of their PDM parameters by {error:.2g} px, so "
            f"they are of no shape model (below {_MAX_ERROR} px expected)"
        )
    model = found.T.reshape(-1, 3, 1 + modes)
    basis = np.ascontiguousarray(model[..., 1:])  # as a checkpoint restores it, bit for bit
    variances = np.maximum(local.var(axis=0), _MIN_VARIANCE)
    return PDM(model[..., 0] - basis @ centre, basis, variances)
