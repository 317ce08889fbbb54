"""Weights in MLX layout and torch state dicts: the same numbers, another axis order."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mlx_faceau.core.architectures import AUPredictionConfig, LandmarkPoseConfig, initial_weights  # noqa: E402
from mlx_faceau.torch_fallback import build  # noqa: E402
from mlx_faceau.torch_fallback.nets import state_dict_from_weights, weights_from_state_dict  # noqa: E402

CONFIGS = [LandmarkPoseConfig(width_mult=0.25), AUPredictionConfig(width_mult=0.25)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_weights_survive_the_way_to_torch_and_back_bit_for_bit(config):
    weights = initial_weights(config, seed=3)
    back = weights_from_state_dict(state_dict_from_weights(weights))
    assert list(back) == list(weights)
    for name, value in weights.items():
        assert back[name].tobytes() == value.tobytes(), name
        assert back[name].shape == value.shape


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_state_dict_survives_the_way_to_weights_and_back_bit_for_bit(config):
    state = build(config).state_dict()
    back = state_dict_from_weights(weights_from_state_dict(state))
    assert {name for name in state if not name.endswith("num_batches_tracked")} == set(back)
    assert all(torch.equal(state[name], value) for name, value in back.items())


def test_a_convolution_moves_its_input_axis():
    kernel = np.arange(2 * 3 * 3 * 4, dtype=np.float32).reshape(2, 3, 3, 4)
    state = state_dict_from_weights({"x.conv.weight": kernel})
    assert state["x.conv.weight"].shape == (2, 4, 3, 3)
    assert state["x.conv.weight"][1, 3, 0, 2] == kernel[1, 0, 2, 3]


def test_a_linear_layer_stays_as_it_is():
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(state_dict_from_weights({"x.weight": matrix})["x.weight"], matrix)


@pytest.mark.parametrize("shape", [(4, 3, 1, 1), (4, 1, 3, 3), (5,)])
def test_converted_weights_share_no_memory_with_the_net(shape):
    state = {"x.weight": torch.zeros(shape)}
    weights = weights_from_state_dict(state)
    state["x.weight"].add_(1.0)
    assert (weights["x.weight"] == 0).all()
    again = state_dict_from_weights(weights)
    weights["x.weight"][...] = 7.0
    assert (again["x.weight"] == 0).all()
