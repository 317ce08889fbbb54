from dataclasses import asdict

import numpy as np
import pytest

from mlx_faceau.core.architectures import (
    CONFIGS,
    AUPredictionConfig,
    LandmarkPoseConfig,
    config_from_dict,
    count_parameters,
    initial_weights,
    output_biases,
    weight_shapes,
)
from mlx_faceau.core.landmarks import GROUPS, MIRROR, NUM_LANDMARKS


def test_full_width_nets_have_the_contracts_parameter_counts() -> None:
    assert count_parameters(LandmarkPoseConfig()) == 3_772_848
    assert count_parameters(AUPredictionConfig()) == 7_388_669


def test_strides_shrink_112_pixels_to_4() -> None:
    for config in CONFIGS.values():
        strides = [block.stride for block in config.backbone.blocks(1.0)]
        side = 112
        for stride in [2, *strides]:
            side = (side - 1) // stride + 1  # 3x3, padding 1
        assert side == 4


def test_head_grows_only_above_width_one() -> None:
    backbone = LandmarkPoseConfig.backbone
    assert [backbone.head_channels(w) for w in (0.25, 1.0, 1.4)] == [1280, 1280, 1792]


def test_squeeze_width_is_a_quarter_of_the_hidden_width_and_at_least_one() -> None:
    for width in (0.1, 0.25, 1.0):
        for block in AUPredictionConfig.backbone.blocks(width):
            assert block.squeeze in (0, max(1, block.hidden // 4))


@pytest.mark.parametrize("kind", CONFIGS)
def test_config_survives_a_round_trip_through_a_dict(kind: str) -> None:
    config = CONFIGS[kind](width_mult=0.5)
    assert config_from_dict(kind, asdict(config)) == config


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("emotion", {}, "unknown kind"),
        ("landmark_pose", {"depth": 3}, "unknown setting"),
        ("landmark_pose", {"width_mult": "wide"}, "expected a number"),
        ("landmark_pose", {"width_mult": float("nan")}, "width_mult"),
        ("landmark_pose", {"width_mult": 0.01}, "without channels"),
        ("landmark_pose", {"num_landmarks": 10**9}, "num_landmarks"),
        ("au_prediction", {"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_settings_are_named(kind: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_dict(kind, settings)


def test_initial_weights_have_the_stated_distribution() -> None:
    config = AUPredictionConfig()
    weights = initial_weights(config, seed=1)
    assert {name: array.shape for name, array in weights.items()} == weight_shapes(config)
    head = weights["backbone.head.conv.weight"]
    assert head.std() == pytest.approx(np.sqrt(2 / 1280), rel=0.01)
    assert weights["au_head.layers.0.weight"].std() == pytest.approx(0.01, rel=0.01)
    assert all((a == 1).all() for n, a in weights.items() if n.endswith("running_var"))


def test_the_seed_decides_the_initial_weights() -> None:
    config = LandmarkPoseConfig(width_mult=0.25)
    first, again, other = (initial_weights(config, seed) for seed in (1, 1, 2))
    name = "backbone.stem.conv.weight"
    np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first[name], other[name])


def test_output_biases_invert_the_activations() -> None:
    means = {
        "landmarks": np.linspace(5, 105, 136).reshape(68, 2),
        "global_params": np.array([2.5, 0.1, -0.4, 0.05, 57.0, 60.0]),
        "local_params": np.linspace(-3, 3, 34),
    }
    biases = output_biases(LandmarkPoseConfig(), means)
    sigmoid = 112 / (1 + np.exp(-np.float64(biases["landmark_head.layers.2.bias"])))
    np.testing.assert_allclose(sigmoid, means["landmarks"].ravel(), rtol=1e-5)
    pose = np.float64(biases["global_head.layers.2.bias"])
    back = [np.log1p(np.exp(pose[0])) + 0.1, *np.tanh(pose[1:4]) * np.pi / 2, *pose[4:] * 100]
    np.testing.assert_allclose(back, means["global_params"], rtol=1e-5)
    aus = output_biases(AUPredictionConfig(), {"au_intensities": np.linspace(0, 1, 17)})
    assert aus["au_head.layers.2.bias"].min() == np.float32(0.1)


def test_mirroring_landmarks_twice_changes_nothing() -> None:
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(NUM_LANDMARKS))
    fixed = {i for i in range(NUM_LANDMARKS) if MIRROR[i] == i}
    assert fixed == {8, 27, 28, 29, 30, 33, 51, 57, 62, 66}


def test_landmark_groups_cover_every_landmark_once() -> None:
    assert sorted(i for group in GROUPS.values() for i in group) == list(range(NUM_LANDMARKS))


def test_a_landmark_net_written_before_its_dropout_could_be_chosen_has_the_usual_one() -> None:
    config = config_from_dict("landmark_pose", {"width_mult": 0.5})
    assert config.dropout == 0.2
    assert [head.dropouts for head in config.heads] == [(0.2, 0.0)] * 3
