"""The losses of both frameworks: closed forms, a float64 reference, and each other."""

import math

import numpy as np
import pytest

FRAMEWORKS = ["mlx", "torch"]


class Losses:
    """The losses of one framework, called with and answering NumPy values."""

    def __init__(self, framework):
        self.framework = framework
        if framework == "mlx":
            losses = pytest.importorskip("mlx_faceau.models", exc_type=ImportError)
            self._mx = losses.mx
        else:
            self._torch = pytest.importorskip("torch")
            import mlx_faceau.torch_fallback as losses
        self._losses = losses

    def array(self, value):
        value = np.asarray(value, np.float32)
        return self._mx.array(value) if self.framework == "mlx" else self._torch.tensor(value)

    def make(self, name, **settings):
        return getattr(self._losses, name)(**settings)

    def __call__(self, name, predictions, targets, **settings):
        loss = self.make(name, **settings)
        terms = loss(*({k: self.array(v) for k, v in x.items()} for x in (predictions, targets)))
        assert all(value.shape == () for value in terms.values())
        return {key: value.item() for key, value in terms.items()}

    def gradient(self, name, predictions, targets, **settings):
        """Gradient of ``loss`` by every prediction."""
        loss = self.make(name, **settings)
        inputs = {key: self.array(value) for key, value in predictions.items()}
        targets = {key: self.array(value) for key, value in targets.items()}
        if self.framework == "mlx":
            gradients = self._mx.grad(lambda x: loss(x, targets)["loss"])(inputs)
            return {key: np.array(value) for key, value in gradients.items()}
        for value in inputs.values():
            value.requires_grad_()
        loss(inputs, targets)["loss"].backward()
        return {key: value.grad.numpy() for key, value in inputs.items()}


@pytest.fixture(params=FRAMEWORKS)
def losses(request):
    return Losses(request.param)


def au(values):
    return {"au_intensities": np.asarray(values, np.float64)}


def random_landmark_pose(rng, count=8, landmarks=68):
    shapes = {"landmarks": (landmarks, 2), "global_params": (6,), "local_params": (34,)}
    predictions = {k: rng.normal(0, 8, (count, *s)).astype("f4") for k, s in shapes.items()}
    targets = {k: rng.normal(0, 8, (count, *s)).astype("f4") for k, s in shapes.items()}
    return predictions, targets


def random_au(rng, count=16):
    target = rng.uniform(0, 5, (count, 17)).astype("f4")
    prediction = (target + rng.normal(0, 1.2, target.shape)).astype("f4")
    return prediction, target


def wing_reference(difference, w=10.0, epsilon=2.0):
    x = np.abs(difference.astype("f8"))
    constant = w - w * np.log(1 + w / epsilon)
    return np.where(x < w, w * np.log(1 + x / epsilon), x - constant)


def ccc_reference(truth, prediction):
    truth, prediction = truth.astype("f8"), prediction.astype("f8")
    covariance = np.mean((truth - truth.mean()) * (prediction - prediction.mean()))
    return (
        2 * covariance / (truth.var() + prediction.var() + (truth.mean() - prediction.mean()) ** 2)
    )


def smooth_l1_reference(prediction, target):
    x = np.abs(prediction.astype("f8") - target)
    return np.where(x < 1, 0.5 * x * x, x - 0.5)


@pytest.mark.parametrize(
    ("error", "cost"),
    [
        (0.0, 0.0),
        (2.0, 10 * math.log(2)),  # ln(1 + 2/2)
        (-6.0, 10 * math.log(4)),  # ln(1 + 6/2)
        (10.0, 10 * math.log(6)),  # both branches meet
        (15.0, 5 + 10 * math.log(6)),  # slope 1 beyond w
        (-15.0, 5 + 10 * math.log(6)),
    ],
)
def test_wing_equals_hand_computed_points(losses, error, cost):
    terms = losses("WingLoss", {"landmarks": [[[error, error]]]}, {"landmarks": [[[0.0, 0.0]]]})
    assert terms["wing"] == pytest.approx(cost, rel=1e-6)
    assert terms["loss"] == terms["wing"]


def test_wing_uses_its_settings(losses):
    terms = losses(
        "WingLoss", {"landmarks": [[[3.0, 0.5]]]}, {"landmarks": [[[0.0, 0.0]]]}, w=1.0, epsilon=0.5
    )
    linear, curved = 3 - (1 - math.log(3)), math.log(2)
    assert terms["loss"] == pytest.approx((linear + curved) / 2, rel=1e-6)


