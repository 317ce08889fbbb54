"""What an exporter starts from: settings, weights and metadata, whatever they were given as."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mlx_faceau.core.architectures import CONFIGS, ModelConfig
from mlx_faceau.core.artifact_metadata import COMBINED
from mlx_faceau.core.checkpoint import (
    check_weights,
    describe,
    file_hash,
    load_checkpoint,
    save_checkpoint,
)
from mlx_faceau.core.provenance import carried_metadata
from mlx_faceau.errors import ExportError, UsageError
from mlx_faceau.torch_fallback import build
from mlx_faceau.weights import builtin

from .pyfaceau import read_pyfaceau
from .variants import HALF_WEIGHTS

# Metadata of one net, whatever the other's is.
_OWN = (
    *("kind", "model", "source_hash", "target_statistics", "data", "training", "init"),
    *("confidence", "presence_thresholds"),
)


class TupleNet(torch.nn.Module):
    """Nets on one image, with one tuple of outputs in the order of exported files.

    Dictionaries do not trace. Nodes of a traced graph are named after the nets' names.
    """

    def __init__(self, nets: Mapping[str, Any]) -> None:
        super().__init__()
        for name, net in nets.items():
            self.add_module(name, net)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, 3, 112, 112) RGB in [0, 1] to the outputs in order."""
        nets: list[Any] = list(self.children())
        outputs = [(net(image), net.config.output_shapes) for net in nets]
        return tuple(values[name] for values, names in outputs for name in names)


@dataclass(frozen=True)
class SourceModel:
    """A net to export: its settings, its weights (MLX names and layout) and its metadata."""

    config: ModelConfig
    weights: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Of the net, as in ``architectures.CONFIGS``."""
        return self.config.kind

    @property
    def parts(self) -> tuple["SourceModel", ...]:
        """The nets that the file holds: this one."""
        return (self,)

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each output of one face, in the file's order."""
        return self.config.output_shapes

    def half_weights(self) -> dict[str, np.ndarray]:
        """The weights for storage in half precision, or ExportError if one is beyond its range.

        Matrices and kernels become float16; biases and BatchNorm, a hundredth of the size, keep
        float32.
        """
        stored = {}
        for name, array in self.weights.items():
            with np.errstate(over="ignore"):
                stored[name] = array.astype(np.float16) if array.ndim > 1 else array
            if not np.isfinite(stored[name]).all():
                raise ExportError(f"{name} is beyond float16's range; export float32")
        return stored

    def rounded_to_half(self) -> "SourceModel":
        """The net that computes with the :meth:`half_weights`, in float32."""
        weights = {name: a.astype(np.float32) for name, a in self.half_weights().items()}
        return replace(self, weights=weights)

    def net(self, dtype: torch.dtype = torch.float32) -> TupleNet:
        """The net in torch, for evaluation."""
        return TupleNet({"net": self.mirror()}).to(dtype).eval()

    def mirror(self) -> Any:
        """The net of ``torch_fallback``; torch's random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            return build(self.config, self.weights)


@dataclass(frozen=True)
class CombinedModel:
    """Both nets on one image: the outputs of the landmark net, then those of the AU net."""

    landmarks: SourceModel
    aus: SourceModel

    kind: ClassVar[str] = COMBINED

    def __post_init__(self) -> None:
        kinds = [part.kind for part in self.parts]
        if kinds != list(CONFIGS):
            raise UsageError(f"expected a {' and a '.join(CONFIGS)} net, got {' and '.join(kinds)}")

    @property
    def parts(self) -> tuple[SourceModel, ...]:
        """The nets that the file holds: landmarks first."""
        return self.landmarks, self.aus

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each output of one face, in the file's order."""
        return {**self.landmarks.output_shapes, **self.aus.output_shapes}

    @property
    def metadata(self) -> dict[str, Any]:
        """What both nets have in common, and what each has of its own under ``nets``."""
        common = {
            key: value
            for key, value in self.landmarks.metadata.items()
            if key not in _OWN and self.aus.metadata.get(key) == value
        }
        own = {
            part.kind: {key: value for key, value in part.metadata.items() if key not in common}
            for part in self.parts
        }
        return {**common, "kind": self.kind, "nets": own}

    def rounded_to_half(self) -> "CombinedModel":
        """See :meth:`SourceModel.rounded_to_half`."""
        return CombinedModel(*(part.rounded_to_half() for part in self.parts))

    def net(self, dtype: torch.dtype = torch.float32) -> TupleNet:
        """Both nets in torch, for evaluation."""
        return TupleNet({part.kind: part.mirror() for part in self.parts}).to(dtype).eval()


def read_source(
    model_or_checkpoint: Any, width_mult: float | None = None
) -> SourceModel | CombinedModel:
    """A net from a module of either framework, or from a file.

    It may be an MLX or torch module of this package (its own ``to_weights()`` and ``config`` are
    all that is used), a ``.safetensors`` checkpoint, a run's folder (its best checkpoint), a
    ``.pt`` file of the original tool with its width where that cannot be found out, ``"builtin"``
    for the built-in pair, or what this function gave before. Of a checkpoint's weights the averaged
    ones are taken when there are any.
    """
    is_path = isinstance(model_or_checkpoint, (str, Path))
    path = Path(model_or_checkpoint) if is_path else Path()
    if path.suffix == ".pt":
        config, weights = read_pyfaceau(path, width_mult)
        metadata = describe(config, source_hash=file_hash(path), crop="unknown")
        return SourceModel(config, weights, metadata)
    if width_mult is not None:
        raise UsageError("a width is for .pt files; everything else knows its own")
    if isinstance(model_or_checkpoint, (SourceModel, CombinedModel)):
        return model_or_checkpoint
    if builtin.is_builtin(model_or_checkpoint):
        return CombinedModel(*(_from_checkpoint(builtin.checkpoint_of(k)) for k in CONFIGS))
    if is_path:
        return _from_checkpoint(path)
    if not hasattr(model_or_checkpoint, "to_weights"):
        raise UsageError(
            f"cannot export a {type(model_or_checkpoint).__name__}; "
            "give a net of this package, a checkpoint or its folder"
        )
    config, weights = model_or_checkpoint.config, model_or_checkpoint.to_weights()
    check_weights(config, weights, type(model_or_checkpoint).__name__)
    return SourceModel(config, weights, describe(config, source_hash=weights_hash(weights)))


def weights_hash(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names and values: a net in memory has no file to hash."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def _from_checkpoint(path: Path) -> SourceModel:
    checkpoint = load_checkpoint(path)
    return SourceModel(checkpoint.config, checkpoint.weights(), carried_metadata(checkpoint))


def save_weights(source: SourceModel, path: Path | str, precision: str = "float32") -> None:
    """Write a net's weights alone as a checkpoint; stored in half precision where that is asked."""
    weights = source.half_weights() if precision == HALF_WEIGHTS else source.weights
    arrays = {f"model.{name}": value for name, value in weights.items()}
    save_checkpoint(path, arrays, {**source.metadata, "precision": precision})
