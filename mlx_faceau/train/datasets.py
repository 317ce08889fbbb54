"""The data of a training: its files, their two sides, the training side's batches and targets."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.facs import AU_NAMES, NUM_AUS
from mlx_faceau.data.format import identity
from mlx_faceau.data.format.check import absent_units, check_intensities
from mlx_faceau.data.format.dataset import ConcatDataset, FaceDataset, LabelledFaces
from mlx_faceau.data.format.label_provenance import check_same_labels, labellers
from mlx_faceau.data.format.split import Split, split_at, split_dataset
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.data.loading.augment import Batch, augmentation
from mlx_faceau.data.loading.batches import Batches
from mlx_faceau.errors import DatasetError, counted

from .config import IMAGE_SIZES, AUTrainConfig, TrainConfig
from .target_statistics import TargetStatistics

_LOG = logging.getLogger(__name__)
_MOST_WARNINGS = 3  # of names; 'data check' lists all
_OVERFIT_REPEATS = 20  # of each face in an epoch with --overfit
_GROUPS = 4  # landmarks, shape parameters, AU scores and components weigh alike


@dataclass(frozen=True)
class TrainingData:
    """What the training loop reads."""

    dataset: ConcatDataset  # the open files
    split: Split  # sample indices of the two sides
    statistics: TargetStatistics  # of the training side's targets
    # Of the training side; one holds the faces of a whole optimizer step, or this rank's part.
    batches: Batches
    batch_size: int  # faces in one forward pass
    fingerprint: Sequence[str]  # of the training side's faces
    au_models: OpenFaceAUModels | None = None  # of the labels, for an auxiliary head

    def validation_images(self) -> Iterator[np.ndarray]:
        """Images of the validation side in order, (B, 112, 112, 3) uint8 RGB each."""
        indices, size = self.split.validation, self.batch_size
        for start in range(0, len(indices), size):
            yield self.dataset.read_images(indices[start : start + size])

    def validation_targets(self) -> dict[str, np.ndarray]:
        """Labels and masks of the validation side, (N, ...) each."""
        return _rows({**self.dataset.labels, **self.dataset.masks}, self.split.validation)

    def constant_predictions(self) -> dict[str, np.ndarray]:
        """The training means as predictions for every face of the validation side."""
        count = len(self.split.validation)
        return {
            name: np.repeat(np.asarray(mean, np.float32)[None], count, axis=0)
            for name, mean in self.statistics.means.items()
        }

    def describe(self) -> dict[str, object]:
        """What checkpoints and the history record about the data."""
        _, names = identity.people_names(self.dataset, strict=False)
        return {
            "hash": self.dataset.hash,
            "files": [file.hash for file in self._training_files()],
            "labellers": self._labellers(),
            "faces": len(self.dataset),
            "people": len(set(names.tolist()) - {""}),  # by subject, or by video without one
            "training": len(self.split.train),
            "validation": len(self.split.validation),
            "split_by": self.split.by,
            "fingerprint": self.fingerprint,
        }

    def _training_files(self) -> list[FaceDataset]:
        """The files that the training side takes faces from."""
        owners = np.searchsorted(self.dataset.starts, self.split.train, side="right") - 1
        return [self.dataset.parts[owner] for owner in np.unique(owners).tolist()]

    def _labellers(self) -> list[dict[str, Any]]:
        """Who labelled those files, and their licences, where they record it; each once."""
        found = [entry for file in self._training_files() for entry in labellers(file.path)]
        return [entry for i, entry in enumerate(found) if entry not in found[:i]]


def open_data(
    config: TrainConfig, part: tuple[int, int] = (0, 1), au_models: OpenFaceAUModels | None = None
) -> TrainingData:
    """Open a training's files and split them, or take those to validate on.

    ``part`` is (rank, ranks) of the process. Without a resumed training's AU models, those that are
    needed are fitted to the training side, under ``--overfit`` to all faces.
    """
    files = (*config.data, *config.val_data)
    dataset = ConcatDataset([FaceDataset(name, config.keep_outside) for name in files])
    if len(files) > 1 and not config.mixed_labels:
        check_same_labels(
            {name: labellers(Path(name)) for name in files},
            "train on one kind alone, or give --mixed-labels",
        )
    check_intensities(dataset.labels["au_intensities"], ", ".join(files))
    step = config.batch_size * config.accumulate * part[1]
    digests = identity.face_digests(dataset)
    split = _split(dataset, config, digests)
    if len(split.validation) < 2:
        raise DatasetError(
            f"{', '.join(config.val_data or config.data)}: one face to validate on, expected at "
            "least two; add data, or raise --val-split or --overfit"
        )
    statistics = TargetStatistics.of(
        _rows(dataset.labels, split.train), _rows(dataset.masks, split.train)
    )
    rows, auxiliary = split.train, None
    indices = np.repeat(rows, _OVERFIT_REPEATS) if config.overfit else rows
    if len(indices) < step and config.batch_size < step:
        raise DatasetError(
            f"the training side holds {counted(len(indices), 'sample')}, fewer than the {step} of "
            f"a step (--batch-size {config.batch_size} by --accumulate {config.accumulate} by "
            f"{counted(part[1], 'rank')}); lower these, or add data"
        )
    if isinstance(config, AUTrainConfig):
        _check_units(dataset.labels["au_intensities"], split, config)
        if config.auxiliary_weight:
            try:
                if au_models is None:
                    # With --overfit the training side is too small to fit linear models.
                    seen = np.arange(len(dataset)) if config.overfit else rows
                    _LOG.info("fitting a linear model of the labels to %d faces", len(seen))
                    au_models = OpenFaceAUModels.fit(dataset, seen)
                auxiliary = auxiliary_targets(
                    au_models,
                    dataset,
                    rows,
                    statistics,
                    config.horizontal_flip,
                    config.relabel_flipped,
                )
            except DatasetError as error:
                more = " and --relabel-flipped" if config.relabel_flipped else ""
                raise DatasetError(
                    f"{', '.join(config.data)}: {error}; leave --auxiliary-weight{more} out"
                ) from None
    batches = Batches(
        dataset,
        indices,
        step,
        config.seed,
        augment=None if config.overfit else augmentation(config.augment, config.horizontal_flip),
        workers=config.num_workers,
        processes=config.num_processes,
        part=part,
        transform=BatchTransform(config.epochs, config.initial_image_size, auxiliary),
    )
    fingerprint = identity.fingerprint(digests[rows])
    return TrainingData(
        dataset, split, statistics, batches, config.batch_size, fingerprint, au_models
    )


def _split(dataset: ConcatDataset, config: TrainConfig, digests: np.ndarray) -> Split:
    """Two sides; with ``--overfit``, evenly spaced faces that are on both."""
    files = ", ".join(config.data)
    if config.overfit:
        if config.overfit > len(dataset):
            raise DatasetError(
                f"{files}: holds {counted(len(dataset), 'face')}, fewer than "
                f"--overfit {config.overfit}"
            )
        chosen = np.linspace(0, len(dataset) - 1, config.overfit).astype(np.int64)
        return Split(chosen, chosen, "nothing: the same faces on both sides")
    if config.val_data:
        return split_at(dataset, int(dataset.starts[len(config.data)]), digests)
    # Names that are taken for one person, who stays on one side.
    by, names = identity.people_names(dataset)
    repeated = {row for rows in identity.duplicate_faces(digests, names) for row in rows.tolist()}
    reasons = [f"{len(repeated)} faces are there under several {by} names"] if repeated else []
    reasons += [
        f"{' and '.join(map(repr, written))} differ in spelling alone"
        for written in (*identity.spellings(dataset.subjects), *identity.spellings(dataset.videos))
    ]
    for reason in reasons[:_MOST_WARNINGS]:
        text = "%s: %s: these are kept on one side; see 'mlx-faceau data check'"
        _LOG.warning(text, files, reason)
    return split_dataset(dataset, config.val_split, config.seed, digests)


def _check_units(intensities: np.ndarray, split: Split, config: TrainConfig) -> None:
    """Warn of action units that cannot be learned, or measured; DatasetError if none can be."""
    files = ", ".join(config.data)
    absent = absent_units(intensities[split.train])
    if len(absent) == len(AU_NAMES):
        raise DatasetError(
            f"{files}: all action units are 0 in all {len(split.train)} training faces, so there "
            "is nothing to learn; label them, or train a landmark-pose net"
        )
    if absent:
        _LOG.warning(
            "%s: no training face shows %s: the net will learn to predict 0 for them",
            files, ", ".join(absent),
        )  # fmt: skip
    unseen = [u for u in absent_units(intensities[split.validation]) if u not in absent]
    if unseen:
        _LOG.warning(
            "no face to validate on shows %s: their correlation cannot be measured",
            ", ".join(unseen),
        )


def _rows(columns: dict[str, np.ndarray], indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[indices] for name, values in columns.items()}


def target_scale(columns: int) -> float:
    """Divisor of a group's standardised targets, ``columns`` of them: all groups weigh alike."""
    return float(np.sqrt(columns * _GROUPS))


