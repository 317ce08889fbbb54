"""Training losses of MLX and torch: the framework is that of the arrays they are called with.

Each is called with two dictionaries and returns named scalars whose weighted sum is ``"loss"``.
Terms are computed in the targets' precision.

References:
    Feng et al., Wing Loss for Robust Facial Landmark Localisation, CVPR 2018.
    Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 1989.
    Girshick, Fast R-CNN, ICCV 2015 (smooth L1).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_faceau.errors import UsageError

from .arrays import Array, namespace, without_gradient
from .facs import NUM_AUS

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class WingLoss:
    """Logarithmic near zero, linear beyond ``w``: keeps small landmark errors in play."""

    w: float = 10.0  # error in pixels where the linear part starts, > 0
    epsilon: float = 2.0  # curvature of the logarithmic part in pixels, > 0

    def __post_init__(self) -> None:
        if self.w <= 0 or self.epsilon <= 0:
            raise UsageError(f"w is {self.w} and epsilon is {self.epsilon}, expected both > 0")

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, Array]:
        """Mean over all coordinates of ``landmarks`` (N, any, 2): ``wing`` and ``loss``."""
        error = (_prediction(predictions, targets, "landmarks") - targets["landmarks"]).abs()
        xp = namespace(error)
        curved = self.w * xp.log1p(error / self.epsilon)
        offset = self.w - self.w * math.log1p(self.w / self.epsilon)
        wing = _mean(xp.where(error < self.w, curved, error - offset))
        return {"wing": wing, "loss": wing}


@dataclass(frozen=True)
class LandmarkPoseLoss:
    """Wing loss of landmarks, squared error of global and absolute error of local parameters."""

    landmark_weight: float = 1.0  # of the mean wing loss
    global_params_weight: float = 0.1  # of the mean squared error of the pose parameters
    local_params_weight: float = 0.01  # of the mean absolute error of the shape parameters

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, Array]:
        """Terms ``landmarks``, ``global_params``, ``local_params`` and their sum ``loss``.

        Targets may hold ``global_mask`` and ``local_mask`` (N,), 0 for samples whose parameters are
        unknown (anything, NaN included): a term is the mean over kept samples, 0 if none is kept.
        """
        landmarks = WingLoss()(predictions, targets)["loss"]
        pose = _kept_mean(lambda x: x.square(), predictions, targets, "global_params")
        shape = _kept_mean(lambda x: x.abs(), predictions, targets, "local_params")
        loss = (
            self.landmark_weight * landmarks
            + self.global_params_weight * pose
            + self.local_params_weight * shape
        )
        return {"landmarks": landmarks, "global_params": pose, "local_params": shape, "loss": loss}


@dataclass(frozen=True)
class ConcordanceCorrelationLoss:
    """1 - CCC of each action unit over the batch, from population moments."""

    eps: float = 1e-8  # units whose target variance in the batch is not above it are left out

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, Array]:
        """Mean over the kept columns of ``au_intensities`` (N, any): ``ccc`` and ``loss``.

        0, with zero gradients, if no column is kept.
        """
        prediction = _prediction(predictions, targets, "au_intensities")
        ccc = _concordance(prediction, targets["au_intensities"], self.eps, None)
        return {"ccc": ccc, "loss": ccc}


@dataclass(frozen=True)
class AUPredictionLoss:
    """Smooth L1 (beta 1) plus concordance loss of action unit intensities."""

    smooth_l1_weight: float = 1.0  # of the mean smooth L1
    ccc_weight: float = 0.5  # of the mean concordance loss
    # A weight >= 0 for each action unit, which weighs the mean of both terms.
    au_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.au_weights is None:
            return
        weights = [float(weight) for weight in self.au_weights]
        valid = all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0
        if len(weights) != NUM_AUS or not valid:
            raise UsageError(f"au_weights is {weights}, expected {NUM_AUS} numbers >= 0, not all 0")

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, Array]:
        """Terms ``smooth_l1`` and ``ccc`` of ``au_intensities`` (N, 17), and their sum ``loss``."""
        target = targets["au_intensities"]
        prediction = _prediction(predictions, targets, "au_intensities")
        weights = None if self.au_weights is None else _constant(self.au_weights, target)
        error = (prediction - target).abs()
        xp = namespace(error)
        error = _mean(xp.where(error < 1.0, 0.5 * error.square(), error - 0.5), 0)  # (17,)
        smooth_l1 = error.mean() if weights is None else _weighted_mean(error, weights)
        ccc = _concordance(prediction, target, 1e-8, weights)
        loss = self.smooth_l1_weight * smooth_l1 + self.ccc_weight * ccc
        return {"smooth_l1": smooth_l1, "ccc": ccc, "loss": loss}


@dataclass(frozen=True)
class AuxiliaryAULoss(AUPredictionLoss):
    """The action units' loss plus the weighted squared error of the auxiliary head."""

    # Of the squared error, summed over the head's outputs of a face; targets are scaled so that
    # predicting the mean costs 1 on training faces without augmentation.
    auxiliary_weight: float = field(kw_only=True)
    hog_weight: float = 0.0  # of the action units' loss of a HOG head's intensities

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, Array]:
        """Terms ``smooth_l1``, ``ccc``, ``loss``, and of what is predicted ``auxiliary``, ``hog``.

        A target that is NaN is unknown and costs nothing.
        """
        terms = super().__call__(predictions, targets)
        if "auxiliary" not in predictions:
            return terms
        target = targets["auxiliary"]
        error = _prediction(predictions, targets, "auxiliary") - target
        xp = namespace(error)
        auxiliary = xp.where(xp.isnan(target), 0.0, error).square().sum(1).mean()
        loss = terms["loss"] + self.auxiliary_weight * auxiliary
        terms = {**terms, "auxiliary": auxiliary, "loss": loss}
        if "hog_intensities" in predictions:
            intensities = {"au_intensities": predictions["hog_intensities"]}
            hog = super().__call__(intensities, targets)["loss"]
            terms |= {"hog": hog, "loss": loss + self.hog_weight * hog}
        return terms


