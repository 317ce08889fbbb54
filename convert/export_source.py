"""What an exporter starts from: settings, weights and metadata, whatever they were given as."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mlx_faceau.core.architectures import CONFIGS, ModelConfig
from mlx_faceau.core.checkpoint import check_weights, describe, file_hash, load_checkpoint
from mlx_faceau.core.provenance import carried_metadata
from mlx_faceau.errors import UsageError
from mlx_faceau.torch_fallback import build
from mlx_faceau.torch_fallback.backbone import FaceNet

from .pyfaceau import read_pyfaceau

COMBINED = "combined"  # kind of a file that holds both nets
# Of one net, whatever the other's are.
_OWN = (
    "kind",
    "model",
    "source_hash",
    "target_statistics",
    "data",
    "training",
    "init",
    "confidence",
)


@dataclass(frozen=True)
class Source:
    """A net at rest: its settings, its weights (MLX names and layout) and its metadata."""

    config: ModelConfig
    weights: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Of the net, as in ``architectures.CONFIGS``."""
        return self.config.kind

    @property
    def parts(self) -> tuple["Source", ...]:
        """The nets that the file holds: this one."""
        return (self,)

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each output of one face, in the file's order."""
        return self.config.output_shapes

    def net(self, dtype: torch.dtype = torch.float32) -> "TupleNet":
        """The net in torch, for evaluation; torch's random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            net = build(self.config)
        net.load_weights_dict(dict(self.weights))
        return TupleNet(net).to(dtype).eval()


@dataclass(frozen=True)
class Pair:
    """Both nets on one picture: the outputs of the landmark net, then those of the AU net.

    Raises:
        ValueError: if they are not one of each kind.
    """

    landmarks: Source
    aus: Source

    kind: ClassVar[str] = COMBINED

    def __post_init__(self) -> None:
        kinds = [part.kind for part in self.parts]
        if kinds != list(CONFIGS):
            raise UsageError(f"expected a {' and a '.join(CONFIGS)} net, got {' and '.join(kinds)}")

    @classmethod
    def of(cls, landmarks: "Source | Pair", aus: "Source | Pair") -> "Pair":
        """Two nets that were read.

        Raises:
            ValueError: if they are not one of each kind, or one is itself a pair.
        """
        if not (isinstance(landmarks, Source) and isinstance(aus, Source)):
            raise UsageError("a pair is made of two single nets")
        return cls(landmarks, aus)

    @property
    def parts(self) -> tuple[Source, ...]:
        """The nets that the file holds: landmarks first."""
        return self.landmarks, self.aus

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each output of one face, in the file's order."""
        return {**self.landmarks.output_shapes, **self.aus.output_shapes}

    @property
    def metadata(self) -> dict[str, Any]:
        """What both nets say alike, and what each says for itself under ``nets``."""
        first = self.landmarks.metadata
        common = {
            key: value
            for key, value in first.items()
            if key not in _OWN and self.aus.metadata.get(key) == value
        }
        own = {
            part.kind: {key: value for key, value in part.metadata.items() if key not in common}
            for part in self.parts
        }
        return {**common, "kind": self.kind, "nets": own}

    def net(self, dtype: torch.dtype = torch.float32) -> "PairNet":
        """Both nets in torch, for evaluation."""
        return PairNet(*(part.net(dtype) for part in self.parts)).eval()


class PairNet(torch.nn.Module):
    """Two nets on one picture, with one tuple of outputs."""

    def __init__(self, landmark_pose: "TupleNet", au_prediction: "TupleNet") -> None:
        super().__init__()
        self.landmark_pose = landmark_pose
        self.au_prediction = au_prediction

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, 3, 112, 112) RGB in [0, 1] to the outputs in order."""
        return (*self.landmark_pose(image), *self.au_prediction(image))


class TupleNet(torch.nn.Module):
    """A net with a tuple of outputs, in the order of exported files: dictionaries do not trace."""

    def __init__(self, net: FaceNet) -> None:
        super().__init__()
        self.net = net
        self.names = tuple(net.config.output_shapes)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, 3, 112, 112) RGB in [0, 1] to the outputs in order."""
        outputs = self.net(image)
        return tuple(outputs[name] for name in self.names)


def read_source(model_or_checkpoint: Any, width_mult: float | None = None) -> Source | Pair:
    """A net from a module of either framework, or from a file.

    Args:
        model_or_checkpoint: an MLX or torch module of this package (its own ``to_weights()`` and
            ``config`` are all that is used), a ``.safetensors`` checkpoint, a run's folder (its
            best checkpoint), a ``.pt`` file of the original tool, or what this function gave
            before. Of a checkpoint's weights the averaged ones are taken when there are any.
        width_mult: of a ``.pt`` file's net, where it cannot be found out.

    Raises:
        CheckpointError: if the file is missing or malformed, or the weights do not fit.
        ValueError: if it is none of these, or a width is given for what knows its own.
    """
    is_path = isinstance(model_or_checkpoint, (str, Path))
    if is_path and Path(model_or_checkpoint).suffix == ".pt":
        return _from_pt(Path(model_or_checkpoint), width_mult)
    if width_mult is not None:
        raise UsageError("a width is for .pt files; everything else knows its own")
    if is_path:
        return _from_checkpoint(Path(model_or_checkpoint))
    if isinstance(model_or_checkpoint, (Source, Pair)):
        return model_or_checkpoint
    if not hasattr(model_or_checkpoint, "to_weights"):
        raise UsageError(
            f"cannot export a {type(model_or_checkpoint).__name__}; "
            "give a net of this package, a checkpoint or its folder"
        )
    return _from_module(model_or_checkpoint)


def _from_checkpoint(path: Path) -> Source:
    checkpoint = load_checkpoint(path)
    return Source(checkpoint.config, checkpoint.weights(), carried_metadata(checkpoint))


def _from_pt(path: Path, width_mult: float | None) -> Source:
    config, weights = read_pyfaceau(path, width_mult)
    return Source(config, weights, describe(config, source_hash=file_hash(path), crop="unknown"))


def _from_module(module: Any) -> Source:
    config, weights = module.config, module.to_weights()
    check_weights(config, weights, type(module).__name__)
    return Source(config, weights, describe(config, source_hash=_weights_hash(weights)))


def _weights_hash(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names and values: a net in memory has no file to take it from."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()
