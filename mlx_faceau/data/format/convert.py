"""Rewriting training files: the original tool's become ours, in crop space and fast to read."""

from pathlib import Path

from mlx_faceau.core.pdm import PDM, fit_pdm

from .copying import blocks
from .dataset import FaceDataset
from .label_provenance import copy_provenance
from .rewriting import building, check_new


def convert_file(
    source: Path,
    output: Path,
    compression: str | None = None,
    keep_outside: bool = True,
    pdm: PDM | None = None,
) -> int:
    """Write all samples of a file into a new one.

    Args:
        source: of ours or the original tool's.
        output: the file to make.
        compression: of the images: None, or "lzf".
        keep_outside: keep samples with landmarks outside the crop.
        pdm: fits pose and shape to the landmarks of samples whose pose is in no known space.

    Returns:
        The number of samples.

    Raises:
        DatasetError: if the file cannot be read; if poses are in no known space and there is no
            PDM; or if ``output`` exists or cannot be written.
    """
    dataset = FaceDataset(source, keep_outside)
    check_new(output, len(dataset))
    if pdm is not None:
        _fit_unplaced(dataset, pdm)
    with building(output, compression) as builder:
        for block in blocks(dataset):
            builder.append(block)
        copy_provenance(builder, [source])
    return builder.rows


def _fit_unplaced(dataset: FaceDataset, pdm: PDM) -> None:
    """Give samples without a usable pose one in crop space."""
    rows = dataset.masks["global_mask"] == 0
    fit = fit_pdm(pdm, dataset.labels["landmarks"][rows])
    dataset.labels["global_params"][rows] = fit.global_params
    dataset.labels["local_params"][rows] = fit.local_params
    dataset.masks["global_mask"][rows] = 1
