"""Training losses in MLX; ``torch_fallback/losses.py`` is their torch twin.

Each is called with two dictionaries and returns named scalars whose weighted sum is ``"loss"``.
Terms are computed in the targets' precision.

References:
    Feng et al., Wing Loss for Robust Facial Landmark Localisation, CVPR 2018.
    Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 1989.
    Girshick, Fast R-CNN, ICCV 2015 (smooth L1).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx

from mlx_faceau.core.facs import NUM_AUS
from mlx_faceau.errors import UsageError

Arrays = Mapping[str, mx.array]


class WingLoss:
    """Logarithmic near zero, linear beyond ``w``: keeps small landmark errors in play.

    Args:
        w: error in pixels where the linear part starts, > 0.
        epsilon: curvature of the logarithmic part in pixels, > 0.
    """

    def __init__(self, w: float = 10.0, epsilon: float = 2.0) -> None:
        if w <= 0 or epsilon <= 0:
            raise UsageError(f"w is {w} and epsilon is {epsilon}, expected both > 0")
        self.w = w
        self.epsilon = epsilon

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, mx.array]:
        """Mean over all coordinates of ``landmarks`` (N, any, 2): ``wing`` and ``loss``."""
        error = _difference(predictions, targets, "landmarks").abs()
        curved = self.w * mx.log1p(error / self.epsilon)
        offset = self.w - self.w * math.log1p(self.w / self.epsilon)
        wing = _mean(mx.where(error < self.w, curved, error - offset))
        return {"wing": wing, "loss": wing}


class LandmarkPoseLoss:
    """Wing loss of landmarks, squared error of global and absolute error of local parameters.

    Args:
        landmark_weight: of the mean wing loss.
        global_params_weight: of the mean squared error of the pose parameters.
        local_params_weight: of the mean absolute error of the shape parameters.
    """

    def __init__(
        self,
        landmark_weight: float = 1.0,
        global_params_weight: float = 0.1,
        local_params_weight: float = 0.01,
    ) -> None:
        self.landmark_weight = landmark_weight
        self.global_params_weight = global_params_weight
        self.local_params_weight = local_params_weight
        self.wing = WingLoss()

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, mx.array]:
        """Terms ``landmarks``, ``global_params``, ``local_params`` and their sum ``loss``.

        Args:
            predictions: the outputs of the net.
            targets: the same names and shapes; optionally ``global_mask`` and ``local_mask`` (N,),
                0 for samples whose parameters are unknown (they may then be anything, NaN
                included). A term is the mean over kept samples, 0 if none is kept.
        """
        terms = {
            "landmarks": self.wing(predictions, targets)["wing"],
            "global_params": _kept_mean(
                mx.square, predictions, targets, "global_params", "global_mask"
            ),
            "local_params": _kept_mean(mx.abs, predictions, targets, "local_params", "local_mask"),
        }
        loss = (
            self.landmark_weight * terms["landmarks"]
            + self.global_params_weight * terms["global_params"]
            + self.local_params_weight * terms["local_params"]
        )
        return {**terms, "loss": loss}


class ConcordanceCorrelationLoss:
    """1 - CCC of each action unit over the batch, from population moments.

    Args:
        eps: action units whose target variance in the batch is not above it are left out.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, mx.array]:
        """Mean over the kept columns of ``au_intensities`` (N, any): ``ccc`` and ``loss``.

        0, with zero gradients, if no column is kept.
        """
        target = targets["au_intensities"]
        ccc = self.mean(_prediction(predictions, targets, "au_intensities"), target, None)
        return {"ccc": ccc, "loss": ccc}

    def mean(self, prediction: mx.array, target: mx.array, weights: mx.array | None) -> mx.array:
        """Mean of 1 - CCC over the kept columns, weighted if ``weights`` (columns,) are given."""
        predicted, predicted_mean = _centred(prediction)
        wanted, wanted_mean = _centred(target)
        variance = wanted.square().mean(0)
        kept = variance > self.eps
        covariance = (predicted * wanted).mean(0)
        spread = variance + predicted.square().mean(0) + (predicted_mean - wanted_mean).square()
        # The division must stay finite where it is not used: its gradient is multiplied by 0.
        cost = 1.0 - 2.0 * covariance / mx.where(kept, spread, 1.0)
        shares = kept.astype(cost.dtype) if weights is None else kept * weights
        return _weighted_mean(mx.where(kept, cost, 0.0), shares)