def _prediction(predictions: Arrays, targets: Arrays, name: str) -> Array:
    """The prediction in its target's precision, so that half precision ends here."""
    prediction, target = predictions[name], targets[name]
    if prediction.shape != target.shape:
        raise UsageError(
            f"{name}: prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}"
        )
    if hasattr(prediction, "astype"):  # MLX
        return prediction.astype(target.dtype)
    return prediction.to(target.dtype)


def _constant(values: Sequence[float], like: Array) -> Array:
    """Numbers as an array of another one's precision and device."""
    xp = namespace(like)
    if hasattr(like, "device"):  # torch
        return xp.tensor(values, dtype=like.dtype, device=like.device)
    return xp.array(values, like.dtype)


def _kept_mean(
    cost: Callable[[Array], Array], predictions: Arrays, targets: Arrays, name: str
) -> Array:
    """Mean cost of the parameters of one name, over the samples that their mask keeps."""
    difference = _prediction(predictions, targets, name) - targets[name]
    mask_name = name.replace("_params", "_mask")
    if mask_name not in targets:
        return _mean(cost(difference))
    xp = namespace(difference)
    kept = targets[mask_name] > 0  # (N,)
    costs = cost(xp.where(kept[:, None], difference, 0.0)).mean(1)  # (N,)
    count = xp.clip(kept.sum(), 1, None)
    mean = costs.sum() / count
    # Twice, as in _mean.
    return mean + without_gradient(xp.where(kept, costs - mean, 0.0).sum() / count)


def _concordance(prediction: Array, target: Array, eps: float, weights: Array | None) -> Array:
    """Mean of 1 - CCC over the kept columns, weighted if ``weights`` (columns,) are given."""
    predicted, predicted_mean = _centred(prediction)
    wanted, wanted_mean = _centred(target)
    xp = namespace(predicted)
    variance = wanted.square().mean(0)
    kept = variance > eps
    spread = variance + predicted.square().mean(0) + (predicted_mean - wanted_mean).square()
    # 1 - CCC = 1 - 2 covariance / spread, in a form that does not cancel for good predictions.
    # The division must stay finite where it is not used: its gradient is multiplied by 0.
    cost = (prediction - target).square().mean(0) / xp.where(kept, spread, 1.0)
    shares = xp.where(kept, 1.0, 0.0) if weights is None else kept * weights
    return _weighted_mean(xp.where(kept, cost, 0.0), shares)


def _weighted_mean(values: Array, weights: Array) -> Array:
    """Mean of (columns,) values; 0 if all weights are."""
    total = weights.sum()
    return (values * weights).sum() / namespace(total).where(total > 0, total, 1.0)


def _mean(error: Array, axis: int | None = None) -> Array:
    """Mean; twice, since MLX's float32 sum of like numbers is off by 3e-6."""
    mean = error.mean(axis)
    return mean + without_gradient((error - mean).mean(axis))


def _centred(x: Array) -> tuple[Array, Array]:
    """Columns without their means, and the means."""
    mean = x.mean(0)
    # Twice: the float32 mean of a large constant column is off by more than its variance.
    rest = (x - mean).mean(0)
    return x - mean - rest, mean + rest
