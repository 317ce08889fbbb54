"""ONNX Runtime: our files and the original tool's, providers, large batches, threads."""

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from random_nets import AU, BOTH, LANDMARK, TOLERANCE, random_crops, reference_outputs

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from mlx_faceau.core.artifact_metadata import METADATA_KEY  # noqa: E402
from mlx_faceau.core.checkpoint import describe  # noqa: E402
from mlx_faceau.core.preprocess import to_network_input  # noqa: E402
from mlx_faceau.errors import BackendError, CheckpointError  # noqa: E402
from mlx_faceau.inference.backends.onnx_backend import (  # noqa: E402
    CPU,
    CUDA,
    CUDA_OPTIONS,
    ONNXBackend,
    pick_providers,
    session_options,
)

BY_KIND = {config.kind: config for config in BOTH}
KINDS = pytest.mark.parametrize("kind", BY_KIND)


@pytest.fixture
def au_model(model_folders):
    """The AU net's file, to be changed."""
    return onnx.load(model_folders["au_prediction"] / "au_prediction.onnx")


def saved(model, folder: Path) -> Path:
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


@KINDS
def test_outputs_are_the_float64_net_s(model_folders, kind):
    crops = random_crops(3)
    outputs = ONNXBackend(model_folders[kind] / f"{kind}.onnx").run(to_network_input(crops))
    for name, true in reference_outputs(BY_KIND[kind], crops).items():
        assert outputs[name].dtype == np.float32
        limit = TOLERANCE[name]
        np.testing.assert_allclose(outputs[name], true, rtol=0, atol=limit, err_msg=name)


def test_a_large_batch_gives_what_its_images_give_alone(model_folders):
    backend = ONNXBackend(model_folders["au_prediction"] / "au_prediction.onnx")
    images = to_network_input(random_crops(130))
    together = backend.run(images)["au_intensities"]
    assert together.shape == (130, 17)
    for index in (0, 63, 64, 129):
        alone = backend.run(images[index : index + 1])["au_intensities"][0]
        np.testing.assert_allclose(together[index], alone, atol=1e-5)


