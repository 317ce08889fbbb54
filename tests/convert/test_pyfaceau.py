"""Checkpoints of the original tool: its real files, files made here, and hostile ones."""

import contextlib
import json
import math
import os
import pickle
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from random_nets import TOLERANCE

torch = pytest.importorskip("torch")

from mlx_faceau.convert import pyfaceau  # noqa: E402
from mlx_faceau.convert.pyfaceau import (  # noqa: E402
    pyfaceau_names,
    read_pyfaceau,
    write_pyfaceau,
)
from mlx_faceau.core.architectures import (  # noqa: E402
    AUPredictionConfig,
    LandmarkPoseConfig,
    initial_weights,
    weight_shapes,
)
from mlx_faceau.core.preprocess import to_network_input  # noqa: E402
from mlx_faceau.errors import CheckpointError  # noqa: E402
from mlx_faceau.torch_fallback import build  # noqa: E402

KINDS = {"landmark_pose": LandmarkPoseConfig, "au_prediction": AUPredictionConfig}
by_kind = pytest.mark.parametrize("kind", KINDS)


def random_weights(config, seed=0):
    """Weights without two equal arrays, so that a wrong name shows."""
    rng = np.random.default_rng(seed)
    return {
        name: value + rng.uniform(0.1, 1.0, value.shape).astype(np.float32)
        for name, value in initial_weights(config, seed).items()
    }


@pytest.fixture(scope="module")
def au_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "au.pt"
    config = AUPredictionConfig(width_mult=0.25)
    write_pyfaceau(path, config, random_weights(config))
    return path.read_bytes()


@pytest.fixture
def au_file(au_bytes, tmp_path):
    """A small action unit checkpoint, and its contents to change and save again."""
    path = tmp_path / "au.pt"
    path.write_bytes(au_bytes)
    return path, torch.load(path, weights_only=True)


@by_kind
def test_names_and_shapes_equal_those_of_the_original(shared_folder, tmp_path, kind):
    source = shared_folder / "reference" / f"pyfaceau_{kind}_w025.pt"
    write_pyfaceau(tmp_path / "out.pt", *read_pyfaceau(source))
    written = torch.load(tmp_path / "out.pt", weights_only=True)["model_state_dict"]
    keys = json.loads(source.with_suffix(".keys.json").read_text())
    assert [(name, list(value.shape)) for name, value in written.items()] == list(keys.items())


@by_kind
def test_reference_files_survive_import_and_export_bit_for_bit(shared_folder, tmp_path, kind):
    source = shared_folder / "reference" / f"pyfaceau_{kind}_w025.pt"
    write_pyfaceau(tmp_path / "out.pt", *read_pyfaceau(source))
    ours = torch.load(tmp_path / "out.pt", weights_only=True)["model_state_dict"]
    with torch.serialization.safe_globals(pyfaceau._allowed_globals()):
        theirs = torch.load(source, weights_only=True)["model_state_dict"]
    for name, value in theirs.items():
        if not name.endswith("num_batches_tracked"):
            assert ours[name].numpy().tobytes() == value.numpy().tobytes(), name
        assert ours[name].dtype == value.dtype


@by_kind
def test_imported_nets_give_the_originals_outputs(shared_folder, kind):
    stem = shared_folder / "reference" / f"pyfaceau_{kind}_w025"
    config, weights = read_pyfaceau(stem.with_suffix(".pt"))
    assert config == KINDS[kind](width_mult=0.25)
    net = build(config).eval()
    net.load_weights_dict(weights)
    expected = np.load(f"{stem}_io.npz")
    images = to_network_input(expected["images_bgr"])
    with torch.no_grad():
        outputs = net(torch.from_numpy(images).permute(0, 3, 1, 2))
    for name, value in outputs.items():
        assert np.abs(value.numpy() - expected[name]).max() <= TOLERANCE[name], name


@by_kind
def test_full_width_nets_are_recognised(shared_folder, kind):
    config, weights = read_pyfaceau(shared_folder / "models" / f"prototype_{kind}.pt")
    assert config == KINDS[kind](width_mult=1.0)
    build(config).load_weights_dict(weights)


