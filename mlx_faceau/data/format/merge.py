"""New training files from existing ones: merged, converted, or a subset of the samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from mlx_faceau.core.pdm import PDM, fit_pdm
from mlx_faceau.errors import DatasetError

from .columns import HOG, LABELS
from .dataset import FaceDataset
from .identity import subject_key
from .label_provenance import check_same_labels, copy_provenance, labellers
from .row_io import create_new_file, read_blocks
from .schema import has_hog


@dataclass
class MergeReport:
    """The result of merging."""

    samples: int = 0  # number in the new file
    duplicates: int = 0  # samples left out because an earlier file holds the same image and labels
    notes: list[str] = field(default_factory=list)  # remarks for the user, one line each


def merge_files(
    paths: Sequence[Path],
    output: Path,
    compression: str | None = None,
    keep_outside: bool = True,
    mixed_labels: bool = False,
    pdm: PDM | None = None,
) -> MergeReport:
    """Write the samples of all files, in the order given, into a new one.

    A subject of the same name is the same person in all files, so a later split keeps them
    together; where no subject is named, the same holds for videos. Files of the original tool are
    converted to crop space. A sample that an earlier file holds byte for byte is left out. HOG
    features are kept only if every file has them. Images may be compressed by "lzf". Samples with
    landmarks outside the crop can be dropped, files of several labellers or PDMs allowed. A PDM
    fits pose and shape to the landmarks of samples whose pose is in no known space, which are
    refused without one.
    """
    resolved = [path.resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if resolved.count(place) > 1:
            raise DatasetError(f"{path}: given twice; name each file once")
    if not mixed_labels:
        check_same_labels(
            {str(path): labellers(path) for path in paths},
            "leave one out, or allow it with --mixed-labels",
        )
    datasets = [FaceDataset(path, keep_outside) for path in paths]
    report = MergeReport()
    exclude = set()
    lacking = [has_hog(path) for path in paths].count(False)
    if 0 < lacking < len(paths):
        exclude = {HOG}
        report.notes.append(f"{HOG} left out: {lacking} of {len(paths)} files lack them")
    kind = "subjects" if all(_names(each, "subjects") for each in datasets) else "videos"
    names = [_names(each, kind) for each in datasets]
    if shared := sum(map(len, names)) - len(set().union(*names)):
        report.notes.append(f"{shared} {kind} of the same name are taken for the same")
    seen: set[bytes] = set()
    with create_new_file(output, sum(map(len, datasets)), compression) as file:
        for dataset in datasets:
            if pdm is not None:
                _fit_unplaced(dataset, pdm)
            digests = set()
            for block in read_blocks(dataset, exclude=exclude):
                columns = [block["images"], *(block[name] for name in LABELS)]
                samples = (b"".join(v.tobytes() for v in row) for row in zip(*columns, strict=True))
                found = [blake2b(sample, digest_size=16).digest() for sample in samples]
                new = np.array([digest not in seen for digest in found])
                digests |= set(found)
                report.duplicates += int((~new).sum())
                if new.any():
                    file.append({name: values[new] for name, values in block.items()})
            seen |= digests
            dataset.close()
        copy_provenance(file, paths)
    report.samples = file.rows
    return report


def _names(dataset: FaceDataset, kind: str) -> set[str]:
    names = getattr(dataset, kind)
    return set() if names is None else set(map(subject_key, names.tolist())) - {""}


def _fit_unplaced(dataset: FaceDataset, pdm: PDM) -> None:
    unplaced = dataset.masks["global_mask"] == 0
    if unplaced.any():
        fit = fit_pdm(pdm, dataset.labels["landmarks"][unplaced])
        dataset.labels["global_params"][unplaced] = fit.global_params
        dataset.labels["local_params"][unplaced] = fit.local_params
        dataset.masks["global_mask"][unplaced] = 1


def write_subset(
    output: Path, dataset: FaceDataset, indices: np.ndarray, compression: str | None = None
) -> None:
    """Write some samples of a data set to a new file."""
    with create_new_file(output, len(indices), compression) as file:
        for block in read_blocks(dataset, indices):
            file.append(block)
        every = dataset.videos is None or len(indices) == len(dataset)
        videos = None if every else set(dataset.videos[indices].tolist())  # type: ignore[index]
        copy_provenance(file, [dataset.path], videos)
