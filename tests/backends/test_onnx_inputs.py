"""ONNX Runtime with uint8 crops and fixed batches, and what is handed to CUDA, through a fake."""

import json
import types

import numpy as np
import pytest
from random_nets import AU, LANDMARK, random_crops

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from mlx_faceau import (  # noqa: E402
    AUPredictor,
    FacePipeline,
    load_au_predictor,
    load_predictor,
)
from mlx_faceau.core.artifact_metadata import METADATA_KEY  # noqa: E402
from mlx_faceau.core.checkpoint import describe  # noqa: E402
from mlx_faceau.core.preprocess import to_crops, to_network_input  # noqa: E402
from mlx_faceau.errors import CheckpointError  # noqa: E402
from mlx_faceau.inference.backends import onnx_backend  # noqa: E402
from mlx_faceau.inference.backends.onnx_backend import (  # noqa: E402
    CPU,
    CUDA,
    CUDA_OPTIONS,
    ONNXBackend,
    pick_providers,
    session_options,
)


def test_pixels_survive_the_way_to_network_input_and_back():
    crops = np.arange(256, dtype=np.uint8).repeat(3 * 49).reshape(1, 112, 112, 3)
    crops[..., 0] = 255 - crops[..., 0]
    np.testing.assert_array_equal(to_crops(to_network_input(crops)), crops)


@pytest.mark.parametrize(
    "asked",
    [{"batch": 3}, {"input": "uint8", "batch": 1}],  # below: uint8 of any batch
    ids=["batch3", "uint8-batch1"],
)
def test_every_input_gives_what_the_plain_file_gives(model_folders, onnx_file, asked):
    plain = model_folders["au_prediction"] / "au_prediction.onnx"
    crops = random_crops(7)
    expected = AUPredictor.from_onnx(plain).predict_batch(crops)["au_intensities"]
    got = AUPredictor.from_onnx(onnx_file(AU, **asked)).predict_batch(crops)["au_intensities"]
    assert got.shape == (7, 17)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_a_file_of_both_nets_gives_each_predictor_its_own_outputs(model_folders, onnx_file):
    both = onnx_file(LANDMARK, AU, input="uint8")
    crops = random_crops(3)
    for load, kind in ((load_predictor, LANDMARK.kind), (load_au_predictor, AU.kind)):
        got = load(both, backend="onnx").predict_batch(crops)
        expected = load(model_folders[kind], backend="onnx").predict_batch(crops)
        assert list(got) == list(expected)
        for name in (name for name in got if name != "au_dicts"):
            np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=1e-4)
        assert load(both).describe()["metadata"]["kind"] == kind
    with pytest.raises(CheckpointError, match="holds both nets"):
        ONNXBackend(both)  # which does not say which net


def test_threads_are_those_asked_for_else_the_runtime_s_choice():
    assert session_options(3).intra_op_num_threads == 3
    assert session_options().intra_op_num_threads == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["cpu"], [CPU]),
        (["CUDA", "cpu"], [(CUDA, CUDA_OPTIONS), CPU]),
        (["cudaexecutionprovider"], [(CUDA, CUDA_OPTIONS)]),
        ([("cuda", {"device_id": 1})], [(CUDA, {"device_id": 1})]),
    ],
    ids=["cpu", "both", "long", "options"],
)
def test_providers_have_short_names(asked, expected):
    assert pick_providers([CUDA, CPU], asked) == expected


def test_providers_reach_the_runtime_and_choose_its_backend(model_folders):
    folder = model_folders["au_prediction"]
    assert load_au_predictor(folder, providers=["cpu"]).describe()["device"] == CPU
    with pytest.raises(ValueError, match="providers are of ONNX Runtime, but the backend is 'mlx'"):
        load_au_predictor(folder, backend="mlx", providers=["cpu"])


def threads_of(predictor) -> int:
    return predictor._backend._session.get_session_options().intra_op_num_threads


def test_threads_reach_the_runtime_and_change_no_result(model_folders):
    folder, crops = model_folders["au_prediction"], random_crops(3)
    alone = load_au_predictor(folder, "onnx", threads=1)
    all_cores = load_au_predictor(folder, "onnx")
    assert (threads_of(alone), threads_of(all_cores)) == (1, 0)
    np.testing.assert_allclose(
        alone.predict_batch(crops)["au_intensities"],
        all_cores.predict_batch(crops)["au_intensities"],
        rtol=0,
        atol=1e-5,
    )
    for threads in (0, 2.5, "2"):
        with pytest.raises(ValueError, match=f"threads {threads!r}: expected at least 1"):
            load_au_predictor(folder, "onnx", threads=threads)


def test_other_backends_take_no_heed_of_threads(model_folders):
    assert load_au_predictor(model_folders["au_prediction"], "torch", threads=1).backend == "torch"


def test_the_pipeline_runs_each_net_on_one_thread(model_folders):
    pipeline = FacePipeline(
        model_folders["landmark_pose"],
        model_folders["au_prediction"],
        detector=lambda _: [],
        backend="onnx",
    )
    assert (threads_of(pipeline._landmarks), threads_of(pipeline._aus)) == (1, 1)


def test_cuda_computes_float32_in_float32():
    assert CUDA_OPTIONS["use_tf32"] == "0"


# --- CUDA behind its boundary


class FakeSession:
    """A CUDA session: each intensity is its image's mean."""

    def __init__(self, path, options, providers) -> None:
        self.providers, self.runs = providers, []

    def get_providers(self):
        return [CUDA, CPU]

    def get_modelmeta(self):
        return types.SimpleNamespace(
            custom_metadata_map={METADATA_KEY: json.dumps({**describe(AU), "input": "tensor"})}
        )

    def get_inputs(self):
        return [_port("image", ["batch", 3, 112, 112])]

    def get_outputs(self):
        return [_port("au_intensities", ["batch", 17])]

    def run(self, names, feeds):
        (images,) = feeds.values()
        assert images.flags.c_contiguous
        self.runs.append(len(images))
        return [np.repeat(images.mean(axis=(1, 2, 3))[:, None], 17, axis=1)]


def _port(name, shape):
    return types.SimpleNamespace(name=name, type="tensor(float)", shape=shape)


@pytest.fixture
def cuda(monkeypatch, tmp_path):
    runtime = types.SimpleNamespace(
        __version__="9",
        InferenceSession=FakeSession,
        SessionOptions=onnxruntime.SessionOptions,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
        get_available_providers=lambda: [CUDA, CPU],
    )
    monkeypatch.setattr(onnx_backend, "onnxruntime", runtime)
    (tmp_path / "a.onnx").touch()
    return ONNXBackend(tmp_path / "a.onnx")


def test_cuda_gets_its_settings_and_is_what_describe_names(cuda):
    assert cuda._session.providers == [(CUDA, CUDA_OPTIONS), CPU]
    assert cuda.describe()["device"] == CUDA


def test_batches_are_filled_up_to_a_few_sizes_and_cut_back(cuda):
    rng = np.random.default_rng(0)
    for count in (1, 2, 4, 5, 64):
        images = rng.random((count, 112, 112, 3), np.float32)
        got = cuda.run(images)["au_intensities"]
        assert got.shape == (count, 17)
        np.testing.assert_allclose(got[:, 0], images.mean(axis=(1, 2, 3)), rtol=1e-5)
    assert cuda._session.runs == [1, 4, 4, 16, 64]