@pytest.mark.parametrize("settings", [{"w": 0.0}, {"epsilon": -1.0}])
def test_wing_refuses_settings_that_are_not_positive(losses, settings):
    with pytest.raises(ValueError, match="expected both > 0"):
        losses.make("WingLoss", **settings)


@pytest.mark.parametrize("landmarks", [1, 5, 68, 98])
def test_wing_equals_the_reference_for_any_number_of_landmarks(losses, landmarks):
    predictions, targets = random_landmark_pose(np.random.default_rng(1), landmarks=landmarks)
    expected = wing_reference(predictions["landmarks"] - targets["landmarks"]).mean()
    assert losses("WingLoss", predictions, targets)["loss"] == pytest.approx(expected, rel=1e-6)


def test_landmark_pose_terms_equal_the_reference(losses):
    predictions, targets = random_landmark_pose(np.random.default_rng(2))
    terms = losses("LandmarkPoseLoss", predictions, targets)
    difference = {k: predictions[k].astype("f8") - targets[k] for k in predictions}
    expected = {
        "landmarks": wing_reference(difference["landmarks"]).mean(),
        "global_params": np.square(difference["global_params"]).mean(),
        "local_params": np.abs(difference["local_params"]).mean(),
    }
    expected["loss"] = float(np.dot([1.0, 0.1, 0.01], list(expected.values())))
    assert terms == pytest.approx(expected, rel=1e-6)


def test_landmark_pose_weights_are_arguments(losses):
    predictions, targets = random_landmark_pose(np.random.default_rng(3))
    weights = {"landmark_weight": 2.0, "global_params_weight": 0.5, "local_params_weight": 3.0}
    terms = losses("LandmarkPoseLoss", predictions, targets, **weights)
    total = 2 * terms["landmarks"] + 0.5 * terms["global_params"] + 3 * terms["local_params"]
    assert terms["loss"] == pytest.approx(total, rel=1e-6)


def test_masked_samples_do_not_count_even_if_they_are_nan(losses):
    predictions, targets = random_landmark_pose(np.random.default_rng(4), count=4)
    targets |= {"global_mask": [1, 0, 1, 1], "local_mask": [0, 0, 0, 1]}
    targets["global_params"][1] = np.nan
    targets["local_params"][:3] = np.nan
    terms = losses("LandmarkPoseLoss", predictions, targets)
    kept = (predictions["global_params"].astype("f8") - targets["global_params"])[[0, 2, 3]]
    assert terms["global_params"] == pytest.approx(np.square(kept).mean(), rel=1e-6)
    kept = (predictions["local_params"].astype("f8") - targets["local_params"])[3]
    assert terms["local_params"] == pytest.approx(np.abs(kept).mean(), rel=1e-6)
    gradients = losses.gradient("LandmarkPoseLoss", predictions, targets)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert (gradients["global_params"][1] == 0).all()
    assert (gradients["local_params"][:3] == 0).all()
    assert (gradients["local_params"][3] != 0).all()


def test_a_term_without_kept_samples_costs_nothing(losses):
    predictions, targets = random_landmark_pose(np.random.default_rng(5), count=3)
    targets |= {"global_mask": [0, 0, 0], "local_mask": [0, 0, 0]}
    terms = losses("LandmarkPoseLoss", predictions, targets)
    assert terms["global_params"] == terms["local_params"] == 0
    gradients = losses.gradient("LandmarkPoseLoss", predictions, targets)
    assert (gradients["global_params"] == 0).all()
    assert (gradients["local_params"] == 0).all()


def test_a_mask_of_ones_changes_nothing(losses):
    predictions, targets = random_landmark_pose(np.random.default_rng(6))
    masks = {"global_mask": np.ones(8), "local_mask": np.ones(8)}
    with_masks = losses("LandmarkPoseLoss", predictions, targets | masks)
    assert with_masks == pytest.approx(losses("LandmarkPoseLoss", predictions, targets), rel=1e-6)


@pytest.mark.parametrize("samples", [2, 3, 32])
def test_perfect_prediction_costs_nothing(losses, samples):
    target = np.random.default_rng(7).uniform(0, 5, (samples, 17))
    assert losses("ConcordanceCorrelationLoss", au(target), au(target))["loss"] == 0
    assert losses("AUPredictionLoss", au(target), au(target))["loss"] == 0


def test_mirrored_prediction_costs_two(losses):
    target = np.array([[1.0], [2.0], [3.0]])
    terms = losses("ConcordanceCorrelationLoss", au(4 - target), au(target))
    assert terms["ccc"] == pytest.approx(2.0, rel=1e-6)


