"""How much of the action units' labels no net can know?

    python benchmarks/label_noise.py train.h5

A face that was labelled twice would tell; none was. But people were photographed several times,
and some of their crops look nearly alike. Half the squared difference of two such faces' labels
estimates the variance of what the labels hold beyond the picture. It falls with the pictures'
distance, and its limit at distance zero (geostatistics' nugget) is the noise:

- ``near``: the mean over pairs whose crops correlate above 0.97. The expressions of these pairs
  still differ a little, so this overestimates the noise and underestimates the ceiling.
- ``limit``: a straight line through all pairs above 0.90, read off at distance zero.
- ``active``: as ``near``, but active and inactive pairs count as active and inactive faces do among
  all faces. Labels that are cut off at 0 alike hide the noise of an inactive face, and an action
  unit that is rarely active among the pairs (``pairs_active``) would seem to have too little. This
  one has a wide interval instead, and exists from ten active pairs of several people on.

Assumptions: noise is as large for these people as for the others, and what the teacher gets wrong
in the same way for two nearly equal pictures is no noise: a net can learn it. Every person counts
alike. Where the noise has a share s of the labels' variance, the best possible net correlates with
the labels by sqrt(1 - s). Intervals: 95 %, people resampled.

Reference:
    Matheron, Principles of geostatistics, Economic Geology 1963 (the nugget).
    Spearman, The proof and measurement of association between two things, 1904 (attenuation).
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from compare import RESULTS, write_csv

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.metrics import SUPPORT_THRESHOLD, au_support
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.loading.validation_split import people_names
from mlx_faceau.evaluation.bootstrap import interval, resampled_means

NEAR, FAR = 0.97, 0.90
LEAST_ACTIVE = 10  # pairs that tell something about an active unit's noise
BLOCK = 256


@dataclass(frozen=True)
class Pairs:
    """Two faces of one person each.

    Attributes:
        person: (P,) who.
        distance: (P,) 1 - correlation of the crops.
        labels: (P, 2, 17) intensities.
    """

    person: np.ndarray
    distance: np.ndarray
    labels: np.ndarray

    def within(self, similarity: float) -> "Pairs":
        kept = self.distance < 1 - similarity
        return Pairs(self.person[kept], self.distance[kept], self.labels[kept])

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
    parts = [found for dataset in datasets for found in pairs(dataset)]
    together = Pairs(*(np.concatenate([getattr(p, name) for p in parts])
                       for name in ("person", "distance", "labels")))  # fmt: skip
    if not len(together.within(NEAR).person):
        raise SystemExit(
            f"{', '.join(map(str, args.data))}: no person has two crops that correlate above "
            f"{NEAR}; give faces of people who were taken several times"
        )
    labels = np.concatenate([d.labels["au_intensities"] for d in datasets]).astype(np.float64)
    rows = figures(together, labels)
    write_csv(args.output, rows)
    print_table(rows)


def pairs(dataset: FaceDataset) -> Iterator[Pairs]:
    """Every person's pairs of faces whose crops correlate above FAR."""
    looks = appearance(dataset)
    _, names = people_names(dataset)
    labels = dataset.labels["au_intensities"].astype(np.float64)
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        similarity = looks[rows] @ looks[rows].T
        first, second = np.nonzero(np.triu(similarity > FAR, 1))
        yield Pairs(
            np.full(len(first), name),
            1.0 - similarity[first, second],
            np.stack([labels[rows[first]], labels[rows[second]]], axis=1),
        )


def appearance(dataset: FaceDataset) -> np.ndarray:
    """(N, K) the crops' inner parts in grey at half size, centred and of length 1."""
    parts = []
    for start in range(0, len(dataset), BLOCK):
        images = dataset.read_images(np.arange(start, min(start + BLOCK, len(dataset))))
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        small = [cv2.resize(g, (56, 56), interpolation=cv2.INTER_AREA) for g in grey]
        parts.append(np.stack(small)[:, 6:50, 8:48].reshape(len(images), -1))
    looks = np.concatenate(parts).astype(np.float64)
    looks -= looks.mean(1, keepdims=True)
    return looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-9)