@dataclass(frozen=True)
class FaceTargets:
    """What a data set's faces, or their mirror images, should be predicted as."""

    intensities: np.ndarray  # (N, 17) in [0, 5]
    shape: np.ndarray  # (N, 34) local parameters; NaN where they are unknown
    # (N, 17 + components) AU scores without limits and components of the gradients, standardised;
    # NaN where they are unknown.
    features: np.ndarray


@dataclass(frozen=True)
class AuxiliaryTargets:
    """Targets that the auxiliary head learns."""

    faces: FaceTargets  # of every face of the data set
    mirrored: FaceTargets | None  # of its mirror image; None if faces are not mirrored
    deviations: np.ndarray  # (17 + components,) by which each component is weighted
    statistics: TargetStatistics  # of the training side, which standardise the rest

    def add_to(self, batch: Batch) -> Batch:
        """The batch with ``auxiliary`` (B, 443) float32 and the intensities of its images.

        Unknown targets are NaN. Columns are scaled so that their mean square over the training
        faces sums to 1.
        """
        index = batch["index"]
        intensities, shape, features = (values[index] for values in vars(self.faces).values())
        if self.mirrored is not None:
            # Files have shape parameters of every face, so only mirrored ones are masked.
            is_mirrored = (batch["local_mask"] <= 0)[:, None]
            intensities, shape, features = (
                np.where(is_mirrored, other[index], own)
                for other, own in zip(
                    vars(self.mirrored).values(), (intensities, shape, features), strict=True
                )
            )
        scores, components = np.split(features, [NUM_AUS], axis=1)
        variance_shares = self.deviations[NUM_AUS:] / self.deviations[NUM_AUS:].sum()
        landmarks = self._standardised(batch["landmarks"], "landmarks").reshape(len(index), -1)
        shape = self._standardised(shape, "local_params")
        groups = [values / target_scale(values.shape[1]) for values in (landmarks, shape, scores)]
        groups.append(components * np.sqrt(variance_shares / _GROUPS))
        auxiliary = np.asarray(np.concatenate(groups, axis=1), np.float32)
        return {**batch, "au_intensities": intensities, "auxiliary": auxiliary}

    def _standardised(self, values: np.ndarray, name: str) -> np.ndarray:
        means, deviations = self.statistics.means[name], self.statistics.deviations[name]
        return np.asarray((values - means) / deviations)


