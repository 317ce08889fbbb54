"""Closed forms of the FACS reading, and ICT-FaceKit faces of known expression."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.data.labels.facs_reading import (
    ANCHORS,
    STABLE_POINTS,
    load_table,
    nonnegative_least_squares,
    read_action_units,
)
from mlx_faceau.errors import UsageError

TABLE = load_table()
UNIT = {name: k for k, name in enumerate(AU_NAMES)}


def in_pixels(mesh: np.ndarray) -> np.ndarray:
    """Upright meshes as MediaPipe gives them: y down, z away from the viewer."""
    return mesh * [1.0, -1.0, -1.0]


def moved(**offsets: tuple[tuple[int, ...], tuple[float, float, float]]) -> np.ndarray:
    """The mean neutral face with some points and their mirror images moved (about cm)."""
    mesh = TABLE.mean.astype(np.float64)
    for points, offset in offsets.values():
        for point in points:
            other = int(TABLE.mirror[point])
            mesh[point] += offset
            if other != point:
                mesh[other] += np.array(offset) * [-1.0, 1.0, 1.0]
    return in_pixels(mesh)


def read(mesh: np.ndarray) -> np.ndarray:
    scores = np.tile(TABLE.neutral_scores, (len(mesh), 1))
    return read_action_units(mesh, scores)


UPPER_LID, INNER_BROW = (160, 159, 158, 161, 157), (107, 55, 66, 65)
LOWER_LIP = (14, 87, 178, 88, 17, 84, 181, 15, 86, 16, 85)


@pytest.mark.parametrize(
    ("raised", "points", "offset", "far"),
    [
        ("AU01_r", INNER_BROW, (0.0, 0.5, 0.0), ("AU12_r", "AU25_r", "AU26_r")),
        ("AU45_r", UPPER_LID, (0.0, -0.6, 0.0), ("AU05_r", "AU12_r", "AU25_r")),
        ("AU25_r", LOWER_LIP, (0.0, -1.2, 0.0), ("AU01_r", "AU02_r", "AU45_r")),
    ],
)
def test_points_moved_by_hand_raise_the_unit_that_facs_names(
    raised: str, points: tuple[int, ...], offset: tuple[float, float, float], far: tuple[str, ...]
) -> None:
    before, after = read(np.stack([moved(), moved(part=(points, offset))]))

    change = after - before
    assert change[UNIT[raised]] > 0.5
    assert max(change[UNIT[name]] for name in far) < 0.1


def test_position_size_and_roll_change_nothing() -> None:
    random = np.random.default_rng(0)
    mesh = moved(brow=(INNER_BROW, (0.0, 0.4, 0.0)), lip=(LOWER_LIP, (0.0, -0.8, 0.0)))
    mesh = mesh + random.normal(0, 0.05, mesh.shape)
    cosine, sine = np.cos(0.4), np.sin(0.4)
    roll = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])

    still, turned = read(np.stack([mesh, 37.5 * mesh @ roll.T + [120.0, -40.0, 9.0]]))

    np.testing.assert_allclose(turned, still, atol=1e-4)


def test_a_mirrored_face_reads_the_same() -> None:
    random = np.random.default_rng(1)
    mesh = in_pixels(TABLE.mean + random.normal(0, 0.15, TABLE.mean.shape))
    scores = random.uniform(0, 0.6, 52)
    swapped = scores.copy()
    swapped[TABLE.score_left], swapped[TABLE.score_right] = (
        scores[TABLE.score_right], scores[TABLE.score_left],
    )  # fmt: skip

    here = read_action_units(mesh, scores)
    there = read_action_units(mesh[TABLE.mirror] * [-1.0, 1.0, 1.0], swapped)

    np.testing.assert_allclose(there, here, atol=1e-4)


def test_mirror_and_stable_points_are_consistent() -> None:
    np.testing.assert_array_equal(TABLE.mirror[TABLE.mirror], np.arange(478))
    assert {int(TABLE.mirror[p]) for p in STABLE_POINTS} == set(STABLE_POINTS)
    np.testing.assert_allclose(TABLE.mean[TABLE.mirror] * [-1, 1, 1], TABLE.mean, atol=1e-5)


def test_scores_alone_raise_their_units_in_steps() -> None:
    steps = np.tile(TABLE.neutral_scores, (5, 1))
    left, right = TABLE.score_left, TABLE.score_right
    live = (left != right).nonzero()[0]
    steps[:, left[live]] = steps[:, right[live]] = np.linspace(0.01, 0.99, 5)[:, None]

    blink = read_action_units(np.repeat(moved()[None], 5, 0), steps)[:, UNIT["AU45_r"]]

    assert (np.diff(blink) >= 0).all()
    assert blink[-1] - blink[0] > 0.1


def test_missed_faces_are_nan_and_the_others_are_read() -> None:
    meshes = np.stack([moved(), np.full((478, 3), np.nan), moved(lip=(LOWER_LIP, (0, -1.2, 0)))])

    reading = read(meshes)

    assert np.isnan(reading[1]).all()
    np.testing.assert_array_equal(reading[[0, 2]], read(meshes[[0, 2]]))
    assert reading.dtype == np.float32


@pytest.mark.parametrize(("mesh", "scores"), [((468, 3), (52,)), ((2, 478, 3), (3, 52))])
def test_other_shapes_are_refused(mesh: tuple[int, ...], scores: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"meshes \(N, 478, 3\) and scores \(N, 52\), not"):
        read_action_units(np.zeros(mesh), np.zeros(scores))


@pytest.mark.parametrize("seed", range(20))
def test_nonnegative_least_squares_equals_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(2, 24))
    factor = random.normal(size=(size, size)) + 0.5 * np.eye(size)
    target = random.normal(size=size)

    np.testing.assert_allclose(
        nonnegative_least_squares(factor, target), nnls(factor, target)[0], atol=1e-6
    )


@pytest.fixture(scope="module")
def model(shared_folder: Path) -> dict[str, np.ndarray]:
    """Random people of ICT-FaceKit and the offsets of every unit's level E."""
    path = shared_folder / "open" / "ict_facekit.npz"
    if not path.exists():
        pytest.skip("ICT-FaceKit is not here")
    with np.load(path) as file:
        carried = {
            key: np.einsum(
                "pk,...pkd->...pd",
                TABLE.ict_weights,
                file[key][..., TABLE.ict_vertices, :].astype(np.float64),
            )
            for key in ("neutral", "expression", "identity")
        }
        names = [str(name) for name in file["expression_names"]]
    stable = list(STABLE_POINTS)
    ours, theirs = (m[stable] - m[stable].mean(0) for m in (TABLE.mean, carried["neutral"]))
    left, values, right = np.linalg.svd(theirs.T @ ours)
    turn = left @ right * (values.sum() / (theirs**2).sum())
    shapes = dict(zip(names, carried["expression"] @ turn, strict=True))
    random = np.random.default_rng(5)
    people = TABLE.mean + np.tensordot(
        0.7 * random.standard_normal((25, 100)), carried["identity"] @ turn, 1
    )
    units = {
        unit: sum(v for n, v in shapes.items() if n.removesuffix("_L").removesuffix("_R") in a)
        for unit, a in ANCHORS.items()
    }
    return {"people": people, **units}


