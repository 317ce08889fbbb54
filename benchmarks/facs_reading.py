"""Makes the FACS reading's table again, and measures it.

    python benchmarks/facs_reading.py SHARED MESHES [--save]

SHARED holds ``open/ict_facekit.npz``, ``open/posed_dev.npz``, ``open/emotions_train.npz``,
``open/faces_open.npz`` and ``data/faces_train.npz``. MESHES holds ``train.npz, open.npz,
posed.npz`` (``mesh (N, 478, 3)`` in pixels, ``scores (N, 52)``, NaN for a missed face: MediaPipe
Face Landmarker on those files' faces). ``--save`` fits ``mlx_faceau/weights/facs_reading.npz``
anew; without it the table in the package is measured (``results/facs-reading.csv``). The mean
face, its mirror pairs and the correspondence with ICT-FaceKit stay those of the package's table.

Neutral population: faces labelled "neutral" (muxspace, udacity, liveportrait) with closed lips and
generated faces (SFHQ-T2I) with closed lips and no smile.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from builtin_evaluation import CONTAINS, SCORES, UNITS, auc, emotion_accuracy
from timing import RESULTS, Row, write_csv

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.metrics import pearson
from mlx_faceau.data.labels import facs_reading
from mlx_faceau.data.labels.facs_reading import (
    ANCHORS,
    IDENTITY,
    MEASURES,
    RULES,
    SHAPES,
    STABLE_POINTS,
    TABLE,
    Table,
    features,
    raw_channels,
    read_action_units,
    rotation_and_scale,
    unit_sums,
)  # fmt: skip
from mlx_faceau.data.labels.open_pdm import read_ict_facekit
from mlx_faceau.data.synthetic.expression_model import shape_names

OPEN_SOURCES = ("muxspace", "udacity", "liveportrait")
TO_PIXELS = (1.0, -1.0, -1.0)  # MediaPipe's y is down, and its z away from the viewer
CLOSED = 0.02  # distance of the inner lips / distance of the outer eye corners
SHARE = 0.1  # of the covariance's mean diagonal, added to it: what no neutral face showed
RIDGE = 100.0  # on the shapes' amounts
LEVELS = np.array([0.2, 0.4, 0.6, 0.8, 1.0])  # FACS A to E


@dataclasses.dataclass
class Faces:
    """Meshes and scores of some faces, found ones only, with what is known of them."""

    mesh: np.ndarray  # (N, 478, 3)
    scores: np.ndarray  # (N, 52)
    rows: np.ndarray  # (N,) row in the source file

    @classmethod
    def load(cls, path: Path) -> "Faces":
        with np.load(path) as file:
            mesh, scores = file["mesh"].astype(np.float64), file["scores"].astype(np.float64)
        found = np.isfinite(mesh).all((1, 2)) & np.isfinite(scores).all(1)
        return cls(mesh[found], scores[found], np.flatnonzero(found))

    def __getitem__(self, keep: np.ndarray) -> "Faces":
        return Faces(self.mesh[keep], self.scores[keep], self.rows[keep])

    def lip_distance(self) -> np.ndarray:
        across = np.linalg.norm(self.mesh[:, 33] - self.mesh[:, 263], axis=1)
        return np.linalg.norm(self.mesh[:, 13] - self.mesh[:, 14], axis=1) / across


class Ict:
    """ICT-FaceKit's shapes at the mesh points, turned as the table's mean neutral mesh stands."""

    def __init__(self, path: Path, table: Table) -> None:
        model, mean, stable = read_ict_facekit(path), table.mean, list(STABLE_POINTS)
        neutral, identity, expression = (
            np.einsum("pk,...pkd->...pd", table.ict_weights, part[..., table.ict_vertices, :])
            for part in (model.neutral, model.identity, model.expression)
        )
        centred = [points[stable] - points[stable].mean(0) for points in (neutral, mean)]
        rotation, scale = rotation_and_scale(centred[0][None], centred[1])
        self.mean = mean
        self.identity = identity @ rotation[0] * scale
        expression = expression @ rotation[0] * scale
        self.shapes = dict(zip(model.expression_names, expression, strict=True))

    def shape(self, name: str) -> np.ndarray:
        """(478, 3) offsets of a shape at amount 1, left and right together."""
        return sum(self.shapes[side] for side in shape_names(name, (*self.shapes,)))

    def people(self, count: int, seed: int = 0) -> np.ndarray:
        """(count, 478, 3) neutral meshes of random identities."""
        amounts = 0.7 * np.random.default_rng(seed).standard_normal((count, len(self.identity)))
        return self.mean + np.tensordot(amounts, self.identity, 1)


class Builder:
    """Fits the table to a population of neutral faces and ICT-FaceKit's shapes."""

    def __init__(self, neutral: Faces, before: Table, ict: Ict) -> None:
        self.neutral, self.ict = neutral, ict
        self.table = dataclasses.replace(before, neutral_scores=np.median(neutral.scores, 0))
        self.half, self.points = before.half, 3 * len(before.half)
        self.pairs = [SCORES[i].removesuffix("Left") for i in before.score_left]
        self.values, self.pose = features(neutral.mesh, neutral.scores, self.table)
        self.size = self.values.shape[1]

    def coordinate(self, axis: str, point: int) -> np.ndarray:
        """(F,) weights that read one coordinate of the averaged half face."""
        own = point in self.half
        kept = point if own else int(self.table.mirror[point])
        weights = np.zeros(self.size)
        index = 3 * int(np.flatnonzero(self.half == kept)[0]) + "xyz".index(axis)
        weights[index] = 1.0 if own or axis != "x" else -1.0
        return weights

    def linear(self, channel: str) -> np.ndarray:
        """(F,) weights of a "score" or "measure" channel."""
        kind, name = channel.split(" ", 1)
        if kind == "score":
            return np.eye(self.size)[self.points + self.pairs.index(name)]
        measure, _, identity = name.partition("/")
        weights = sum(
            weight * np.mean([self.coordinate(axis, point) for point in points], 0)
            for weight, axis, points in MEASURES[measure]
        )
        if identity:
            known = np.stack([self.coordinate(*item) for item in IDENTITY], 1)
            design = np.c_[np.ones(len(self.pose)), self.pose, self.values @ known]
            slopes = np.linalg.lstsq(design, self.values @ weights, rcond=None)[0]
            weights = weights - known @ slopes[3:]
        return weights

    def shape(self, name: str) -> np.ndarray:
        """(F,) change of the features by a shape at amount 1; scores do not change."""
        moved = (self.ict.mean + self.ict.shape(name))[None] * TO_PIXELS
        offsets = features(moved, np.zeros((1, len(SCORES))), self.table)[0][0]
        offsets[self.points :] = 0
        return offsets

    def region(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Projection (F, S) and triangular factor (S, S) of a region's whitened least squares."""
        mean = self.table.mean
        eye, y = mean[[33, 133], 1].mean(), mean[self.half, 1]
        inside = {
            "face": np.full(len(y), True),
            "upper": y > eye - 2.2,
            "middle": (y < eye + 2.5) & (y > mean[0, 1] - 0.2),
        }[name]
        used = np.repeat(inside, 3) & (self.values[:, : self.points].std(0) > 1e-3)
        used = np.flatnonzero(used)
        covariance = np.cov(self.values[:, used].T)
        covariance += SHARE * np.diag(covariance).mean() * np.eye(len(used))
        whiten = np.linalg.cholesky(covariance)
        shapes = np.stack([self.shape(shape)[used] for shape in SHAPES[name]], 1)
        white = np.linalg.solve(whiten, shapes)
        factor = np.linalg.cholesky(white.T @ white + RIDGE * np.eye(white.shape[1]))
        projection = np.zeros((self.size, white.shape[1]))
        projection[used] = np.linalg.solve(factor, np.linalg.solve(whiten.T, white).T).T
        return projection, factor.T

    def build(self) -> Table:
        linear = list(dict.fromkeys(
            key for rule in RULES.values() for _, key in rule if not key.startswith("shape")
        ))  # fmt: skip
        keys = linear + [f"shape {region} {s}" for region, names in SHAPES.items() for s in names]
        projections, factors = zip(*(self.region(region) for region in SHAPES), strict=True)
        table = dataclasses.replace(
            self.table,
            linear=np.stack([self.linear(key) for key in linear], 1),
            projections=projections,
            factors=factors,
        )
        channels = raw_channels(self.values, table)
        design = np.c_[np.ones(len(self.pose)), self.pose]
        pose = np.linalg.lstsq(design, channels, rcond=None)[0]
        units = np.zeros((len(keys), len(RULES)))
        for unit, rule in enumerate(RULES.values()):
            for weight, key in rule:
                units[keys.index(key), unit] += weight
        table = dataclasses.replace(
            table, pose=pose, spread=(channels - design @ pose).std(0), units=units
        )
        knots, levels = self.anchor(table)
        return dataclasses.replace(table, knots=knots, levels=levels)

    def anchor(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Knots (17, 7) and their intensities (7,).

        Three deviations below the mean of neutral faces read 0 and that mean .22. The mean sums
        of levels A to E of random people, scores neutral, read .36, 1.52, 2.68, 3.84 and 5: so the
        spread of neutral faces reads low, and no level is off by more than one on average.
        """
        sums = unit_sums(self.neutral.mesh, self.neutral.scores, table)
        mean, deviation = sums.mean(0), sums.std(0)
        people = self.ict.people(60)
        scores = np.tile(table.neutral_scores, (len(people), 1))
        rise = np.zeros((len(LEVELS), len(ANCHORS)))
        for unit, shapes in enumerate(ANCHORS.values()):
            offsets = sum(self.ict.shape(name) for name in shapes)
            for row, level in enumerate(LEVELS):
                moved = (people + level * offsets) * TO_PIXELS
                rise[row, unit] = unit_sums(moved, scores, table)[:, unit].mean()
        knots = np.stack([mean - 3 * deviation, mean, *rise], 1)
        if (np.diff(knots) <= 0).any():
            raise SystemExit("a unit's sum does not rise from neutral to level E: change its rule")
        return knots, np.array([0.0, 0.22, *np.linspace(0.36, 5.0, 5)])


def save(table: Table, path: Path) -> None:
    """Write a table as float32 and int16."""
    values = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
    for key in ("projections", "factors"):
        parts = values.pop(key)
        values |= {f"{key}_{region}": part for region, part in zip(SHAPES, parts, strict=True)}
    np.savez_compressed(
        path,
        **{k: v.astype(np.float32 if v.dtype.kind == "f" else np.int16) for k, v in values.items()},
    )


def generated_r(table: Table, ict: Ict, count: int = 1200) -> np.ndarray:
    """(17,) Pearson r with the amounts of one or two units on random identities."""
    random = np.random.default_rng(1)
    truth = np.zeros((count, len(AU_NAMES)))
    mesh = ict.people(count, seed=1)
    for row in range(count):
        chosen = random.choice(len(AU_NAMES), random.integers(1, 3), replace=False)
        for unit in chosen:
            truth[row, unit] = random.uniform()
            shapes = ANCHORS[AU_NAMES[unit]]
            mesh[row] += truth[row, unit] * sum(ict.shape(name) for name in shapes)
    jaw, lips = AU_NAMES.index("AU26_r"), AU_NAMES.index("AU25_r")
    # A dropped jaw parts the lips, and lips parted as far as the anchor of AU25 drop the jaw.
    truth[:, [jaw, lips]] = truth[:, [jaw, lips]].max(1, keepdims=True)
    scores = np.tile(table.neutral_scores, (count, 1))
    return pearson(truth, read_action_units(mesh * TO_PIXELS, scores))


def neutral_faces(shared: Path, meshes: Path) -> Faces:
    """The population that the reading is measured in deviations of."""
    labelled, generated = (Faces.load(meshes / f"{name}.npz") for name in ("train", "open"))
    with np.load(shared / "open/emotions_train.npz") as file:
        neutral = file["emotion"][labelled.rows].astype(str) == "neutral"
    with np.load(shared / "data/faces_train.npz") as file:
        neutral &= np.isin(file["source"][labelled.rows].astype(str), OPEN_SOURCES)
    with np.load(shared / "open/faces_open.npz") as file:
        resting = file["source"][generated.rows].astype(str) == "sfhq_t2i"
    smile = generated.scores[:, [SCORES.index(f"mouthSmile{side}") for side in ("Left", "Right")]]
    resting &= smile.mean(1) < 0.15
    first = labelled[neutral & (labelled.lip_distance() < CLOSED)]
    second = generated[resting & (generated.lip_distance() < CLOSED)]
    return Faces(
        *map(np.concatenate, zip(vars(first).values(), vars(second).values(), strict=True))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("meshes", type=Path)
    parser.add_argument("--save", action="store_true", help="write the package's table anew")
    args = parser.parse_args()
    table = facs_reading.load_table()
    ict = Ict(args.shared / "open/ict_facekit.npz", table)
    if args.save:
        save(Builder(neutral_faces(args.shared, args.meshes), table, ict).build(), TABLE)
        facs_reading.load_table.cache_clear()
        table = facs_reading.load_table()
    posed = Faces.load(args.meshes / "posed.npz")
    with np.load(args.shared / "open/posed_dev.npz") as file:
        emotion, performer = (file[key][posed.rows].astype(str) for key in ("emotion", "performer"))
    units = read_action_units(posed.mesh, posed.scores)
    write_csv(RESULTS / "facs-reading.csv", measure(units, emotion, generated_r(table, ict)))
    accuracy = emotion_accuracy(units, emotion, performer)
    print(f"accuracy of the seven emotions, other performers: {accuracy:.2f}")


def measure(units: np.ndarray, emotion: np.ndarray, generated: np.ndarray) -> list[Row]:
    """One row a unit and one for their mean: AUC and neutral mean on posed faces, generated r."""
    rows: list[Row] = []
    for k, name in enumerate(UNITS):
        row: Row = {"unit": name, "generated_r": generated[k]}
        row["posed_neutral_mean"] = units[emotion == "neutral", k].mean()
        if name in CONTAINS:
            row["posed_auc"] = auc(units[:, k], np.isin(emotion, CONTAINS[name].split()))
        rows.append(row)
    columns = ("generated_r", "posed_neutral_mean", "posed_auc")
    mean = {column: np.mean([row[column] for row in rows if column in row]) for column in columns}
    rows.append({"unit": "mean", **mean})
    return [{k: v if k == "unit" else f"{v:.2f}" for k, v in row.items()} for row in rows]


if __name__ == "__main__":
    main()
