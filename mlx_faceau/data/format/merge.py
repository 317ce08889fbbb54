"""Several training files as one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from mlx_faceau.errors import DatasetError

from . import schema
from .columns import Block
from .copying import blocks
from .dataset import FaceDataset
from .identity import subject_key
from .label_provenance import check_same_labels, copy_provenance, labellers
from .rewriting import FileBuilder, building, check_new


@dataclass
class MergeReport:
    """What merging did.

    Args:
        samples: number in the new file.
        repeated: samples left out because an earlier file holds the same picture and labels.
        notes: worth knowing; one line each.
    """

    samples: int = 0
    repeated: int = 0
    notes: list[str] = field(default_factory=list)


def merge_files(
    paths: Sequence[Path],
    output: Path,
    compression: str | None = None,
    keep_outside: bool = True,
    mixed_labels: bool = False,
) -> MergeReport:
    """Write the samples of all files, in the order given, into a new one.

    A subject of the same name is the same person in all files, so a later split keeps them
    together; where no subject is named, the same holds for videos. Files of the original tool come
    out in crop space. A sample that an earlier file holds byte for byte is left out. HOG features
    are kept only if every file has them.

    Args:
        paths: training files, at least one.
        output: the file to make.
        compression: of the images: None or "lzf".
        keep_outside: keep samples with landmarks outside the crop.
        mixed_labels: allow files of different labellers or PDMs.

    Raises:
        DatasetError: if a file cannot be read or is given twice, labellers or PDMs differ, or
            ``output`` exists or cannot be written.
    """
    _check_distinct(paths)
    if not mixed_labels:
        check_same_labels(
            {str(path): labellers(path) for path in paths}, "keep them apart, or say --mixed-labels"
        )
    datasets = [FaceDataset(path, keep_outside) for path in paths]
    check_new(output, sum(map(len, datasets)))
    report = MergeReport()
    without = _uncommon(paths, report)
    _note_names(datasets, report)
    seen: set[bytes] = set()
    with building(output, compression) as builder:
        for dataset in datasets:
            seen |= _append_new(dataset, builder, seen, without, report)
            dataset.close()
        copy_provenance(builder, paths)
    report.samples = builder.rows
    return report


def _append_new(
    dataset: FaceDataset, builder: FileBuilder, seen: set[bytes],
    without: set[str], report: MergeReport,
) -> set[bytes]:  # fmt: skip
    """Append what ``seen`` does not hold; return the digests of this file."""
    own = set()
    for block in blocks(dataset, without=without):
        digests = _digests(block)
        new = np.array([digest not in seen for digest in digests])
        own |= set(digests)
        report.repeated += int((~new).sum())
        if new.any():
            builder.append(block if new.all() else _taken(block, new))
    return own


def _digests(block: Block) -> list[bytes]:
    """What tells samples apart: the picture and its labels."""
    parts = [block["images"], *(block[name] for name in schema.LABEL_SHAPES)]
    return [
        blake2b(b"".join(part[row].tobytes() for part in parts), digest_size=16).digest()
        for row in range(len(parts[0]))
    ]


def _taken(block: Block, mask: np.ndarray) -> Block:
    return {
        name: values[mask]
        if isinstance(values, np.ndarray)
        else [value for value, wanted in zip(values, mask, strict=True) if wanted]
        for name, values in block.items()
    }


def _uncommon(paths: Sequence[Path], report: MergeReport) -> set[str]:
    """HOG features, unless all files have them: NaN in their place would be of no use."""
    having = [schema.has_hog(path) for path in paths]
    if not any(having) or all(having):
        return set()
    lacking = having.count(False)
    report.notes.append(f"{schema.HOG} left out: {lacking} of {len(paths)} files lack them")
    return {schema.HOG}


def _note_names(datasets: Sequence[FaceDataset], report: MergeReport) -> None:
    """Say how many people or videos the files share: they are taken for the same."""
    kind = "subjects" if all(_names(dataset.subjects) for dataset in datasets) else "videos"
    sets = [_names(getattr(dataset, kind)) for dataset in datasets]
    shared = sum(map(len, sets)) - len(set().union(*sets))
    if shared:
        report.notes.append(f"{shared} {kind} of the same name are taken for the same")


def _names(texts: np.ndarray | None) -> set[str]:
    return set() if texts is None else set(map(subject_key, texts.tolist())) - {""}


def _check_distinct(paths: Sequence[Path]) -> None:
    resolved = [path.resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if resolved.count(place) > 1:
            raise DatasetError(f"{path}: given twice; name each file once")
