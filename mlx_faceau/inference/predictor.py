"""The facade: BGR crops in, dictionaries of arrays out, whatever runs the net.

crop (112, 112, 3) uint8 BGR -> preprocess -> backend -> dict of float32 arrays in crop space.
"""

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.preprocess import CROP_SHAPE, check_crops, to_network_input
from mlx_faceau.errors import UsageError
from mlx_faceau.weights.builtin import BUILTIN, identity

from .backends import Backend, open_backend

ModelPath = str | os.PathLike[str]
Crops = np.ndarray | Sequence[np.ndarray]

_NO_CROPS = np.zeros((0, *CROP_SHAPE), np.uint8)


class _Predictor:
    """What both predictors share: opening a model, and running it over any number of crops."""

    kind: ClassVar[str]

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    def from_checkpoint(
        cls, path: ModelPath, device: str | None = None, width_mult: float | None = None
    ) -> Self:
        """A ``.safetensors`` checkpoint or a ``.pt`` file of the original tool, run by PyTorch.

        Args:
            path: the file, or a folder with ``checkpoint_best.safetensors``.
            device: ``"cpu"``, ``"cuda"`` or ``"mps"``; None or ``"auto"`` takes the best there is.
            width_mult: of a ``.pt`` file, where it cannot be found out.
        """
        return cls(open_backend(path, cls.kind, "torch", device=device, width_mult=width_mult))

    @classmethod
    def from_mlx(cls, path: ModelPath) -> Self:
        """A ``.safetensors`` checkpoint, a folder's best one, or ``"builtin"``, run by MLX."""
        return cls(open_backend(path, cls.kind, "mlx"))

    @classmethod
    def from_onnx(cls, path: ModelPath, providers: Sequence[Any] | None = None) -> Self:
        """An ``.onnx`` file, ours or the original tool's, or a folder's, run by ONNX Runtime.

        ``providers`` are execution providers, best first: names, or pairs of name and options; None
        takes CUDA where this build has it, else the CPU.
        """
        return cls(open_backend(path, cls.kind, "onnx", providers=providers))

    @classmethod
    def from_coreml(cls, path: ModelPath) -> Self:
        """An ``.mlpackage``, or a folder's, run by Core ML; macOS only."""
        return cls(open_backend(path, cls.kind, "coreml"))

    @classmethod
    def from_auto(cls, model_dir: ModelPath, prefer_coreml: bool = True) -> Self:
        """The best backend that can run here with a file of the model's folder, or with one file.

        On Apple Silicon Core ML is tried first, or with ``prefer_coreml=False`` last.
        """
        return cls(open_backend(model_dir, cls.kind, prefer_coreml=prefer_coreml))

    @property
    def backend(self) -> str:
        """``"coreml"``, ``"mlx"``, ``"onnx"`` or ``"torch"``."""
        return str(self._backend.describe()["backend"])

    def describe(self) -> dict[str, Any]:
        """What runs: backend, library, device, file, and the metadata that the file carries.

        ``model`` is the name and hash that results record (see ``builtin.identity``).
        """
        description = self._backend.describe()
        return {**description, "model": identity(description)}

    def _run(self, crops: Crops, batch: bool) -> dict[str, np.ndarray]:
        """Outputs of one crop, or of a batch with a leading N."""
        if isinstance(crops, (list, tuple)):
            if not batch:
                raise UsageError(
                    f"predict takes one crop {CROP_SHAPE}; use predict_batch for lists"
                )
            crops = np.concatenate([_NO_CROPS, *map(check_crops, crops)])
        shape = np.shape(crops)
        crops = check_crops(crops)  # type: ignore[arg-type]  # which refuses all but arrays
        if len(shape) == 4 - batch:
            other = "predict for one crop" if batch else "predict_batch for several"
            raise UsageError(f"got shape {shape}; use {other}")
        count, size = len(crops), self._backend.max_batch
        if count == 0:  # a blank face shows the shapes
            crops = np.zeros((1, *CROP_SHAPE), np.uint8)
        outputs = [
            self._backend.run(to_network_input(crops[start : start + size]))
            for start in range(0, len(crops), size)
        ]
        return {
            name: np.concatenate([output[name] for output in outputs])[:count]
            if batch
            else outputs[0][name][0]
            for name in outputs[0]
        }


