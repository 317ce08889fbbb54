"""The MLX nets: sizes, ranges, gradients, folding, and what stays untrained."""

import numpy as np
import pytest

models = pytest.importorskip("mlx_faceau.models", exc_type=ImportError)

from mlx.utils import tree_flatten  # noqa: E402

from mlx_faceau.core.architectures import (  # noqa: E402
    AUPredictionConfig,
    LandmarkPoseConfig,
    initial_weights,
    is_statistic,
    weight_shapes,
)
from mlx_faceau.errors import CheckpointError  # noqa: E402
from mlx_faceau.models.layers import ConvNorm  # noqa: E402

mx, nn = models.mx, models.nn
SMALL = [LandmarkPoseConfig(width_mult=0.25), AUPredictionConfig(width_mult=0.25)]
IDS = [config.kind for config in SMALL]


def trained_weights(config):
    """Weights whose every part matters: no zero bias, no unit statistics."""
    rng = np.random.default_rng(7)
    weights = initial_weights(config, seed=1)
    for name, value in weights.items():
        if name.endswith((".norm.weight", ".running_var")):
            weights[name] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        elif value.ndim == 1:
            weights[name] = rng.normal(0, 0.1, value.shape).astype(np.float32)
    return weights


def images(n=2):
    return mx.array(np.random.default_rng(0).random((n, 112, 112, 3), np.float32))


def sizes(tree):
    return sum(value.size for _, value in tree_flatten(tree))


@pytest.mark.parametrize(
    ("net", "count"),
    [(models.UnifiedLandmarkPoseNet, 3_772_848), (models.AUPredictionNet, 7_388_669)],
)
def test_the_full_nets_have_the_published_number_of_parameters(net, count):
    assert sizes(net().trainable_parameters()) == count


@pytest.mark.parametrize("config", SMALL, ids=IDS)
def test_names_and_shapes_are_those_of_the_settings_table(config):
    net = models.build(config)
    assert {k: v.shape for k, v in net.to_weights().items()} == weight_shapes(config)
    trainable = {name for name, _ in tree_flatten(net.trainable_parameters())}
    assert trainable == {name for name in weight_shapes(config) if not is_statistic(name)}


@pytest.mark.parametrize("config", SMALL, ids=IDS)
def test_outputs_have_the_promised_names_shapes_and_ranges(config):
    net = models.build(config)
    net.load_weights_dict(trained_weights(config))
    outputs = {name: np.array(value) for name, value in net.eval()(images(3)).items()}
    assert {k: v.shape for k, v in outputs.items()} == {
        name: (3, *shape) for name, shape in config.output_shapes.items()
    }
    if config.kind == "landmark_pose":
        assert outputs["landmarks"].min() >= 0
        assert outputs["landmarks"].max() <= 112
        assert outputs["global_params"][:, 0].min() > 0.1
        assert np.abs(outputs["global_params"][:, 1:4]).max() < np.pi / 2
    else:
        assert outputs["au_intensities"].min() >= 0


def test_the_scale_stays_finite_and_positive_far_from_zero():
    from mlx_faceau.models.nets import _global_params

    raw = mx.zeros((3, 6))
    raw[:, 0] = mx.array([-200.0, 0.0, 200.0])
    scale = np.array(_global_params(raw))[:, 0]
    np.testing.assert_allclose(scale, [0.1, np.log(2) + 0.1, 200.1], rtol=1e-6)


@pytest.mark.parametrize("config", SMALL, ids=IDS)
def test_every_parameter_gets_a_gradient(config):
    mx.random.seed(0)
    net = models.build(config)
    net.load_weights_dict(trained_weights(config))
    rng = np.random.default_rng(1)

    def loss(x):
        weighted = [(v * mx.array(rng.normal(size=v.shape))).sum() for v in net(x).values()]
        return sum(weighted)

    _, gradients = nn.value_and_grad(net, loss)(images(4))
    dead = [name for name, value in tree_flatten(gradients) if not mx.any(value != 0)]
    assert dead == []


@pytest.mark.parametrize("config", SMALL, ids=IDS)
def test_the_folded_net_predicts_what_the_evaluating_net_does(config):
    weights = trained_weights(config)
    net = models.build(config)
    net.load_weights_dict(weights)
    folded = models.build(config, weights).fold()
    expected, got = net.eval()(images()), folded(images())
    assert not any(".norm." in name for name, _ in tree_flatten(folded.parameters()))
    for name, value in expected.items():
        np.testing.assert_allclose(np.array(got[name]), np.array(value), rtol=1e-4, atol=1e-5)
    assert sizes(folded.trainable_parameters()) == 0


def test_folding_one_norm_by_hand():
    layer = ConvNorm(1, 1, 1, None)
    layer.conv.weight = mx.full((1, 1, 1, 1), 3.0)
    layer.norm.weight, layer.norm.bias = mx.array([2.0]), mx.array([1.0])
    layer.norm.running_mean, layer.norm.running_var = mx.array([5.0]), mx.array([4.0 - 1e-5])
    layer.fold()
    folded = dict(tree_flatten(layer.parameters()))
    assert set(folded) == {"conv.weight", "conv.bias"}
    assert folded["conv.weight"].item() == pytest.approx(3.0)
    assert folded["conv.bias"].item() == pytest.approx(1.0 - 5.0)


def test_unfreezing_the_net_or_a_part_never_trains_running_statistics():
    net = models.build(SMALL[0])
    before = sizes(net.trainable_parameters())
    for module in (net, net.backbone, net.backbone.blocks[1]):
        net.freeze()
        module.unfreeze()
        names = [name for name, _ in tree_flatten(net.trainable_parameters())]
        assert names
        assert not any(is_statistic(name) for name in names)
    net.unfreeze()
    assert sizes(net.trainable_parameters()) == before


def test_training_moves_the_statistics_and_evaluating_does_not():
    net = models.build(SMALL[0])
    before = net.to_weights()
    net.eval()
    net(images())
    assert all(np.array_equal(v, before[k]) for k, v in net.to_weights().items())
    net.train()
    net(images())
    after = net.to_weights()
    assert all(is_statistic(k) != np.array_equal(v, before[k]) for k, v in after.items())


def test_a_seed_fixes_the_weights():
    def draw(seed):
        mx.random.seed(seed)
        return models.build(SMALL[1]).to_weights()

    first, again, other = draw(3), draw(3), draw(4)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


def test_weights_of_another_net_are_refused_with_names():
    net = models.build(SMALL[0])
    with pytest.raises(CheckpointError, match=r"blocks\.16\.expand\.conv\.weight is missing"):
        net.load_weights_dict(initial_weights(SMALL[1], seed=0))
    with pytest.raises(CheckpointError, match="missing"):
        models.build(SMALL[0], {})
