"""PyTorch: checkpoints and the original tool's files, folded BatchNorm, devices."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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

from mlx_faceau.convert.pyfaceau import write_pyfaceau  # noqa: E402
from mlx_faceau.core.checkpoint import describe, save_checkpoint  # noqa: E402
from mlx_faceau.core.preprocess import to_network_input  # noqa: E402
from mlx_faceau.errors import BackendError, CheckpointError  # noqa: E402
from mlx_faceau.inference.backends.torch_backend import TorchBackend  # noqa: E402
from mlx_faceau.torch_fallback.device import pick_device  # noqa: E402

BY_KIND = {config.kind: config for config in BOTH}
KINDS = pytest.mark.parametrize("kind", BY_KIND)


def saved(path, config, **sections):
    """A checkpoint; ``ema=1`` puts the weights of seed 1 under ``ema.``"""
    arrays = {
        f"{section}.{name}": value
        for section, seed in sections.items()
        for name, value in random_weights(config, seed).items()
    }
    save_checkpoint(path, arrays, describe(config))
    return path


def assert_close(outputs, expected) -> None:
    assert list(outputs) == list(expected)
    for name, true in expected.items():
        assert outputs[name].dtype == np.float32
        limit = TOLERANCE[name]
        np.testing.assert_allclose(outputs[name], true, rtol=0, atol=limit, err_msg=name)


@KINDS
def test_a_checkpoint_gives_the_float64_net_s_outputs(tmp_path, kind):
    config, crops = BY_KIND[kind], random_crops(2)
    backend = TorchBackend(saved(tmp_path / "a.safetensors", config, model=0), device="cpu")
    assert_close(backend.run(to_network_input(crops)), reference_outputs(config, crops))


@KINDS
def test_a_file_of_the_original_tool_gives_them_too(tmp_path, kind):
    config, crops = BY_KIND[kind], random_crops(2)
    write_pyfaceau(tmp_path / "a.pt", config, random_weights(config))
    backend = TorchBackend(tmp_path / "a.pt", device="cpu")
    assert_close(backend.run(to_network_input(crops)), reference_outputs(config, crops))
    assert backend.describe()["metadata"] is None


def test_averaged_weights_are_taken_where_there_are_any(tmp_path):
    crops = random_crops(1)
    backend = TorchBackend(saved(tmp_path / "a.safetensors", AU, model=1, ema=0), device="cpu")
    assert_close(backend.run(to_network_input(crops)), reference_outputs(AU, crops))


def test_threads_share_one_net(tmp_path):
    backend = TorchBackend(saved(tmp_path / "a.safetensors", AU, model=0), device="cpu")
    batches = [to_network_input(random_crops(2, seed)) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(backend.run, batches))
    for batch, outputs in zip(batches, together, strict=True):
        expected = backend.run(batch)["au_intensities"]
        np.testing.assert_allclose(outputs["au_intensities"], expected, atol=1e-6)


def test_it_says_what_runs_and_leaves_torch_s_random_state_alone(tmp_path):
    path = saved(tmp_path / "a.safetensors", LANDMARK, model=0)
    before = torch.random.get_rng_state()
    about = TorchBackend(path, device="cpu").describe()
    assert torch.equal(before, torch.random.get_rng_state())
    assert (about["backend"], about["kind"], about["device"]) == ("torch", "landmark_pose", "cpu")
    assert about["metadata"] == describe(LANDMARK)


def test_arguments_may_repeat_a_checkpoint_but_not_contradict_it(tmp_path):
    path = saved(tmp_path / "a.safetensors", AU, model=0)
    TorchBackend(path, width_mult=0.25, dropout=0.3)
    with pytest.raises(CheckpointError, match=r"width_mult is 1\.0, but the checkpoint records 0"):
        TorchBackend(path, width_mult=1.0)
    with pytest.raises(CheckpointError, match=r"dropout is 0\.5, but the checkpoint records 0\.3"):
        TorchBackend(path, dropout=0.5)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, True, "cuda")],
)
def test_the_automatic_device_is_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == expected
    assert pick_device(torch.device("cpu")).type == "cpu"


def test_devices_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda:1", "tpu", 5):
        with pytest.raises(BackendError, match=f"no {name} device for torch here; available: "):
            pick_device(name)


@KINDS
def test_the_original_tool_s_own_files_give_its_outputs(shared_folder, kind):
    stem = shared_folder / "reference" / f"pyfaceau_{kind}_w025"
    recorded = np.load(f"{stem}_io.npz")
    backend = TorchBackend(stem.with_suffix(".pt"), device="cpu")
    outputs = backend.run(to_network_input(recorded["images_bgr"]))
    assert_close(outputs, {name: recorded[name] for name in BY_KIND[kind].output_shapes})


FORKED = """
import os, sys
import numpy as np
from mlx_faceau.inference.backends.torch_backend import TorchBackend

images = np.random.default_rng(0).random((4, 112, 112, 3), np.float32)
backend = TorchBackend(sys.argv[1], device="cpu")
expected = backend.run(images)["landmarks"]
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for each in (backend, TorchBackend(sys.argv[1], device="cpu")):
    np.testing.assert_allclose(each.run(images)["landmarks"], expected, rtol=0, atol=1e-3)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_process_predicts_as_well(tmp_path):
    path = saved(tmp_path / "a.safetensors", LANDMARK, model=0)
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            assert process.wait(timeout=60) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
