"""The training step of both frameworks."""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import take_steps

from mlx_faceau.core.architectures import (
    AUPredictionConfig,
    LandmarkPoseConfig,
    ModelConfig,
    initial_weights,
    is_statistic,
    weight_shapes,
)
from mlx_faceau.core.auxiliary_head import AuxiliaryAUConfig
from mlx_faceau.core.checkpoint import describe, load_checkpoint, save_checkpoint
from mlx_faceau.core.trainer import TrainerSettings
from mlx_faceau.errors import BackendError
from mlx_faceau.train.loop import averaging_decay

LANDMARKS = LandmarkPoseConfig(width_mult=0.1)
AUS = AUPredictionConfig(width_mult=0.1, dropout=0.3)
AUXILIARY = AuxiliaryAUConfig(width_mult=0.1, dropout=0.3)
NETS = [
    pytest.param(LANDMARKS, id="landmarks"),
    pytest.param(AUS, id="aus"),
    pytest.param(AUXILIARY, id="auxiliary aus"),
]


@pytest.fixture(params=["torch", "mlx"])
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


def make(framework: str, config: ModelConfig, **options: Any) -> Any:
    if framework == "torch":
        from mlx_faceau.torch_fallback.trainer import TorchTrainer as Trainer
    else:
        from mlx_faceau.train.mlx_trainer import MLXTrainer as Trainer
    scaling = {}
    if config.kind == "landmark_pose":
        scaling = {"global_params": (np.full(6, 2.0), np.full(6, 3.0))}
    loss_options = {"auxiliary_weight": 0.5} if isinstance(config, AuxiliaryAUConfig) else {}
    settings = {"loss_options": loss_options, "scaling": scaling, "weight_decay": 1e-4}
    settings |= {"device": "cpu", **options}
    return Trainer(TrainerSettings(config, initial_weights(config, 0), **settings))