class LandmarkPosePredictor(_Predictor):
    """68 landmarks, 6 pose and 34 shape parameters of aligned face crops.

    Made by :func:`load_predictor` or one of the ``from_`` methods. All raise ``BackendError`` if
    the backend cannot run here, with cause and remedy, and ``CheckpointError`` if the model is
    missing, damaged, or of the other kind.
    """

    kind = "landmark_pose"

    def predict(self, bgr_112: np.ndarray) -> dict[str, np.ndarray]:
        """Predict one face, a (112, 112, 3) uint8 BGR standard crop as ``FaceAligner`` cuts it.

        Returns:
            ``landmarks`` (68, 2) px of the crop; ``global_params`` (6,) scale, rx, ry, rz
            (radians), tx, ty (px of the crop); ``local_params`` (34,). float32.

        Raises:
            ValueError: for any other input.
        """
        return self._run(bgr_112, batch=False)

    def predict_batch(self, bgr_crops: Crops) -> dict[str, np.ndarray]:
        """Predict (N, 112, 112, 3) uint8 BGR, or a list of crops; N may be 0.

        Returns:
            The arrays of :meth:`predict` with a leading N.

        Raises:
            ValueError: for any other input.
        """
        return self._run(bgr_crops, batch=True)


class AUPredictor(_Predictor):
    """Intensities of 17 facial action units of aligned face crops, clamped to [0, 5].

    Made by :func:`load_au_predictor` or one of the ``from_`` methods; they raise as those of
    :class:`LandmarkPosePredictor` do.
    """

    kind = "au_prediction"

    @classmethod
    def from_checkpoint(
        cls,
        path: ModelPath,
        device: str | None = None,
        width_mult: float | None = None,
        dropout: float | None = None,
    ) -> Self:
        """As :meth:`LandmarkPosePredictor.from_checkpoint`.

        ``dropout`` is the net's, which a ``.pt`` file does not record; predictions do not depend on
        it.
        """
        own: dict[str, Any] = {"device": device, "width_mult": width_mult, "dropout": dropout}
        return cls(open_backend(path, cls.kind, "torch", **own))

    @staticmethod
    def get_au_names() -> list[str]:
        """Names of the action units in output order, ``AU01_r`` to ``AU45_r``."""
        return list(AU_NAMES)

    def predict(self, bgr_112: np.ndarray) -> dict[str, Any]:
        """Predict one face, a (112, 112, 3) uint8 BGR standard crop as ``FaceAligner`` cuts it.

        Returns:
            ``au_intensities`` (17,) float32 in [0, 5]; ``au_dict`` the same by name.

        Raises:
            ValueError: for any other input.
        """
        intensities = self._run(bgr_112, batch=False)["au_intensities"].clip(0.0, MAX_INTENSITY)
        return {"au_intensities": intensities, "au_dict": _by_name(intensities)}

    def predict_batch(self, bgr_crops: Crops) -> dict[str, Any]:
        """Predict (N, 112, 112, 3) uint8 BGR, or a list of crops; N may be 0.

        Returns:
            ``au_intensities`` (N, 17) float32 in [0, 5]; ``au_dicts`` a list of N dictionaries.

        Raises:
            ValueError: for any other input.
        """
        intensities = self._run(bgr_crops, batch=True)["au_intensities"].clip(0.0, MAX_INTENSITY)
        return {"au_intensities": intensities, "au_dicts": [_by_name(row) for row in intensities]}


def load_predictor(
    model_path: ModelPath | None = None,
    backend: str | None = None,
    providers: Sequence[Any] | None = None,
    threads: int | None = None,
) -> LandmarkPosePredictor:
    """Open a landmark net.

    Args:
        model_path: a model's folder, or a ``.safetensors``, ``.pt``, ``.onnx`` or ``.mlpackage``;
            None or ``"builtin"`` takes the built-in net.
        backend: ``"coreml"``, ``"mlx"``, ``"onnx"`` or ``"torch"``; None or ``"auto"`` takes the
            first that can run here, and logs why those before it were passed over.
        providers: execution providers of ONNX Runtime, best first, such as ``["cuda", "cpu"]``;
            with them the backend is ``"onnx"``.
        threads: that ONNX Runtime computes on; None takes all cores, which pays for batches. For
            one face at a time 1 takes the least CPU time. Other backends ignore it.

    Raises:
        BackendError: if no backend, or not the one asked for, can run; with cause and remedy.
        CheckpointError: if the model is missing, damaged, or an action unit net.
        ValueError: for an unknown backend, providers for another one than ``"onnx"``, or less than
            one thread.
    """
    path = BUILTIN if model_path is None else model_path
    opened = open_backend(path, "landmark_pose", backend, providers=providers, threads=threads)
    return LandmarkPosePredictor(opened)


def load_au_predictor(
    model_path: ModelPath | None = None,
    backend: str | None = None,
    providers: Sequence[Any] | None = None,
    threads: int | None = None,
) -> AUPredictor:
    """Open an action unit net; see :func:`load_predictor`."""
    path = BUILTIN if model_path is None else model_path
    opened = open_backend(path, "au_prediction", backend, providers=providers, threads=threads)
    return AUPredictor(opened)


def _by_name(intensities: np.ndarray) -> dict[str, float]:
    return dict(zip(AU_NAMES, intensities.tolist(), strict=True))
