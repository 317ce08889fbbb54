"""Bootstrap confidence intervals that resample subjects, not faces.

Faces of one subject resemble each other, so resampling faces would give too narrow intervals.
Every statistic here is a function of means over faces; a resample's means are its subjects' sums
over its subjects' counts, one matrix product for many resamples.

Reference:
    Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 1979; Field and
    Welsh, Bootstrapping clustered data, Journal of the Royal Statistical Society 2007.
"""

import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.metrics import ANGLES, MINIMUM_SUPPORT, Moments, angle_errors, au_support, nme
from mlx_faceau.data.format.dataset import LabelledFaces
from mlx_faceau.data.format.identity import people_names

BY_FACE = "face"
RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 11
_BLOCK = 200  # resamples at once

Arrays = dict[str, np.ndarray]


def subjects_of(dataset: LabelledFaces) -> tuple[str, np.ndarray]:
    """What the bootstrap resamples: ``"subject"``, ``"video"`` or, without names, ``"face"``.

    And the (N,) names; a face without one counts as a subject of its own.
    """
    by, names = people_names(dataset, strict=False)
    own = [f"row:{row}" for row in range(len(dataset))]
    return by if (names != "").any() else BY_FACE, np.where(names != "", names, own)


def resampled_means(
    values: np.ndarray, subjects: np.ndarray, resamples: int = RESAMPLES, seed: int = _SEED
) -> np.ndarray:
    """Means (resamples, K) of (N, K) values over ``subjects`` (N,) drawn with replacement."""
    _, subject, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), values.shape[1] + 1))
    np.add.at(sums, subject, np.column_stack([np.ones(len(values)), values]))
    rng = np.random.default_rng(seed)
    chances = np.full(len(sizes), 1 / len(sizes))
    blocks = []
    for start in range(0, resamples, _BLOCK):
        drawn = rng.multinomial(len(sizes), chances, size=min(_BLOCK, resamples - start))
        blocks.append(drawn.astype(np.float64) @ sums)
    totals = np.concatenate(blocks)
    return np.asarray(totals[:, 1:] / totals[:, :1])


def confidence_interval(samples: np.ndarray) -> list[float]:
    """The middle 95 % of (B,) resampled figures; NaN where every one is NaN."""
    known = samples[np.isfinite(samples)]
    if len(known) == 0:
        return [float("nan")] * 2
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(known, [tail, 100 - tail])
    return [float(low), float(high)]


def au_intervals(
    truth: np.ndarray, prediction: np.ndarray, subjects: np.ndarray
) -> dict[str, object]:
    """Intervals of :func:`mlx_faceau.core.metrics.au_metrics` of (N, 17) intensities in [0, 5].

    ``correlation``, ``mae`` and by action unit ``r``, ``ccc``, ``icc31``, ``mae``: each is
    [low, high]; there are none where all ``subjects`` (N,) are one. Which action units count in
    the mean correlation is decided once, on all faces; a resample leaves out those whose label is
    constant in it.
    """
    if len(np.unique(subjects)) < 2:
        return {}
    products = Moments.products(truth, prediction)
    errors = np.abs(np.asarray(prediction, np.float64) - truth)
    means = resampled_means(np.concatenate([*products, errors], axis=1), subjects)
    *parts, mae = np.split(means, 6, axis=1)
    moments = Moments.of_means(np.stack(parts))
    samples = {"r": moments.pearson(), "ccc": moments.ccc(), "icc31": moments.icc31(), "mae": mae}
    counted = au_support(truth) >= MINIMUM_SUPPORT
    measured = moments.truth_moves[:, counted].sum(1)
    with np.errstate(invalid="ignore"):
        overall = np.nan_to_num(samples["r"][:, counted]).sum(1) / measured
    return {
        "correlation": confidence_interval(overall),
        "mae": confidence_interval(mae.mean(1)),
        "aus": {
            name: {key: confidence_interval(values[:, i]) for key, values in samples.items()}
            for i, name in enumerate(AU_NAMES)
        },
    }


def landmark_pose_intervals(
    truth: Arrays, prediction: Arrays, mean_face: np.ndarray, subjects: np.ndarray
) -> dict[str, object]:
    """Intervals of the main figures of :func:`mlx_faceau.core.metrics.landmark_pose_metrics`.

    Both sides hold ``landmarks`` (N, 68, 2) px and ``global_params`` (N, 6); where ``global_mask``
    (N,) is given and 0, the pose is unknown. ``mean_face`` (68, 2) is that of the training. Each
    interval is [low, high]; there are none where all ``subjects`` (N,) are one.
    """
    if len(np.unique(subjects)) < 2:
        return {}
    count = len(subjects)
    landmarks = [np.asarray(side["landmarks"], np.float64) for side in (truth, prediction)]
    flat = [points.reshape(count, -1) for points in landmarks]
    centred = [side - np.ravel(mean_face) for side in flat]
    known = np.asarray(truth.get("global_mask", np.ones(count))) > 0
    turned = angle_errors(truth["global_params"], prediction["global_params"]) * known[:, None]
    # The same subjects are drawn for every figure.
    samples = {
        "correlation": _correlation(resampled_means(_moment_columns(*flat), subjects)),
        "correlation_without_mean": _correlation(
            resampled_means(_moment_columns(*centred), subjects)
        ),
        "mae": resampled_means(np.abs(flat[1] - flat[0]).mean(1, keepdims=True), subjects),
        "nme": resampled_means(nme(*landmarks)[:, None], subjects),
    }
    intervals = {name: confidence_interval(values) for name, values in samples.items()}
    if not known.any():
        return {**intervals, "pose": {}}
    with np.errstate(invalid="ignore", divide="ignore"):
        turns = resampled_means(turned, subjects) / resampled_means(known[:, None], subjects)
    by_angle = dict(zip(ANGLES, turns.T, strict=True)) | {"mean": turns.mean(1)}
    pose = {angle: confidence_interval(values) for angle, values in by_angle.items()}
    return {**intervals, "pose": pose}


def _moment_columns(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(N, 5) of (N, K): every face's means of what the correlation of all its values needs."""
    products = Moments.products(truth.reshape(-1, 1), prediction.reshape(-1, 1))
    return np.asarray(products.reshape(5, *truth.shape).mean(2).T)


def _correlation(means: np.ndarray) -> np.ndarray:
    return np.asarray(np.nan_to_num(Moments.of_means(means.T).pearson()))
