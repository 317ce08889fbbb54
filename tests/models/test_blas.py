"""Which BLAS MLX gets: every case in a process of its own, as libraries load once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlx.core")

from mlx_faceau.core import blas

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not blas._helps_here(),
    reason="MLX has its own fast BLAS here",
)

SHOW = "from mlx_faceau.core import blas; print(blas.prepare())"


def run(code: str, wish: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != blas.VARIABLE}
    if wish is not None:
        environment[blas.VARIABLE] = wish
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def bundled() -> Path:
    libraries = blas.bundled_libraries()
    if not libraries:
        pytest.skip("this opencv bundles no OpenBLAS")
    return libraries[0]


def test_opencvs_library_is_taken_without_importing_cv2(bundled):
    done = run(
        SHOW + "; import sys; assert 'cv2' not in sys.modules; assert 'mlx' not in sys.modules"
    )
    assert done.stdout.strip() == f"{bundled} (bundled with OpenCV)", done.stderr


def test_importing_the_models_loads_it_before_mlx(bundled):
    code = (
        "import mlx_faceau.models; maps = open('/proc/self/maps').read(); "
        "print(maps.index('libopenblas') > 0); " + SHOW
    )
    done = run(code)
    assert done.stdout.splitlines() == ["True", f"{bundled} (bundled with OpenCV)"]


def test_off_keeps_mlxs_own():
    done = run("import mlx_faceau.models; " + SHOW, "off")
    assert done.stdout.strip() == "MLX's own (MLX_FACEAU_BLAS=off)", done.stderr


def test_a_named_library_is_taken(bundled):
    assert run(SHOW, str(bundled)).stdout.strip() == f"{bundled} (MLX_FACEAU_BLAS)"


def test_a_file_that_is_no_library_is_refused_in_one_line(tmp_path):
    path = tmp_path / "blas.so"
    path.write_text("not a library")
    error = run(SHOW, str(path)).stderr.strip().splitlines()[-1]
    assert error.startswith(f"mlx_faceau.errors.BackendError: MLX_FACEAU_BLAS: cannot load {path}")


def test_a_library_without_the_symbols_is_refused():
    import _ctypes

    done = run(SHOW, _ctypes.__file__)
    assert "has no cblas_sgemm, cblas_dgemm, cblas_cgemm" in done.stderr.splitlines()[-1]


def test_it_is_said_when_mlx_came_first():
    done = run("import mlx.core; " + SHOW)
    assert done.stdout.strip() == "MLX's own (mlx was imported before mlx_faceau)"
    assert "imported before" in done.stderr


def test_one_line_is_logged_when_none_is_found():
    hide = "from mlx_faceau.core import blas; blas.bundled_libraries = list; "
    done = run(hide + SHOW)
    assert done.stdout.strip() == "MLX's own (no OpenBLAS found)"
    assert len(done.stderr.strip().splitlines()) == 1
    assert "MLX_FACEAU_BLAS=/path" in done.stderr


def test_cuda_builds_and_other_systems_keep_their_own():
    cuda = "from mlx_faceau.core import blas; blas.installed_version = lambda name: '1'; "
    mac = "import sys; sys.platform = 'darwin'; "
    for code in (cuda + SHOW, mac + SHOW):
        assert run(code).stdout.strip() == "MLX's own (only MLX for Linux CPUs gains from another)"


def test_64_bit_integers_are_recognised():
    class Library:
        def __init__(self, config):
            self.openblas_get_config = lambda: config

    class Silent:
        pass

    with_long = Library(b"OpenBLAS 0.3.30 USE64BITINT DYNAMIC_ARCH")
    assert blas._has_long_integers(with_long)
    assert not blas._has_long_integers(Library(b"OpenBLAS 0.3.15 DYNAMIC_ARCH"))
    assert not blas._has_long_integers(Silent())


def test_importing_the_models_raises_the_cache_limit():
    import mlx_faceau.models as models

    mx = models.mx
    previous = mx.set_cache_limit(models.CACHE_BYTES)
    assert mx.default_device() != mx.Device(mx.cpu) or previous == models.CACHE_BYTES
