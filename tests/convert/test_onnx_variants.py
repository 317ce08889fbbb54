"""ONNX files in float16, with uint8 crops, of fixed batches and of both nets: equal to the nets."""

import dataclasses

import numpy as np
import pytest
from random_nets import (
    AU,
    BOTH,
    LANDMARK,
    TOLERANCE,
    random_crops,
    random_source,
    reference_outputs,
)

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mlx_faceau.convert import export_onnx  # noqa: E402
from mlx_faceau.convert.check import CalibrationFaces, CheckFailed, check_export  # noqa: E402
from mlx_faceau.convert.export_onnx import export_to_onnx  # noqa: E402
from mlx_faceau.convert.source_model import CombinedModel, SourceModel  # noqa: E402
from mlx_faceau.convert.variants import Variant  # noqa: E402
from mlx_faceau.core.artifact_metadata import read_exported_metadata  # noqa: E402
from mlx_faceau.errors import ExportError  # noqa: E402

BY_KIND = {config.kind: config for config in BOTH}
KINDS = pytest.mark.parametrize("kind", BY_KIND)


def quiet(config) -> SourceModel:
    """A net whose last layers answer faintly, so that float16's error stays within its bound."""
    good = random_source(config)
    faint = {
        name: value * np.float32(0.1)
        for name, value in good.weights.items()
        if name.endswith("_head.layers.2.weight")
    }
    return dataclasses.replace(good, weights={**good.weights, **faint})


def run(path, values) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})


