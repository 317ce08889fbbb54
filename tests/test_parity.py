"""MLX and torch nets with the same weights and input: the same outputs, losses and gradients.

Tolerances are the table of SPEC section 7. On random weights, which are ill-conditioned, the
yardstick is torch float32's own distance from torch float64.
"""

import numpy as np
import pytest
from random_nets import TOLERANCE

mlx_side = pytest.importorskip("mlx_faceau.models", exc_type=ImportError)
torch = pytest.importorskip("torch")

from mlx.utils import tree_flatten  # noqa: E402

import mlx_faceau.torch_fallback as torch_side  # noqa: E402
from mlx_faceau.convert.pyfaceau import read_pyfaceau  # noqa: E402
from mlx_faceau.core.architectures import (  # noqa: E402
    AUPredictionConfig,
    Head,
    LandmarkPoseConfig,
    initial_weights,
    is_statistic,
    output_biases,
)
from mlx_faceau.core.preprocess import to_network_input  # noqa: E402

KINDS = {"landmark_pose": LandmarkPoseConfig, "au_prediction": AUPredictionConfig}
LOSSES = {"landmark_pose": "LandmarkPoseLoss", "au_prediction": "AUPredictionLoss"}
MEANS = {
    "landmarks": np.full((68, 2), 50.0),
    "global_params": np.array([2.0, 0.1, 0.0, 0.0, 55.0, 55.0]),
    "local_params": np.zeros(34),
    "au_intensities": np.full(17, 0.5),
}
by_kind = pytest.mark.parametrize("kind", KINDS)


def nets(config, weights):
    pair = mlx_side.build(config), torch_side.build(config)
    for net in pair:
        net.load_weights_dict(weights)
    return pair


def run_torch(net, images, dtype=torch.float32):
    """Outputs of a torch net for (N, 112, 112, 3) images."""
    # Contiguous: torch's channels-last BatchNorm on CPU is a hundred times less exact.
    return net(torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype).contiguous())


def eval_outputs(mlx_net, torch_net, images):
    mlx_net.eval()
    torch_net.eval()
    ours = {name: np.array(value) for name, value in mlx_net(mlx_side.mx.array(images)).items()}
    with torch.no_grad():
        single = {k: v.numpy() for k, v in run_torch(torch_net, images).items()}
        exact = run_torch(torch_net.double(), images, torch.float64)
    return ours, single, {k: v.numpy() for k, v in exact.items()}


def random_weights(config, seed):
    """Random weights with statistics of random images, so that outputs depend on the image."""
    rng = np.random.default_rng(seed)
    weights = initial_weights(config, seed)
    for name, value in weights.items():
        if name.endswith(".norm.weight"):
            value += rng.uniform(-0.3, 0.3, value.shape).astype(np.float32)
        elif value.ndim == 2:
            value *= 100 * np.sqrt(2 / value.shape[1], dtype=np.float32)
        elif name.endswith("bias"):
            value += rng.normal(0, 0.1, value.shape).astype(np.float32)
    net = torch_side.build(config).train()
    net.load_weights_dict(weights)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        run_torch(net, rng.random((8, 112, 112, 3), dtype=np.float32))
    return net.to_weights()


@by_kind
def test_reference_checkpoints_give_the_originals_outputs_in_mlx(shared_folder, kind):
    stem = shared_folder / "reference" / f"pyfaceau_{kind}_w025"
    config, weights = read_pyfaceau(stem.with_suffix(".pt"))
    expected = np.load(f"{stem}_io.npz")
    net, twin = nets(config, weights)
    ours, single, _ = eval_outputs(net, twin, to_network_input(expected["images_bgr"]))
    for name, value in ours.items():
        assert np.abs(value - expected[name]).max() <= TOLERANCE[name], name
        assert np.abs(value - single[name]).max() <= TOLERANCE[name], name


@by_kind
def test_trained_full_width_nets_agree(shared_folder, kind):
    config, weights = read_pyfaceau(shared_folder / "models" / f"prototype_{kind}.pt")
    images = np.load(shared_folder / "reference" / f"pyfaceau_{kind}_w025_io.npz")["images_bgr"]
    ours, single, _ = eval_outputs(*nets(config, weights), to_network_input(images[:2]))
    for name, value in ours.items():
        assert np.abs(value - single[name]).max() <= TOLERANCE[name], name


