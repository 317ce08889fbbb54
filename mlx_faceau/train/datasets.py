"""The faces of a training: its files, their two sides, and what the training side looks like."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.provenance import pdm_of
from mlx_faceau.data.format.check import absent_units, check_intensities
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.dataset_fingerprint import fingerprint
from mlx_faceau.data.format.identity import (
    duplicate_faces,
    face_digests,
    people_names,
    spellings,
)
from mlx_faceau.data.format.label_provenance import check_same_labels, labellers
from mlx_faceau.data.labels.openface_au_models import OpenFaceAUModels
from mlx_faceau.data.loading.augment import augmentation
from mlx_faceau.data.loading.batches import Batches, Source
from mlx_faceau.data.loading.concat_dataset import JoinedFaces, open_datasets
from mlx_faceau.data.loading.cutmix import Extended, composed_faces
from mlx_faceau.data.loading.validation_split import Split, split_at, split_dataset
from mlx_faceau.errors import DatasetError

from .auxiliary_targets import auxiliary_of
from .batch_transforms import Finishing
from .class_balance import PRESENT, repeats_by_rarity
from .config import TrainConfig
from .target_statistics import TargetStatistics

_LOG = logging.getLogger(__name__)
_MOST_WARNINGS = 3  # of names; a check of the file tells all
_VISITS = 20  # of each face in an epoch of a training on a few faces


@dataclass(frozen=True)
class Faces:
    """What the training loop reads.

    Attributes:
        dataset: the open files.
        split: sample indices of the two sides.
        statistics: of the training side's targets.
        batches: of the training side; one holds the faces of a whole optimizer step,
            or this rank's part of them.
        batch_size: faces that go through the net together.
        teacher: who answers auxiliary questions about the training side; None if none are asked.
    """

    dataset: FaceDataset | JoinedFaces
    split: Split
    statistics: TargetStatistics
    batches: Batches
    batch_size: int
    teacher: OpenFaceAUModels | None = None

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
        return {
            "hash": self.dataset.hash,
            "files": [file.hash for file in self._training_files()],
            "labellers": self._labellers(),
            "faces": len(self.dataset),
            "people": self._people(),
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
        if not isinstance(self.dataset, JoinedFaces):
            return [self.dataset]
        owners = np.searchsorted(self.dataset.starts, self.split.train, side="right") - 1
        return [self.dataset.parts[owner] for owner in np.unique(owners).tolist()]

    def _labellers(self) -> list[dict[str, Any]]:
        """Who labelled those files, and their licences, where they record it; each once."""
        found = [entry for file in self._training_files() for entry in labellers(file.path)]
        return [entry for i, entry in enumerate(found) if entry not in found[:i]]

    def _people(self) -> int:
        """How many are named: by subject, or by video where no subject is."""
        _, names = people_names(self.dataset, strict=False)
        return len(set(names.tolist()) - {""})


def open_faces(
    config: TrainConfig, part: tuple[int, int] = (0, 1), teacher: OpenFaceAUModels | None = None
) -> Faces:
    """Open a training's files and split them, or take those to validate on.

    Args:
        config: the settings.
        part: (rank, ranks) of the process; a step takes ``step_size`` faces from each rank.
        teacher: of a resumed training; else one is fitted to the training side if it is needed,
            under ``--overfit`` to all faces.

    Raises:
        DatasetError: if a file is unusable, they hold one person only, or too few for a batch, or
            somebody is in the files to validate on too, labellers or PDMs differ, or no teacher
            fits them.
    """
    files = (*config.data, *config.val_data)
    dataset = open_datasets(files, config.keep_outside)
    if len(files) > 1 and not config.mixed_labels:
        check_same_labels(
            {name: labellers(Path(name)) for name in files},
            "keep them apart, or say --mixed-labels",
        )
    check_intensities(dataset.labels["au_intensities"], ", ".join(files))
    step = config.step_size * part[1]
    split = _split(dataset, config, step)
    if config.kind == "au_prediction":
        _check_units(dataset.labels["au_intensities"], split, config)
    statistics = TargetStatistics.of(
        _rows(dataset.labels, split.train), _rows(dataset.masks, split.train)
    )
    source: Source = dataset
    shown, auxiliary = split.train, None
    if config.taught:
        # A few faces to be learned by heart are too few for a teacher.
        seen = np.arange(len(dataset)) if config.overfit else split.train
        with _named_for(config, *_teacher_flags(config)):
            teacher = teacher or _fitted(dataset, seen)
        if config.composed:
            with _named_for(config, "--compose"):
                source, shown = _with_composed(dataset, split.train, teacher, config)
        with _named_for(config, *_teacher_flags(config)):
            auxiliary = auxiliary_of(
                teacher, source, shown, statistics, config.mirror, config.relabels
            )
    batches = Batches(
        source,
        np.repeat(shown, _VISITS) if config.overfit else shown,
        step,
        config.seed,
        augment=None if config.overfit else augmentation(config.augment, config.mirror),
        workers=config.num_workers,
        processes=config.num_processes,
        weights=_weights(source, shown) if config.balanced else None,
        part=part,
        finish=Finishing(config.epochs, config.first_side, auxiliary),
    )
    return Faces(dataset, split, statistics, batches, config.batch_size, teacher)


def _fitted(dataset: FaceDataset | JoinedFaces, rows: np.ndarray) -> OpenFaceAUModels:
    _LOG.info("fitting a teacher to %d faces", len(rows))
    return OpenFaceAUModels.fit(dataset, rows)


@contextmanager
def _named_for(config: TrainConfig, *flags: str) -> Iterator[None]:
    """A DatasetError in it names the files, and the flags that ask for what failed."""
    try:
        yield
    except DatasetError as error:
        left_out = " and ".join(filter(None, [", ".join(flags[:-1]), flags[-1]]))
        raise DatasetError(f"{', '.join(config.data)}: {error}; leave {left_out} out") from None


def _teacher_flags(config: TrainConfig) -> list[str]:
    """Those given that need a teacher."""
    used = {"--relabel-mirrored": config.relabels, "--compose": config.composed}
    return ["--auxiliary-weight", *(name for name in used if used[name])]


def _with_composed(
    dataset: FaceDataset | JoinedFaces,
    rows: np.ndarray,
    teacher: OpenFaceAUModels,
    config: TrainConfig,
) -> tuple[Extended, np.ndarray]:
    """The files with faces composed of those of ``rows``; those rows and the composed ones'."""
    _LOG.info("composing %d faces", config.composed)
    _, people = people_names(dataset, strict=False)
    composed = composed_faces(dataset, people, rows, teacher, config.composed, config.seed)
    return Extended(dataset, composed), np.r_[rows, len(dataset) + np.arange(len(composed))]


