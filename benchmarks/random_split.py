"""How much easier is it to predict other frames of known people than new people?

    python benchmarks/random_split.py people.h5 checkpoint.safetensors

An action unit net that has seen none of these people is fine-tuned on half of their faces and
evaluated on the other half, twice, so that each face is predicted once. Either the halves are
random faces of the same people (the question that a random split of frames asks), or each person
is in one half alone. People with a single face are left out.
"""

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np
from timing import RESULTS, Row, load, timed_process, write_csv

from mlx_faceau import AUPredictor, load_au_predictor
from mlx_faceau.core.metrics import MINIMUM_SUPPORT, pearson

SETTINGS = (
    "--epochs 8 --lr 0.0003 --framework torch --augment light --num-workers 1 --no-export "
    "--ema 0.98 --patience 100 --auxiliary-weight 4 --ccc-weight 1 --dropout 0.1"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("people", type=Path)
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    with h5py.File(args.people) as file:
        subjects = file["metadata/subjects"][:]
        labels, images = file["au_intensities"][:], file["images"][:]
    _, numbers, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[numbers] > 1)
    rng = np.random.default_rng(0)
    halves = {
        "other frames of the same people (random split)": halves_by_frame(numbers[rows], rng),
        "other people": halves_by_person(numbers[rows], rng),
    }
    before = load_au_predictor(args.checkpoint).predict_batch(images[rows][..., ::-1].copy())
    found = [figures("before fine-tuning", labels[rows], before["au_intensities"])]
    for question, first in halves.items():
        predicted = np.zeros_like(labels[rows])
        for known in (first, ~first):
            with tempfile.TemporaryDirectory() as folder:
                net = fine_tune(args, rows[known], rows[~known], Path(folder))
                asked = images[rows[~known]][..., ::-1].copy()
                predicted[~known] = net.predict_batch(asked)["au_intensities"]
        found.append(figures(question, labels[rows], predicted))
    write_csv(RESULTS / "random-split.csv", found)


def halves_by_frame(people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool; half of each person's faces, at random."""
    first = np.zeros(len(people), bool)
    for person in np.unique(people):
        own = rng.permutation(np.flatnonzero(people == person))
        first[own[: len(own) // 2]] = True
    return first


def halves_by_person(people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool; whole people, so that both halves are nearly as large."""
    first, sizes = np.zeros(len(people), bool), np.zeros(2)
    persons, counts = np.unique(people, return_counts=True)
    for index in np.lexsort((rng.random(len(persons)), -counts)):
        side = int(np.argmin(sizes))
        sizes[side] += counts[index]
        first[people == persons[index]] = side == 0
    return first


def fine_tune(
    args: argparse.Namespace, known: np.ndarray, asked: np.ndarray, folder: Path
) -> AUPredictor:
    """The net after some epochs on the known faces; the last epoch's, whatever the others say."""
    files = [folder / "known.h5", folder / "asked.h5"]
    write_part(args.people, files[0], np.sort(known), "")
    # Other names: else the training would refuse people on both sides.
    write_part(args.people, files[1], np.sort(asked), "asked ")
    command = ["mlx-faceau", "train", "au", "--data", files[0], "--val-data", files[1]]
    command += ["--init", args.checkpoint, "--output", folder / "run", *SETTINGS.split()]
    timed_process([str(word) for word in command])
    return load_au_predictor(folder / "run/checkpoint_final.safetensors")


def write_part(path: Path, part: Path, rows: np.ndarray, prefix: str) -> None:
    """A training file of some faces of another, their people's names behind a prefix."""
    with h5py.File(path) as source, h5py.File(part, "w") as target:
        target.attrs.update(source.attrs)
        count = len(source["images"])

        def copy(name: str, item: object) -> None:
            if not isinstance(item, h5py.Dataset):
                return
            values = item[()]
            if item.shape[:1] == (count,):
                values = values[rows]
            if name in ("metadata/subjects", "metadata/video_names"):
                values = np.array([prefix.encode() + value for value in values], object)
            target.create_dataset(name, data=values, dtype=item.dtype)

        source.visititems(copy)


def figures(question: str, truth: np.ndarray, predicted: np.ndarray) -> Row:
    shown = (truth > 1).sum(axis=0) >= MINIMUM_SUPPORT
    return {
        "predicted": question,
        "faces": len(truth),
        "units": int(shown.sum()),
        "mean_r": round(float(pearson(truth, predicted)[shown].mean()), 4),
        "mae": round(float(np.abs(truth - predicted).mean()), 4),
        "load": load(),
    }


if __name__ == "__main__":
    main()
