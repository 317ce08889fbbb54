"""Runs an exported ``.mlpackage`` with Core ML: macOS only, on the Neural Engine where it can."""

import threading
from pathlib import Path
from typing import Any

import coremltools
import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.artifact_metadata import read_exported_metadata
from mlx_faceau.core.checkpoint import config_of
from mlx_faceau.core.preprocess import fill_batch, to_crops
from mlx_faceau.errors import BackendError, CheckpointError

from . import Backend

INPUT_NAME = "image"


class CoreMLBackend(Backend):
    """An opened Core ML package: of one face a call or a fixed number, of arrays or images.

    Its ``device`` names the units that Core ML may choose from; it does not report its choice.
    """

    name = "coreml"
    library = f"coremltools {coremltools.__version__}"

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.metadata = read_exported_metadata(self.path)
        if self.metadata is None:
            raise CheckpointError(
                f"{self.path}: carries no mlx-faceau settings; export it with this package"
            )
        self.config = config_of(self.metadata, self.path)
        self._batch = int(self.metadata.get("batch", 1))
        self._images = self.metadata.get("input") == "image"
        units = coremltools.ComputeUnit.ALL
        self.device = units.name
        self._lock = threading.Lock()  # Apple promises nothing about one model in two threads
        try:
            self._model = coremltools.models.MLModel(str(self.path), compute_units=units)
            # Only predicting tells that Core ML refused it: opening merely warns.
            self.run(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32))
        except Exception as error:  # coremltools raises the base class itself
            raise BackendError(f"{self.path}: Core ML cannot load it: {error}") from None

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        # Core ML batches over a list of inputs, each of as many faces as the package takes.
        parts: list[Any]
        if self._images:
            from PIL import Image  # what coremltools takes images as

            parts = [Image.fromarray(crop[..., ::-1]) for crop in to_crops(images)]
        else:
            whole = fill_batch(images, len(images) + -len(images) % self._batch)
            nchw = np.ascontiguousarray(whole.transpose(0, 3, 1, 2))
            parts = np.split(nchw, len(nchw) // self._batch)
        with self._lock:
            outputs = self._model.predict([{INPUT_NAME: part} for part in parts])
        return {
            name: np.concatenate([output[name] for output in outputs])
            .astype(np.float32)
            .reshape(-1, *shape)[: len(images)]
            for name, shape in self.config.output_shapes.items()
        }
