"""Every way of the depthwise convolution against ``mx.conv2d`` and its derivatives."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

mx = pytest.importorskip("mlx_faceau.models", exc_type=ImportError).mx

from mlx_faceau.core.architectures import AUPredictionConfig, LandmarkPoseConfig  # noqa: E402
from mlx_faceau.models import depthwise  # noqa: E402
from mlx_faceau.models.depthwise import PIECES, STRIP_ROWS, Pieces, depthwise3x3  # noqa: E402

ODD_SIZES = [(1, 1, 1, 3), (2, 2, 3, 1), (3, 5, 4, 2), (4, 7, 7, 5), (5, 6, 9, 16), (7, 3, 8, 4)]


def shapes_of_both_nets() -> list[tuple[int, int, int]]:
    """(side, channels, stride) of every depthwise convolution, at an eighth of the width."""
    shapes = set()
    for config in (LandmarkPoseConfig(width_mult=0.125), AUPredictionConfig(width_mult=0.125)):
        side = 56
        for block in config.backbone.blocks(config.width_mult):
            shapes.add((side, block.hidden, block.stride))
            side = -(-side // block.stride)
    return sorted(shapes)


def check_against_conv2d(shape: tuple[int, ...], stride: int, pieces: Pieces | None) -> None:
    rng = np.random.default_rng(shape)
    n, height, width, channels = shape
    x = mx.array(rng.standard_normal(shape, np.float32))
    w = mx.array(rng.standard_normal((channels, 3, 3, 1), np.float32))
    out = (n, -(-height // stride), -(-width // stride), channels)
    cotangent = mx.array(rng.standard_normal(out, np.float32))

    def expected(x, w):
        return mx.conv2d(x, w, stride=stride, padding=1, groups=channels)

    def ours(x, w):
        return depthwise3x3(x, w, stride, pieces)

    outputs, gradients = mx.vjp(ours, [x, w], [cotangent])
    expected_outputs, expected_gradients = mx.vjp(expected, [x, w], [cotangent])
    wanted = expected_outputs + expected_gradients
    for got, want in zip(outputs + gradients, wanted, strict=True):
        scale = np.abs(np.array(want)).max() + 1
        np.testing.assert_allclose(np.array(got), np.array(want), atol=1e-5 * scale)


@pytest.mark.parametrize("device", list(PIECES))
@pytest.mark.parametrize(("side", "channels", "stride"), shapes_of_both_nets())
def test_every_devices_pieces_equal_conv2d_for_all_shapes_of_both_nets(
    side, channels, stride, device
):
    check_against_conv2d((2, side, side, channels), stride, PIECES[device])


@pytest.mark.parametrize("device", list(PIECES))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", ODD_SIZES)
def test_every_devices_pieces_equal_conv2d_at_odd_sizes(device, stride, shape):
    check_against_conv2d(shape, stride, PIECES[device])


def test_the_default_suits_the_device():
    check_against_conv2d((2, 8, 8, 4), 2, None)


def test_another_stride_is_refused():
    with pytest.raises(ValueError, match="stride is 3"):
        depthwise3x3(mx.zeros((1, 8, 8, 4)), mx.zeros((4, 3, 3, 1)), 3)


SHIM = """
#include <cstring>
struct uint3 { unsigned x, y, z; };
template <int STRIDE, int STRIP_ROWS>
void body(uint3 thread_position_in_grid, const float* x, const int* x_shape,
          const float* cotangent, const int* cotangent_shape, float* partial) {
%s
}
extern "C" void run(const float* x, const int* x_shape, const float* cotangent,
                    const int* cotangent_shape, float* partial, int strips, int stride) {
    for (unsigned z = 0; z < (unsigned)x_shape[0]; ++z)
        for (unsigned y = 0; y < (unsigned)strips; ++y)
            for (unsigned c = 0; c < (unsigned)x_shape[3]; ++c) {
                auto go = stride == 1 ? body<1, ROWS> : body<2, ROWS>;
                go({c, y, z}, x, x_shape, cotangent, cotangent_shape, partial);
            }
}
"""


@pytest.fixture(scope="module")
def host_kernel(tmp_path_factory):
    """The Metal kernel's text compiled as C++, its grid run as three loops."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on the PATH")
    folder = tmp_path_factory.mktemp("kernel")
    source, library = folder / "kernel.cpp", folder / "kernel.so"
    source.write_text(SHIM % depthwise.WEIGHT_GRAD_BODY)
    flags = ["-O1", "-fPIC", "-shared", "-Wall", "-Werror", f"-DROWS={STRIP_ROWS}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library)).run


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [*ODD_SIZES, (2, 19, 20, 6)])
def test_the_metal_kernels_text_run_on_the_host_equals_conv2ds_weight_gradient(
    host_kernel, shape, stride
):
    rng = np.random.default_rng(shape)
    n, height, width, channels = shape
    out = (n, -(-height // stride), -(-width // stride), channels)
    x, cotangent = (rng.standard_normal(s, np.float32) for s in (shape, out))
    strips = -(-out[1] // STRIP_ROWS)
    partial = np.full((n, strips, 9, channels), np.nan, np.float32)

    def pointer(array, kind):
        return np.ascontiguousarray(array).ctypes.data_as(ctypes.POINTER(kind))

    sizes, out_sizes = np.array(shape, np.int32), np.array(out, np.int32)
    host_kernel(
        pointer(x, ctypes.c_float),
        pointer(sizes, ctypes.c_int),
        pointer(cotangent, ctypes.c_float),
        pointer(out_sizes, ctypes.c_int),
        pointer(partial, ctypes.c_float),
        strips,
        stride,
    )
    expected = depthwise.weight_grad_builtin(mx.array(cotangent), mx.array(x), stride)
    got = partial.sum((0, 1)).T.reshape(channels, 3, 3, 1)
    np.testing.assert_allclose(got, np.array(expected), atol=2e-4)


@pytest.mark.metal
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", ODD_SIZES)
def test_the_metal_kernel_equals_conv2ds_weight_gradient(shape, stride):
    if not mx.metal.is_available():
        pytest.skip("no Metal here")
    metal = PIECES["metal"]
    pieces = Pieces(metal.forward, metal.input_grad, depthwise.weight_grad_metal)
    check_against_conv2d(shape, stride, pieces)
