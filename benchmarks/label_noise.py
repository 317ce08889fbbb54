"""How much of the action units' labels no net can know?

    python benchmarks/label_noise.py train.h5

Some people were photographed several times, and some of their crops are nearly equal. Half the
squared difference of two such faces' labels estimates the variance of what the labels hold beyond
the image. Two estimates, over pairs of one person whose crops correlate above 0.97:

- ``near``: the mean over the pairs. Their expressions still differ a little, so this overestimates
  the noise and underestimates the ceiling.
- ``active``: the same, with active and inactive pairs as frequent as active and inactive faces.
  Labels that are cut off at 0 hide the noise of an inactive face. It needs ten active pairs of
  several people.

Assumptions: noise is as large for these people as for the others, and an error that the labeller
makes alike in two nearly equal images is no noise, because a net can learn it. Every person counts
alike. Where the noise has a share s of the labels' variance, the best possible net correlates with
the labels by sqrt(1 - s). Intervals: 95 %, people resampled.

Reference:
    Spearman, The proof and measurement of association between two things, 1904 (attenuation).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from timing import RESULTS, Row, write_csv

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.metrics import SUPPORT_THRESHOLD, au_support
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.identity import people_names
from mlx_faceau.evaluation.bootstrap import confidence_interval, resampled_means

LEAST_CORRELATION = 0.97
LEAST_ACTIVE = 10  # pairs from which an active unit's noise is estimated
BLOCK = 256


@dataclass(frozen=True)
class Pairs:
    """Two nearly equal faces of one person each.

    Attributes:
        person: (P,) who.
        labels: (P, 2, 17) intensities.
    """

    person: np.ndarray
    labels: np.ndarray

    @property
    def half_squares(self) -> np.ndarray:
        """(P, 17) half the squared difference of the labels."""
        return 0.5 * (self.labels[:, 0] - self.labels[:, 1]) ** 2

    @property
    def active(self) -> np.ndarray:
        """(P, 17) whether the mean of both labels shows the unit."""
        return self.labels.mean(axis=1) > SUPPORT_THRESHOLD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "label-noise.csv")
    args = parser.parse_args()
    datasets = [FaceDataset(path) for path in args.data]
    parts = [pairs(dataset) for dataset in datasets]
    found = Pairs(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("person", "labels")))
    if not len(found.person):
        raise SystemExit(
            f"{', '.join(map(str, args.data))}: no person has two crops that correlate above "
            f"{LEAST_CORRELATION}; give faces of people who were photographed several times"
        )
    labels = np.concatenate([d.labels["au_intensities"] for d in datasets]).astype(np.float64)
    write_csv(args.output, figures(found, labels))


def pairs(dataset: FaceDataset) -> Pairs:
    """Every person's pairs of faces whose crops are nearly equal."""
    appearance, names = grey_crops(dataset), people_names(dataset)[1]
    labels = dataset.labels["au_intensities"].astype(np.float64)
    people, chosen = [], []
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        similarity = appearance[rows] @ appearance[rows].T
        first, second = np.nonzero(np.triu(similarity > LEAST_CORRELATION, 1))
        people += [name] * len(first)
        chosen.append(np.stack([labels[rows[first]], labels[rows[second]]], axis=1))
    return Pairs(np.array(people), np.concatenate(chosen))


def grey_crops(dataset: FaceDataset) -> np.ndarray:
    """(N, K) the crops' inner parts in grey at half size, centred and of length 1."""
    parts = []
    for start in range(0, len(dataset), BLOCK):
        images = dataset.read_images(np.arange(start, min(start + BLOCK, len(dataset))))
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        small = [cv2.resize(g, (56, 56), interpolation=cv2.INTER_AREA) for g in grey]
        parts.append(np.stack(small)[:, 6:50, 8:48].reshape(len(images), -1))
    crops = np.concatenate(parts).astype(np.float64)
    crops -= crops.mean(1, keepdims=True)
    return crops / np.maximum(np.linalg.norm(crops, axis=1, keepdims=True), 1e-9)


def figures(found: Pairs, labels: np.ndarray) -> list[Row]:
    """One row an action unit."""
    variance = labels.var(0)
    near = person_means(found.half_squares, found.person) / variance
    active = as_active_as(labels, found) / variance
    return [
        {
            "au": name,
            "faces": len(labels),
            "faces_active": int(au_support(labels)[i]),
            "variance": f"{variance[i]:.3f}",
            "pairs": len(found.person),
            "people": len(set(found.person.tolist())),
            "pairs_active": int(found.active[:, i].sum()),
            **share_columns("near", near[:, i]),
            **share_columns("active", active[:, i]),
        }
        for i, name in enumerate(AU_NAMES)
    ]


def share_columns(kind: str, values: np.ndarray) -> dict[str, str]:
    """Share of the variance and the ceiling: the figure on all people, then the interval."""
    clipped = np.clip(values, 0, 1)
    low, high = confidence_interval(clipped[1:])
    ends = {"": clipped[0], "_low": low, "_high": high}
    shares = {f"{kind}_share{end}": shown(value) for end, value in ends.items()}
    flipped = {"": clipped[0], "_low": high, "_high": low}
    ceilings = {f"{kind}_ceiling{e}": shown(np.sqrt(1 - v)) for e, v in flipped.items()}
    return shares | ceilings


def shown(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def person_means(values: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Mean over people of their pairs' mean; (1 + B, K): on all people, then of each resample."""
    _, index, counts = np.unique(person, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), values.shape[1]))
    np.add.at(means, index, values)
    means /= counts[:, None]
    return np.concatenate([means.mean(0)[None], resampled_means(means, np.arange(len(means)))])


def as_active_as(labels: np.ndarray, found: Pairs) -> np.ndarray:
    """Half squared difference with active pairs as frequent as active faces; (1 + B, 17).

    NaN for units that fewer than ten pairs, or one person's alone, show.
    """
    share = au_support(labels) / len(labels)
    means = []
    for chosen in (found.active, ~found.active):
        both = np.concatenate([found.half_squares * chosen, chosen], axis=1)
        squares, counted = np.split(person_means(both, found.person), 2, axis=1)
        means.append(np.divide(squares, counted, where=counted > 0, out=squares * np.nan))
    enough = found.active.sum(axis=0) >= LEAST_ACTIVE
    enough &= [len(set(found.person[column].tolist())) > 1 for column in found.active.T]
    return np.where(enough, share * means[0] + (1 - share) * means[1], np.nan)


if __name__ == "__main__":
    main()