def _weights(source: Source, rows: np.ndarray) -> np.ndarray:
    """(n,) how often each face of the training side is shown, so that rare action units are."""
    intensities = source.labels["au_intensities"][rows]
    repeats = repeats_by_rarity(intensities)
    before = (intensities > PRESENT).mean(axis=0)
    after = np.average(intensities > PRESENT, axis=0, weights=repeats)
    rarest = int(np.argmax(after / np.maximum(before, 1e-9)))
    _LOG.info(
        "faces with rare action units come up to %.1f times as often as others; %s is in %.1f %% "
        "of the faces and %.1f %% of those shown",
        *(repeats.max(), AU_NAMES[rarest], 100 * before[rarest], 100 * after[rarest]),
    )
    return repeats


def _split(dataset: FaceDataset | JoinedFaces, config: TrainConfig, step: int) -> Split:
    """Two sides; or, to be learned by heart, evenly spaced faces that are on both."""
    if not config.overfit:
        digests = face_digests(dataset)
        if config.val_data and isinstance(dataset, JoinedFaces):
            return split_at(dataset, int(dataset.starts[len(config.data)]), step, digests)
        _warn_of_names(dataset, digests, config)
        return split_dataset(dataset, config.val_split, config.seed, step, digests)
    if config.overfit > len(dataset):
        raise DatasetError(
            f"{', '.join(config.data)}: holds {len(dataset)} faces, fewer than --overfit "
            f"{config.overfit}"
        )
    chosen = np.linspace(0, len(dataset) - 1, config.overfit).astype(np.int64)
    return Split(chosen, chosen, "nothing: the same faces, to be learned by heart")


def _warn_of_names(
    dataset: FaceDataset | JoinedFaces, digests: np.ndarray, config: TrainConfig
) -> None:
    """Say that people are taken for one, and stay on one side."""
    by, names = people_names(dataset)
    repeated = {row for rows in duplicate_faces(digests, names) for row in rows.tolist()}
    several = [*spellings(dataset.subjects), *spellings(dataset.videos)]
    reasons = [f"{len(repeated)} faces are there under several {by} names"] if repeated else []
    reasons += [
        f"{' and '.join(map(repr, written))} differ in spelling alone" for written in several
    ]
    for reason in reasons[:_MOST_WARNINGS]:
        _LOG.warning(
            "%s: %s: these are kept on one side; see 'mlx-faceau data check'",
            ", ".join(config.data), reason,
        )  # fmt: skip


def _check_units(intensities: np.ndarray, split: Split, config: TrainConfig) -> None:
    """Warn of action units that cannot be learned, or not be measured.

    Raises:
        DatasetError: if there is none to be learned.
    """
    files = ", ".join(config.data)
    absent = absent_units(intensities[split.train])
    if len(absent) == len(AU_NAMES):
        raise DatasetError(
            f"{files}: all action units are 0 in all {len(split.train)} training faces, so there "
            "is nothing to learn; label them, or train a landmark-pose net"
        )
    if absent:
        _LOG.warning(
            "%s: no training face shows %s: the net will learn to answer 0 for them",
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
