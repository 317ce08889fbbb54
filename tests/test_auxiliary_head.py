"""The action unit net's auxiliary head: what it costs, and that it stays behind."""

import numpy as np
import pytest

from mlx_faceau.core.architectures import AUPredictionConfig, initial_weights, weight_shapes
from mlx_faceau.core.auxiliary_head import (
    NUM_AUXILIARY,
    AuxiliaryAUConfig,
    with_auxiliary_prefix,
    without_auxiliary_prefix,
)
from mlx_faceau.core.losses import AuxiliaryAULoss

CONFIG = AuxiliaryAUConfig(width_mult=0.1, dropout=0.0)
PLAIN = AUPredictionConfig(width_mult=0.1, dropout=0.0)
FRAMEWORKS = ("torch", "mlx")


def outputs(framework: str, images: np.ndarray, training: bool) -> dict[str, np.ndarray]:
    weights = initial_weights(CONFIG, 3)
    if framework == "torch":
        torch = pytest.importorskip("torch")
        from mlx_faceau.torch_fallback import build

        net = build(CONFIG)
        net.load_weights_dict(weights)
        found = net.train(training)(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        return {name: value.detach().numpy() for name, value in found.items()}
    pytest.importorskip("mlx.core")
    from mlx_faceau.models import build, mx

    net = build(CONFIG)
    net.load_weights_dict(weights)
    found = net.train(training)(mx.array(images))
    return {name: np.array(value) for name, value in found.items()}


def loss(framework: str, predictions: dict, targets: dict, **options: float) -> dict[str, float]:
    if framework == "torch":
        torch = pytest.importorskip("torch")
        array = torch.from_numpy
    else:
        pytest.importorskip("mlx.core")
        from mlx_faceau.models import mx

        array = mx.array
    sides = [{name: array(v) for name, v in side.items()} for side in (predictions, targets)]
    terms = AuxiliaryAULoss(**options)(*sides)
    return {name: float(value) for name, value in terms.items()}


@pytest.fixture(scope="module")
def faces() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Predictions and targets of 5 faces; of some answers nothing is known."""
    rng = np.random.default_rng(0)
    predictions, targets = (
        {
            "au_intensities": rng.uniform(0, 5, (5, 17)).astype(np.float32),
            "auxiliary": rng.normal(size=(5, NUM_AUXILIARY)).astype(np.float32),
        }
        for _ in range(2)
    )
    targets["auxiliary"][1, 136:] = np.nan
    return predictions, targets


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_auxiliary_loss_is_the_squared_error_of_what_is_known(
    framework: str, faces: tuple[dict, dict]
) -> None:
    predictions, targets = faces
    terms = loss(framework, *faces, auxiliary_weight=0.25, ccc_weight=2.0)
    squares = (predictions["auxiliary"] - targets["auxiliary"]).astype(np.float64) ** 2
    expected = np.nansum(squares) / 5
    assert terms["auxiliary"] == pytest.approx(expected, rel=1e-6)
    total = terms["smooth_l1"] + 2 * terms["ccc"] + 0.25 * terms["auxiliary"]
    assert terms["loss"] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_hog_head_s_intensities_have_the_action_units_loss(
    framework: str, faces: tuple[dict, dict]
) -> None:
    predictions, targets = faces
    found = np.random.default_rng(1).uniform(0, 5, (5, 17)).astype(np.float32)
    weights = {"auxiliary_weight": 0.25, "ccc_weight": 2.0, "hog_weight": 3.0}
    terms = loss(framework, {**predictions, "hog_intensities": found}, targets, **weights)
    alone = loss(framework, {"au_intensities": found}, targets, **weights)
    assert terms["hog"] == pytest.approx(alone["loss"], rel=1e-6)
    rest = loss(framework, *faces, **weights)["loss"]
    assert terms["loss"] == pytest.approx(rest + 3 * alone["loss"], rel=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_answers_it_is_the_action_units_loss(
    framework: str, faces: tuple[dict, dict]
) -> None:
    plain = [{"au_intensities": side["au_intensities"]} for side in faces]
    terms = loss(framework, *plain, auxiliary_weight=0.25)
    assert terms.keys() == {"smooth_l1", "ccc", "loss"}
    assert terms["loss"] == pytest.approx(terms["smooth_l1"] + 0.5 * terms["ccc"], rel=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_auxiliary_questions_are_answered_in_training_alone(framework: str) -> None:
    images = np.random.default_rng(0).random((2, 112, 112, 3), dtype=np.float32)
    assert outputs(framework, images, training=False).keys() == {"au_intensities"}
    found = outputs(framework, images, training=True)
    assert found["auxiliary"].shape == (2, NUM_AUXILIARY)


@pytest.mark.parametrize("side", [48, 64, 80, 96])
def test_both_frameworks_answer_alike_also_on_small_images(side: int) -> None:
    images = np.random.default_rng(1).random((4, side, side, 3), dtype=np.float32)
    first, second = (outputs(framework, images, training=True) for framework in FRAMEWORKS)
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, atol=1e-5)


def test_the_net_s_own_weights_are_those_of_a_plain_one() -> None:
    own, taught = weight_shapes(PLAIN), weight_shapes(CONFIG)
    assert taught.keys() - own.keys() == {
        f"auxiliary_head.layers.0.{p}" for p in ("weight", "bias")
    }
    assert own.items() <= taught.items()
    drawn = initial_weights(CONFIG, 8)
    for name, value in initial_weights(PLAIN, 8).items():
        np.testing.assert_array_equal(drawn[name], value)


def test_what_stands_apart_in_a_checkpoint_is_put_back() -> None:
    weights = initial_weights(CONFIG, 0)
    state = {
        f"{part}.{name}": value for part in ("model", "ema") for name, value in weights.items()
    }
    state["optimizer.step"] = np.array([3])
    saved = with_auxiliary_prefix(state)
    for part in ("model.", "ema."):
        names = {name.removeprefix(part) for name in saved if name.startswith(part)}
        assert names == weight_shapes(PLAIN).keys()
    restored = without_auxiliary_prefix(saved)
    assert restored.keys() == state.keys()
    assert all(restored[name] is value for name, value in state.items())
