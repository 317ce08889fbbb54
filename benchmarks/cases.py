"""What is timed: for each task and case a function that prepares a call.

Tasks: "inference" (float32 RGB NHWC array in, NumPy out) and "train_step" (forward, loss, backward,
clipping, AdamW). Cases: stock MLX, ours, torch eager, torch channels_last, ONNX Runtime.
Imports stand inside the functions: a worker must load only what its case needs.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlx_faceau.core.architectures import CONFIGS, ModelConfig, initial_weights
from mlx_faceau.core.checkpoint import describe, save_checkpoint
from mlx_faceau.core.preprocess import scale_rgb

Call = Callable[[], object]
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-4
CLIP_NORM = 1.0


def config_of(case: dict) -> ModelConfig:
    return CONFIGS[case["net"]](width_mult=case["width_mult"])


def checkpoint_of(case: dict, folder: str) -> Path:
    """A checkpoint with untrained weights: speed does not depend on their values."""
    config = config_of(case)
    path = Path(folder) / "checkpoint_best.safetensors"
    arrays = {f"model.{k}": v for k, v in initial_weights(config, seed=0).items()}
    save_checkpoint(path, arrays, describe(config))
    return path


def infer_ours(case: dict, images: np.ndarray) -> Call:
    from mlx_faceau.inference.backends import open_backend

    pixels = scale_rgb(images)
    with tempfile.TemporaryDirectory() as folder:
        backend = open_backend(checkpoint_of(case, folder), case["net"], "mlx")
    return lambda: backend.run(pixels)


def infer_onnx(case: dict, images: np.ndarray) -> Call:
    """A session of its own: the environment's thread count means nothing to ONNX Runtime."""
    import onnxruntime

    from mlx_faceau.convert.export_onnx import export_to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        export_to_onnx(checkpoint_of(case, folder), path)
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(scale_rgb(images).transpose(0, 3, 1, 2))
    return lambda: session.run(None, {session.get_inputs()[0].name: pixels})


def infer_file(case: dict, images: np.ndarray) -> Call:
    """An exported file, on the crops or images that its input takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        case["file"], options, providers=["CPUExecutionProvider"]
    )
    (port,) = session.get_inputs()
    pixels = np.ascontiguousarray(images[..., ::-1])
    if port.type != "tensor(uint8)":
        pixels = np.ascontiguousarray(scale_rgb(images).transpose(0, 3, 1, 2))
    return lambda: session.run(None, {port.name: pixels})


def infer_stock(case: dict, images: np.ndarray) -> Call:
    import mlx.core as mx
    from stock_mlx import StockNet

    net = StockNet(config_of(case)).eval()
    pixels = scale_rgb(images)

    def call() -> list[np.ndarray]:
        outputs = net(mx.array(pixels))
        mx.eval(outputs)
        return [np.array(value) for value in outputs.values()]

    return call


def torch_net(case: dict, channels_last: bool):
    import torch

    from mlx_faceau.torch_fallback import build

    torch.set_num_threads(case["threads"])
    net = build(config_of(case))
    form = torch.channels_last if channels_last else torch.contiguous_format
    return torch, net.to(memory_format=form), form


def torch_pixels(torch, images: np.ndarray, form):
    pixels = np.ascontiguousarray(scale_rgb(images).transpose(0, 3, 1, 2))
    return torch.from_numpy(pixels).contiguous(memory_format=form)


def infer_torch(case: dict, images: np.ndarray, channels_last: bool = False) -> Call:
    torch, net, form = torch_net(case, channels_last)
    net.eval()
    pixels = torch_pixels(torch, images, form)

    def call() -> list[np.ndarray]:
        with torch.inference_mode():
            return [value.numpy() for value in net(pixels).values()]

    return call


def infer_torch_channels_last(case: dict, images: np.ndarray) -> Call:
    return infer_torch(case, images, channels_last=True)


def targets_of(config: ModelConfig, count: int) -> dict[str, np.ndarray]:
    """Plausible targets; their values do not change the work."""
    rng = np.random.default_rng(1)
    if config.kind == "au_prediction":
        return {"au_intensities": rng.uniform(0, 5, (count, 17)).astype(np.float32)}
    pose = rng.uniform([1, -0.3, -0.3, -0.3, 50, 50], [3, 0.3, 0.3, 0.3, 60, 60], (count, 6))
    return {
        "landmarks": rng.uniform(10, 100, (count, 68, 2)).astype(np.float32),
        "global_params": pose.astype(np.float32),
        "local_params": rng.normal(0, 1, (count, 34)).astype(np.float32),
    }


def train_ours(case: dict, images: np.ndarray) -> Call:
    from mlx_faceau.train.mlx_trainer import MLXTrainer

    config = config_of(case)
    trainer = MLXTrainer(
        config,
        initial_weights(config, seed=0),
        loss_options={},
        scaling={},
        weight_decay=WEIGHT_DECAY,
        seed=0,
    )
    batch = {"images": images, **targets_of(config, len(images))}
    return lambda: trainer.train_epoch([batch], lambda step: LEARNING_RATE)


def train_stock(case: dict, images: np.ndarray) -> Call:
    import mlx.core as mx
    from mlx import nn, optimizers
    from stock_mlx import StockNet

    default_limit = mx.set_cache_limit(0)
    from mlx_faceau.models import losses

    mx.set_cache_limit(default_limit)  # importing the package raises it; stock MLX has its own
    config = config_of(case)
    net = StockNet(config).train()
    kinds = {
        "landmark_pose": losses.LandmarkPoseLoss,
        "au_prediction": losses.AUPredictionLoss,
    }
    loss = kinds[config.kind]()
    optimizer = optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, bias_correction=True)
    targets = {name: mx.array(value) for name, value in targets_of(config, len(images)).items()}
    step = nn.value_and_grad(net, lambda pixels: loss(net(pixels), targets)["loss"])

    def call() -> float:
        value, gradients = step(mx.array(scale_rgb(images)))
        gradients, _ = optimizers.clip_grad_norm(gradients, CLIP_NORM)
        optimizer.update(net, gradients)
        mx.eval(value, net.parameters(), optimizer.state)
        return value.item()

    return call


def train_torch(case: dict, images: np.ndarray, channels_last: bool = False) -> Call:
    torch, net, form = torch_net(case, channels_last)
    from mlx_faceau.torch_fallback import AUPredictionLoss, LandmarkPoseLoss

    config = config_of(case)
    kinds = {"landmark_pose": LandmarkPoseLoss, "au_prediction": AUPredictionLoss}
    loss = kinds[config.kind]()
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    targets = {k: torch.from_numpy(v) for k, v in targets_of(config, len(images)).items()}

    def call() -> float:
        optimizer.zero_grad()
        value = loss(net(torch_pixels(torch, images, form)), targets)["loss"]
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
        optimizer.step()
        return value.item()

    return call


def train_torch_channels_last(case: dict, images: np.ndarray) -> Call:
    return train_torch(case, images, channels_last=True)


CASES: dict[str, dict[str, Callable[[dict, np.ndarray], Call]]] = {
    "inference": {
        "stock mlx": infer_stock,
        "ours": infer_ours,
        "torch eager": infer_torch,
        "torch channels_last": infer_torch_channels_last,
        "onnxruntime": infer_onnx,
    },
    "exported": dict.fromkeys(
        ("plain", "plain again", "batch 1", "uint8 crops", "float16", "int8", "int8 uint8 crops"),
        infer_file,
    ),
    "train_step": {
        "stock mlx": train_stock,
        "ours": train_ours,
        "torch eager": train_torch,
        "torch channels_last": train_torch_channels_last,
    },
}
