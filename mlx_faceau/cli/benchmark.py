"""``mlx-faceau benchmark``: times every backend here, or checks MLX's results."""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_faceau.errors import BackendError, UsageError

if TYPE_CHECKING:
    import numpy as np

_SECONDS_EACH = 2.0
_MOST_CALLS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="model files or folders to time (default: builtin)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare both nets on MLX's device with the CPU: one training step and one prediction",
    )
    parser.add_argument(
        "--width-mult", type=float, metavar="MULT", help="time untrained nets of this width instead"
    )
    parser.add_argument(
        "--batch", type=int, default=32, help="faces in a batch (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    if args.verify:
        from .verify_nets import print_comparison

        return print_comparison()
    import numpy as np

    from mlx_faceau.core.architectures import CONFIGS, initial_weights
    from mlx_faceau.core.checkpoint import BEST_NAME, describe, save_checkpoint
    from mlx_faceau.train.exports import export_best

    from .model_metadata import read_models

    if args.batch < 1:
        raise UsageError(f"--batch is {args.batch}, expected at least 1")
    if args.models and args.width_mult is not None:
        raise UsageError("--width-mult times untrained nets; leave out it or the models")
    crops = np.random.default_rng(0).integers(0, 256, (args.batch, 112, 112, 3), np.uint8)
    models = args.models or (["builtin"] if args.width_mult is None else [])
    for model in models:
        for metadata in read_models(model):
            for kind in metadata.get("nets") or [metadata["kind"]]:
                _print_table(f"{kind}, {model}", model, kind, crops)
    if not models:
        with tempfile.TemporaryDirectory() as folder:
            for kind, config_class in CONFIGS.items():
                config, untrained = config_class(args.width_mult), Path(folder) / kind
                untrained.mkdir()
                weights = {f"model.{name}": v for name, v in initial_weights(config, 0).items()}
                save_checkpoint(untrained / BEST_NAME, weights, describe(config))
                export_best(untrained, kind)
                title = f"{kind}, width {args.width_mult:g}, untrained weights"
                _print_table(title, untrained, kind, crops)
    return 0


def _print_table(title: str, model: Path | str, kind: str, crops: "np.ndarray") -> None:
    """The two times of each backend, or why it has none."""
    from mlx_faceau.inference.backends.choice import BACKENDS
    from mlx_faceau.inference.predictor import load_au_predictor, load_predictor

    print(title)
    print(f"  {'backend':10}{'ms a face':>12}{f'faces/s, batch {len(crops)}':>24}")
    load = load_predictor if kind == "landmark_pose" else load_au_predictor
    for name in BACKENDS:
        try:
            predictor = load(model, name)
            single = _median_seconds(partial(predictor.predict, crops[0]))
            batch = _median_seconds(partial(predictor.predict_batch, crops))
        except BackendError as error:
            print(f"  {name:10}{'-':>12}{'-':>24}  {error}")
        else:
            print(f"  {name:10}{1000 * single:12.2f}{len(crops) / batch:24.0f}")


def _median_seconds(call: Callable[[], object]) -> float:
    from statistics import median

    call()
    call()
    times: list[float] = []
    while sum(times) < _SECONDS_EACH and len(times) < _MOST_CALLS:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times)