def network_input(crops: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(crops[..., ::-1].transpose(0, 3, 1, 2), np.float32) / 255


def dimensions(value) -> list:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def uint8_files(onnx_file):
    """By kind of net a file that takes uint8 crops."""
    return {kind: onnx_file(config, input="uint8") for kind, config in BY_KIND.items()}


@pytest.fixture(scope="module")
def float16_files(tmp_path_factory):
    """By kind of net a quiet one's file in float16, and its check."""
    folder, files = tmp_path_factory.mktemp("float16"), {}
    for kind, config in BY_KIND.items():
        path = folder / f"{kind}.onnx"
        files[kind] = path, export_to_onnx(quiet(config), path, precision="float16")
    return files


@KINDS
def test_uint8_files_read_bgr_crops_as_cv2_gives_them(uint8_files, kind):
    path = uint8_files[kind]
    (image,) = onnx.load(path).graph.input
    assert (image.name, dimensions(image)) == ("image", ["batch", 112, 112, 3])
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert read_exported_metadata(path)["input"] == "uint8"
    crops = random_crops(3)
    true = reference_outputs(BY_KIND[kind], crops)
    for (name, expected), got in zip(true.items(), run(path, crops), strict=True):
        limit = TOLERANCE[name]
        np.testing.assert_allclose(got, expected, rtol=0, atol=limit, err_msg=name)


def test_preprocessing_in_the_graph_has_the_bits_of_preprocessing_before_it(
    uint8_files, model_folders
):
    path = uint8_files["au_prediction"]
    plain = model_folders["au_prediction"] / "au_prediction.onnx"  # of the same net
    crops = random_crops(2)
    np.testing.assert_array_equal(run(path, crops)[0], run(plain, network_input(crops))[0])


@KINDS
def test_float16_files_hold_half_the_bytes_and_answer_in_float32(
    float16_files, model_folders, kind
):
    path, check = float16_files[kind]
    assert [row.limited for row in check.rows] == ["mean"] * len(check.rows)
    assert all(0 < row.max_error < 0.3 for row in check.rows)
    full = model_folders[kind] / f"{kind}.onnx"  # of a net of the same shapes
    assert path.stat().st_size < 0.6 * full.stat().st_size
    graph = onnx.load(path).graph
    ends = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert ends == {onnx.TensorProto.FLOAT}
    weights = {t.data_type for t in graph.initializer if len(t.dims) > 1}
    assert weights == {onnx.TensorProto.FLOAT16}


def test_last_activations_stay_float32_so_that_pixels_are_not_rounded_to_sixteenths(float16_files):
    path, _ = float16_files["landmark_pose"]
    landmarks = run(path, network_input(random_crops(2)))[0]
    above = landmarks[landmarks > 64]  # where float16 steps are 1/16
    assert (above * 16 % 1 != 0).mean() > 0.9


def test_a_weight_beyond_float16_is_refused_by_name(tmp_path):
    good = random_source(AU)
    weights = dict(good.weights)
    weights["backbone.stem.norm.weight"] = weights["backbone.stem.norm.weight"] * np.float32(1e6)
    large = dataclasses.replace(good, weights=weights)
    with pytest.raises(ExportError, match="beyond float16; export float32"):
        export_to_onnx(large, tmp_path / "a.onnx", precision="float16")
    assert not list(tmp_path.iterdir())


def test_a_fixed_batch_takes_that_many_faces_and_no_others(onnx_file):
    path = onnx_file(AU, batch=3)
    graph = onnx.load(path).graph
    assert [dimensions(v)[0] for v in (*graph.input, *graph.output)] == [3, 3]
    assert run(path, network_input(random_crops(3)))[0].shape == (3, 17)
    with pytest.raises(Exception, match="invalid dimensions"):
        run(path, network_input(random_crops(2)))


def test_both_nets_in_one_file_give_what_each_gives_alone(onnx_file):
    both = onnx_file(LANDMARK, AU, input="uint8")
    crops = random_crops(2)
    expected = {**reference_outputs(LANDMARK, crops), **reference_outputs(AU, crops)}
    names = [v.name for v in onnx.load(both).graph.output]
    assert names == [*expected] == [*LANDMARK.output_shapes, *AU.output_shapes]
    for (name, true), values in zip(expected.items(), run(both, crops), strict=True):
        limit = TOLERANCE[name]
        np.testing.assert_allclose(values, true, rtol=0, atol=limit, err_msg=name)
    metadata = read_exported_metadata(both)
    assert metadata["kind"] == "combined"
    assert {k: v["source_hash"] for k, v in metadata["nets"].items()} == {k: k for k in BY_KIND}


def test_a_pair_is_one_net_of_each_kind_in_order():
    with pytest.raises(ValueError, match="expected a landmark_pose and a au_prediction net"):
        CombinedModel(random_source(AU), random_source(LANDMARK))
    pair = CombinedModel(random_source(LANDMARK), random_source(AU))
    with pytest.raises(ValueError, match="got landmark_pose and combined"):
        CombinedModel(random_source(LANDMARK), pair)


@pytest.mark.parametrize("opset", [12, 13, 18, 21])
def test_old_and_new_opsets_are_written_in_float16_with_uint8_crops(tmp_path, opset):
    export_to_onnx(
        random_source(AU),
        tmp_path / "a.onnx",
        opset_version=opset,
        precision="float16",
        input="uint8",
    )
    written = [(e.domain, e.version) for e in onnx.load(tmp_path / "a.onnx").opset_import]
    assert written == [("", opset)]


def test_the_same_net_gives_the_same_bytes():
    variant = Variant("onnx", precision="float16", input="uint8", batch=2)
    first, again = (
        export_onnx.onnx_bytes(export_onnx.traced(net, variant), net, variant, None)
        for net in (random_source(AU), random_source(AU))
    )
    assert first == again


# --- mistakes


def swapped_channels(weights):
    name = "backbone.stem.conv.weight"
    return {name: np.ascontiguousarray(weights[name][..., ::-1])}


def wrong_scale(weights):
    name = "backbone.stem.conv.weight"
    return {name: weights[name] * 255}


def two_units_swapped(weights):
    order = [1, 0, *range(2, 17)]
    names = [f"au_head.layers.2.{part}" for part in ("weight", "bias")]
    return {name: weights[name][order] for name in names}


def dropped_layer(weights):
    names = [f"backbone.blocks.14.project.norm.{part}" for part in ("weight", "bias")]
    return {name: np.zeros_like(weights[name]) for name in names}


@pytest.fixture(scope="module")
def mistaken_trace(request):
    """A trace with a mistake: it is the same for every precision and type of input."""
    good = random_source(AU)
    weights = {**good.weights, **request.param(good.weights)}
    model = export_onnx.traced(dataclasses.replace(good, weights=weights), Variant("onnx"))
    return model.SerializeToString()


MISTAKES = [swapped_channels, wrong_scale, two_units_swapped, dropped_layer]


@pytest.mark.parametrize(
    ("mistaken_trace", "asked"),
    [
        *((mistake, {"precision": "float16"}) for mistake in MISTAKES),
        # Held to the limits of float32, as those of test_export_check.py.
        (swapped_channels, {"input": "uint8"}),
        (swapped_channels, {"precision": "int8"}),
    ],
    indirect=["mistaken_trace"],
    ids=lambda value: str(next(iter(value.values()))) if isinstance(value, dict) else None,
)
def test_an_exporter_that_makes_a_classic_mistake_writes_nothing(
    tmp_path, monkeypatch, asked, mistaken_trace
):
    def traced(given, variant):
        return onnx.load_model_from_string(mistaken_trace)

    monkeypatch.setattr(export_onnx, "traced", traced)
    if asked.get("precision") == "int8":
        asked = {**asked, "faces": CalibrationFaces(random_crops(2), random_crops(2), {}, "h")}
    with pytest.raises(CheckFailed, match="au_intensities differs by"):
        export_to_onnx(random_source(AU), tmp_path / "a.onnx", **asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("swap", ["Gather", "Div"])
def test_preprocessing_that_forgets_a_step_fails(uint8_files, tmp_path, swap):
    """The colours' order, or the division by 255, left out of a uint8 file."""
    model = onnx.load(uint8_files["au_prediction"])
    node = next(n for n in model.graph.node if n.op_type == swap and n.name.startswith("/input"))
    for other in model.graph.node:
        other.input[:] = [node.input[0] if x == node.output[0] else x for x in other.input]
    model.graph.node.remove(node)
    onnx.save(model, tmp_path / "b.onnx")
    check = check_export(tmp_path / "b.onnx", random_source(AU))
    assert check.problems == ()
    assert not check.passed


def test_a_file_that_takes_another_input_than_it_says_fails(uint8_files, tmp_path):
    model = onnx.load(uint8_files["au_prediction"])
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"uint8"', '"tensor"')
    onnx.save(model, tmp_path / "b.onnx")
    check = check_export(tmp_path / "b.onnx", random_source(AU))
    assert check.problems == (
        "input image is uint8 ('batch', 112, 112, 3), expected float32 (batch, 3, 112, 112)",
    )
