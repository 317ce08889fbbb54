"""int8 files: scales, weights and structure against NumPy, and what becomes of lost accuracy."""

from functools import cache

import numpy as np
import pytest
from random_nets import AU, BOTH, LANDMARK, random_crops, random_weights

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import numpy_helper  # noqa: E402

from mlx_faceau.convert import check, export_onnx, onnx_graph  # noqa: E402
from mlx_faceau.convert.check import (  # noqa: E402
    AccuracyChange,
    CalibrationFaces,
    CheckFailed,
    check_export,
    measure_change,
    network_input,
)
from mlx_faceau.convert.export_onnx import export_to_onnx  # noqa: E402
from mlx_faceau.convert.onnx_graph import float_blocks  # noqa: E402
from mlx_faceau.convert.source_model import SourceModel, read_source  # noqa: E402
from mlx_faceau.convert.variants import Variant  # noqa: E402
from mlx_faceau.core.checkpoint import describe  # noqa: E402
from mlx_faceau.errors import ExportError  # noqa: E402

BY_KIND = {config.kind: config for config in BOTH}
KINDS = pytest.mark.parametrize("kind", BY_KIND)
INT8 = Variant("onnx", "int8")


def source(config) -> SourceModel:
    return SourceModel(config, random_weights(config), describe(config, source_hash="0"))


def some_faces(labels=None) -> CalibrationFaces:
    return CalibrationFaces(random_crops(4), random_crops(3, seed=1), labels or {}, hash="abc")


@cache
def trace_bytes(kind: str) -> bytes:
    """What all files of a net are made of."""
    return export_onnx.traced(source(BY_KIND[kind]), INT8).SerializeToString()


def trace(kind: str) -> onnx.ModelProto:
    return onnx.load_model_from_string(trace_bytes(kind))


def int8_file(net: SourceModel, model: onnx.ModelProto | None = None) -> bytes:
    """Made of the net's trace, if that is given."""
    model = export_onnx.traced(net, INT8) if model is None else model
    return export_onnx.onnx_bytes(model, net, INT8, some_faces())


@pytest.fixture(scope="module")
def int8_files():
    return {kind: int8_file(source(config), trace(kind)) for kind, config in BY_KIND.items()}


@pytest.fixture(scope="module")
def graphs(int8_files):
    return {kind: onnx.load_model_from_string(data).graph for kind, data in int8_files.items()}


@pytest.fixture
def au_conversion(int8_files, monkeypatch) -> None:
    """Stands for the conversion of the AU net, whose files were made before."""
    in_float = export_onnx.onnx_bytes

    def made_before(model, source, variant, faces):
        asked = model, source, variant, faces
        return in_float(*asked) if faces is None else int8_files["au_prediction"]

    monkeypatch.setattr(export_onnx, "traced", lambda source, variant: trace("au_prediction"))
    monkeypatch.setattr(export_onnx, "onnx_bytes", made_before)


def test_the_landmark_net_keeps_one_block_in_float_the_au_net_those_without_squeeze():
    assert float_blocks(LANDMARK) == 1
    assert float_blocks(AU) == 3


@KINDS
def test_layers_are_float_or_int8_as_designed(graphs, kind):
    config = BY_KIND[kind]
    readers = {}
    nodes = graphs[kind].node
    decoded = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    for node in nodes:
        if node.op_type in ("Conv", "Gemm"):
            coded = [name in decoded for name in node.input]
            assert len(set(coded)) == 1 or coded == [True, False, False], node.name
            readers[node.name] = coded[1]
    blocks = len(list(config.backbone.blocks(config.width_mult)))
    for block in range(blocks):
        found = {v for k, v in readers.items() if f"/blocks.{block}/" in k}
        assert found == {block >= float_blocks(config)}, block
    heads = {k: v for k, v in readers.items() if "_head/layers" in k}
    assert heads == {k: "layers.2" not in k for k in heads}


@KINDS
def test_weights_are_within_half_a_step_of_the_net_s_and_fit_seven_bits(graphs, kind):
    """Against the float32 graph, layer by layer, each output channel with a scale of its own."""
    exact = trace(kind)
    arrays = {t.name: numpy_helper.to_array(t) for t in exact.graph.initializer}
    coded = {t.name: numpy_helper.to_array(t) for t in graphs[kind].initializer}
    compared = 0
    for node in exact.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        values = coded.get(f"{node.name}/weight_quantized")
        if values is None:
            continue
        weight, scale = arrays[node.input[1]], coded[f"{node.name}/weight_scale"]
        assert (values.dtype, scale.shape) == (np.int8, (len(weight),))
        assert np.abs(values.astype(int)).max() <= 64
        steps = scale.reshape(-1, *[1] * (weight.ndim - 1))
        assert (np.abs(values * steps - weight) <= 0.5001 * steps).all(), node.name
        compared += 1
    assert compared > 30