def batch(config: ModelConfig, size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = np.repeat(rng.integers(0, 256, (size, 7, 7, 3), np.uint8), 8, axis=1)
    targets = {
        "landmarks": rng.uniform(20, 90, (size, 68, 2)),
        "global_params": np.concatenate(
            [
                rng.uniform(2, 4, (size, 1)),
                rng.normal(0, 0.3, (size, 3)),
                rng.uniform(40, 70, (size, 2)),
            ],
            axis=1,
        ),
        "local_params": rng.normal(0, 2, (size, 34)),
        "au_intensities": rng.uniform(0.5, 4, (size, 17)),
        "auxiliary": np.where(rng.random((size, 443)) < 0.2, np.nan, rng.normal(size=(size, 443))),
        "global_mask": np.ones(size),
        "local_mask": np.ones(size),
    }
    return {
        "images": np.repeat(images, 8, axis=2),  # of 56 px: nets take any size, and it is quick
        **{name: values.astype(np.float32) for name, values in targets.items()},
        "index": np.arange(size),
    }


def constant(rate: float) -> Callable[[int], float]:
    return lambda step: rate


@pytest.mark.parametrize("config", NETS)
def test_a_batch_can_be_learned_by_heart(framework: str, config: ModelConfig) -> None:
    trainer = make(framework, config, weight_decay=0.0)
    losses = take_steps(trainer, [batch(config)] * 10, constant(3e-3))["loss"]
    assert losses.shape == (10,)
    assert losses[-2:].mean() < 0.8 * losses[:2].mean()


@pytest.mark.parametrize("config", [NETS[0], NETS[2]])  # the last has all parts of the second
def test_saving_and_going_on_equals_not_stopping_to_the_bit(
    framework: str, config: ModelConfig
) -> None:
    batches = [batch(config, seed=seed) for seed in range(3)]
    batches[0]["images"] = batches[0]["images"][:, :48, :48]  # as images that grow
    averaging = partial(averaging_decay, decay=0.9)
    whole = make(framework, config, averaging=averaging)
    take_steps(whole, batches, lambda step: 1e-3 / (step + 1))
    first = make(framework, config, averaging=averaging)
    take_steps(first, batches[:1], lambda step: 1e-3 / (step + 1))
    saved = {name: array.copy() for name, array in first.state().items()}
    take_steps(first, batches[:1], constant(0.1))  # must not reach what was saved
    second = make(framework, config, seed=9, averaging=averaging)
    second.restore(saved)
    take_steps(second, batches[1:], lambda step: 1e-3 / (step + 1), first=1)
    expected, actual = whole.state(), second.state()
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.parametrize("config", NETS)
def test_the_state_names_every_weight_and_both_moments_of_every_parameter(
    framework: str, config: ModelConfig
) -> None:
    state = make(framework, config).state()
    shapes = weight_shapes(config)
    trainable = {name for name in shapes if not is_statistic(name)}
    expected = {f"model.{name}" for name in shapes}
    expected |= {f"optimizer.{moment}.{name}" for moment in "mv" for name in trainable}
    expected |= {"optimizer.step", f"rng.{framework}"}
    assert state.keys() == expected
    for name in trainable:
        assert state[f"optimizer.m.{name}"].shape == shapes[name]


def test_gradients_of_parts_add_up_to_those_of_the_whole_batch(framework: str) -> None:
    # Without dropout, and with halves that are alike, BatchNorm and concordance see the same.
    config = AUPredictionConfig(width_mult=0.1, dropout=0.0)
    half = batch(config, size=3)
    whole = {name: np.concatenate([values, values]) for name, values in half.items()}
    states, losses = [], []
    for accumulate in (1, 2):
        trainer = make(framework, config, accumulate=accumulate)
        losses.append(take_steps(trainer, [whole], constant(1e-3))["loss"])
        states.append(trainer.state())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    for name in states[0]:
        if name.startswith("optimizer.m.au_head.layers.2"):  # a tenth of the gradient
            scale = np.abs(states[0][name]).max()
            np.testing.assert_allclose(states[1][name], states[0][name], atol=1e-3 * scale)


def test_every_part_counts(framework: str) -> None:
    config = AUPredictionConfig(width_mult=0.1, dropout=0.0)
    first, second = batch(config, seed=1), batch(config, seed=2)
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    gradients = []
    for shown, accumulate in ((first, 1), (second, 1), (both, 2)):
        trainer = make(framework, config, accumulate=accumulate)
        terms = take_steps(trainer, [shown], constant(0.0))
        gradients.append((terms["loss"][0], *_direction(trainer)))
    (loss1, one), (loss2, other), (mean_loss, mean) = gradients
    assert mean_loss == pytest.approx((loss1 + loss2) / 2, rel=1e-5)
    assert mean @ one > 0.1
    assert mean @ other > 0.1


def _direction(trainer: Any) -> list[np.ndarray]:
    moment = trainer.state()["optimizer.m.au_head.layers.2.weight"].ravel()
    return [moment / np.linalg.norm(moment)]


def test_the_averaged_weights_follow_every_step_and_are_what_predicts(framework: str) -> None:
    trainer = make(framework, AUS, averaging=lambda step: 0.5 if step else 0.25)
    average = trainer.net.to_weights()
    for step, share in enumerate((0.25, 0.5, 0.5)):
        take_steps(trainer, [batch(AUS, seed=step)], constant(1e-2))
        new = trainer.net.to_weights()
        average = {name: share * old + (1 - share) * new[name] for name, old in average.items()}
    state = trainer.state()
    for name, expected in average.items():
        np.testing.assert_allclose(state[f"ema.{name}"], expected, atol=1e-6, err_msg=name)
    plain = make(framework, AUS)
    plain.net.load_weights_dict(average)
    images = batch(AUS)["images"]
    expected = plain.predict(images)["au_intensities"]
    np.testing.assert_allclose(trainer.predict(images)["au_intensities"], expected, atol=1e-5)


def test_matrices_decay_but_biases_and_batch_norm_do_not(framework: str) -> None:
    moved = {}
    for decay in (0.0, 0.5):
        trainer = make(framework, LANDMARKS, weight_decay=decay)
        take_steps(trainer, [batch(LANDMARKS)], constant(0.1))
        moved[decay] = trainer.net.to_weights()
    start = initial_weights(LANDMARKS, 0)
    for name, weight in start.items():
        difference = moved[0.0][name] - moved[0.5][name]
        expected = 0.1 * 0.5 * weight if weight.ndim > 1 else np.zeros_like(weight)
        np.testing.assert_allclose(difference, expected, atol=1e-5, err_msg=name)


def test_masked_parameters_do_not_move_their_head(framework: str) -> None:
    trainer = make(framework, LANDMARKS)
    masked = {**batch(LANDMARKS), "global_mask": np.zeros(4, np.float32)}
    terms = take_steps(trainer, [masked], constant(1e-3))
    assert terms["global_params"][0] == 0.0
    assert not trainer.state()["optimizer.m.global_head.layers.2.weight"].any()


def test_losses_are_standardised_by_the_given_statistics(framework: str) -> None:
    targets = batch(LANDMARKS)
    predictions = {**targets, "global_params": targets["global_params"] + 3.0}
    losses = make(framework, LANDMARKS).losses(predictions, targets)
    assert losses["global_params"] == pytest.approx(1.0, rel=1e-5)  # 3 px over a deviation of 3


def test_predictions_are_in_evaluation_mode(framework: str) -> None:
    trainer = make(framework, AUS)
    images = batch(AUS)["images"]
    take_steps(trainer, [batch(AUS)], constant(1e-3))
    together = trainer.predict(images)["au_intensities"]
    assert together.dtype == np.float32
    alone = trainer.predict(images[:1])["au_intensities"]
    np.testing.assert_allclose(alone, together[:1], atol=1e-5)


def test_a_device_that_is_not_there_is_named(
    framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if framework == "torch":  # on Macs too
        monkeypatch.setattr("torch.mps.is_available", lambda: False)
    with pytest.raises(BackendError, match="mps"):
        make(framework, AUS, device="mps")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "bfloat16"}, "--precision bfloat16"),
        ({"precision": "float16"}, "--precision float16"),
    ],
)
def test_what_a_device_cannot_do_is_refused(
    framework: str, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if framework == "torch":  # as on a CPU without bfloat16 instructions, or a build without oneDNN
        monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    with pytest.raises(BackendError, match=words):
        make(framework, AUS, **options)


@pytest.fixture
def any_precision(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed to show that half precision works; that it pays is another matter."""
    if framework == "torch":
        from mlx_faceau.torch_fallback import trainer as module

        monkeypatch.setattr(module, "check_precision", lambda *_: None)
    else:
        from mlx_faceau.train import mlx_trainer

        monkeypatch.setattr(mlx_trainer, "check_precision", lambda *_: None)


@pytest.mark.usefixtures("any_precision")
@pytest.mark.parametrize(
    ("framework", "precision"),
    [("torch", "bfloat16"), ("torch", "float16"), ("mlx", "bfloat16")],
    indirect=["framework"],
)
def test_half_precision_trains_float32_weights_and_resumes_to_the_bit(
    framework: str, precision: str
) -> None:
    config = AUPredictionConfig(width_mult=0.1, dropout=0.0)
    batches = [batch(config, seed=seed) for seed in range(2)]
    whole = make(framework, config, precision=precision)
    losses = take_steps(whole, batches, constant(1e-3))["loss"]
    exact = make(framework, config)
    exact_losses = take_steps(exact, batches[:1], constant(1e-3))["loss"]
    assert losses.dtype == np.float32
    assert losses[0] == pytest.approx(exact_losses[0], rel=0.02)
    name = "model.backbone.blocks.3.depthwise.conv.weight"
    assert not np.array_equal(whole.state()[name], exact.state()[name])

    first, second = (make(framework, config, precision=precision) for _ in range(2))
    take_steps(first, batches[:1], constant(1e-3))
    second.restore(first.state())
    take_steps(second, batches[1:], constant(1e-3))
    expected, actual = whole.state(), second.state()
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        assert array.dtype != np.float16
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.usefixtures("any_precision")
@pytest.mark.parametrize("framework", ["torch"], indirect=True)
def test_the_scale_of_float16_gradients_is_restored_as_it_was(
    framework: str, tmp_path: Path
) -> None:
    """Losses that overflow halve it step by step, below 1 too."""
    config = AUPredictionConfig(width_mult=0.1, dropout=0.0)
    whole, resumed = (make(framework, config, precision="float16") for _ in range(2))
    take_steps(whole, [batch(config, size=2)], constant(1e-3))
    state = whole._scaler.state_dict()
    for scale in (2.0**-10, 65536.0, 0.3):
        whole._scaler.load_state_dict({**state, "scale": scale, "_growth_tracker": 1234})
        exact = whole._scaler.get_scale()  # torch holds it in float32
        assert exact == np.float32(scale)
        save_checkpoint(tmp_path / "a.safetensors", whole.state(), describe(config))
        resumed.restore(load_checkpoint(tmp_path / "a.safetensors").arrays)
        assert resumed._scaler.get_scale() == exact
        assert resumed._scaler.state_dict()["_growth_tracker"] == 1234
    for trainer in (whole, resumed):
        take_steps(trainer, [batch(config, size=2, seed=1)], constant(1e-3))
    expected, actual = whole.state(), resumed.state()
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        assert np.isfinite(array).all()
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.usefixtures("any_precision")
@pytest.mark.parametrize("framework", ["mlx"], indirect=True)
def test_half_precision_learns_a_batch_by_heart(framework: str) -> None:
    trainer = make(framework, LANDMARKS, weight_decay=0.0, precision="bfloat16")
    losses = take_steps(trainer, [batch(LANDMARKS)] * 10, constant(3e-3))["loss"]
    assert losses[-2:].mean() < 0.8 * losses[:2].mean()


@pytest.mark.parametrize("config", NETS)
def test_both_frameworks_take_the_same_first_step(config: ModelConfig) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    undropped = config.kind == "au_prediction"  # the landmark net's dropout is fixed
    if undropped:
        config = type(config)(width_mult=0.1, dropout=0.0)
    terms = {}
    for framework in ("torch", "mlx"):
        trainer = make(framework, config)
        answers = trainer.losses(trainer.predict(batch(config)["images"]), batch(config))
        steps = take_steps(trainer, [batch(config)] * 2, constant(1e-3)) if undropped else {}
        terms[framework] = answers | {f"step {name}": float(v[0]) for name, v in steps.items()}
    assert ("step loss" in terms["mlx"]) == undropped
    for name, value in terms["torch"].items():
        assert terms["mlx"][name] == pytest.approx(value, rel=1e-4)


def test_a_training_goes_on_in_the_other_framework() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    config = AUPredictionConfig(width_mult=0.1, dropout=0.0)
    start = make("torch", config)
    take_steps(start, [batch(config)], constant(1e-3))
    state, after = start.state(), {}
    for framework in ("torch", "mlx"):
        trainer = make(framework, config)
        trainer.restore(state)
        take_steps(trainer, [batch(config)], constant(1e-3))
        after[framework] = trainer.state()
    name = "optimizer.m.au_head.layers.2.weight"
    scale = np.abs(after["torch"][name]).max()
    np.testing.assert_allclose(after["mlx"][name], after["torch"][name], atol=1e-3 * scale)
    assert after["mlx"]["optimizer.step"] == after["torch"]["optimizer.step"] == 2
