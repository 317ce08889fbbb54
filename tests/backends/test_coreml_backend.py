"""Core ML behind its boundary: a fake coremltools shows what would be handed to it.

On macOS the last test runs the real one.
"""

import platform
import sys
import types
from importlib import import_module

import numpy as np
import pytest
from random_nets import AU, LANDMARK, random_crops, reference_outputs
from wire import write_mlpackage

from mlx_faceau.core.checkpoint import describe
from mlx_faceau.core.preprocess import to_network_input
from mlx_faceau.errors import BackendError, CheckpointError


class FakeModel:
    """Answers each image with its red channel's first pixel, and remembers how it was called."""

    refusal: Exception = RuntimeError("compiler error")

    def __init__(self, path: str, compute_units: object) -> None:
        self.path, self.units, self.calls = path, compute_units, []

    def predict(self, inputs: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        if "refused" in self.path:  # coremltools opens such a file with a warning
            raise self.refusal
        self.calls.append(inputs)
        red = [entry["image"][0, 0, 0, 0] for entry in inputs]
        return [
            {
                name: np.full((1, *shape), value, np.float16)
                for name, shape in {**LANDMARK.output_shapes, **AU.output_shapes}.items()
            }
            for value in red
        ]


@pytest.fixture
def backend_class(monkeypatch):
    fake = types.SimpleNamespace(
        __version__="9.0",
        ComputeUnit=types.SimpleNamespace(ALL=types.SimpleNamespace(name="ALL")),
        models=types.SimpleNamespace(MLModel=FakeModel),
    )
    monkeypatch.setitem(sys.modules, "coremltools", fake)
    monkeypatch.delitem(sys.modules, "mlx_faceau.inference.backends.coreml_backend", raising=False)
    yield import_module("mlx_faceau.inference.backends.coreml_backend").CoreMLBackend
    sys.modules.pop("mlx_faceau.inference.backends.coreml_backend")


def test_a_batch_is_a_list_of_single_rgb_images_with_channels_first(backend_class, tmp_path):
    backend = backend_class(write_mlpackage(tmp_path / "a.mlpackage", describe(LANDMARK)))
    backend._model.calls.clear()  # what opening it has tried
    images = to_network_input(random_crops(6))
    outputs = backend.run(images)
    sent = np.concatenate([e["image"] for call in backend._model.calls for e in call])
    assert sent.dtype == np.float32
    np.testing.assert_array_equal(sent, images.transpose(0, 3, 1, 2))
    assert {name: value.shape for name, value in outputs.items()} == {
        name: (6, *shape) for name, shape in LANDMARK.output_shapes.items()
    }
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(outputs["global_params"][:, 0], images[:, 0, 0, 0], atol=1e-3)


def test_it_says_what_runs(backend_class, tmp_path):
    package = write_mlpackage(tmp_path / "a.mlpackage", describe(AU))
    assert backend_class(package).describe() == {
        "backend": "coreml",
        "path": str(package),
        "kind": "au_prediction",
        "device": "ALL",
        "library": "coremltools 9.0",
        "metadata": describe(AU),
    }


def test_packages_of_other_tools_are_refused(backend_class, tmp_path):
    package = write_mlpackage(tmp_path / "a.mlpackage", None)
    with pytest.raises(CheckpointError, match="carries no mlx-faceau settings"):
        backend_class(package)


@pytest.mark.parametrize("kind", [RuntimeError, Exception])
def test_what_core_ml_refuses_is_one_line(backend_class, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(FakeModel, "refusal", kind("compiler error"))
    package = write_mlpackage(tmp_path / "refused.mlpackage", describe(AU))
    with pytest.raises(BackendError, match="Core ML cannot load it: compiler error"):
        backend_class(package)


@pytest.mark.skipif(platform.system() != "Darwin", reason="Core ML predicts on macOS only")
def test_real_core_ml_gives_the_float64_net_s_outputs(core_ml_packages):
    from mlx_faceau.inference.backends.coreml_backend import CoreMLBackend

    crops = random_crops(2)
    outputs = CoreMLBackend(core_ml_packages["au_prediction"]).run(to_network_input(crops))
    expected = reference_outputs(AU, crops)["au_intensities"]
    assert np.abs(outputs["au_intensities"] - expected).mean() < 0.02
