"""How much of the action units' labels is noise that no net can predict?

    python benchmarks/label_noise.py train.h5

Some people were photographed several times, and some of their crops are nearly equal. Half the
squared difference of two such faces' labels estimates the variance of what the labels hold beyond
the image. Two estimates, over pairs of one person whose crops correlate above 0.97:

- ``near``: the mean over the pairs. Their expressions still differ a little, so this overestimates
  the noise and underestimates the ceiling.
- ``active``: the same, with active and inactive pairs as frequent as active and inactive faces.
  Labels that are clipped at 0 hide the noise of an inactive face. It needs ten active pairs of
  several people.

Assumptions: noise is as large for these people as for the others, and an error that the labeller
makes alike in two nearly equal images is no noise, because a net can learn it. All people have
equal weight. Where the noise has a share s of the labels' variance, the best possible net
correlates with the labels by sqrt(1 - s). Intervals: 95 %, people resampled.

Reference:
    Spearman, The proof and measurement of association between two things, 1904 (attenuation).
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from timing import RESULTS, Row, write_csv

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.metrics import SUPPORT_THRESHOLD, au_support
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.identity import people_names
from mlx_faceau.evaluation.bootstrap import confidence_interval, resampled_means
from mlx_faceau.output.tables import number

LEAST_CORRELATION = 0.97
LEAST_ACTIVE = 10  # pairs from which an active unit's noise is estimated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "label-noise.csv")
    args = parser.parse_args()
    datasets = [FaceDataset(path) for path in args.data]
    people, pairs = (np.concatenate(part) for part in zip(*map(find_pairs, datasets), strict=True))
    if not len(people):
        raise SystemExit(
            f"{', '.join(map(str, args.data))}: no person has two crops that correlate above "
            f"{LEAST_CORRELATION}; give faces of people who were photographed several times"
        )
    labels = np.concatenate([d.labels["au_intensities"] for d in datasets]).astype(np.float64)
    write_csv(args.output, figures(people, pairs, labels))


def find_pairs(dataset: FaceDataset) -> tuple[np.ndarray, np.ndarray]:
    """Each person's pairs of faces whose crops are nearly equal.

    Returns:
        (P,) the person; (P, 2, 17) the intensities of both faces.
    """
    appearance, names = grey_crops(dataset), people_names(dataset)[1]
    labels = dataset.labels["au_intensities"].astype(np.float64)
    people, pairs = [], []
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        similarity = appearance[rows] @ appearance[rows].T
        first, second = np.nonzero(np.triu(similarity > LEAST_CORRELATION, 1))
        people += [name] * len(first)
        pairs.append(np.stack([labels[rows[first]], labels[rows[second]]], axis=1))
    return np.array(people), np.concatenate(pairs)


def grey_crops(dataset: FaceDataset) -> np.ndarray:
    """(N, K) the crops' inner parts in grey at half size, centred and of length 1."""
    crops = []
    for row in range(len(dataset)):
        grey = cv2.cvtColor(dataset.read_images([row])[0], cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (56, 56), interpolation=cv2.INTER_AREA)
        inner = small[6:50, 8:48].ravel().astype(np.float64)
        inner -= inner.mean()
        crops.append(inner / max(float(np.linalg.norm(inner)), 1e-9))
    return np.stack(crops)


def figures(people: np.ndarray, pairs: np.ndarray, labels: np.ndarray) -> list[Row]:
    """One row an action unit.

    Args:
        people: (P,) of the pairs.
        pairs: (P, 2, 17) intensities of both faces.
        labels: (N, 17) of all faces.
    """
    variance, support = labels.var(0), au_support(labels)
    noise = 0.5 * (pairs[:, 0] - pairs[:, 1]) ** 2
    active = pairs.mean(axis=1) > SUPPORT_THRESHOLD
    shares = {
        "near": person_means(noise, people) / variance,
        "active": balanced_means(noise, active, people, support / len(labels)) / variance,
    }
    return [
        {
            "au": name,
            "faces": len(labels),
            "faces_active": int(support[i]),
            "variance": f"{variance[i]:.3f}",
            "pairs": len(people),
            "people": len(np.unique(people)),
            "pairs_active": int(active[:, i].sum()),
            **share_columns("near", shares["near"][:, i]),
            **share_columns("active", shares["active"][:, i]),
        }
        for i, name in enumerate(AU_NAMES)
    ]


def share_columns(kind: str, values: np.ndarray) -> dict[str, str]:
    """Share of the variance and the ceiling: the figure on all people, then the interval."""
    clipped = np.clip(values, 0, 1)
    low, high = confidence_interval(clipped[1:])
    columns = {}
    for end, share, other in (("", *[clipped[0]] * 2), ("_low", low, high), ("_high", high, low)):
        columns[f"{kind}_share{end}"] = number(share)
        columns[f"{kind}_ceiling{end}"] = number(np.sqrt(1 - other))
    return columns


def person_means(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Mean over people of their pairs' mean; (1 + B, K): on all people, then of each resample."""
    _, index, counts = np.unique(people, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), values.shape[1]))
    np.add.at(means, index, values)
    means /= counts[:, None]
    return np.concatenate([means.mean(0)[None], resampled_means(means, np.arange(len(means)))])


def balanced_means(
    noise: np.ndarray, active: np.ndarray, people: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Mean noise with active pairs as frequent as active faces; (1 + B, 17).

    NaN for units that fewer than ten pairs, or one person's alone, show.

    Args:
        noise: (P, 17) of each pair.
        active: (P, 17) whether it shows the unit.
        people: (P,) whose it is.
        share: (17,) of the faces that are active.
    """
    means = []
    for chosen in (active, ~active):
        both = np.concatenate([noise * chosen, chosen], axis=1)
        total, count = np.split(person_means(both, people), 2, axis=1)
        means.append(np.divide(total, count, where=count > 0, out=total * np.nan))
    several = [len(np.unique(people[column])) > 1 for column in active.T]
    enough = (active.sum(axis=0) >= LEAST_ACTIVE) & several
    return np.where(enough, share * means[0] + (1 - share) * means[1], np.nan)


if __name__ == "__main__":
    main()
