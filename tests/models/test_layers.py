"""BatchNorm with activation, and activations alone, against float64 NumPy."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx_faceau.models", exc_type=ImportError).mx

from mlx_faceau.core.architectures import BN_EPS, BN_MOMENTUM  # noqa: E402
from mlx_faceau.models import activations, depthwise, layers  # noqa: E402
from mlx_faceau.models.norm import norm_activate, pointwise_norm_activate  # noqa: E402

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


def inputs(n=4, inner=5, outer=7):
    rng = np.random.default_rng(3)
    return {
        "x": rng.normal(2.0, 1.0, (n, 3, 5, inner)),
        "weight": rng.normal(0, 1, (outer, inner)),
        "gamma": rng.uniform(0.5, 2.0, outer),
        "beta": rng.normal(1.0, 1.0, outer),
    }


def check(ours, expected, arrays, cotangent):
    """Compare outputs, then each gradient of ``sum(output * cotangent)`` at a few places."""
    names = list(arrays)
    primals = [mx.array(arrays[name].astype(np.float32)) for name in names]
    output, mean, var = ours(*primals)
    for got, want in zip((output, mean, var), expected(*arrays.values()), strict=True):
        np.testing.assert_allclose(np.array(got), want, rtol=2e-5, atol=2e-5)
    outputs = mx.vjp(lambda *a: ours(*a)[0], primals, [mx.array(cotangent.astype(np.float32))])
    rng = np.random.default_rng(0)
    for index, name in enumerate(names):
        probes = [tuple(rng.integers(0, s) for s in arrays[name].shape) for _ in range(6)]

        def total(value, index=index):
            changed = [value if i == index else a for i, a in enumerate(arrays.values())]
            return (expected(*changed)[0] * cotangent).sum()

        want = finite_differences(total, arrays[name], probes)
        got = [float(outputs[1][index][probe]) for probe in probes]
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 3, 4, 7])
def test_norm_and_its_gradients_follow_the_definition(kind, n):
    arrays = inputs(n, inner=7)
    arrays = {"z": arrays["x"], "gamma": arrays["gamma"], "beta": arrays["beta"]}
    cotangent = np.random.default_rng(1).normal(size=arrays["z"].shape)
    check(lambda *a: norm_activate(kind, *a), lambda *a: reference(kind, *a), arrays, cotangent)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 3, 4])
def test_pointwise_norm_and_its_gradients_follow_the_definition(kind, n):
    arrays = inputs(n)
    cotangent = np.random.default_rng(1).normal(size=(n, 3, 5, 7))
    check(
        lambda *a: pointwise_norm_activate(kind, *a),
        lambda x, w, gamma, beta: reference(kind, x @ w.T, gamma, beta),
        arrays,
        cotangent,
    )


def test_moments_survive_a_mean_far_above_the_deviation():
    z = np.random.default_rng(0).normal(100.0, 0.1, (8, 14, 14, 6))
    w = np.random.default_rng(1).normal(0, 1, (9, 6))
    stored = z.astype(np.float32).astype(np.float64)
    ones = [mx.ones(6), mx.zeros(6)]
    _, mean, var = norm_activate(None, mx.array(stored.astype(np.float32)), *ones)
    np.testing.assert_allclose(np.array(mean), stored.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(np.array(var), stored.var((0, 1, 2)), rtol=1e-3)
    wide = [mx.array(a.astype(np.float32)) for a in (stored, w, np.ones(9), np.zeros(9))]
    _, _, var = pointwise_norm_activate(None, *wide)
    np.testing.assert_allclose(np.array(var), (stored @ w.T).var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("affine", [(), (0.5,), (2.0, 0.5)])
def test_silu_and_relu6_keep_their_accuracy_from_end_to_end(affine):
    x = np.concatenate([np.linspace(-40, 40, 20001), [-1e4, -400, 1e4, 0.0]]).astype(np.float32)
    x = np.stack([x] * 4, axis=-1)
    terms = [mx.full((4,), value) for value in affine]
    u = x.astype(np.float64) * (affine[0] if len(affine) == 2 else 1) + (affine or (0,))[-1]
    small = np.abs(u) < 100
    for kind in ("relu6", "silu"):
        with np.errstate(over="ignore"):
            want = activation(kind, u)
        for got in (
            activations.activate(kind, mx.array(x), *terms),
            activations.activate_with_slope(kind, mx.array(x), *terms)[0],
        ):
            error = np.abs(np.array(got, np.float64) - want) / np.maximum(np.abs(u), 1)
            assert error[small].max() < 4e-7
            np.testing.assert_allclose(np.array(got)[~small], want[~small], atol=6e-6, rtol=1e-6)
            assert np.abs(np.array(got, np.float64) - want)[u < 0].max() < 6e-6


def test_the_slope_of_silu_follows_its_definition():
    x = np.r_[np.linspace(-20, 20, 4001), -400, 400][:, None] * np.ones(3)
    gate = 1 / (1 + np.exp(-x))
    slope = activations.activate_with_slope("silu", mx.array(x.astype(np.float32)), mx.zeros(3))[1]
    np.testing.assert_allclose(np.array(slope), gate * (1 + x * (1 - gate)), atol=6e-6)


def test_logistic_stays_within_zero_and_one():
    x = mx.array([-1e30, -50.0, -17.0, 0.0, 17.0, 50.0, 1e30])
    got = np.array(activations.logistic(x))
    np.testing.assert_allclose(got, [0, 0, 0, 0.5, 1, 1, 1], atol=4e-7)


@pytest.mark.parametrize("name", ["metal", "cuda"])
def test_the_gpu_forms_agree_with_the_cpu_forms(name, monkeypatch):
    rng = np.random.default_rng(5)
    x = mx.array(rng.random((4, 8, 8, 3), np.float32))
    results = []
    for device in ("cpu", name):
        for module in (activations, depthwise, layers):
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
    layer = layers.ConvNorm(3, 8, 3, None, stride=2, folded=True)
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
