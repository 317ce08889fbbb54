"""Runs an exported ``.onnx`` file with ONNX Runtime, on the CPU or on CUDA where its build can."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,
    RuntimeException,
)

from mlx_faceau.architectures import CONFIGS, IMAGE_SIZE, ModelConfig
from mlx_faceau.checkpoint import config_of
from mlx_faceau.errors import BackendError, CheckpointError
from mlx_faceau.exported import METADATA_KEY, parse_metadata

from . import run_in_chunks

logger = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# EXHAUSTIVE, the default, tunes cuDNN anew for every batch size that comes.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}
_CHUNK = 64  # images a run, so that memory stays bounded
_OPEN_ERRORS = (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,
    RuntimeException,
)
_INPUT_SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)

Provider = str | tuple[str, dict[str, Any]]


def pick_providers(
    available: Sequence[str], requested: Sequence[Provider] | None = None
) -> list[Provider]:
    """Execution providers for a session, best first.

    Args:
        available: what this build of ONNX Runtime has.
        requested: names, or pairs of name and options; None takes CUDA where it is available,
            then the CPU (Core ML is a backend of its own, never taken silently).

    Returns:
        The providers, CUDA with our options where none were given.

    Raises:
        BackendError: if a requested provider is not in this build.
        ValueError: if none is requested.
    """
    if requested is None:
        requested = [name for name in (CUDA, CPU) if name in available]
    if not requested:
        raise ValueError("no execution provider is given; leave providers out to take the best")
    providers: list[Provider] = []
    for provider in requested:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise BackendError(
                f"this ONNX Runtime has no {name}, only {', '.join(available)}; for NVIDIA GPUs "
                'replace onnxruntime by: pip install "mlx-faceau[cuda]"'
            )
        providers.append((CUDA, dict(CUDA_OPTIONS)) if provider == CUDA else provider)
    return providers


class ONNXBackend:
    """An opened ``.onnx`` file, ours or the original tool's.

    Args:
        path: the file. One without our metadata is taken where its input and outputs have exactly
            the shapes of one of the two nets.
        providers: see :func:`pick_providers`.

    Raises:
        CheckpointError: if the file is missing, damaged, or no net of this package.
        BackendError: if a requested provider is not there.
    """

    def __init__(self, path: Path | str, providers: Sequence[Provider] | None = None) -> None:
        self._path = Path(path)
        self._session = self._open(providers)
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self._metadata = None if text is None else parse_metadata(text, self._path)
        self._config = self._read_config()
        self._input = self._session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :class:`~mlx_faceau.backends.Backend`."""
        return run_in_chunks(self._run, images, _CHUNK)

    def describe(self) -> dict[str, Any]:
        """``device`` is the provider that really runs; another tool's file has no ``metadata``."""
        return {
            "backend": "onnx",
            "path": str(self._path),
            "kind": self._config.kind,
            "device": self._session.get_providers()[0],
            "library": f"onnxruntime {onnxruntime.__version__}",
            "metadata": self._metadata,
        }

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        # By position, not by name: the original tool's files call their outputs otherwise.
        outputs = self._session.run(None, {self._input: nchw})
        return dict(zip(self._config.output_shapes, outputs, strict=True))

    def _open(self, requested: Sequence[Provider] | None) -> Any:
        if not self._path.is_file():
            raise CheckpointError(f"{self._path}: no such file")
        providers = pick_providers(onnxruntime.get_available_providers(), requested)
        try:
            session = onnxruntime.InferenceSession(
                str(self._path), _session_options(), providers=providers
            )
        except _OPEN_ERRORS as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{self._path}: not a readable ONNX file: {reason}") from None
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if session.get_providers()[0] != first:
            logger.warning("%s does not start; %s runs", first, session.get_providers()[0])
        return session

    def _read_config(self) -> ModelConfig:
        ports = [*self._session.get_inputs(), *self._session.get_outputs()]
        shapes = [(port.type, _free_batch(port.shape)) for port in ports]
        if self._metadata is not None:
            configs: list[ModelConfig] = [config_of(self._metadata, self._path)]
        else:
            configs = [config() for config in CONFIGS.values()]
        for config in configs:
            expected = [_INPUT_SHAPE, *config.output_shapes.values()]
            if shapes == [("tensor(float)", shape) for shape in expected]:
                return config
        kinds = " or ".join(config.kind for config in configs)
        raise CheckpointError(
            f"{self._path}: its inputs and outputs are "
            f"{', '.join(f'{port.name} {port.type} {port.shape}' for port in ports)}, "
            f"not those of a {kinds} net"
        )


def _free_batch(shape: list[Any]) -> tuple[Any, ...] | None:
    """The shape of one image's values; None where the batch size is fixed."""
    return None if not shape or isinstance(shape[0], int) else tuple(shape[1:])


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    # ALL holds the NCHWc layout, without which convolutions run 3-5 times slower on a CPU.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads that spin while they wait collapse as soon as another process wants the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; what falls back is logged here instead
    return options
