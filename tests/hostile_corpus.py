"""The table of readers of foreign files: what each takes and what it may raise."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hostile_data as data
import hostile_models as models

from mlx_faceau.errors import CheckpointError, DatasetError, UsageError, VideoError


@dataclass(frozen=True)
class Target:
    """One reader.

    Args:
        name: what it reads.
        seeds: valid inputs, and nearly valid ones.
        read: puts an input into an empty folder and reads it there.
        errors: exactly the classes that the reader declares.
        native: whether a library in C parses the bytes.
        names_file: whether every error names the file.
        modules: what it imports, so that no reading is charged with that.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path, bytes], object]
    errors: tuple[type[Exception], ...]
    native: bool = False
    names_file: bool = True
    modules: tuple[str, ...] = ()


_CHECKPOINT, _DATASET = (CheckpointError,), (DatasetError,)
_PT = ("mlx_faceau.convert.pyfaceau",)

TARGETS = {
    target.name: target
    for target in (
        Target(
            "checkpoint",
            models.checkpoint_headers,
            models.read_checkpoint,
            (CheckpointError, UsageError),
            names_file=False,
            modules=("safetensors.numpy", "mlx_faceau.train.run"),
        ),
        Target(
            "short checkpoint",
            models.short_checkpoints,
            models.read_short_checkpoint,
            _CHECKPOINT,
            modules=("safetensors.numpy",),
        ),
        Target(
            "pt archive", models.pt_archives, models.read_pt, _CHECKPOINT, native=True, modules=_PT
        ),
        Target(
            "pt pickle",
            models.pt_pickles,
            models.read_pt_pickle,
            _CHECKPOINT,
            native=True,
            modules=_PT,
        ),
        Target(
            "onnx",
            models.onnx_files,
            models.read_onnx,
            _CHECKPOINT,
            native=True,
            modules=("mlx_faceau.inference.backends.onnx_backend",),
        ),
        Target("onnx metadata", models.exported_metadata, models.read_onnx_metadata, _CHECKPOINT),
        Target("manifest", models.manifests, models.read_manifest, _CHECKPOINT),
        Target(
            "core ml metadata", models.core_ml_metadata, models.read_core_ml_metadata, _CHECKPOINT
        ),
        Target(
            "hdf5",
            data.hdf5_files,
            data.read_hdf5,
            _DATASET,
            native=True,
            modules=("mlx_faceau.data.format.check", "mlx_faceau.data.format.check"),
        ),
        Target(
            "writer's shard",
            data.hdf5_files,
            data.read_shard,
            _DATASET,
            native=True,
            modules=("mlx_faceau.data.format.writer",),
        ),
        Target(
            "openface csv",
            data.openface_csvs,
            data.read_csv,
            _DATASET,
            modules=("mlx_faceau.data.labels.openface",),
        ),
        Target("pdm", data.pdm_texts, data.read_pdm_text, _DATASET),
        Target(
            "settings",
            data.settings_files,
            data.read_settings_file,
            (UsageError,),
            names_file=False,
        ),
        Target("history", data.histories, data.read_history, ()),
        Target(
            "picture",
            data.pictures,
            data.read_picture,
            (VideoError, UsageError),
            native=True,
            modules=("mlx_faceau.cli.predict_aligned",),
        ),
        Target("video", data.videos, data.read_video, (VideoError,), native=True),
    )
}