@by_kind
@pytest.mark.parametrize("width", [0.25, 1.0])
def test_random_nets_agree_within_four_times_the_rounding_of_torch(kind, width):
    config = KINDS[kind](width_mult=width)
    images = np.random.default_rng(1).random((4, 112, 112, 3), dtype=np.float32)
    pair = nets(config, random_weights(config, seed=2))
    ours, single, exact = eval_outputs(*pair, images)
    for name in exact:
        rounding = np.abs(single[name] - exact[name]).max()
        assert np.abs(ours[name] - exact[name]).max() <= 4 * rounding, name
        assert exact[name].std(0).max() > 1e3 * rounding, f"{name} hardly depends on the image"


@by_kind
def test_weights_move_between_the_frameworks_bit_for_bit(kind):
    config = KINDS[kind](width_mult=0.25)
    weights = random_weights(config, seed=3)
    first, second = (net.to_weights() for net in nets(config, weights))
    assert first.keys() == second.keys() == weights.keys()
    for name, value in weights.items():
        assert first[name].tobytes() == second[name].tobytes() == value.tobytes()


class Step:
    """One training-mode forward and backward pass in MLX, torch float32 and torch float64."""

    def __init__(self, config):
        rng = np.random.default_rng(4)
        weights = initial_weights(config, seed=5) | output_biases(config, MEANS)
        images = rng.random((16, 112, 112, 3), dtype=np.float32)
        targets = {
            name: (MEANS[name] + rng.normal(0, 1, (16, *shape))).astype(np.float32)
            for name, shape in config.output_shapes.items()
        }
        loss = LOSSES[config.kind]
        ours, single = nets(config, weights)
        exact = torch_side.build(config)
        exact.load_weights_dict(weights)
        self.losses, self.statistics, self.gradients = {}, {}, {}
        self._mlx(ours, getattr(mlx_side, loss)(), images, targets)
        for name, net in (("torch", single), ("exact", exact.double())):
            self._torch(name, net, getattr(torch_side, loss)(), images, targets)

    def _mlx(self, net, loss, images, targets):
        net.train()
        targets = {name: mlx_side.mx.array(value) for name, value in targets.items()}
        step = mlx_side.nn.value_and_grad(net, lambda x: loss(net(x), targets)["loss"])
        value, gradients = step(mlx_side.mx.array(images))
        self.losses["mlx"] = value.item()
        self.gradients["mlx"] = {k: np.array(v) for k, v in tree_flatten(gradients)}
        self.statistics["mlx"] = {k: v for k, v in net.to_weights().items() if is_statistic(k)}

    def _torch(self, name, net, loss, images, targets):
        net.train()
        dtype = next(net.parameters()).dtype
        targets = {k: torch.from_numpy(v).to(dtype) for k, v in targets.items()}
        value = loss(run_torch(net, images, dtype), targets)["loss"]
        value.backward()
        self.losses[name] = value.item()
        self.gradients[name] = {
            k: p.grad.permute(0, 2, 3, 1).numpy() if p.ndim == 4 else p.grad.numpy()
            for k, p in net.named_parameters()
        }
        self.statistics[name] = {k: v for k, v in net.to_weights().items() if is_statistic(k)}


@pytest.fixture(scope="module", params=KINDS)
def step(request):
    """Dropout is replaced by identity: its random numbers are each framework's own."""
    with pytest.MonkeyPatch.context() as patch:
        kind = KINDS[request.param]
        heads = [Head(h.name, h.output, h.hidden, h.outputs, (0.0, 0.0)) for h in kind().heads]
        patch.setattr(kind, "heads", tuple(heads))
        yield Step(kind(width_mult=0.25))


def test_first_training_step_costs_the_same(step):
    assert step.losses["mlx"] == pytest.approx(step.losses["torch"], rel=1e-4)


def test_running_statistics_after_one_step_agree(step):
    for name, value in step.statistics["torch"].items():
        np.testing.assert_allclose(
            step.statistics["mlx"][name], value, rtol=1e-5, atol=1e-5, err_msg=name
        )


def test_every_parameter_has_a_gradient_in_both(step):
    assert step.gradients["mlx"].keys() == step.gradients["torch"].keys()
    for side in ("mlx", "torch"):
        assert [name for name, value in step.gradients[side].items() if not value.any()] == []


def test_gradients_are_as_close_to_float64_as_those_of_torch(step):
    exact = step.gradients["exact"]
    largest = max(np.linalg.norm(value) for value in exact.values())
    errors = {"mlx": [], "torch": []}
    for name, value in exact.items():
        size = np.linalg.norm(value)
        if size > 1e-9 * largest:  # a bias before BatchNorm has none but rounding
            for side, found in errors.items():
                found.append(np.linalg.norm(step.gradients[side][name] - value) / size)
    # Roundings flip ReLU6 units in either framework, so single draws differ by a few times.
    assert max(errors["mlx"]) <= 10 * max(errors["torch"])
    assert np.median(errors["mlx"]) <= 10 * np.median(errors["torch"])
