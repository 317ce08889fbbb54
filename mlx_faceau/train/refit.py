"""The linear parts of a HOG head, fitted once more after the training.

Gradient descent, with augmentation, leaves the auxiliary head near its least-squares solution for
clear images, not at it; and the labels' linear models were fitted to the labels' own landmarks and
shapes, of which the net has only estimates. Both are regressions on what the trained net finds in
the training faces, in standard and in jittered crops: first the geometry on the backbone's
features, then what the models miss of the labels' scores on the inputs that they get (regression
calibration). The net runs as fast as before.

References:
    Hoerl and Kennard, Ridge regression, Technometrics 1970.
    Carroll, Ruppert, Stefanski, Crainiceanu, Measurement Error in Nonlinear Models, 2006, ch. 4.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mlx_faceau.core import auxiliary_head
from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.checkpoint import Checkpoint, section
from mlx_faceau.core.facs import NUM_AUS
from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.data.loading.augment import JITTER, Batch, augment_face
from mlx_faceau.errors import DatasetError

from .checkpoints import AU_MODELS
from .config import AUTrainConfig, default_framework
from .datasets import TrainingData, open_data, target_scale
from .hog_head import required_models
from .run import build_trainer, check_same_data, run_settings

_LOG = logging.getLogger(__name__)
_AUGMENTS = (None, partial(augment_face, level=JITTER))
_BATCH = 128  # faces, at most
# Shares of the inputs' mean variance, chosen on people held out from training.
_FEATURES_PENALTY = 0.01
_HOG_PENALTY = 1.0


class RidgeRegression:
    """Linear regression of (N, k) outputs on (N, d) inputs, added up batch by batch."""

    def __init__(self) -> None:
        self.count = 0
        # Near the means of both, so that squares of float32 rows keep their digits.
        self._origins: list[np.ndarray] = []
        self._sums: list[np.ndarray] = []
        self._products: list[np.ndarray] = []

    def add(self, inputs: np.ndarray, outputs: np.ndarray) -> None:
        """Add rows of both, those whose outputs are known (not NaN)."""
        known = np.isfinite(outputs).all(axis=1)
        if not known.any():
            return
        rows = [inputs[known], outputs[known]]
        if not self._origins:
            self._origins = [values.mean(axis=0) for values in rows]
            self._sums = [np.zeros(values.shape[1]) for values in rows]
            self._products = [np.zeros((inputs.shape[1], values.shape[1])) for values in rows]
        self.count += int(known.sum())
        rows = [values - origin for values, origin in zip(rows, self._origins, strict=True)]
        for values, total, products in zip(rows, self._sums, self._products, strict=True):
            total += values.sum(axis=0, dtype=np.float64)
            products += rows[0].T @ values

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights (d, k) and bias (k,); the penalty is a share of the inputs' mean variance."""
        mean, target = (total / self.count for total in self._sums)
        covariance, shared = (
            products / self.count - np.outer(mean, other)
            for products, other in zip(self._products, (mean, target), strict=True)
        )
        diagonal = np.diag_indices_from(covariance)
        covariance[diagonal] += penalty * covariance[diagonal].mean()
        weights = np.linalg.solve(covariance, shared)
        return weights, self._origins[1] + target - (self._origins[0] + mean) @ weights


def refitted(checkpoint: Checkpoint, data: Sequence[str] = ()) -> Checkpoint:
    """The checkpoint of a training with an auxiliary head, its linear parts fitted once more.

    ``data`` are the training's files, those to validate on last, by default where it found them.

    Raises:
        CheckpointError: if it holds no such training.
        DatasetError: if these are not the faces that it was trained on.
    """
    models = required_models(checkpoint)
    given: dict[str, Any] = {"framework": default_framework(), "device": "auto"}
    if data:
        count = len((checkpoint.metadata.get("training") or {}).get("data") or data)
        given |= {"data": tuple(data[:count]), "val_data": tuple(data[count:])}
    recorded = run_settings(AUTrainConfig, given, checkpoint)
    # No mirror images; of the averaged weights alone; with the head's inputs.
    changes: dict[str, Any] = {"horizontal_flip": 0.0, "relabel_flipped": False, "ema": 0.0}
    changes |= {"precision": "float32", "initial_image_size": IMAGE_SIZE, "hog_weight": 1.0}
    config = replace(recorded, **changes)
    faces = open_data(config, au_models=models)
    check_same_data(checkpoint, faces.describe(), config)
    weights = {**checkpoint.weights(), **auxiliary_head.auxiliary_weights(checkpoint.arrays)}
    trainer = build_trainer(config, faces, weights)
    _LOG.info("fitting the HOG head to %d faces", len(faces.split.train))

    known = 2 * NUM_LANDMARKS + len(models.pdm.variances)  # columns of geometry; scores follow
    ends = known + NUM_AUS
    geometry, calibration = RidgeRegression(), RidgeRegression()
    for batch in _batches(faces, config.epochs, "geometry"):
        geometry.add(trainer.features(batch["images"]), batch["auxiliary"][:, :ends])
    if not geometry.count:
        raise DatasetError("no training face has a known pose, so a HOG head cannot be refitted")
    weight, bias = (values[..., :known] for values in geometry.solve(_FEATURES_PENALTY))
    for batch in _batches(faces, config.epochs, "intensities"):
        outputs = (trainer.features(batch["images"]) @ weight + bias).astype(np.float32)
        inputs = trainer.hog_inputs(batch["images"], outputs)
        scores = batch["auxiliary"][:, known:ends] * target_scale(NUM_AUS)
        scores = scores * models.deviations[:NUM_AUS] + models.means[:NUM_AUS]
        calibration.add(inputs, scores - models.scores(inputs))
    change, offset = calibration.solve(_HOG_PENALTY)

    arrays = auxiliary_head.without_auxiliary_prefix(checkpoint.arrays)
    for prefix in ("model.", "ema."):
        if section(arrays, prefix):
            names = [
                f"{prefix}{auxiliary_head.HEAD_NAME}.layers.0.{part}" for part in ("weight", "bias")
            ]
            for name, values in zip(names, (weight.T, bias), strict=True):
                arrays[name] = np.concatenate([values, arrays[name][known:]])
    fitted, means = models.weights.copy(), models.means.copy()
    fitted[:, :NUM_AUS] += change
    means[:NUM_AUS] += offset + models.centre @ change
    arrays[AU_MODELS + "weights"], arrays[AU_MODELS + "means"] = fitted, means
    arrays = auxiliary_head.with_auxiliary_prefix(arrays)
    return replace(checkpoint, arrays=arrays, metadata={**checkpoint.metadata, "refitted": True})


def _batches(faces: TrainingData, epoch: int, title: str) -> Iterator[Batch]:
    """All faces in their standard crops, then in crops that are turned, scaled and shifted."""
    from tqdm import tqdm

    count = len(faces.batches.indices)
    # Few, so that the large sums are seldom added to, and of one size, which leaves few faces out.
    size = count // -(-count // _BATCH)
    views = [replace(faces.batches, batch_size=size, augment=augment) for augment in _AUGMENTS]
    total = sum(map(len, views))
    with tqdm(total=total, desc=title, unit=" batches", leave=False, disable=None) as bar:
        for batches in views:
            for batch in batches.epoch(epoch):
                yield batch
                bar.update()