def test_shifted_prediction_costs_what_population_moments_give(losses):
    target = np.array([[0.0], [2.0]])  # variance 1; shift 1: ccc = 2 / (1 + 1 + 1)
    terms = losses("ConcordanceCorrelationLoss", au(target + 1), au(target))
    assert terms["loss"] == pytest.approx(1 / 3, rel=1e-6)


def test_constant_prediction_costs_one(losses):
    terms = losses("ConcordanceCorrelationLoss", au([[1.0], [1.0]]), au([[0.0], [4.0]]))
    assert terms["loss"] == pytest.approx(1.0, rel=1e-6)


def test_concordance_equals_the_reference(losses):
    prediction, target = random_au(np.random.default_rng(8))
    expected = np.mean(
        [1 - ccc_reference(t, p) for t, p in zip(target.T, prediction.T, strict=True)]
    )
    terms = losses("ConcordanceCorrelationLoss", au(prediction), au(target))
    assert terms["ccc"] == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("samples", [4, 5000])
def test_units_with_constant_targets_are_left_out(losses, samples):
    rng = np.random.default_rng(9)
    target, prediction = rng.uniform(0, 5, (2, samples, 17))
    target[:, [0, 5]] = [0.0, 4.9]
    kept = [i for i in range(17) if i not in (0, 5)]
    expected = losses("ConcordanceCorrelationLoss", au(prediction[:, kept]), au(target[:, kept]))
    terms = losses("ConcordanceCorrelationLoss", au(prediction), au(target))
    assert terms["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    gradient = losses.gradient("ConcordanceCorrelationLoss", au(prediction), au(target))
    assert np.isfinite(gradient["au_intensities"]).all()
    assert (gradient["au_intensities"][:, [0, 5]] == 0).all()
    assert (gradient["au_intensities"][:, kept] != 0).any(0).all()


@pytest.mark.parametrize("prediction", [np.zeros((4, 17)), np.full((4, 17), 2.0), None])
def test_no_varying_target_costs_nothing_and_has_zero_gradients(losses, prediction):
    target = np.full((4, 17), 2.0)
    if prediction is None:
        prediction = np.random.default_rng(10).uniform(0, 5, (4, 17))
    assert losses("ConcordanceCorrelationLoss", au(prediction), au(target))["loss"] == 0
    gradient = losses.gradient("ConcordanceCorrelationLoss", au(prediction), au(target))
    assert (gradient["au_intensities"] == 0).all()


def test_a_larger_eps_leaves_more_units_out(losses):
    target = np.array([[0.0, 0.0], [0.1, 2.0]])  # variances 0.0025 and 1
    prediction = target + 1
    terms = losses("ConcordanceCorrelationLoss", au(prediction), au(target), eps=0.01)
    assert terms["loss"] == pytest.approx(1 / 3, rel=1e-6)


@pytest.mark.parametrize(("error", "cost"), [(0.5, 0.125), (1.0, 0.5), (-3.0, 2.5)])
def test_smooth_l1_has_beta_one(losses, error, cost):
    target = np.full((2, 17), 2.0)
    terms = losses("AUPredictionLoss", au(target + error), au(target))
    assert terms["smooth_l1"] == pytest.approx(cost, rel=1e-6)


def test_au_terms_equal_the_reference(losses):
    prediction, target = random_au(np.random.default_rng(11))
    ccc = np.mean([1 - ccc_reference(t, p) for t, p in zip(target.T, prediction.T, strict=True)])
    smooth_l1 = smooth_l1_reference(prediction, target).mean()
    terms = losses(
        "AUPredictionLoss", au(prediction), au(target), smooth_l1_weight=2.0, ccc_weight=0.25
    )
    expected = {"smooth_l1": smooth_l1, "ccc": ccc, "loss": 2 * smooth_l1 + 0.25 * ccc}
    assert terms == pytest.approx(expected, rel=2e-6)


def test_au_weights_weigh_both_terms(losses):
    prediction, target = random_au(np.random.default_rng(12))
    target[:, 4] = 1.0  # left out of the concordance term, not of smooth L1
    weights = np.arange(17.0)
    costs = smooth_l1_reference(prediction, target).mean(0)
    columns = [i for i in range(17) if i != 4]
    ccc = [1 - ccc_reference(target[:, i], prediction[:, i]) for i in columns]
    terms = losses("AUPredictionLoss", au(prediction), au(target), au_weights=weights)
    assert terms["smooth_l1"] == pytest.approx(np.average(costs, weights=weights), rel=2e-6)
    assert terms["ccc"] == pytest.approx(np.average(ccc, weights=weights[columns]), rel=2e-6)


def test_equal_au_weights_change_nothing(losses):
    prediction, target = (au(x) for x in random_au(np.random.default_rng(13)))
    weighted = losses("AUPredictionLoss", prediction, target, au_weights=[2.0] * 17)
    assert weighted == pytest.approx(losses("AUPredictionLoss", prediction, target), rel=1e-6)


@pytest.mark.parametrize(
    "weights", [[1.0] * 16, [0.0] * 17, [-1.0] + [1.0] * 16, [math.nan] + [1.0] * 16]
)
def test_impossible_au_weights_are_refused(losses, weights):
    with pytest.raises(ValueError, match="expected 17 numbers"):
        losses.make("AUPredictionLoss", au_weights=weights)


def test_shapes_that_differ_are_refused(losses):
    with pytest.raises(ValueError, match="au_intensities: prediction has shape"):
        losses("AUPredictionLoss", au(np.zeros((2, 17))), au(np.zeros((1, 17))))


def test_concordance_of_nearly_perfect_predictions_equals_float64(losses):
    rng = np.random.default_rng(15)
    target = rng.uniform(0, 5, (64, 17)).astype("f4")
    prediction = (target + rng.normal(0, 1e-3, target.shape)).astype("f4")
    expected = np.mean(
        [1 - ccc_reference(t, p) for t, p in zip(target.T, prediction.T, strict=True)]
    )
    terms = losses("ConcordanceCorrelationLoss", au(prediction), au(target))
    assert terms["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("error", [0.1, 1 / 3, 17.7])
def test_means_of_equal_errors_equal_float64(losses, error):
    predictions, _ = random_landmark_pose(np.random.default_rng(16), count=128)
    targets = {key: np.zeros_like(value) for key, value in predictions.items()}
    predictions = {key: value + np.float32(error) for key, value in targets.items()}
    error = np.float32(error)
    terms = losses("LandmarkPoseLoss", predictions, targets)
    expected = [wing_reference(error), error.astype("f8") ** 2, error]
    np.testing.assert_allclose([terms[key] for key in predictions], expected, rtol=1e-6)
    targets |= {"global_mask": np.ones(128), "local_mask": np.ones(128)}
    assert losses("LandmarkPoseLoss", predictions, targets) == pytest.approx(terms, rel=1e-6)
    terms = losses("AUPredictionLoss", au(np.full((128, 17), error)), au(np.zeros((128, 17))))
    assert terms["loss"] == pytest.approx(float(smooth_l1_reference(error, 0)), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_mlx_and_torch_agree(seed):
    both = Losses("mlx"), Losses("torch")
    rng = np.random.default_rng(seed)
    predictions, targets = random_landmark_pose(rng, count=32)
    targets |= {"global_mask": rng.integers(0, 2, 32), "local_mask": rng.integers(0, 2, 32)}
    prediction, target = (au(x) for x in random_au(rng, count=32))
    target["au_intensities"][:, 2] = 0.0
    cases = [
        ("WingLoss", {"landmarks": predictions["landmarks"]}, targets, {}),
        ("LandmarkPoseLoss", predictions, targets, {}),
        ("ConcordanceCorrelationLoss", prediction, target, {}),
        ("AUPredictionLoss", prediction, target, {}),
        ("AUPredictionLoss", prediction, target, {"au_weights": rng.uniform(0, 1, 17)}),
    ]
    for name, predictions, targets, settings in cases:
        ours, theirs = (losses(name, predictions, targets, **settings) for losses in both)
        assert ours == pytest.approx(theirs, rel=1e-6), name
        gradients = [losses.gradient(name, predictions, targets, **settings) for losses in both]
        for key in gradients[0]:
            if np.any(gradients[1][key]):
                scale = np.abs(gradients[1][key]).max()
                np.testing.assert_allclose(*(g[key] / scale for g in gradients), atol=1e-5)


def test_half_precision_predictions_are_judged_in_float32():
    torch = pytest.importorskip("torch")
    losses = Losses("torch")
    prediction, target = random_au(np.random.default_rng(14))
    prediction = prediction.astype(np.float16)
    half = losses.make("AUPredictionLoss")(
        {"au_intensities": torch.from_numpy(prediction)}, {"au_intensities": torch.tensor(target)}
    )
    assert half["loss"].dtype == torch.float32
    full = losses("AUPredictionLoss", au(prediction), au(target))
    assert half["loss"].item() == pytest.approx(full["loss"], rel=1e-6)
