"""The data of a training: its files, their two sides, and the training side's batches."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.plural import counted
from mlx_faceau.core.provenance import pdm_of
from mlx_faceau.data.format.check import absent_units, check_intensities
from mlx_faceau.data.format.dataset import ConcatDataset, FaceDataset
from mlx_faceau.data.format.identity import (
    duplicate_faces,
    face_digests,
    fingerprint,
    people_names,
    spellings,
)
from mlx_faceau.data.format.label_provenance import check_same_labels, labellers
from mlx_faceau.data.format.split import Split, split_at, split_dataset
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.data.loading.augment import augmentation
from mlx_faceau.data.loading.batches import Batches
from mlx_faceau.errors import DatasetError

from .batch_transforms import BatchTransform, auxiliary_targets
from .config import AUTrainConfig, TrainConfig
from .target_statistics import TargetStatistics

_LOG = logging.getLogger(__name__)
_MOST_WARNINGS = 3  # of names; 'data check' lists all
_OVERFIT_REPEATS = 20  # of each face in an epoch with --overfit


@dataclass(frozen=True)
class TrainingData:
    """What the training loop reads."""

    dataset: ConcatDataset  # the open files
    split: Split  # sample indices of the two sides
    statistics: TargetStatistics  # of the training side's targets
    # Of the training side; one holds the faces of a whole optimizer step, or this rank's part.
    batches: Batches
    batch_size: int  # faces in one forward pass
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
        _, names = people_names(self.dataset, strict=False)
        return {
            "hash": self.dataset.hash,
            "files": [file.hash for file in self._training_files()],
            "labellers": self._labellers(),
            "faces": len(self.dataset),
            "people": len(set(names.tolist()) - {""}),  # by subject, or by video without one
            "training": len(self.split.train),
            "validation": len(self.split.validation),
            "split_by": self.split.by,
            "fingerprint": fingerprint(self.dataset, self.split.train),
        }

    @property
    def pdm(self) -> dict[str, str] | None:
        """The point distribution model of the labels; see ``provenance.pdm_of``."""
        return pdm_of({"data": {"labellers": self._labellers()}})

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
    split = _split(dataset, config)
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
            with _naming_options(config):
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
    return TrainingData(dataset, split, statistics, batches, config.batch_size, au_models)


@contextmanager
def _naming_options(config: AUTrainConfig) -> Iterator[None]:
    """A DatasetError in it names the files, and the options to leave out."""
    try:
        yield
    except DatasetError as error:
        more = " and --relabel-flipped" if config.relabel_flipped else ""
        raise DatasetError(
            f"{', '.join(config.data)}: {error}; leave --auxiliary-weight{more} out"
        ) from None


def _split(dataset: ConcatDataset, config: TrainConfig) -> Split:
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
    digests = face_digests(dataset)
    if config.val_data:
        return split_at(dataset, int(dataset.starts[len(config.data)]), digests)
    # Names that are taken for one person, who stays on one side.
    by, names = people_names(dataset)
    repeated = {row for rows in duplicate_faces(digests, names) for row in rows.tolist()}
    reasons = [f"{len(repeated)} faces are there under several {by} names"] if repeated else []
    reasons += [
        f"{' and '.join(map(repr, written))} differ in spelling alone"
        for written in (*spellings(dataset.subjects), *spellings(dataset.videos))
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
