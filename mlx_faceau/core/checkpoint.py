"""The one checkpoint format: a single self-describing ``.safetensors`` file.

Arrays carry a prefix for what they are (``model.``, ``ema.``, ``optimizer.``, ``rng.``,
``loop.``); weights are in MLX names and layout. The header's metadata holds the whole
configuration as JSON, so that a file loads with no further argument.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.errors import CheckpointError

from .architectures import IMAGE_SIZE, ModelConfig, config_from_dict, is_statistic, weight_shapes
from .artifact_metadata import check_form
from .atomic_io import atomic_file
from .facs import AU_NAMES
from .libraries import import_library, package_version
from .preprocess import COLOR_ORDER

FORMAT = "mlx-faceau"
VERSION = 1
WEIGHTS_SUFFIX = ".safetensors"
BEST_NAME = f"checkpoint_best{WEIGHTS_SUFFIX}"
# What a net was trained on: the one that it predicts on, the original tool's, or not recorded.
CROPS = ("standard", "original", "unknown")
LICENCE_NOTE = "Weights carry the licence of the labels and images they were trained on."
_MAX_HEADER = 16 << 20  # bytes; a real header has about 100 KiB


def describe(config: ModelConfig, **more: Any) -> dict[str, Any]:
    """Metadata that every file of a net carries, with further JSON values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": config.kind,
        "model": asdict(config),
        "image_size": [IMAGE_SIZE, IMAGE_SIZE],
        "color_order": COLOR_ORDER,
        "crop": "standard",
        "au_names": list(AU_NAMES),
        "licence_note": LICENCE_NOTE,
        "package_version": package_version(),
        **more,
    }


def config_of(metadata: Mapping[str, Any], path: Path | str) -> ModelConfig:
    """The net's settings from a file's metadata, or CheckpointError if this version cannot run it.

    That is the case if the file is not this package's, holds both nets, or names another crop,
    colour or action unit order.
    """
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: format {metadata.get('format')!r} version {metadata.get('version')!r}, "
            f"expected {FORMAT!r} version {VERSION}; update mlx-faceau or convert the file"
        )
    if "nets" in metadata:
        raise CheckpointError(
            f"{path}: holds both nets; only ONNX files of that kind can be opened, for prediction"
        )
    if metadata.get("crop") not in CROPS:
        raise CheckpointError(
            f"{path}: crop is {metadata.get('crop')!r}, expected 'standard' (or 'original' or "
            "'unknown', of imported nets)"
        )
    expected = {"color_order": COLOR_ORDER, "au_names": list(AU_NAMES)}
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise CheckpointError(f"{path}: {key} is {metadata.get(key)!r}, expected {value!r}")
    model = metadata.get("model")
    if not isinstance(model, dict):
        raise CheckpointError(f"{path}: the metadata has no 'model' settings")
    try:
        return config_from_dict(str(metadata.get("kind")), model)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: its arrays by prefixed name, and its metadata."""

    path: Path
    metadata: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @cached_property
    def config(self) -> ModelConfig:
        """Settings of the net; see :func:`config_of`."""
        return config_of(self.metadata, self.path)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file, recorded by what is exported from it."""
        return file_hash(self.path)

    def section(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name starts with ``prefix``, without it."""
        return section(self.arrays, prefix)

    def weights(self) -> dict[str, np.ndarray]:
        """Weights of the net, checked: averaged ones, and raw ones where there is no average."""
        weights = self.section("model.") | self.section("ema.")
        check_weights(self.config, weights, self.path)
        return weights


def section(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def check_weights(
    config: ModelConfig, weights: Mapping[str, np.ndarray], source: Path | str
) -> None:
    """Raise CheckpointError, with all that is wrong, unless these are the weights of the net."""
    complaint = f"{source}: not the weights of this {config.kind} net"
    check_arrays(weight_shapes(config), weights, complaint)


def check_arrays(
    shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray], complaint: str
) -> None:
    """Raise CheckpointError, saying all that is wrong, unless finite float32 arrays fit shapes."""
    problems = [f"{name} is missing" for name in sorted(shapes.keys() - arrays.keys())]
    problems += [f"{name} is unknown" for name in sorted(arrays.keys() - shapes.keys())]
    for name in sorted(shapes.keys() & arrays.keys()):
        array = arrays[name]
        if tuple(array.shape) != shapes[name]:
            problems.append(f"{name} has shape {tuple(array.shape)}, expected {shapes[name]}")
        elif array.dtype != np.float32:
            problems.append(f"{name} is {array.dtype}, expected float32")
        elif not np.isfinite(array).all():
            problems.append(f"{name} holds NaN or infinity")
        elif is_statistic(name) and name.endswith("var") and (array < 0).any():
            problems.append(f"{name} holds a negative variance")
    if problems:
        rest = [f"and {len(problems) - 8} more"] if len(problems) > 8 else []
        raise CheckpointError(f"{complaint}: {'; '.join([*problems[:8], *rest])}")


def save_checkpoint(
    path: Path | str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write arrays by prefixed name, and JSON metadata: complete under the name, or not at all."""
    save = import_library("safetensors.numpy").save
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = save(plain, metadata={FORMAT: json.dumps(metadata, sort_keys=True, allow_nan=False)})
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint, a directory's best one, or raise CheckpointError."""
    path = find_checkpoint(path)
    metadata = read_metadata(path)
    safetensors = import_library("safetensors.numpy")
    try:
        arrays = safetensors.load_file(path)
    except (import_library("safetensors").SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None
    # Weights may be stored in half precision; every net computes with them in float32.
    for name, array in arrays.items():
        if array.dtype == np.float16 and name.startswith(("model.", "ema.")):
            arrays[name] = array.astype(np.float32)
    checkpoint = Checkpoint(path, metadata, arrays)
    check_weights(checkpoint.config, checkpoint.section("model."), path)
    return checkpoint


def read_metadata(path: Path | str) -> dict[str, Any]:
    """The metadata of a checkpoint, from its header alone, or CheckpointError."""
    path = find_checkpoint(path)
    if path.suffix == ".pt":
        raise CheckpointError(
            f"{path}: expected a .safetensors file; 'mlx-faceau convert' makes one of a .pt"
        )
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 0 < length <= min(_MAX_HEADER, size - 8):
                raise CheckpointError(f"{path}: not a safetensors file, or cut short")
            header = json.loads(file.read(length))
        metadata = json.loads(header["__metadata__"][FORMAT])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(
            f"{path}: no mlx-faceau settings in the header; it was not written by this package"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    return check_form(metadata, path)


def find_checkpoint(path: Path | str, name: str = BEST_NAME) -> Path:
    """The checkpoint that a path means: a file itself, or the one of this name in a directory."""
    path = Path(path)
    if path.is_dir():
        path = path / name
        if not path.is_file():
            others = sorted(file.name for file in path.parent.glob(f"*{WEIGHTS_SUFFIX}"))
            remedy = f"; name one of its files: {', '.join(others[:5])}" if others else ""
            raise CheckpointError(f"{path.parent}: no {path.name} in this folder{remedy}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; name a training's folder or a model file")
    return path


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
