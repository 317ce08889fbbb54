"""``mlx-faceau demo --train``: synthetic people, from drawing them to every backend."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_faceau.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

# Settings of each net's short training; the others are those of every training.
TRAININGS = {
    "landmark_pose": ("mlx_faceau.train_landmark_pose", {"--epochs": 5, "--lr": 0.001}),
    "au_prediction": (
        "mlx_faceau.train_au_prediction",
        {"--epochs": 7, "--lr": 0.002, "--dropout": 0},
    ),
}
SHARED = {"--batch-size": 16, "--width-mult": 0.25, "--augment": "none", "--keep": 1}
TRAINING_SEED, FRESH_SEED = 1, 2
LEARNED = 0.8  # correlation on people never seen, below which the demo counts as failed

Arrays = dict[str, "np.ndarray"]


def add_training_arguments(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--faces", type=int, default=3072, help="to train on (default: %(default)s)"
    )
    parser.add_argument("--fresh", type=int, default=512, help="to test on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="of both trainings (default: 5 and 7)")
    parser.add_argument(
        "--framework", choices=("mlx", "torch"), help="default: mlx where it is installed"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace an earlier demo in the folder"
    )


def run_training(args: argparse.Namespace) -> int:
    started = time.monotonic()
    _check_extras()
    from mlx_faceau.data.synthetic.people import synthesize

    folder = _prepare(Path(args.output), args.force)
    data = _draw(folder, args.faces)
    fresh = synthesize(args.fresh, FRESH_SEED)
    framework = args.framework or _default_framework()
    with _timed(f"training both nets side by side in {framework}"):
        _train_both(data, folder, framework, args.epochs)
    reference: Arrays = {}
    for kind in TRAININGS:
        reference |= _compare_backends(kind, folder / kind, fresh, framework)
    learned = _judge(folder, fresh, reference)
    print(f"\n{time.monotonic() - started:.0f} s; everything is in {folder.resolve()}")
    _list_pictures(folder)
    return 0 if learned else 1


def _check_extras() -> None:
    """Name the one missing extra before minutes are spent."""
    from importlib.util import find_spec

    from mlx_faceau.errors import MissingDependency

    extras = {"h5py": "train", "torch": "export", "onnx": "export"}
    for library, extra in {**extras, "onnxruntime": "cpu"}.items():
        if find_spec(library) is None:
            raise MissingDependency(library, extra=extra)


def _default_framework() -> str:
    from mlx_faceau.inference.backends import installed_libraries, this_machine

    obstacle = installed_libraries(this_machine())["mlx"]
    if obstacle is None:
        return "mlx"
    print(f"training in torch, since MLX cannot run here: {obstacle}")
    return "torch"


def _prepare(folder: Path, force: bool) -> Path:
    import shutil

    if folder.exists() and any(folder.iterdir()):
        if not force or not (folder / "faces.h5").exists():
            raise UsageError(
                f"{folder}: is not empty; name another folder with --output, or replace an "
                "earlier demo with --force"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _draw(folder: Path, count: int) -> Path:
    from mlx_faceau.data.synthetic.people import write_synthetic

    with _timed(f"drawing {count} faces of synthetic people"):
        write_synthetic(folder / "faces.h5", count, TRAINING_SEED)
    return folder / "faces.h5"


def _train_both(data: Path, folder: Path, framework: str, epochs: int | None) -> None:
    """Each training in a process of its own, with its share of the processor's cores.

    Raises:
        FaceauError: if one fails; its own line stands above. The other one is stopped.
    """
    from mlx_faceau.errors import FaceauError

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
                raise FaceauError("a training of the demo failed; its message stands above")
    finally:
        for process in running:
            process.terminate()


def _compare_backends(kind: str, folder: Path, fresh: Arrays, framework: str) -> Arrays:
    """Predict with every backend, print how far each is from the one that trained; its answers."""
    import numpy as np

    from mlx_faceau.errors import BackendError
    from mlx_faceau.inference.backends import BACKENDS

    order = [framework, *(name for name in BACKENDS if name != framework)]
    print(f"\n{kind}: every backend on {len(fresh['images'])} fresh faces")
    print(f"  {'backend':12}{'faces/s':>9}   largest difference from {framework}")
    reference: Arrays = {}
    for name in order:
        try:
            answer, speed = _predict(kind, folder, fresh, name)
        except BackendError as error:
            print(f"  {name:12}{'-':>9}   {error}")
            continue
        reference = reference or answer
        gaps = (f"{key} {np.abs(answer[key] - reference[key]).max():.1e}" for key in answer)
        print(f"  {name:12}{speed:9.0f}   {', '.join(gaps)}")
    return reference


def _predict(kind: str, folder: Path, fresh: Arrays, backend: str) -> tuple[Arrays, float]:
    from mlx_faceau.inference.predictor import load_au_predictor, load_predictor

    load: Any = load_predictor if kind == "landmark_pose" else load_au_predictor
    predictor = load(folder, backend=backend)
    crops = fresh["images"][..., ::-1]
    predictor.predict_batch(crops[:32])
    started = time.perf_counter()
    answer = predictor.predict_batch(crops)
    speed = len(crops) / (time.perf_counter() - started)
    return {k: v for k, v in answer.items() if hasattr(v, "shape")}, speed


def _judge(folder: Path, fresh: Arrays, predicted: Arrays) -> bool:
    """Print accuracy on people never seen, and draw them; whether both nets have learned."""
    from mlx_faceau.core.checkpoint import read_metadata
    from mlx_faceau.core.metrics import au_metrics, landmark_pose_metrics
    from mlx_faceau.train.target_statistics import TargetStatistics

    from .demo_picture import draw_faces

    recorded = read_metadata(folder / "landmark_pose")["target_statistics"]
    means = TargetStatistics.from_json(recorded, str(folder)).means
    pose = landmark_pose_metrics(fresh, predicted, means)
    aus = au_metrics(fresh["au_intensities"], predicted["au_intensities"])
    results = {
        "landmark correlation without the mean face": pose["correlation_without_mean"],
        "mean AU correlation": aus["correlation"],
    }
    print("\naccuracy on people never seen in training")
    for name, value in results.items():
        print(f"  {name:45}{value:6.3f}  {'learned' if value > LEARNED else 'NOT LEARNED'}")
    print(f"  {'landmark MAE':45}{pose['mae']:6.2f}  px of 112")
    print(f"  {'AU MAE':45}{aus['mae']:6.2f}  of 5")
    draw_faces(folder / "predictions.png", fresh, predicted)
    return all(value > LEARNED for value in results.values())


def _list_pictures(folder: Path) -> None:
    for picture in sorted(folder.rglob("*.png")):
        print(f"  {picture.relative_to(folder)}")


@contextmanager
def _timed(what: str) -> Iterator[None]:
    print(f"{what} ...", flush=True)
    started = time.monotonic()
    yield
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
