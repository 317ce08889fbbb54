"""Weights to and from the ``.pt`` checkpoints of the original tool (pyfaceau).

Such a file is a pickle inside a zip archive, without configuration: the kind of net follows from
its keys, the width from its shapes. Nothing in it is run: torch's restricted reader builds
tensors, plain containers and the NumPy scalars of the training history, and refuses the rest.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import (
    AUPredictionConfig,
    HOGHeadConfig,
    LandmarkPoseConfig,
    ModelConfig,
    weight_shapes,
)
from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.checkpoint import check_arrays, check_weights
from mlx_faceau.core.libraries import import_library
from mlx_faceau.errors import CheckpointError, UsageError
from mlx_faceau.torch_fallback.nets import COUNTER, TO_MLX, moved, state_dict_from_weights

torch = import_library("torch", "torch")
# The original's names of the parts that are called otherwise here.
_STEMS = {"landmark_pose": "first_conv", "au_prediction": "stem"}
_LASTS = {"landmark_pose": "last_conv", "au_prediction": "head"}
_HEADS = {"global_head": "global_params_head", "local_head": "local_params_head"}
WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.3, 1.4)
_MAX_PICKLE = 16 << 20  # bytes; a real one has about 100 KiB
_MAX_TEXT = 1000  # characters of one name in it
_FIRST_TORCH = (2, 6)  # the first whose restricted reader takes an allow-list by name

# What torch.load and the classes it builds raise on damaged and on hostile files.
_READ_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_pyfaceau(
    path: Path | str, width_mult: float | None = None, dropout: float | None = None
) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Read a checkpoint of the original tool without running code from it.

    Returns the net's settings and its float32 weights in MLX names and layout. The width is found
    among ``WIDTHS`` if it is None; an action unit net's dropout is not recorded there.
    CheckpointError is raised if the file is missing, damaged, asks for anything but tensors and
    plain values, or its weights do not fit.
    """
    path = Path(path)
    state = _read_state(path)
    heads = {name.split(".", 1)[0] for name in state} & {"landmark_head", "au_head"}
    if len(heads) != 1:
        raise CheckpointError(
            f"{path}: holds neither one 'landmark_head' nor one 'au_head' net; "
            "it is not a checkpoint of pyfaceau's landmark or action unit net"
        )
    kind = LandmarkPoseConfig if heads == {"landmark_head"} else AUPredictionConfig
    if dropout is not None and kind is LandmarkPoseConfig:
        raise UsageError(f"dropout is {dropout}, but {path} holds a landmark net: leave it out")
    width = _fitting_width(kind, state, path) if width_mult is None else width_mult
    config = kind(width_mult=width) if dropout is None else AUPredictionConfig(width, dropout)
    net = f"{config.kind} net of width {config.width_mult}"
    check_arrays(pyfaceau_shapes(config), state, f"{path}: not the weights of the {net}")
    names = pyfaceau_names(config)
    return config, {ours: moved(state[theirs], TO_MLX) for ours, theirs in names.items()}


def write_pyfaceau(
    path: Path | str, config: ModelConfig, weights: Mapping[str, np.ndarray]
) -> None:
    """Write weights in MLX names and layout as a ``.pt`` that the original tool loads strictly."""
    _check_torch(Path(path))
    if isinstance(config, HOGHeadConfig):
        raise UsageError(f"{path}: the original tool has no HOG head; export ONNX, which it reads")
    check_weights(config, weights, "weights")
    tensors = state_dict_from_weights(weights)
    state = {}
    for ours, theirs in pyfaceau_names(config).items():
        state[theirs] = tensors[ours]
        if theirs.endswith(".running_var"):
            state[theirs.replace(".running_var", COUNTER)] = torch.tensor(0)
    checkpoint = {
        "epoch": 0,
        "model_state_dict": state,
        "best_val_loss": math.inf,
        "train_history": [],
        "val_history": [],
    }
    file = io.BytesIO()  # torch's own writer takes a full disk for a defect
    torch.save(checkpoint, file)
    with atomic_file(path) as temporary:
        temporary.write_bytes(file.getvalue())


def _read_state(path: Path) -> dict[str, np.ndarray]:
    """The arrays of ``model_state_dict``, mapped from the file: only what is used is read.

    BatchNorm's batch counters are left out.
    """
    _check_torch(path)
    _check_archive(path)
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _READ_ERRORS as error:
        raise CheckpointError(f"{path}: {_refusal(path, error)}") from None
    state = checkpoint.get("model_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(
            f"{path}: holds no 'model_state_dict' of named tensors; it is not a pyfaceau checkpoint"
        )
    arrays, strange = {}, []
    for name, value in state.items():
        try:
            arrays[name] = value.detach().numpy()
        except (AttributeError, TypeError, RuntimeError):  # sparse, quantised, no tensor at all
            strange.append(name)
    if strange:
        raise CheckpointError(f"{path}: not plain tensors: {', '.join(strange[:8])}")
    return {name: array for name, array in arrays.items() if not name.endswith(COUNTER)}