def test_threads_share_one_session(model_folders):
    backend = ONNXBackend(model_folders["au_prediction"] / "au_prediction.onnx")
    batches = [to_network_input(random_crops(2, seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(backend.run, batches))
    for batch, outputs in zip(batches, together, strict=True):
        expected = backend.run(batch)["au_intensities"]
        np.testing.assert_allclose(outputs["au_intensities"], expected, atol=1e-6)


@KINDS
def test_it_says_what_runs(model_folders, kind):
    path = model_folders[kind] / f"{kind}.onnx"
    about = ONNXBackend(path, providers=[CPU]).describe()
    assert (about["backend"], about["kind"], about["device"]) == ("onnx", kind, CPU)
    assert about["path"] == str(path)
    assert about["metadata"].items() >= describe(BY_KIND[kind]).items()


def test_sessions_keep_all_optimisations_and_do_not_spin():
    options = session_options()
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("available", "requested", "expected"),
    [
        ([CPU], None, [CPU]),
        ([CPU], "cpu", [CPU]),
        ([CUDA, CPU], (CUDA, {"use_tf32": "0"}), [(CUDA, {"use_tf32": "0"})]),
        (["CoreMLExecutionProvider", CPU], None, [CPU]),
        (["TensorrtExecutionProvider", CUDA, CPU], None, [(CUDA, CUDA_OPTIONS), CPU]),
        ([CUDA, CPU], [CUDA], [(CUDA, CUDA_OPTIONS)]),
        ([CUDA, CPU], [(CUDA, {"use_tf32": "0"}), CPU], [(CUDA, {"use_tf32": "0"}), CPU]),
        (
            ["CoreMLExecutionProvider", CPU],
            ["CoreMLExecutionProvider"],
            ["CoreMLExecutionProvider"],
        ),
    ],
)
def test_providers_are_cuda_then_cpu_unless_asked_for_by_name(available, requested, expected):
    assert pick_providers(available, requested) == expected


def test_cuda_does_not_tune_every_batch_size_anew():
    assert CUDA_OPTIONS["cudnn_conv_algo_search"] == "HEURISTIC"


def test_a_provider_that_is_not_there_names_the_build_that_has_it():
    with pytest.raises(BackendError, match=r"has no CUDAExecutionProvider.*mlx-faceau\[cuda\]"):
        pick_providers([CPU], [CUDA])
    with pytest.raises(ValueError, match="no execution provider"):
        pick_providers([CPU], [])
    for wrong in (5, [5], [None], {"cpu": {}}, [("cpu",)]):
        with pytest.raises(ValueError, match="expected names, or pairs of name and options"):
            pick_providers([CPU], wrong)


@KINDS
def test_files_of_the_original_tool_are_known_by_their_exact_shapes(model_folders, tmp_path, kind):
    model = onnx.load(model_folders[kind] / f"{kind}.onnx")
    del model.metadata_props[:]
    names = {value.name: f"theirs_{i}" for i, value in enumerate(model.graph.output)}
    names["image"] = "input"
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    backend = ONNXBackend(saved(model, tmp_path))
    assert (backend.describe()["kind"], backend.describe()["metadata"]) == (kind, None)
    images = to_network_input(random_crops(2))
    ours = ONNXBackend(model_folders[kind] / f"{kind}.onnx").run(images)
    for name, values in backend.run(images).items():
        np.testing.assert_array_equal(values, ours[name])


def set_batch(model, size):
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size


def test_other_interfaces_are_refused_with_what_was_found(au_model, tmp_path):
    del au_model.metadata_props[:]
    set_batch(au_model, 1)
    with pytest.raises(CheckpointError, match=r"are image tensor\(float\) \[1, 3, 112, 112\]"):
        ONNXBackend(saved(au_model, tmp_path))


def test_metadata_of_another_net_is_refused(au_model, tmp_path):
    onnx.helper.set_model_props(au_model, {METADATA_KEY: json.dumps(describe(LANDMARK))})
    with pytest.raises(CheckpointError, match="not those of a landmark_pose net"):
        ONNXBackend(saved(au_model, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"au_names": ["AU45_r"]}, "au_names is"),
        ({"color_order": "BGR"}, "color_order is 'BGR', expected 'RGB'"),
        ({"crop": "tight"}, "crop is 'tight', expected 'standard'"),
        ({"version": 2}, "update mlx-faceau"),
    ],
)
def test_metadata_of_other_conventions_is_refused(au_model, tmp_path, change, message):
    metadata = json.dumps({**describe(AU), **change})
    onnx.helper.set_model_props(au_model, {METADATA_KEY: metadata})
    with pytest.raises(CheckpointError, match=message):
        ONNXBackend(saved(au_model, tmp_path))


def test_missing_and_damaged_files_are_refused_in_one_line(model_folders, tmp_path):
    good = model_folders["au_prediction"] / "au_prediction.onnx"
    half = tmp_path / "half.onnx"
    half.write_bytes(good.read_bytes()[:100_000])
    empty = tmp_path / "empty.onnx"
    empty.touch()
    text = tmp_path / "text.onnx"
    shutil.copy(__file__, text)
    for path in (half, empty, text):
        with pytest.raises(CheckpointError, match="not a readable ONNX file") as caught:
            ONNXBackend(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="no such file"):
        ONNXBackend(tmp_path / "none.onnx")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_a_file_whose_name_is_no_utf_8_is_read(model_folders, tmp_path):
    good = model_folders["au_prediction"] / "au_prediction.onnx"
    copy = shutil.copy(good, tmp_path / os.fsdecode(b"caf\xe9.onnx"))
    crops = to_network_input(random_crops(2))
    outputs = [ONNXBackend(path).run(crops)["au_intensities"] for path in (good, copy)]
    np.testing.assert_array_equal(*outputs)
