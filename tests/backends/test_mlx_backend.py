"""The MLX backend: same results in pieces, from threads, and as the net itself."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from random_nets import BOTH, TOLERANCE, random_weights, write_checkpoint

pytest.importorskip("mlx_faceau.models", exc_type=ImportError)

from mlx_faceau.errors import CheckpointError
from mlx_faceau.inference.backends.mlx_backend import MLXBackend
from mlx_faceau.models import build, mx


@pytest.fixture(scope="module", params=BOTH, ids=lambda config: config.kind)
def opened(request, tmp_path_factory):
    config = request.param
    folder = tmp_path_factory.mktemp("model")
    path = write_checkpoint(folder / "checkpoint_best.safetensors", config)
    net = build(config)
    net.load_weights_dict(random_weights(config))
    return config, MLXBackend(path), net.eval()


def images(n: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, 112, 112, 3), np.float32)


def test_it_predicts_what_the_net_does(opened):
    config, backend, net = opened
    got, expected = backend.run(images(2)), net(mx.array(images(2)))
    assert list(got) == list(config.output_shapes)
    for name, value in got.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, np.array(expected[name]), rtol=0, atol=TOLERANCE[name])


def test_different_images_get_different_answers(opened):
    _, backend, _ = opened
    for value in backend.run(images(2)).values():
        assert np.abs(value[0] - value[1]).max() > 0.01


def test_threads_share_one_backend(opened):
    _, backend, _ = opened
    expected = {n: backend.run(images(n)) for n in (1, 2, 3)}
    wrong = []

    def work(n: int) -> None:
        for _ in range(3):
            got = backend.run(images(n))
            wrong.extend(k for k, v in expected[n].items() if not np.array_equal(got[k], v))

    threads = [threading.Thread(target=work, args=(n,)) for n in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_on_a_gpu_batches_are_filled_up_to_few_sizes(opened, monkeypatch):
    _, backend, _ = opened
    expected, net, seen = backend.run(images(5)), backend._net, []
    monkeypatch.setattr(backend, "device", "metal")
    monkeypatch.setattr(backend, "_net", lambda x: seen.append(len(x)) or net(x))
    for name, value in backend.run(images(5)).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=TOLERANCE[name])
    assert seen == [16]


def test_a_process_ends_cleanly_after_its_threads_have_predicted(tmp_path):
    code = """
import sys, numpy as np
from concurrent.futures import ThreadPoolExecutor
from mlx_faceau.inference.backends.mlx_backend import MLXBackend
backend, image = MLXBackend(sys.argv[1]), np.zeros((1, 112, 112, 3), np.float32)
for _ in range(3):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(backend.run, [image] * 8))
"""
    path = write_checkpoint(tmp_path / "net.safetensors", BOTH[0])
    for _ in range(2):  # without a lasting thread two of three such processes abort
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")


def test_it_describes_itself(opened):
    config, backend, _ = opened
    facts = backend.describe()
    assert facts["backend"] == "mlx"
    assert facts["kind"] == config.kind
    assert facts["metadata"]["crop"] == "standard"
    assert facts["library"].startswith("mlx 0.")


def test_a_missing_file_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError):
        MLXBackend(tmp_path / "none.safetensors")


FORKED = """
import os, sys
import numpy as np
from mlx_faceau.errors import BackendError
from mlx_faceau.inference.backends.mlx_backend import MLXBackend

images = np.zeros((1, 112, 112, 3), np.float32)
if sys.argv[2] == "before":
    backend = MLXBackend(sys.argv[1])
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if sys.argv[2] == "after":
    MLXBackend(sys.argv[1]).run(images)
    os._exit(0)
for use in (lambda: backend.run(images), lambda: MLXBackend(sys.argv[1])):
    try:
        use()
        os._exit(1)
    except BackendError as error:
        assert "spawn" in str(error)
os._exit(0)  # as multiprocessing ends its processes: MLX would wait for its threads here too
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_forked_process_is_refused_where_mlx_would_wait_for_ever(tmp_path, opened):
    path = write_checkpoint(tmp_path / "a.safetensors", BOTH[0])
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(path), opened]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            assert process.wait(timeout=60) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