@pytest.mark.parametrize("unit", AU_NAMES)
def test_levels_a_to_e_rise_and_stay_within_a_level(
    model: dict[str, np.ndarray], unit: str
) -> None:
    people = model["people"]
    means = [
        read(in_pixels(people + level / 5 * model[unit]))[:, UNIT[unit]].mean()
        for level in range(6)
    ]

    assert means[0] <= 1.0
    assert (np.diff(means) > 0).all()
    off = np.abs(np.array(means[1:]) - np.arange(1, 6))
    assert off.mean() <= 0.8
    # The ceiling of 5 cuts level E where people differ most.
    assert off.max() <= (1.6 if unit == "AU07_r" else 1.2)


@pytest.mark.parametrize(
    "unit",
    [
        "AU02_r",
        "AU04_r",
        "AU12_r",
        "AU14_r",
        "AU15_r",
        "AU17_r",
        "AU20_r",
        "AU23_r",
        "AU25_r",
        "AU26_r",
    ],
)
def test_geometry_tells_the_amount(model: dict[str, np.ndarray], unit: str) -> None:
    people = model["people"]
    amounts = np.random.default_rng(6).uniform(0, 1, len(people))

    reading = read(in_pixels(people + amounts[:, None, None] * model[unit]))[:, UNIT[unit]]

    assert np.corrcoef(reading, amounts)[0, 1] >= 0.9