def figures(found: Pairs, labels: np.ndarray) -> list[dict]:
    near = found.within(NEAR)
    variance = labels.var(0)
    shares = {
        "near": person_means(near.half_squares, near.person) / variance,
        "limit": limits(found) / variance,
        "active": as_active_as(labels, near) / variance,
    }
    rows = []
    for i, name in enumerate(AU_NAMES):
        row = {
            "au": name,
            "faces": len(labels),
            "faces_active": int(au_support(labels)[i]),
            "variance": f"{variance[i]:.3f}",
            "pairs": len(near.person),
            "people": len(set(near.person.tolist())),
            "pairs_active": int(near.active[:, i].sum()),
            "near_labels_r": labels_correlation(near, i),
        }
        for kind, values in shares.items():
            row |= share_columns(kind, values[:, i])
        rows.append(row)
    return rows


def share_columns(kind: str, values: np.ndarray) -> dict[str, str]:
    """Share of the variance and the ceiling: the figure on all people, then the interval."""
    clipped = np.clip(values, 0, 1)
    low, high = interval(clipped[1:])
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


def as_active_as(labels: np.ndarray, near: Pairs) -> np.ndarray:
    """Half squared difference with active pairs as frequent as active faces; (1 + B, 17).

    NaN for units that fewer than ten pairs, or one person's alone, show.
    """
    share = au_support(labels) / len(labels)
    means = []
    for chosen in (near.active, ~near.active):
        both = np.concatenate([near.half_squares * chosen, chosen], axis=1)
        squares, counted = np.split(person_means(both, near.person), 2, axis=1)
        means.append(np.divide(squares, counted, where=counted > 0, out=squares * np.nan))
    told = near.active.sum(axis=0) >= LEAST_ACTIVE
    told &= [len(set(near.person[column].tolist())) > 1 for column in near.active.T]
    return np.where(told, share * means[0] + (1 - share) * means[1], np.nan)


def limits(found: Pairs) -> np.ndarray:
    """Half squared difference at distance zero by weighted least squares; (1 + B, 17)."""
    x = found.distance[:, None]
    y = found.half_squares
    means = person_means(np.concatenate([x, x**2, y, x * y], axis=1), found.person)
    mean_x, square_x = means[:, :1], means[:, 1:2]
    mean_y, product = np.split(means[:, 2:], 2, axis=1)
    slope = (product - mean_x * mean_y) / (square_x - mean_x**2)
    return mean_y - slope * mean_x


def labels_correlation(near: Pairs, column: int) -> str:
    """Correlation of the two labels over the near pairs, either one first."""
    both = np.concatenate([near.labels, near.labels[:, ::-1]])[:, :, column]
    return f"{np.corrcoef(both.T)[0, 1]:.3f}"


def print_table(rows: list[dict]) -> None:
    print(f"{rows[0]['pairs']} near pairs of {rows[0]['people']} people")
    print(
        f"{'au':8}{'active':>7}{'noise share, near':>26}{'ceiling':>9}{'limit':>24}{'ceiling':>9}"
        f"{'active':>24}{'ceiling':>9}"
    )
    for row in rows:
        cells = "".join(
            f"{row[f'{kind}_share']:>10} [{row[f'{kind}_share_low']} {row[f'{kind}_share_high']}]"
            f"{row[f'{kind}_ceiling']:>9}"
            for kind in ("near", "limit", "active")
        )
        print(f"{row['au']:8}{row['pairs_active']:7d}{cells}")
    for kind in ("near", "limit", "active"):
        known = [row[f"{kind}_ceiling"] for row in rows if row[f"{kind}_ceiling"] != "-"]
        if known:
            ceiling = np.mean([float(value) for value in known])
            print(f"mean ceiling, {kind}: {ceiling:.3f} ({len(known)} units)")


if __name__ == "__main__":
    main()
