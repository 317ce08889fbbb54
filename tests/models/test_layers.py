"""BatchNorm with activation, and activations alone, against float64 NumPy."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx_faceau.models", exc_type=ImportError).mx

from mlx_faceau.core.architectures import BN_EPS, BN_MOMENTUM  # noqa: E402
from mlx_faceau.models import depthwise, layers  # noqa: E402

KINDS = ["relu6", "silu", None]


def activation(kind, u):
    if kind == "relu6":
        return np.clip(u, 0, 6)
    return u / (1 + np.exp(-u)) if kind == "silu" else u


def reference(kind, z, gamma, beta):
    """Output and population moments in float64."""
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
    u = (z - mean) / np.sqrt(var + BN_EPS) * gamma + beta
    return activation(kind, u), mean, var


def finite_differences(function, array, probes, step=1e-6):
    """Derivatives of a scalar function by some entries of an array, in float64."""
    slopes = []
    for place in probes:
        ends = []
        for sign in (1, -1):
            moved = array.copy()
            moved[place] += sign * step
            ends.append(function(moved))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return np.array(slopes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 4])
def test_norm_with_activation_and_its_gradients_follow_the_definition(kind, n):
    rng = np.random.default_rng(3)
    arrays = [rng.normal(2.0, 1.0, (n, 3, 5, 7)), rng.uniform(0.5, 2.0, 7), rng.normal(1, 1, 7)]
    cotangent = np.random.default_rng(1).normal(size=arrays[0].shape)

    def ours(z, gamma, beta):
        norm = layers.Norm(7)
        norm.weight, norm.bias = gamma, beta
        return layers.activate(kind, norm.by_batch(z))

    primals = [mx.array(array.astype(np.float32)) for array in arrays]
    outputs, gradients = mx.vjp(ours, primals, [mx.array(cotangent.astype(np.float32))])
    expected = reference(kind, *arrays)[0]
    np.testing.assert_allclose(np.array(outputs[0]), expected, rtol=2e-5, atol=2e-5)
    for index, array in enumerate(arrays):
        probes = [tuple(rng.integers(0, s) for s in array.shape) for _ in range(6)]

        def total(value, index=index):
            changed = [value if i == index else a for i, a in enumerate(arrays)]
            return (reference(kind, *changed)[0] * cotangent).sum()

        want = finite_differences(total, array, probes)
        got = [float(gradients[index][probe]) for probe in probes]
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("precision", [mx.float32, mx.bfloat16])
def test_moments_survive_a_mean_far_above_the_deviation(precision):
    z = mx.array(np.random.default_rng(0).normal(100, 0.5, (8, 14, 14, 6)).astype(np.float32))
    z = z.astype(precision)
    stored = np.array(z.astype(mx.float32), np.float64)
    norm = layers.Norm(6)
    norm.running_mean, norm.running_var = mx.zeros(6), mx.zeros(6)
    norm.by_batch(z)
    mean, var = stored.mean((0, 1, 2)), stored.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(np.array(norm.running_mean), BN_MOMENTUM * mean, rtol=1e-6)
    np.testing.assert_allclose(np.array(norm.running_var), BN_MOMENTUM * var, rtol=1e-3)


def test_silu_and_relu6_keep_their_accuracy_from_end_to_end():
    x = np.concatenate([np.linspace(-40, 40, 20001), [-1e4, -400, 1e4, 0.0]]).astype(np.float32)
    u = x.astype(np.float64)
    small = np.abs(u) < 100
    for kind in ("relu6", "silu"):
        with np.errstate(over="ignore"):
            want = activation(kind, u)
        got = np.array(layers.activate(kind, mx.array(x)), np.float64)
        error = np.abs(got - want) / np.maximum(np.abs(u), 1)
        assert error[small].max() < 4e-7
        np.testing.assert_allclose(got[~small], want[~small], atol=6e-6, rtol=1e-6)
        assert np.abs(got - want)[u < 0].max() < 6e-6


def test_the_slope_of_silu_follows_its_definition():
    x = np.r_[np.linspace(-20, 20, 4001), -400, 400]
    gate = 1 / (1 + np.exp(-x))
    slope = mx.grad(lambda x: layers.activate("silu", x).sum())(mx.array(np.float32(x)))
    np.testing.assert_allclose(np.array(slope), gate * (1 + x * (1 - gate)), atol=6e-6)


def test_sigmoid_stays_within_zero_and_one():
    x = mx.array([-1e30, -50.0, -17.0, 0.0, 17.0, 50.0, 1e30])
    got = np.array(layers.sigmoid(x))
    np.testing.assert_allclose(got, [0, 0, 0, 0.5, 1, 1, 1], atol=4e-7)


@pytest.mark.parametrize("name", ["metal", "cuda"])
def test_the_gpu_forms_agree_with_the_cpu_forms(name, monkeypatch):
    rng = np.random.default_rng(5)
    x = mx.array(rng.random((4, 8, 8, 3), np.float32))
    results = []
    for device in ("cpu", name):
        for module in (layers, depthwise):
            monkeypatch.setattr(module, "device_name", lambda device=device: device)
        mx.random.seed(1)
        stem = layers.ConvNorm(3, 8, 3, "silu", stride=2)
        stem.conv.weight = mx.random.normal((8, 3, 3, 3))
        deep = layers.ConvNorm(8, 8, 3, "silu", stride=2, depthwise=True)
        deep.conv.weight = mx.random.normal((8, 3, 3, 1))

        def forward(x, stem=stem, deep=deep):
            return deep(stem(x))

        outputs, gradients = mx.vjp(forward, [x], [mx.ones((4, 2, 2, 8))])
        results.append([np.array(a) for a in (*outputs, *gradients, deep.norm.running_var)])
    for cpu, gpu in zip(*results, strict=True):
        np.testing.assert_allclose(cpu, gpu, atol=2e-5)


@pytest.mark.parametrize("depthwise_", [False, True])
def test_running_statistics_move_by_the_momentum_towards_the_unbiased_variance(depthwise_):
    rng = np.random.default_rng(2)
    layer = layers.ConvNorm(4, 4 if depthwise_ else 6, 3 if depthwise_ else 1, None, 1, depthwise_)
    layer.conv.weight = mx.array(rng.standard_normal(layer.conv.weight.shape, np.float32))
    x = rng.standard_normal((3, 4, 4, 4), np.float32)
    layer.eval()
    z = np.array(layer(mx.array(x)), np.float64) * np.sqrt(1 + BN_EPS)  # untouched statistics
    layer.train()
    layer(mx.array(x))
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(np.array(layer.norm.running_mean), BN_MOMENTUM * mean, atol=1e-5)
    expected = 1 - BN_MOMENTUM + BN_MOMENTUM * var
    np.testing.assert_allclose(np.array(layer.norm.running_var), expected, rtol=1e-5)


def test_the_stem_equals_mlxs_convolution_and_weight_gradient():
    rng = np.random.default_rng(4)
    layer = layers.ConvNorm(3, 8, 3, None, stride=2)
    layer.fold()
    x = mx.array(rng.standard_normal((2, 9, 12, 3), np.float32))
    weight = mx.array(rng.standard_normal((8, 3, 3, 3), np.float32))
    cotangent = mx.array(rng.standard_normal((2, 5, 6, 8), np.float32))

    def ours(weight):
        layer.conv.weight = weight
        return layer(x)

    def expected(weight):
        return mx.conv2d(x, weight, stride=2, padding=1)

    for got, want in zip(
        mx.vjp(ours, [weight], [cotangent]), mx.vjp(expected, [weight], [cotangent]), strict=True
    ):
        np.testing.assert_allclose(np.array(got[0]), np.array(want[0]), atol=2e-5)
