"""Compiled functions stay compiled while MLX differentiates."""

import subprocess
import sys

import pytest

mx = pytest.importorskip("mlx_faceau.models", exc_type=ImportError).mx

from mlx_faceau.models.mlx_thread import outside_tracing  # noqa: E402

on_cpu = pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="a matter of CPUs")


def differentiate(body):
    """Run a custom function through three transformations; returns the gradient."""
    function = mx.custom_function(body)
    function.vjp(lambda primal, cotangent, _: 2 * primal * cotangent)
    for _ in range(3):
        gradient = mx.grad(lambda x: function(x).sum())(mx.array([3.0]))
    return gradient.item()


@on_cpu
def test_a_compiled_function_is_traced_once_inside_and_anew_each_time_outside():
    traces = []

    @mx.compile
    def square(x):
        traces.append(x)
        return x * x

    assert differentiate(outside_tracing(lambda x: square(x))) == 6
    assert len(traces) == 1
    differentiate(lambda x: square(x) * 1)
    assert len(traces) > 2  # the reason for all this; if it fails, MLX has learnt to do without


def test_errors_come_through():
    def fail():
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        outside_tracing(fail)()


def test_a_process_ends_cleanly_right_after_differentiating():
    code = (
        "from mlx_faceau.models import mx, layers\n"
        "layer = layers.ConvNorm(4, 4, 3, 'relu6', depthwise=True)\n"
        "mx.eval(mx.grad(lambda x: layer(x).sum())(mx.ones((2, 5, 5, 4))))\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