@by_kind
@pytest.mark.parametrize("width", [0.25, 0.5])
def test_written_weights_come_back_bit_for_bit(tmp_path, kind, width):
    config = KINDS[kind](width_mult=width)
    weights = random_weights(config)
    write_pyfaceau(tmp_path / "net.pt", config, weights)
    read_config, back = read_pyfaceau(tmp_path / "net.pt")
    assert read_config == config
    assert all(back[name].tobytes() == weights[name].tobytes() for name in weights)


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("landmark_pose", "stem.conv.weight", "first_conv.0.weight"),
        ("landmark_pose", "head.norm.bias", "last_conv.1.bias"),
        ("landmark_pose", "blocks.0.project.conv.weight", "blocks.0.conv.3.weight"),
        ("landmark_pose", "blocks.3.project.conv.weight", "blocks.3.conv.6.weight"),
        ("au_prediction", "stem.conv.weight", "stem.0.weight"),
        ("au_prediction", "blocks.3.squeeze.excite.bias", "blocks.3.conv.6.fc2.bias"),
        ("au_prediction", "blocks.3.project.norm.weight", "blocks.3.conv.8.weight"),
    ],
)
def test_names_count_every_layer_of_the_original(kind, ours, theirs):
    assert pyfaceau_names(KINDS[kind]())[f"backbone.{ours}"] == f"backbone.{theirs}"


@pytest.mark.parametrize(
    ("config", "ours", "theirs"),
    [
        (LandmarkPoseConfig(), "global_head.layers.2.weight", "global_params_head.fc.5.weight"),
        (AUPredictionConfig(), "au_head.layers.2.weight", "au_head.fc.6.weight"),
        (AUPredictionConfig(dropout=0.0), "au_head.layers.2.weight", "au_head.fc.6.weight"),
    ],
)
def test_names_of_heads_count_dropout_whatever_its_rate(config, ours, theirs):
    assert pyfaceau_names(config)[ours] == theirs


@by_kind
def test_every_weight_has_a_name_of_its_own(kind):
    config = KINDS[kind]()
    names = pyfaceau_names(config)
    assert list(names) == list(weight_shapes(config))
    assert len(set(names.values())) == len(names)


def test_numpy_scalars_of_the_history_are_read(au_file):
    path, checkpoint = au_file
    scalars = [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True)]
    checkpoint["train_history"] = [{"scalars": scalars, "array": np.arange(3.0)}]
    torch.save(checkpoint, path)
    read_pyfaceau(path)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_are_read_whichever_numpy_wrote_them(au_file, module):
    path, checkpoint = au_file
    checkpoint["best_val_loss"] = np.float64(0.5)
    torch.save(checkpoint, path)
    rewrite_pickle(
        path, lambda data: re.sub(rb"numpy\.(_core|core)\.multiarray", module.encode(), data)
    )
    read_pyfaceau(path)


def rewrite_pickle(path, change):
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


def test_a_missing_batch_counter_is_no_loss(au_file):
    path, checkpoint = au_file
    state = checkpoint["model_state_dict"]
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        del state[name]
    torch.save(checkpoint, path)
    read_pyfaceau(path)


def test_every_wrong_weight_is_named_at_once(au_file):
    path, checkpoint = au_file
    state = checkpoint["model_state_dict"]
    del state["backbone.stem.0.weight"]
    state["au_head.surprise"] = torch.zeros(2)
    state["backbone.head.1.bias"] = state["backbone.head.1.bias"].double()
    state["backbone.head.1.weight"][3] = math.nan
    state["backbone.head.1.running_var"][3] = -1.0
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError) as caught:
        read_pyfaceau(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    for problem in (
        "backbone.stem.0.weight is missing",
        "au_head.surprise is unknown",
        "backbone.head.1.bias is float64, expected float32",
        "backbone.head.1.weight holds NaN",
        "backbone.head.1.running_var holds a negative variance",
    ):
        assert problem in message


def test_an_unlisted_width_is_read_when_given(tmp_path):
    config = AUPredictionConfig(width_mult=0.3)
    write_pyfaceau(tmp_path / "net.pt", config, random_weights(config))
    with pytest.raises(CheckpointError, match="--width-mult"):
        read_pyfaceau(tmp_path / "net.pt")
    assert read_pyfaceau(tmp_path / "net.pt", width_mult=0.3, dropout=0.1)[0] == (
        AUPredictionConfig(width_mult=0.3, dropout=0.1)
    )


def test_a_width_that_does_not_fit_is_refused(au_file):
    with pytest.raises(CheckpointError, match=r"width 0\.5: .* has shape"):
        read_pyfaceau(au_file[0], width_mult=0.5)


def test_a_landmark_net_takes_no_dropout(tmp_path):
    config = LandmarkPoseConfig(width_mult=0.25)
    write_pyfaceau(tmp_path / "net.pt", config, random_weights(config))
    with pytest.raises(ValueError, match="leave it out"):
        read_pyfaceau(tmp_path / "net.pt", dropout=0.1)


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        ({"epoch": 3}, "holds no 'model_state_dict'"),
        ([1, 2], "holds no 'model_state_dict'"),
        ({"model_state_dict": {1: torch.zeros(1)}}, "holds no 'model_state_dict'"),
        ({"model_state_dict": {"au_head.x": 3}}, "not plain tensors: au_head.x"),
        ({"model_state_dict": {"au_head.x": torch.eye(2).to_sparse()}}, "not plain tensors"),
        ({"model_state_dict": {"fc.weight": torch.zeros(1)}}, "neither one 'landmark_head' nor"),
        ({"model_state_dict": {}}, "neither one 'landmark_head' nor"),
    ],
)
def test_other_torch_files_are_refused(tmp_path, contents, complaint):
    torch.save(contents, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=re.escape(complaint)):
        read_pyfaceau(tmp_path / "other.pt")


