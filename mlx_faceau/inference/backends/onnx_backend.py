"""Runs an exported ``.onnx`` file with ONNX Runtime, on the CPU or on CUDA where its build can."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

from mlx_faceau.core.architectures import CONFIGS, IMAGE_SIZE, ModelConfig
from mlx_faceau.core.artifact_metadata import (
    METADATA_KEY,
    check_self_contained,
    net_metadata,
    parse_metadata,
)
from mlx_faceau.core.checkpoint import config_of
from mlx_faceau.core.preprocess import fill_batch, padded_size, to_crops
from mlx_faceau.errors import BackendError, CheckpointError, UsageError

from . import Backend

logger = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ENDING = "ExecutionProvider"
CUDA_OPTIONS = {
    # EXHAUSTIVE, the default, tunes cuDNN anew for every batch size that comes.
    "cudnn_conv_algo_search": "HEURISTIC",
    # TF32, the default, keeps 10 bits: further from the net than a float32 file may be.
    "use_tf32": "0",
}
_MAX_BATCH = 1024  # images of a file's fixed batch: one image is filled up to it
_OPEN_ERRORS: tuple[type[Exception], ...] = (
    MemoryError,
    UnicodeDecodeError,
    *(
        kind
        for kind in vars(onnxruntime_pybind11_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)
# What a net reads: type and shape of one image. Which one a file has is in its shapes.
_TENSOR = ("tensor(float)", (3, IMAGE_SIZE, IMAGE_SIZE))
_UINT8 = ("tensor(uint8)", (IMAGE_SIZE, IMAGE_SIZE, 3))

Provider = str | tuple[str, dict[str, Any]]


def pick_providers(
    available: Sequence[str], requested: Provider | Sequence[Provider] | None = None
) -> list[Provider]:
    """Execution providers for a session, best first, CUDA with our options where none were given.

    Requested are names, such as ``"CUDAExecutionProvider"`` or ``"cuda"``, or pairs of name and
    options, or one of these alone; None takes CUDA where it is available, then the CPU (Core ML is
    a backend of its own, never taken silently).
    """
    if requested is None:
        requested = [name for name in (CUDA, CPU) if name in available]
    if not requested:
        raise UsageError("no execution provider is given; leave providers out to take the best")
    providers: list[Provider] = []
    wanted: Any = [requested] if _is_provider(requested) else requested
    if not (isinstance(wanted, Sequence) and all(map(_is_provider, wanted))):
        raise UsageError(
            f"providers are {requested!r}, expected names, or pairs of name and options, best first"
        )
    for provider in wanted:
        name = provider if isinstance(provider, str) else provider[0]
        full = name.lower().removesuffix(_ENDING.lower()) + _ENDING.lower()
        name = next((known for known in available if known.lower() == full), name)
        if name not in available:
            raise BackendError(
                f"this ONNX Runtime has no {name}, only {', '.join(available)}; for NVIDIA GPUs "
                'replace onnxruntime by: pip install "mlx-faceau[cuda]"'
            )
        if not isinstance(provider, str):
            providers.append((name, provider[1]))
        else:
            providers.append((CUDA, dict(CUDA_OPTIONS)) if name == CUDA else name)
    return providers


def _is_provider(value: object) -> bool:
    """Whether a value has the form of one provider: a name, or a pair of name and options."""
    if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[1], dict):
        value = value[0]
    return isinstance(value, str)


class ONNXBackend(Backend):
    """An opened ``.onnx`` file, ours or the original tool's.

    Files with a uint8 input get crops (N, 112, 112, 3) BGR, files of a fixed batch exactly that
    many; both are recognised by their input's type and shape.

    A file without our metadata is taken where its input and outputs have exactly the shapes of one
    of the two nets. Of a file that holds both only the net of ``kind`` is computed.
    """

    name = "onnx"
    library = f"onnxruntime {onnxruntime.__version__}"

    def __init__(
        self,
        path: Path | str,
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        kind: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._session = self._open(providers, threads)
        try:
            text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
            metadata = None if text is None else parse_metadata(text, self.path)
            self._outputs = self._session.get_outputs()
            if metadata and "nets" in metadata and kind in CONFIGS:
                metadata, names = net_metadata(metadata, kind), CONFIGS[kind]().output_shapes
                self._outputs = [port for port in self._outputs if port.name in names]
            self.metadata = metadata
            self.config = self._read_config()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: not a readable ONNX file: {error}") from None
        port = self._session.get_inputs()[0]
        self._input, self._uint8 = port.name, port.type == _UINT8[0]
        self._batch: int | None = port.shape[0] if isinstance(port.shape[0], int) else None
        self.max_batch = self._batch or self.max_batch
        self.device = self._session.get_providers()[0]  # the one that really runs

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        count = len(images)
        # cuDNN chooses its algorithms anew for every batch size.
        size = self._batch or (padded_size(count) if self.device == CUDA else count)
        values = to_crops(images) if self._uint8 else images.transpose(0, 3, 1, 2)
        values = np.ascontiguousarray(fill_batch(values, size))
        # By position, not by name: the original tool's files call their outputs otherwise.
        names = [port.name for port in self._outputs]
        outputs = self._session.run(names, {self._input: values})
        return {
            name: output[:count]
            for name, output in zip(self.config.output_shapes, outputs, strict=True)
        }

    def _open(self, requested: Sequence[Provider] | None, threads: int | None) -> Any:
        if not self.path.is_file():
            raise CheckpointError(f"{self.path}: no such file")
        check_self_contained(self.path)
        providers = pick_providers(onnxruntime.get_available_providers(), requested)
        model: str | bytes = str(self.path)
        if os.fsencode(model) != str(self.path).encode(errors="replace"):
            model = self.path.read_bytes()  # the library takes names of UTF-8 alone
        try:
            session = onnxruntime.InferenceSession(
                model, session_options(threads), providers=providers
            )
        except _OPEN_ERRORS as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise CheckpointError(f"{self.path}: not a readable ONNX file: {reason}") from None
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if session.get_providers()[0] != first:
            logger.warning("%s does not start; %s runs", first, session.get_providers()[0])
        return session

    def _read_config(self) -> ModelConfig:
        """The net's settings; of another tool's file those of the net whose shapes it has."""
        ports = [*self._session.get_inputs(), *self._outputs]
        found = [(port.type, tuple(port.shape[1:])) for port in ports]
        ours = self.metadata is not None
        batches = {
            port.shape[0] if port.shape and isinstance(port.shape[0], int) else None
            for port in ports
        }
        fixed = ours and batches <= set(range(1, _MAX_BATCH + 1))
        # Another tool's colours and batch are not known, so only the plain form is taken.
        inputs = [_TENSOR, _UINT8] if ours else [_TENSOR]
        configs: list[ModelConfig] = (
            [config() for config in CONFIGS.values()]
            if self.metadata is None
            else [config_of(self.metadata, self.path)]
        )
        for config in configs:
            outputs = [("tensor(float)", shape) for shape in config.output_shapes.values()]
            fits = any(found == [image, *outputs] for image in inputs)
            if fits and len(batches) == 1 and (batches == {None} or fixed):
                return config
        kinds = " or ".join(config.kind for config in configs)
        raise CheckpointError(
            f"{self.path}: its inputs and outputs are "
            f"{', '.join(f'{port.name} {port.type} {port.shape}' for port in ports)}, "
            f"not those of a {kinds} net"
        )


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """How sessions run on a CPU, on so many threads a call; None takes one a core."""
    options = onnxruntime.SessionOptions()
    # ALL holds the NCHWc layout, without which convolutions run 3-5 times slower on a CPU.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads that spin while they wait collapse as soon as another process wants the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; what falls back is logged here instead
    return options
