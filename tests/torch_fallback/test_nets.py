"""The torch nets: sizes, ranges of outputs, initial weights, strict loading."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mlx_faceau.core.architectures import (  # noqa: E402
    AUPredictionConfig,
    LandmarkPoseConfig,
    is_statistic,
    weight_shapes,
)
from mlx_faceau.errors import CheckpointError  # noqa: E402
from mlx_faceau.torch_fallback import AUPredictionNet, UnifiedLandmarkPoseNet, build  # noqa: E402
from mlx_faceau.torch_fallback.layers import ConvNorm  # noqa: E402
from mlx_faceau.torch_fallback.nets import _global_params  # noqa: E402

SMALL = [LandmarkPoseConfig(width_mult=0.25), AUPredictionConfig(width_mult=0.25)]
by_kind = pytest.mark.parametrize("config", SMALL, ids=lambda config: config.kind)


def images(count, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).random((count, 3, 112, 112), dtype=np.float32)
    )


@pytest.mark.parametrize(
    ("net_class", "parameters"), [(UnifiedLandmarkPoseNet, 3_772_848), (AUPredictionNet, 7_388_669)]
)
def test_full_width_has_the_published_number_of_parameters(net_class, parameters):
    assert sum(p.numel() for p in net_class().parameters()) == parameters


@by_kind
def test_names_and_shapes_are_those_of_the_settings_table(config):
    weights = build(config).to_weights()
    assert {name: value.shape for name, value in weights.items()} == weight_shapes(config)
    assert all(value.dtype == np.float32 for value in weights.values())


@by_kind
def test_build_picks_the_class_and_keeps_the_settings(config):
    net = build(config)
    expected = UnifiedLandmarkPoseNet if config.kind == "landmark_pose" else AUPredictionNet
    assert type(net) is expected
    assert net.config == config


@by_kind
def test_outputs_have_the_shapes_of_the_configuration(config):
    net = build(config).eval()
    with torch.no_grad():
        outputs = net(images(3))
    assert list(outputs) == list(config.output_shapes)
    for name, shape in config.output_shapes.items():
        assert outputs[name].shape == (3, *shape)


def test_other_numbers_of_landmarks_and_sizes_are_built():
    net = UnifiedLandmarkPoseNet(0.25, num_landmarks=5, num_local_params=3, image_size=64).eval()
    with torch.no_grad():
        outputs = net(torch.rand(1, 3, 64, 64))
    assert outputs["landmarks"].shape == (1, 5, 2)
    assert outputs["local_params"].shape == (1, 3)
    assert outputs["landmarks"].min() >= 0
    assert outputs["landmarks"].max() <= 64


def test_landmark_outputs_stay_in_range_for_extreme_features():
    net = UnifiedLandmarkPoseNet(0.25).eval()
    with torch.no_grad():
        for head in (net.landmark_head, net.global_head):
            head.layers[-1].bias.normal_(std=100.0)
        outputs = net(images(2))
    landmarks, pose = outputs["landmarks"], outputs["global_params"]
    assert landmarks.min() == 0
    assert landmarks.max() == 112
    assert (pose[:, 0] >= 0.1).all()
    assert (pose[:, 1:4].abs() <= math.pi / 2 + 1e-6).all()
    assert torch.isfinite(pose).all()


def test_global_parameters_follow_their_activations():
    x = torch.tensor([[0.0, 0.0, 1.0, -1.0, 0.5, -0.25]], dtype=torch.float64)
    expected = [math.log(2) + 0.1, 0.0, math.tanh(1) * math.pi / 2, -math.tanh(1) * math.pi / 2]
    np.testing.assert_allclose(_global_params(x)[0].numpy(), [*expected, 50.0, -25.0], rtol=1e-12)


def test_scale_is_exact_where_float16_exponentials_overflow():
    x = torch.zeros(5, 6, dtype=torch.float16)
    x[:, 0] = torch.tensor([-20.0, -5.0, 10.5, 12.0, 30.0])
    exact = np.log1p(np.exp(x[:, 0].double().numpy())) + 0.1
    np.testing.assert_allclose(_global_params(x)[:, 0].numpy(), exact, rtol=2e-3)


def test_action_units_are_never_negative_and_not_clamped():
    net = AUPredictionNet(0.25).eval()
    with torch.no_grad():
        net.au_head.layers[-1].bias.copy_(torch.linspace(-10, 10, 17))
        au_intensities = net(images(2))["au_intensities"]
    assert au_intensities.min() == 0
    assert au_intensities.max() > 5


@by_kind
def test_every_parameter_receives_a_gradient(config):
    torch.manual_seed(0)
    net = build(config).train()
    with torch.no_grad():
        for head in config.heads:
            getattr(net, head.name).layers[-1].bias.fill_(0.5)
    outputs = net(images(8))
    sum((value * torch.randn_like(value)).sum() for value in outputs.values()).backward()
    without = [
        name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert without == []


@by_kind
def test_initial_weights_follow_he_and_the_specification(config):
    weights = build(type(config)()).to_weights()
    for name, value in weights.items():
        if name.endswith("conv.weight") and value.size > 20_000:
            fan_out = value.shape[0] * value.shape[1] * value.shape[2]
            assert value.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03), name
            assert abs(value.mean()) < 5 * value.std() / math.sqrt(value.size), name
        elif "layers" in name and name.endswith("weight") and value.size > 20_000:
            assert value.std() == pytest.approx(0.01, rel=0.03), name
        elif name.endswith(("norm.weight", "running_var")):
            assert (value == 1).all(), name
        elif name.endswith("bias") or is_statistic(name):
            assert (value == 0).all(), name


def test_torch_seed_decides_the_initial_weights():
    nets = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        nets.append(UnifiedLandmarkPoseNet(0.25).to_weights()["backbone.stem.conv.weight"])
    assert np.array_equal(nets[0], nets[1])
    assert not np.array_equal(nets[0], nets[2])


@by_kind
def test_loaded_weights_come_back_unchanged(config):
    first, second = build(config), build(config)
    second.load_weights_dict(first.to_weights())
    with torch.no_grad():
        for name, value in first.eval()(images(2)).items():
            assert torch.equal(value, second.eval()(images(2))[name])


def test_copied_weights_do_not_change_with_the_net():
    net = AUPredictionNet(0.25)
    weights = net.to_weights()
    before = {name: value.copy() for name, value in weights.items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    assert all(np.array_equal(weights[name], before[name]) for name in weights)


def test_loading_names_every_wrong_weight_at_once():
    net = AUPredictionNet(0.25)
    weights = net.to_weights()
    del weights["backbone.stem.conv.weight"]
    weights["au_head.layers.9.bias"] = np.zeros(3, np.float32)
    weights["au_head.layers.0.bias"] = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError) as caught:
        net.load_weights_dict(weights)
    for name in ("stem.conv.weight is missing", "layers.9.bias is unknown", "layers.0.bias has"):
        assert name in str(caught.value)


@by_kind
def test_channels_last_gives_the_same_outputs_and_weights(config):
    net = build(config).eval()
    weights = net.to_weights()
    with torch.no_grad():
        plain = net(images(2))
        net = net.to(memory_format=torch.channels_last)
        moved = net(images(2).contiguous(memory_format=torch.channels_last))
    for name in plain:
        np.testing.assert_allclose(moved[name], plain[name], rtol=1e-4, atol=1e-4)
    again = net.to_weights()
    assert all(np.array_equal(again[name], weights[name]) for name in weights)
    net.load_weights_dict(weights)
    assert net.backbone.head.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_dropout_acts_in_training_only():
    net = AUPredictionNet(0.25, dropout=0.5)
    features = torch.rand(2, 1280)
    head = net.au_head
    with torch.no_grad():
        assert not torch.equal(head.train()(features), head(features))
        assert torch.equal(head.eval()(features), head(features))


@pytest.mark.parametrize("size", [9, 10])
def test_a_depthwise_stride_of_two_gives_torch_s_own_values_and_gradients_in_bfloat16(size):
    torch.manual_seed(0)
    layer = ConvNorm(8, 8, 3, None, stride=2, groups=8).to(torch.bfloat16)
    image = torch.randn(2, 8, size, size, dtype=torch.bfloat16)
    results = []
    for convolve in (layer._convolve, layer.conv):
        x = image.clone().requires_grad_()
        layer.zero_grad()
        out = convolve(x)
        out.square().sum().backward()
        results.append([out, x.grad, layer.conv.weight.grad.clone()])
    for ours, torch_s in zip(*results, strict=True):
        assert ours.shape == torch_s.shape
        torch.testing.assert_close(ours, torch_s, rtol=0.02, atol=0.02)