def auxiliary_targets(
    models: OpenFaceAUModels,
    faces: LabelledFaces,
    rows: np.ndarray,
    statistics: TargetStatistics,
    mirror: float = 0.0,
    relabel: bool = False,
) -> AuxiliaryTargets:
    """Targets of the training side, (n,) rows of the faces, whose share ``mirror`` is mirrored.

    With ``relabel`` mirrored faces get the models' targets, intensities among them; else they keep
    their intensities and scores, and the rest is unknown.
    """
    count = len(faces.labels["landmarks"])
    intensities, shape = faces.labels["au_intensities"], faces.labels["local_params"]
    features = _in_rows(models.targets(faces, rows), rows, count)
    plain, mirrored = FaceTargets(intensities, shape, features), None
    if mirror and relabel:
        _LOG.info("computing targets of %d mirror images", len(rows))
        found = models.mirrored_targets(faces, rows)
        known = ~np.isnan(found.targets[:, :NUM_AUS])  # a face without pose keeps its intensities
        relabelled = intensities.copy()
        relabelled[rows] = np.where(known, models.intensities(found.targets), intensities[rows])
        mirrored = FaceTargets(
            relabelled,
            _in_rows(found.local_params, rows, count),
            _in_rows(found.targets, rows, count),
        )
    elif mirror:
        mirrored = keep_labels(plain)
    return AuxiliaryTargets(plain, mirrored, models.deviations, statistics)


def keep_labels(faces: FaceTargets) -> FaceTargets:
    """Targets of mirror images that keep intensities and scores; the rest has no mirror."""
    features = faces.features.copy()
    features[:, NUM_AUS:] = np.nan
    return FaceTargets(faces.intensities, np.full_like(faces.shape, np.nan), features)


def _in_rows(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """(count, columns) with the values in their rows, NaN elsewhere."""
    placed = np.full((count, values.shape[1]), np.nan, np.float32)
    placed[rows] = values
    return placed


def image_size_of_epoch(epoch: int, epochs: int, initial: int) -> int:
    """Image size of an epoch, counted from 0: it grows by 16 px to 112, each size for as long.

    Reference:
        Touvron, Vedaldi, Douze, Jegou, Fixing the train-test resolution discrepancy, NeurIPS 2019;
        Tan and Le, EfficientNetV2, ICML 2021, section 4 (progressive learning).
    """
    sizes = IMAGE_SIZES[IMAGE_SIZES.index(initial) :]
    return sizes[min(epoch * len(sizes) // epochs, len(sizes) - 1)]


@dataclass(frozen=True)
class BatchTransform:
    """The last change of a training batch."""

    epochs: int  # of the whole training
    initial_size: int  # image size of the first epoch, px
    auxiliary: AuxiliaryTargets | None = None  # targets of the auxiliary head to add

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """The batch of an epoch (counted from 0), its images (B, size, size, 3)."""
        if self.auxiliary is not None:
            batch = self.auxiliary.add_to(batch)
        size = image_size_of_epoch(epoch, self.epochs, self.initial_size)
        if size != IMAGE_SIZE:
            resized = [
                cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
                for image in batch["images"]
            ]
            batch["images"] = np.stack(resized)
        return batch
