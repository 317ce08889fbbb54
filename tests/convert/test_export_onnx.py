"""One ONNX file a net: its interface, its contents, and what happens when it cannot be made."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_nets import (
    AU,
    BOTH,
    LANDMARK,
    TOLERANCE,
    random_crops,
    random_weights,
    reference_outputs,
)

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mlx_faceau.convert import check as accuracy  # noqa: E402
from mlx_faceau.convert.check import CheckFailed, Row  # noqa: E402
from mlx_faceau.convert.export_onnx import export_to_onnx  # noqa: E402
from mlx_faceau.convert.source_model import read_source  # noqa: E402
from mlx_faceau.core.artifact_metadata import read_exported_metadata  # noqa: E402
from mlx_faceau.core.checkpoint import describe, file_hash, save_checkpoint  # noqa: E402
from mlx_faceau.errors import CheckpointError  # noqa: E402
from mlx_faceau.torch_fallback import build  # noqa: E402

BY_KIND = {config.kind: config for config in BOTH}
KINDS = pytest.mark.parametrize("kind", BY_KIND)


def network_input(crops: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2), np.float32) / 255


def random_net(config):
    net = build(config)
    net.load_weights_dict(random_weights(config))
    return net


def dimensions(value) -> list:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@KINDS
def test_names_order_and_shapes_are_those_the_original_tool_reads(model_folders, kind):
    graph = onnx.load(model_folders[kind] / f"{kind}.onnx").graph
    assert [(v.name, dimensions(v)) for v in graph.input] == [("image", ["batch", 3, 112, 112])]
    assert [(v.name, dimensions(v)) for v in graph.output] == {
        "landmark_pose": [
            ("landmarks", ["batch", 68, 2]),
            ("global_params", ["batch", 6]),
            ("local_params", ["batch", 34]),
        ],
        "au_prediction": [("au_intensities", ["batch", 17])],
    }[kind]
    floats = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert floats == {onnx.TensorProto.FLOAT}


@KINDS
def test_batch_norm_is_folded_and_all_weights_lie_in_the_one_file(model_folders, kind):
    model = onnx.load(model_folders[kind] / f"{kind}.onnx", load_external_data=False)
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == {"landmark_pose": 52, "au_prediction": 75}[kind]
    assert not any(t.external_data for t in model.graph.initializer)
    assert sorted(p.name for p in model_folders[kind].iterdir()) == sorted(
        ["checkpoint_best.safetensors", f"{kind}.onnx"]
    )


@KINDS
@pytest.mark.parametrize("batch", [1, 5])
def test_any_batch_size_gives_the_float64_net_s_answers(model_folders, kind, batch):
    crops = random_crops(batch, seed=batch)
    path = model_folders[kind] / f"{kind}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"image": network_input(crops)})
    for (name, true), got in zip(
        reference_outputs(BY_KIND[kind], crops).items(), outputs, strict=True
    ):
        np.testing.assert_allclose(got, true, rtol=0, atol=TOLERANCE[name], err_msg=name)


@KINDS
def test_metadata_says_what_the_net_is_and_which_checkpoint_it_came_from(model_folders, kind):
    folder = model_folders[kind]
    source_hash = file_hash(folder / "checkpoint_best.safetensors")
    assert read_exported_metadata(folder / f"{kind}.onnx") == {
        **describe(BY_KIND[kind]),
        "source_hash": source_hash,
        "precision": "float32",
        "input": "tensor",
        "batch": "dynamic",
    }


@pytest.mark.parametrize("opset", [11, 22, True, 17.5])
def test_an_opset_that_cannot_be_written_is_refused_before_any_work(tmp_path, opset):
    with pytest.raises(ValueError, match=r"expected a whole number in \[12, 21\]"):
        export_to_onnx(object(), tmp_path / "a.onnx", opset_version=opset)
    assert not list(tmp_path.iterdir())


def test_the_same_checkpoint_gives_the_same_bytes_in_another_process(model_folders, tmp_path):
    folder = model_folders["au_prediction"]
    code = "import sys; from mlx_faceau import export_to_onnx; export_to_onnx(*sys.argv[1:])"
    again = tmp_path / "again.onnx"
    subprocess.run(
        [sys.executable, "-c", code, str(folder), str(again)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert again.read_bytes() == (folder / "au_prediction.onnx").read_bytes()


@pytest.fixture(scope="module")
def training_net(tmp_path_factory):
    """A net in training that was exported, the file, and torch's random state before and after."""
    net, path = random_net(AU).train(), tmp_path_factory.mktemp("net") / "a.onnx"
    before = torch.random.get_rng_state()
    export_to_onnx(net, path)
    return net, path, (before, torch.random.get_rng_state())


def test_an_mlx_net_gives_the_same_file_as_the_torch_net_with_its_weights(training_net, tmp_path):
    pytest.importorskip("mlx.core")
    from mlx_faceau.models import build as build_mlx

    net = build_mlx(AU)
    net.load_weights_dict(random_weights(AU))
    export_to_onnx(net, tmp_path / "mlx.onnx")
    _, of_torch, _ = training_net
    assert (tmp_path / "mlx.onnx").read_bytes() == of_torch.read_bytes()


def test_averaged_weights_are_exported_where_a_checkpoint_has_them(tmp_path):
    raw, averaged = random_weights(AU, seed=1), random_weights(AU)
    arrays = {f"model.{k}": v for k, v in raw.items()} | {
        f"ema.{k}": v for k, v in averaged.items()
    }
    save_checkpoint(tmp_path / "a.safetensors", arrays, describe(AU))
    exported = read_source(tmp_path / "a.safetensors").weights
    assert exported.keys() == averaged.keys()
    for name, value in averaged.items():
        np.testing.assert_array_equal(exported[name], value)


def test_exporting_leaves_the_net_and_torch_s_random_state_alone(training_net):
    net, _, states = training_net
    assert net.training
    assert torch.equal(*states)


def test_a_file_that_fails_its_check_is_not_left_behind(tmp_path, monkeypatch):
    true_check = accuracy.check_export

    def failing(path: Path, source, crops):
        check = true_check(path, source, crops)
        row = Row("ONNX Runtime", "au_intensities", 1.0, 1.0, 1e-6, 1.0, 1e-4, "max")
        return type(check)(check.path, check.precision, (row,))

    monkeypatch.setattr(accuracy, "check_export", failing)
    old = tmp_path / "a.onnx"
    old.write_bytes(b"an older file")
    with pytest.raises(CheckFailed, match="au_intensities differs by 1"):
        export_to_onnx(random_net(AU), old)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an older file"]


def test_what_is_no_net_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"the ending must be \.onnx"):
        export_to_onnx(random_net(LANDMARK), tmp_path / "a.mlpackage")
    with pytest.raises(ValueError, match="cannot export a Linear"):
        export_to_onnx(torch.nn.Linear(2, 2), tmp_path / "a.onnx")
    with pytest.raises(CheckpointError, match="no such file"):
        export_to_onnx(tmp_path / "none.safetensors", tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