def _check_torch(path: Path) -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _FIRST_TORCH:
        raise CheckpointError(
            f"{path}: .pt files need torch {_FIRST_TORCH[0]}.{_FIRST_TORCH[1]} or later, this is "
            f"{torch.__version__} (Intel Macs have none later than 2.2): convert the file to "
            ".safetensors on another machine"
        )


def _check_archive(path: Path) -> None:
    """A checkpoint is an uncompressed zip: what claims to hold more than its file is refused."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise CheckpointError(
                    f"{path}: its parts are compressed or overlap, torch writes neither"
                )
            for entry in (entry for entry in entries if entry.filename.endswith("data.pkl")):
                if entry.file_size > _MAX_PICKLE:
                    raise ValueError(f"a pickle of {entry.file_size} bytes")
                # torch searches its own refusals for phrases, in a time that grows with the
                # square of a name.
                for _, argument, _ in pickletools.genops(archive.read(entry)):
                    if isinstance(argument, (str, bytes)) and len(argument) > _MAX_TEXT:
                        raise ValueError(f"a name of {len(argument)} characters in its pickle")
    except _READ_ERRORS as error:
        raise CheckpointError(f"{path}: not a torch .pt archive, or cut short: {error}") from None


def _allowed_globals() -> list[Any]:
    """NumPy's scalars and arrays under the module names of NumPy 1 and 2, and nothing else."""
    try:
        multiarray = import_module("numpy._core.multiarray")
    except ModuleNotFoundError:  # NumPy 1
        multiarray = import_module("numpy.core.multiarray")
    named = [
        (getattr(multiarray, name), f"numpy.{module}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for module in ("core", "_core")
    ]
    dtypes = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "bool")]
    return [*named, np.dtype, np.ndarray, *dtypes]


def _refusal(path: Path, error: Exception) -> str:
    """One line on why torch would not read the file, with the names it refused."""
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except _READ_ERRORS:
        refused = []
    if refused:
        return (
            f"refused, because it asks for {', '.join(sorted(refused))}; a pyfaceau checkpoint "
            "needs only tensors and NumPy scalars, and nothing from the file was run"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"no readable torch .pt archive: {reason[:200]}"


def _fitting_width(
    kind: type[LandmarkPoseConfig] | type[AUPredictionConfig],
    state: Mapping[str, np.ndarray],
    path: Path,
) -> float:
    for width in WIDTHS:
        shapes = pyfaceau_shapes(kind(width_mult=width))
        if all(state[name].shape == shapes[name] for name in state.keys() & shapes.keys()):
            return width
    raise CheckpointError(
        f"{path}: no width of {', '.join(map(str, WIDTHS))} fits all shapes; give the net's own "
        "with width_mult=, or with --width-mult of 'mlx-faceau convert' or 'export', whose files "
        "every command takes"
    )


def pyfaceau_names(config: ModelConfig) -> dict[str, str]:
    """The original's name of every weight, by ours, in the order of its state dict.

    It builds blocks and heads as sequences, whose layers are numbered in order of appearance,
    activations and dropout included: positions shift with expansion and squeeze.
    """
    prefixes = {}  # the original's name of every layer that has weights, by ours

    def conv_norm(ours: str, theirs: str, position: int) -> None:
        prefixes[f"{ours}.conv"] = f"{theirs}.{position}"
        prefixes[f"{ours}.norm"] = f"{theirs}.{position + 1}"

    conv_norm("backbone.stem", f"backbone.{_STEMS[config.kind]}", 0)
    conv_norm("backbone.head", f"backbone.{_LASTS[config.kind]}", 0)
    for index, block in enumerate(config.backbone.blocks(config.width_mult)):
        ours, theirs = f"backbone.blocks.{index}", f"backbone.blocks.{index}.conv"
        position = 0
        for layer in ("expand", "depthwise") if block.expand else ("depthwise",):
            conv_norm(f"{ours}.{layer}", theirs, position)
            position += 3  # convolution, BatchNorm, activation
        if block.squeeze:
            prefixes[f"{ours}.squeeze.reduce"] = f"{theirs}.{position}.fc1"
            prefixes[f"{ours}.squeeze.excite"] = f"{theirs}.{position}.fc2"
            position += 1
        conv_norm(f"{ours}.project", theirs, position)
    for head in type(config)().heads:  # a dropout layer counts even where this net's rate is 0
        position = 0
        for index, dropout in enumerate((*head.dropouts, 0.0)):
            theirs = _HEADS.get(head.name, head.name)
            prefixes[f"{head.name}.layers.{index}"] = f"{theirs}.fc.{position}"
            position += 3 if dropout else 2  # linear, ReLU, perhaps dropout
    parts = ((ours, *ours.rsplit(".", 1)) for ours in weight_shapes(config))
    return {ours: f"{prefixes[layer]}.{part}" for ours, layer, part in parts}


def pyfaceau_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every weight in the original's names, order and layout (torch's)."""
    shapes = weight_shapes(config)
    torch_shapes = {
        ours: (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape
        for ours, shape in shapes.items()
    }
    return {theirs: torch_shapes[ours] for ours, theirs in pyfaceau_names(config).items()}