@KINDS
def test_onnxruntime_fuses_every_pair_into_integer_kernels(int8_files, kind, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    data = int8_files[kind]
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    heads = len(BY_KIND[kind].heads)
    assert kinds.count("QuantizeLinear") == 1  # where bytes begin
    assert kinds.count("DequantizeLinear") == heads  # where each head's last layer begins
    assert kinds.count("QLinearConv") > 40
    assert kinds.count("QGemm") == 2 * heads


def test_activations_are_rounded_as_their_scale_says(graphs, tmp_path):
    """Every pair of the file against NumPy's rounding, on what the pair really reads."""
    model = onnx.ModelProto(ir_version=8, opset_import=[onnx.helper.make_opsetid("", 17)])
    model.graph.CopyFrom(graphs["au_prediction"])
    coded = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(pairs) > 50
    del model.graph.output[:]
    for node in pairs:
        for name in (node.input[0], f"{node.input[0]}_DequantizeLinear_Output"):
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            model.graph.output.append(value)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    seen = session.run(None, {"image": network_input(random_crops(1))})
    for node, exact, rounded in zip(pairs, seen[::2], seen[1::2], strict=True):
        scale, zero = coded[node.input[1]], int(coded[node.input[2]])
        levels = np.clip(np.rint(exact / scale) + zero, 0, 255)
        np.testing.assert_array_equal(rounded, ((levels - zero) * scale).astype(np.float32))
        if node.name.endswith("Sigmoid_output_0_QuantizeLinear"):
            assert (float(scale), zero) == (pytest.approx(1 / 255), 0)


def test_the_same_net_and_faces_give_the_same_bytes(int8_files):
    assert int8_file(source(AU)) == int8_files["au_prediction"]


@pytest.mark.parametrize("opset", [17, 18])
def test_one_odd_face_does_not_coarsen_the_steps_of_a_fixed_batch_either(opset):
    """Each face has its own extremes, however many go through the graph at once."""
    faces = np.ones((40, 3, 112, 112), np.float32)
    faces[7] = 50
    images = [8, 3, 112, 112]
    node = onnx.helper.make_node("Identity", ["image"], ["same"], "same")
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, images)],
        [onnx.helper.make_tensor_value_info("same", onnx.TensorProto.FLOAT, images)],
    )
    ids = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=ids, ir_version=8)
    assert onnx_graph.activation_ranges(model, [node], faces)["same"] == (0, 2)
    assert onnx_graph.activation_ranges(model, [node], faces[:7])["same"] == (0, 1)


def test_metadata_says_what_the_scales_were_calibrated_on(int8_files):
    model = onnx.load_model_from_string(int8_files["au_prediction"])
    text = model.metadata_props[0].value
    assert '"calibration": {"data_hash": "abc", "faces": 4}' in text
    assert '"precision": "int8"' in text


def test_equal_arrays_that_torch_shares_are_coded_for_each_layer():
    """Two heads with the same bias have one array in the file, but two scales."""
    weights = random_weights(LANDMARK)
    for layer in (0, 1):
        for part in ("weight", "bias"):
            same = weights[f"global_head.layers.{layer}.{part}"]
            weights[f"local_head.layers.{layer}.{part}"] = same.copy()
    twin = SourceModel(LANDMARK, weights, describe(LANDMARK))
    model = onnx.load_model_from_string(int8_file(twin))
    onnx.checker.check_model(model, full_check=True)


def test_a_net_that_overflows_on_its_calibration_is_refused():
    weights = random_weights(AU)
    for block in (9, 11):
        weights[f"backbone.blocks.{block}.project.norm.weight"] *= np.float32(1e30)
    with pytest.raises(ExportError, match="NaN or inf"):
        int8_file(SourceModel(AU, weights, describe(AU)))


def test_rounding_moves_no_output_s_mean_over_the_calibration_faces(int8_files, monkeypatch):
    """Shape parameters are their last layer's own numbers: nothing behind it hides a shift."""
    images = network_input(some_faces().calibration)

    def means(model: bytes) -> np.ndarray:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return session.run(["local_params"], {"image": images})[0].mean(axis=0)

    true = means(trace_bytes("landmark_pose"))
    corrected = np.abs(means(int8_files["landmark_pose"]) - true).max()
    monkeypatch.setattr(onnx_graph, "correct_biases", lambda *_: None)
    rounded = np.abs(means(int8_file(source(LANDMARK), trace("landmark_pose"))) - true).max()
    assert corrected < 0.02 * rounded


# --- accuracy


def test_the_change_is_of_the_mean_absolute_error_of_clamped_intensities(monkeypatch, tmp_path):
    labels = {"au_intensities": np.full((3, 17), 4.0, np.float32)}
    rounded = np.full((3, 17), 7.0, np.float32)  # clamped to 5: an error of 1

    class Fake:
        def run(self, crops):
            return [rounded]

    class FakeSource(SourceModel):
        def net(self, dtype):
            return lambda images: [torch.from_numpy(rounded - 2.5)]

    monkeypatch.setattr(check, "open_exported", lambda path: [Fake()])
    net = FakeSource(AU, {}, {})
    (change,) = measure_change(tmp_path, net, some_faces(labels))
    assert (change.output, change.before, change.after) == ("au_intensities", 0.5, 1.0)
    assert (change.limit, change.passed) == (0.01, False)


