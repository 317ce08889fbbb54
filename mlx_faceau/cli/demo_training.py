"""``mlx-faceau demo --train``: synthetic people, from drawing them to every backend."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.core.landmarks import GROUPS
from mlx_faceau.errors import BackendError, FaceauError, MissingDependency, UsageError
from mlx_faceau.inference.backends import BACKENDS, installed_libraries, this_machine
from mlx_faceau.inference.predictor import load_au_predictor, load_predictor
from mlx_faceau.output.plotting import new_figure

# Settings of each net's short training; the others are those of every training.
TRAININGS = {
    "landmark_pose": ("mlx_faceau.train_landmark_pose", {"--epochs": 5, "--lr": 0.001}),
    "au_prediction": (
        "mlx_faceau.train_au_prediction",
        {"--epochs": 7, "--lr": 0.002, "--dropout": 0},
    ),
}
SHARED = {"--batch-size": 16, "--width-mult": 0.25, "--augment": "none", "--keep": 1}
TRAINING_SEED, TEST_SEED = 1, 2
LEARNED = 0.8  # correlation on people not in the training, below which the demo counts as failed
_SHOWN = 8  # people in the picture
_TRUTH, _PREDICTION = "#2a9d8f", "#e76f51"

Arrays = dict[str, np.ndarray]


def run_training(args: argparse.Namespace) -> int:
    """Draw, train, export, predict, compare; the exit status."""
    extras = {"h5py": "train", "torch": "export", "onnx": "export", "onnxruntime": "cpu"}
    for library, extra in extras.items():  # before minutes are spent
        if find_spec(library) is None:
            raise MissingDependency(library, extra=extra)
    from mlx_faceau.data.synthetic.people import synthesize, write_synthetic

    started = time.monotonic()
    folder = Path(args.output)
    if folder.exists() and any(folder.iterdir()):
        if not args.force or not (folder / "faces.h5").exists():
            raise UsageError(
                f"{folder}: is not empty; name another folder with --output, or replace an "
                "earlier demo with --force"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "faces.h5"
    with _timed(f"drawing {args.faces} faces of synthetic people"):
        write_synthetic(data, args.faces, TRAINING_SEED)
    test = synthesize(max(16, args.faces // 6), TEST_SEED)
    framework = args.framework
    if framework is None:
        obstacle = installed_libraries(this_machine())["mlx"]
        framework = "mlx" if obstacle is None else "torch"
        if obstacle is not None:
            print(f"training in torch, since MLX cannot run here: {obstacle}")
    with _timed(f"training both nets side by side in {framework}"):
        _train_both(data, folder, framework, args.epochs)
    predictions: Arrays = {}
    for kind in TRAININGS:
        predictions |= _compare_backends(kind, folder / kind, test, framework)
    learned = _print_accuracy(folder, test, predictions)
    _draw_faces(folder / "predictions.png", test, predictions)
    print(f"\n{time.monotonic() - started:.0f} s; everything is in {folder.resolve()}")
    for picture in sorted(folder.rglob("*.png")):
        print(f"  {picture.relative_to(folder)}")
    return 0 if learned else 1


def _train_both(data: Path, folder: Path, framework: str, epochs: int | None) -> None:
    """Each training in a process of its own, with its share of the processor's cores.

    Raises:
        FaceauError: if one fails, after its own message. The other one is stopped.
    """
    share = str(max(1, (os.cpu_count() or 1) // len(TRAININGS)))
    environment = os.environ | {"TQDM_DISABLE": "1"}
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment.setdefault(variable, share)
    running = []
    try:
        for kind, (module, own) in TRAININGS.items():
            places = {"--data": data, "--output": folder / kind, "--framework": framework}
            flags = SHARED | own | places | ({"--epochs": epochs} if epochs else {})
            words = [str(word) for pair in flags.items() for word in pair]
            command = [sys.executable, "-m", module, *words]
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        for process in running:
            if process.wait():
                raise FaceauError("a training of the demo failed; see its message above")
    finally:
        for process in running:
            process.terminate()


def _compare_backends(kind: str, folder: Path, test: Arrays, framework: str) -> Arrays:
    """Predict with every backend and print its speed and its largest difference from the one that
    trained; the predictions of that one."""
    crops = test["images"][..., ::-1]
    load: Any = load_predictor if kind == "landmark_pose" else load_au_predictor
    print(f"\n{kind}: every backend on {len(crops)} faces of other people")
    print(f"  {'backend':12}{'faces/s':>9}   largest difference from {framework}")
    reference: Arrays = {}
    for name in [framework, *(other for other in BACKENDS if other != framework)]:
        try:
            predictor = load(folder, backend=name)
            predictor.predict_batch(crops[:32])
        except BackendError as error:
            print(f"  {name:12}{'-':>9}   {error}")
            continue
        started = time.perf_counter()
        predicted = predictor.predict_batch(crops)
        speed = len(crops) / (time.perf_counter() - started)
        arrays = {k: v for k, v in predicted.items() if hasattr(v, "shape")}
        reference = reference or arrays
        gaps = (f"{key} {np.abs(arrays[key] - reference[key]).max():.1e}" for key in arrays)
        print(f"  {name:12}{speed:9.0f}   {', '.join(gaps)}")
    return reference


def _print_accuracy(folder: Path, test: Arrays, predictions: Arrays) -> bool:
    """Print the accuracy on people not in the training; whether both nets have learned."""
    from mlx_faceau.core.checkpoint import read_metadata
    from mlx_faceau.core.metrics import au_metrics, landmark_pose_metrics
    from mlx_faceau.train.target_statistics import TargetStatistics

    recorded = read_metadata(folder / "landmark_pose")["target_statistics"]
    means = TargetStatistics.from_json(recorded, str(folder)).means
    pose = landmark_pose_metrics(test, predictions, means)
    aus = au_metrics(test["au_intensities"], predictions["au_intensities"])
    results = {
        "landmark correlation without the mean face": pose["correlation_without_mean"],
        "mean AU correlation": aus["correlation"],
    }
    print("\naccuracy on people not in the training")
    for name, value in results.items():
        print(f"  {name:45}{value:6.3f}  {'learned' if value > LEARNED else 'NOT LEARNED'}")
    print(f"  {'landmark MAE':45}{pose['mae']:6.2f}  px of 112")
    print(f"  {'AU MAE':45}{aus['mae']:6.2f}  of 5")
    return all(value > LEARNED for value in results.values())


def _draw_faces(path: Path, test: Arrays, predictions: Arrays) -> None:
    """The first face of some people with true and predicted landmarks and action units.

    Args:
        path: PNG to write.
        test: ``images`` (N, 112, 112, 3) uint8 RGB, ``landmarks``, ``au_intensities``, ``person``.
        predictions: ``landmarks`` (N, 68, 2), ``au_intensities`` (N, 17).
    """
    rows = np.unique(test["person"], return_index=True)[1][:_SHOWN]
    figure = new_figure(2.3 * len(rows), 5.6)
    axes = figure.subplots(2, len(rows), height_ratios=(1, 1.35), squeeze=False)
    at = np.arange(len(AU_NAMES))
    for column, row in enumerate(rows):
        face, bars = axes[:, column]
        face.imshow(test["images"][row])
        face.set_axis_off()
        for side, shift, colour in ((test, -0.2, _TRUTH), (predictions, 0.2, _PREDICTION)):
            for group in GROUPS.values():
                points = side["landmarks"][row][list(group)]
                face.plot(*points.T, ".-", color=colour, lw=0.7, ms=2)
            bars.barh(at + shift, side["au_intensities"][row], 0.4, color=colour)
        bars.set_xlim(0, MAX_INTENSITY)
        bars.invert_yaxis()
        bars.tick_params(labelsize=7)
        names = [name.removesuffix("_r") for name in AU_NAMES]
        bars.set_yticks(at, names if column == 0 else [])
    figure.suptitle(
        "People not in the training: exact labels (green) and predictions (orange)", fontsize=12
    )
    figure.savefig(path, dpi=110)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    print(f"{what} ...", flush=True)
    started = time.monotonic()
    yield
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