class AUPredictionLoss:
    """Smooth L1 (beta 1) plus concordance loss of action unit intensities.

    Args:
        smooth_l1_weight: of the mean smooth L1.
        ccc_weight: of the mean concordance loss.
        au_weights: a weight >= 0 for each action unit, which weighs the mean of both terms.
    """

    def __init__(
        self,
        smooth_l1_weight: float = 1.0,
        ccc_weight: float = 0.5,
        au_weights: Sequence[float] | None = None,
    ) -> None:
        self.smooth_l1_weight = smooth_l1_weight
        self.ccc_weight = ccc_weight
        self.au_weights = None if au_weights is None else mx.array(_checked(au_weights))
        self.concordance = ConcordanceCorrelationLoss()

    def __call__(self, predictions: Arrays, targets: Arrays) -> dict[str, mx.array]:
        """Terms ``smooth_l1`` and ``ccc`` of ``au_intensities`` (N, 17), and their sum ``loss``."""
        target = targets["au_intensities"]
        prediction = _prediction(predictions, targets, "au_intensities")
        weights = self.au_weights
        error = (prediction - target).abs()
        error = mx.where(error < 1.0, 0.5 * error.square(), error - 0.5).mean(0)  # (17,)
        smooth_l1 = error.mean() if weights is None else _weighted_mean(error, weights)
        ccc = self.concordance.mean(prediction, target, weights)
        loss = self.smooth_l1_weight * smooth_l1 + self.ccc_weight * ccc
        return {"smooth_l1": smooth_l1, "ccc": ccc, "loss": loss}


def _checked(au_weights: Sequence[float]) -> list[float]:
    weights = [float(weight) for weight in au_weights]
    valid = all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0
    if len(weights) != NUM_AUS or not valid:
        raise UsageError(f"au_weights is {weights}, expected {NUM_AUS} numbers >= 0, not all 0")
    return weights


def _prediction(predictions: Arrays, targets: Arrays, name: str) -> mx.array:
    """The prediction in its target's precision, so that half precision ends here."""
    prediction, target = predictions[name], targets[name]
    if prediction.shape != target.shape:
        raise UsageError(
            f"{name}: prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}"
        )
    return prediction.astype(target.dtype)


def _difference(predictions: Arrays, targets: Arrays, name: str) -> mx.array:
    return _prediction(predictions, targets, name) - targets[name]


def _mean(error: mx.array) -> mx.array:
    """Mean over all elements, first within samples: short float32 sums lose less."""
    return error.reshape(error.shape[0], -1).mean(1).mean()


def _kept_mean(
    cost: Callable[[mx.array], mx.array],
    predictions: Arrays,
    targets: Arrays,
    name: str,
    mask_name: str,
) -> mx.array:
    difference = _difference(predictions, targets, name)
    if mask_name not in targets:
        return _mean(cost(difference))
    kept = targets[mask_name] > 0  # (N,)
    difference = mx.where(kept[:, None], difference, 0.0)
    return cost(difference).mean(1).sum() / mx.maximum(kept.sum(), 1)


def _weighted_mean(values: mx.array, weights: mx.array) -> mx.array:
    """Mean of (columns,) values; 0 if all weights are."""
    total = weights.sum()
    return (values * weights).sum() / mx.where(total > 0, total, 1.0)


def _centred(x: mx.array) -> tuple[mx.array, mx.array]:
    """Columns without their means, and the means."""
    mean = x.mean(0)
    # Twice: the float32 mean of a large constant column is off by more than its variance.
    rest = (x - mean).mean(0)
    return x - mean - rest, mean + rest