class Payload:
    """A pickle of this runs a command when it is loaded without care."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_from_the_file_runs(tmp_path, zipped):
    path, trace = tmp_path / "hostile.pt", tmp_path / "trace"
    contents = {"model_state_dict": {}, "train_history": [Payload(trace)]}
    if zipped:
        torch.save(contents, path)
    else:
        path.write_bytes(pickle.dumps(contents))
    with pytest.raises(CheckpointError) as caught:
        read_pyfaceau(path)
    assert not trace.exists()
    assert "\n" not in str(caught.value)
    if zipped:
        assert f"{os.mkdir.__module__}.mkdir" in str(caught.value)
    torch.serialization.clear_safe_globals()  # the payload itself works: the test is no dud
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert trace.exists()


def test_the_allow_list_ends_with_the_reading(au_file):
    before = list(torch.serialization.get_safe_globals())
    read_pyfaceau(au_file[0])
    assert torch.serialization.get_safe_globals() == before


@pytest.mark.parametrize("kept", [0, 10, 1000, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_error(au_file, kept):
    path, _ = au_file
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    with pytest.raises(CheckpointError, match="cut short") as caught:
        read_pyfaceau(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_pickle_is_refused_or_read_and_never_crashes(au_file, seed):
    path, _ = au_file
    rng = np.random.default_rng(seed)

    def damage(data):
        data = bytearray(data)
        for position in rng.integers(0, len(data), 5):
            data[position] = rng.integers(256)
        return bytes(data)

    rewrite_pickle(path, damage)
    with contextlib.suppress(CheckpointError):
        read_pyfaceau(path)


def test_compressed_parts_are_refused(au_file):
    path, _ = au_file
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="compressed"):
        read_pyfaceau(path)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        read_pyfaceau(tmp_path / "none.pt")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
def test_a_full_disk_is_the_system_s_error_and_leaves_nothing_behind(tmp_path):
    import resource

    config = AUPredictionConfig(0.25)
    weights = random_weights(config)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_pyfaceau(tmp_path / "a.pt", config, weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_wrong_weights_leave_nothing_behind(tmp_path):
    config = AUPredictionConfig(width_mult=0.25)
    weights = random_weights(AUPredictionConfig(width_mult=0.5))
    with pytest.raises(CheckpointError, match="not the weights"):
        write_pyfaceau(tmp_path / "net.pt", config, weights)
    assert list(tmp_path.iterdir()) == []


def test_an_old_torch_is_told_to_convert_elsewhere(au_file, monkeypatch):
    path, _ = au_file
    monkeypatch.setattr(torch, "__version__", "2.2.2")
    with pytest.raises(CheckpointError, match=r"torch 2\.6 or later.*Intel Macs"):
        read_pyfaceau(path)
    config = AUPredictionConfig(width_mult=0.25)
    with pytest.raises(CheckpointError, match="Intel Macs"):
        write_pyfaceau(path, config, random_weights(config))


@pytest.mark.parametrize("module", ["mlx_faceau.convert.pyfaceau", "mlx_faceau.torch_fallback"])
def test_a_missing_torch_names_its_extra(module):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mlx_faceau.errors import MissingDependency\n"
        f"try:\n    import {module}\nexcept MissingDependency as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "mlx-faceau[torch]" in result.stdout, result.stderr
