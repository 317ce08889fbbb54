"""The depthwise convolution of CPUs against ``mx.conv2d`` and its derivatives."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx_faceau.models", exc_type=ImportError).mx

from mlx_faceau.core.architectures import AUPredictionConfig, LandmarkPoseConfig  # noqa: E402
from mlx_faceau.models.depthwise import by_slices, depthwise3x3  # noqa: E402

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


def check_against_conv2d(shape: tuple[int, ...], stride: int, ours) -> None:
    rng = np.random.default_rng(shape)
    n, height, width, channels = shape
    x = mx.array(rng.standard_normal(shape, np.float32))
    w = mx.array(rng.standard_normal((channels, 3, 3, 1), np.float32))
    out = (n, -(-height // stride), -(-width // stride), channels)
    cotangent = mx.array(rng.standard_normal(out, np.float32))

    def expected(x, w):
        return mx.conv2d(x, w, stride=stride, padding=1, groups=channels)

    outputs, gradients = mx.vjp(ours, [x, w], [cotangent])
    expected_outputs, expected_gradients = mx.vjp(expected, [x, w], [cotangent])
    wanted = expected_outputs + expected_gradients
    for got, want in zip(outputs + gradients, wanted, strict=True):
        scale = np.abs(np.array(want)).max() + 1
        np.testing.assert_allclose(np.array(got), np.array(want), atol=1e-5 * scale)


@pytest.mark.parametrize(("side", "channels", "stride"), shapes_of_both_nets())
def test_slices_equal_conv2d_for_all_shapes_of_both_nets(side, channels, stride):
    check_against_conv2d((2, side, side, channels), stride, by_slices(stride))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", ODD_SIZES)
def test_slices_equal_conv2d_at_odd_sizes(stride, shape):
    check_against_conv2d(shape, stride, by_slices(stride))


def test_the_default_suits_the_device():
    check_against_conv2d((2, 8, 8, 4), 2, lambda x, w: depthwise3x3(x, w, 2))