@pytest.mark.parametrize(("after", "passed"), [(1.04, True), (1.06, False), (0.94, False)])
def test_landmarks_may_move_by_a_twentieth_of_a_pixel(after, passed):
    assert AccuracyChange("landmarks", 1.0, after, 0.05).passed is passed
    assert AccuracyChange("local_params", 1.0, after, None).passed


@pytest.mark.usefixtures("au_conversion")
def test_a_net_that_rounding_ruins_is_refused_and_leaves_nothing(tmp_path):
    """A random net is chaotic: 8 bits turn its answers into others."""
    with pytest.raises(CheckFailed, match=r"in ONNX Runtime \(worst limit"):
        export_to_onnx(source(AU), tmp_path / "a.onnx", precision="int8", faces=some_faces())
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("au_conversion")
def test_lost_accuracy_is_refused_unless_forced(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "INT8_SHARE", np.inf)
    net = source(AU)
    with torch.inference_mode():
        (exact,) = net.net()(torch.from_numpy(network_input(random_crops(3, seed=1))))
    faces = some_faces({"au_intensities": exact.numpy()})
    with pytest.raises(CheckFailed, match=r"au_intensities from 0\.0\d+ to .* give --force"):
        export_to_onnx(net, tmp_path / "a.onnx", precision="int8", faces=faces)
    assert not list(tmp_path.iterdir())
    kept = export_to_onnx(net, tmp_path / "a.onnx", precision="int8", faces=faces, force=True)
    assert "LOST" in kept.table()
    assert (tmp_path / "a.onnx").is_file()


def test_faces_are_for_int8_and_int8_needs_them(tmp_path):
    with pytest.raises(ValueError, match="for int8, which needs them"):
        export_to_onnx(source(AU), tmp_path / "a.onnx", precision="int8")
    with pytest.raises(ValueError, match="for int8, which needs them"):
        export_to_onnx(source(AU), tmp_path / "a.onnx", faces=some_faces())
    with pytest.raises(ValueError, match="faces to calibrate on and other people's"):
        CalibrationFaces(random_crops(0), random_crops(1), {})


def test_an_int8_file_is_not_judged_on_drawn_patterns(int8_files, tmp_path):
    (tmp_path / "a.onnx").write_bytes(int8_files["au_prediction"])
    with pytest.raises(ValueError, match="2 or more like those of its calibration"):
        check_export(tmp_path / "a.onnx", source(AU))


def test_light_changes_colours_alone():
    faces = CalibrationFaces(random_crops(1), np.full((2, 112, 112, 3), 200, np.uint8), {})
    lit = faces.recoloured()
    assert lit.shape == (2, 112, 112, 3)
    assert (lit.reshape(2, -1, 3).std(axis=1) == 0).all()
    assert len(np.unique(lit[0, 0, 0])) == 3


@pytest.mark.slow
@KINDS
def test_trained_nets_keep_their_accuracy_and_mistakes_show(shared_folder, tmp_path, kind):
    checkpoint = shared_folder / "models" / f"prototype_{kind}.pt"
    archive = shared_folder / "data" / "faces_val.npz"
    if not checkpoint.is_file() or not archive.is_file():
        pytest.skip("no trained pair here")
    crops, labels = _faces_of(archive, 120)
    net = read_source(checkpoint)
    faces = CalibrationFaces(crops[::2], crops[1::2], {k: v[1::2] for k, v in labels.items()})
    done = export_to_onnx(net, tmp_path / "a.onnx", precision="int8", faces=faces)
    assert done.passed
    assert all(change.passed for change in done.changes)
    swapped = {n: net.weights[n][..., ::-1] for n in ("backbone.stem.conv.weight",)}
    last = {"landmark_pose": "landmark_head", "au_prediction": "au_head"}[kind]
    names = [f"{last}.layers.2.{part}" for part in ("weight", "bias")]
    permuted = {n: net.weights[n][[1, 0, *range(2, len(net.weights[n]))]] for n in names}
    for mistake in (swapped, permuted):
        other = SourceModel(net.config, {**net.weights, **mistake}, net.metadata)
        assert not check_export(tmp_path / "a.onnx", other, faces.recoloured()).passed


def _faces_of(archive, count: int):
    cv2 = pytest.importorskip("cv2")
    with np.load(archive) as data:
        picked = np.linspace(0, len(data["landmarks"]) - 1, count).astype(int)
        jpeg, offsets = data["jpeg"], data["jpeg_offsets"]
        crops = [cv2.imdecode(jpeg[offsets[i] : offsets[i + 1]], 1) for i in picked]
        labels = {"landmarks": data["landmarks"][picked], "au_intensities": data["au"][picked]}
    return np.stack(crops), labels
