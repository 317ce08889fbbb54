"""Augmentation: images and labels move together, and the same seed gives the same bytes."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from mlx_faceau.core.geometry import flip_landmarks, project
from mlx_faceau.core.landmarks import MIRROR
from mlx_faceau.data.loading.augment import (
    LEVELS,
    Level,
    augment_face,
    augmentation,
    change_appearance,
    motion_kernel,
)
from mlx_faceau.data.loading.batches import Batches

MAX_OFFSET = 0.1  # pixels between a spot in the image and its landmark
STRONG = LEVELS["strong"]
FACTORS = ("contrast", "gamma", "tint", "scale", "stretch")  # 1 changes nothing, elsewhere 0 does
UNCHANGED = Level(**{item.name: float(item.name in FACTORS) for item in fields(Level)})
MIRRORED = replace(UNCHANGED, flip=1.0)
MOVEMENTS = ("rotation", "scale", "shift", "stretch")
MOVED = replace(UNCHANGED, **{name: getattr(STRONG, name) for name in MOVEMENTS})
MIRRORED_AND_MOVED = replace(MOVED, flip=1.0)
UNSTRETCHED, MIRRORED_AND_UNSTRETCHED = (
    replace(level, stretch=1.0) for level in (MOVED, MIRRORED_AND_MOVED)
)


def blob(x: float, y: float, sigma: float = 2.0) -> np.ndarray:
    """(112, 112, 3) uint8, a Gaussian spot around (x, y) on black."""
    rows, columns = np.mgrid[:112, :112]
    spot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(spot).astype(np.uint8)[..., None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    """(2,) x, y of the spot, above a background that is as bright as most of the image."""
    weights = image.sum(axis=2, dtype=float)
    weights = np.clip(weights - np.median(weights), 0, None)
    rows, columns = np.mgrid[:112, :112]
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def labels(landmarks: np.ndarray, global_params: np.ndarray | None = None) -> dict:
    params = [2.0, 0.1, 0.2, 0.1, 55.0, 55.0] if global_params is None else global_params
    return {
        "landmarks": np.asarray(landmarks, np.float32),
        "global_params": np.asarray(params, np.float32),
        "local_params": np.arange(34, dtype=np.float32),
        "au_intensities": np.arange(17, dtype=np.float32),
        "global_mask": np.ones((), np.float32),
        "local_mask": np.ones((), np.float32),
    }


def random_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8)


@dataclass
class Faces:
    """Random faces in memory, as Batches reads them."""

    images: np.ndarray
    labels: dict
    masks: dict

    @property
    def blocks(self) -> np.ndarray:
        return np.arange(len(self.images)) // 16

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        return self.images[indices]


@pytest.fixture(scope="module")
def faces() -> Faces:
    rng = np.random.default_rng(0)
    samples = [labels(rng.uniform(20, 91, (68, 2))) for _ in range(40)]
    columns = {name: np.stack([one[name] for one in samples]) for name in samples[0]}
    masks = {name: columns.pop(name) for name in ("global_mask", "local_mask")}
    images = rng.integers(0, 256, (40, 112, 112, 3), np.uint8)
    return Faces(images, columns, masks)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("level", [MOVED, MIRRORED, MIRRORED_AND_MOVED])
def test_every_landmark_stays_on_its_spot_of_the_image(level: Level, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(25, 86, (68, 2))
    mirrored = level.flip == 1
    for number, (x, y) in enumerate(points):
        image, changed = augment_face(
            blob(x, y), labels(points), np.random.default_rng(seed), level
        )
        landmark = changed["landmarks"][MIRROR[number] if mirrored else number]
        np.testing.assert_allclose(centroid(image), landmark, atol=MAX_OFFSET)


def test_global_params_project_to_the_moved_landmarks() -> None:
    rng = np.random.default_rng(1)
    mean, basis = rng.normal(0, 10, (68, 3)), rng.normal(0, 1, (68, 3, 34))
    local = rng.normal(0, 1, 34)
    for seed in range(20):
        params = np.concatenate([[1.2], rng.uniform(-0.5, 0.5, 3), [55, 52]])
        before = labels(project(mean, basis, params, local), params)
        _, after = augment_face(random_image(), before, np.random.default_rng(seed), UNSTRETCHED)
        projected = project(mean, basis, after["global_params"], local)
        np.testing.assert_allclose(projected, after["landmarks"], atol=1e-3)


def test_three_faces_of_ten_are_stretched_and_no_global_params_describe_them() -> None:
    points = project(
        np.random.default_rng(3).normal(0, 12, (68, 3)),
        np.zeros((68, 3, 1)),
        np.array([1, 0, 0, 0, 55.5, 55.5]),
        np.zeros(1),
    )
    before = labels(points)
    stretched = 0
    for seed in range(200):
        _, after = augment_face(random_image(), before, np.random.default_rng(seed), MOVED)
        # A similarity multiplies all singular values of the centred points by one factor.
        old, new = (
            np.linalg.svd(face - face.mean(axis=0), compute_uv=False)
            for face in (points, after["landmarks"])
        )
        ratio = (new[0] / old[0]) / (new[1] / old[1])
        assert (after["global_mask"] == 1) == (abs(np.log(ratio)) < 1e-5)
        assert abs(np.log(ratio)) <= np.log(MOVED.stretch) + 1e-5
        assert after["local_mask"] == 1
        stretched += after["global_mask"] == 0
    assert 40 <= stretched <= 80


def test_global_params_of_a_symmetric_face_project_to_the_mirrored_landmarks() -> None:
    rng = np.random.default_rng(2)
    half = rng.normal(0, 10, (68, 3))
    mean = (half + half[MIRROR] * [-1, 1, 1]) / 2
    for seed in range(20):
        params = np.concatenate([[1.2], rng.uniform(-0.5, 0.5, 3), [55, 52]])
        before = labels(project(mean, np.zeros((68, 3, 1)), params, np.zeros(1)), params)
        _, after = augment_face(
            random_image(), before, np.random.default_rng(seed), MIRRORED_AND_UNSTRETCHED
        )
        projected = project(mean, np.zeros((68, 3, 1)), after["global_params"], np.zeros(1))
        np.testing.assert_allclose(projected, after["landmarks"], atol=1e-3)


def test_a_flip_masks_local_params_and_keeps_the_action_units() -> None:
    before = labels(np.random.default_rng(0).uniform(20, 91, (68, 2)))
    image, after = augment_face(random_image(), before, np.random.default_rng(0), MIRRORED)
    np.testing.assert_array_equal(image, random_image()[:, ::-1])
    np.testing.assert_allclose(after["landmarks"], flip_landmarks(before["landmarks"]), atol=1e-4)
    assert (before["local_mask"], after["local_mask"], after["global_mask"]) == (1, 0, 1)
    np.testing.assert_array_equal(after["au_intensities"], before["au_intensities"])


@pytest.mark.parametrize("spread", [(20, 91), (3, 109), (-10, 125)])
def test_landmarks_never_leave_the_reach_of_the_sigmoid(spread: tuple[int, int]) -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        before = labels(rng.uniform(*spread, (68, 2)))
        moved = augment_face(random_image(), before, rng, MIRRORED_AND_MOVED)[1]["landmarks"]
        assert moved.min() > 1.99
        assert moved.max() < 110.01


def test_no_change_is_asked_for_and_none_happens() -> None:
    before = labels(np.random.default_rng(0).uniform(20, 91, (68, 2)))
    image, after = augment_face(random_image(), before, np.random.default_rng(0), UNCHANGED)
    np.testing.assert_array_equal(image, random_image())
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-5)


@pytest.mark.parametrize(
    "share",
    [{"brightness": 0.15, "contrast": 1.5, "gamma": 1.6, "tint": 1.1}, "blur", "coarse", "jpeg"],
)
def test_changes_of_appearance_move_nothing(share: str | dict) -> None:
    level = UNCHANGED
    if isinstance(share, dict):
        level = replace(UNCHANGED, **share)
    else:
        level = replace(STRONG, **{**off(), share: 1.0})
    rng = np.random.default_rng(3)
    offsets = []
    for x, y in rng.uniform(25, 86, (60, 2)):
        image = np.maximum(blob(x, y, sigma=3.0), 40)
        offsets.append(centroid(change_appearance(image, level, rng)) - centroid(image))
    np.testing.assert_allclose(np.mean(offsets, axis=0), 0, atol=0.05)


def off() -> dict[str, float]:
    """Settings under which no step of the strong level happens."""
    shares = ("grey", "blur", "coarse", "noise", "jpeg", "edges", "cutout", "saturation")
    plain = {"brightness": 0.0, "contrast": 1.0, "gamma": 1.0, "tint": 1.0}
    return {**dict.fromkeys(shares, 0.0), **plain}


@pytest.mark.parametrize("length", [2.0, 4.5, 7.0])
def test_motion_is_even_and_centred(length: float) -> None:
    kernel = motion_kernel(length, angle=0.6)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)


def test_noise_is_as_strong_as_asked_and_adds_no_light() -> None:
    level = replace(STRONG, **{**off(), "noise": 1.0, "noise_sigma": 10.0})
    grey = np.full((112, 112, 3), 128, np.uint8)
    deviations = []
    for seed in range(50):
        noisy = change_appearance(grey, level, np.random.default_rng(seed)).astype(float)
        assert noisy.mean() == pytest.approx(128, abs=0.3)
        deviations.append(noisy.std())
    assert max(deviations) < 10.3
    assert np.mean(deviations) == pytest.approx(5, abs=1)


def test_grey_images_have_equal_channels() -> None:
    level = replace(STRONG, **{**off(), "grey": 1.0})
    image = change_appearance(random_image(), level, np.random.default_rng(0))
    np.testing.assert_array_equal(image, np.repeat(image[..., :1], 3, axis=2))


def test_repeated_edges_leave_the_middle_alone() -> None:
    level = replace(STRONG, **{**off(), "edges": 1.0, "edge_depth": 14})
    image = change_appearance(random_image(), level, np.random.default_rng(1))
    changed = (image != random_image()).any(axis=2)
    assert changed.any()
    assert not changed[14:-14, 14:-14].any()
    rows = [row for row in range(14) if (image[row] == image[row + 1]).all()]
    columns = [column for column in range(14) if (image[:, column] == image[:, column + 1]).all()]
    assert rows or columns or changed[-14:].any() or changed[:, -14:].any()


def test_a_cutout_is_one_rectangle_of_limited_size() -> None:
    level = replace(STRONG, **{**off(), "cutout": 1.0, "cutout_side": 28})
    for seed in range(20):
        image = change_appearance(random_image(), level, np.random.default_rng(seed))
        rows, columns = np.nonzero((image != random_image()).any(axis=2))
        assert np.ptp(rows) < 28
        assert np.ptp(columns) < 28


@pytest.mark.parametrize("level", ["light", "strong"])
def test_the_same_seed_gives_the_same_bytes_for_any_workers_and_order(
    faces: Faces, level: str
) -> None:
    def samples(workers: int, size: int) -> dict[int, tuple[bytes, ...]]:
        batches = Batches(faces, np.arange(40), size, augment=augmentation(level), workers=workers)
        found = {}
        for batch in batches.epoch(3):
            names = sorted(set(batch) - {"index"})
            for row, index in enumerate(batch["index"].tolist()):
                found[index] = tuple(batch[name][row].tobytes() for name in names)
        return found

    expected = samples(workers=0, size=8)
    assert len(expected) == 40
    assert samples(workers=2, size=8) == expected
    assert samples(workers=3, size=5) == expected


def test_epochs_differ_and_the_data_set_stays_as_it_was(faces: Faces) -> None:
    images = faces.images.copy()
    landmarks = faces.labels["landmarks"].copy()
    batches = Batches(faces, np.arange(40), 40, augment=augmentation("strong"))
    first, second = (next(batches.epoch(epoch)) for epoch in (0, 1))
    one, other = (batch["images"][np.argsort(batch["index"])] for batch in (first, second))
    assert (one != other).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(faces.images, images)
    np.testing.assert_array_equal(faces.labels["landmarks"], landmarks)


def test_a_sample_given_stays_as_it_was() -> None:
    image, before = random_image(), labels(np.full((68, 2), 50) + np.arange(68)[:, None] / 4)
    kept = {name: value.copy() for name, value in before.items()}
    for seed in range(10):
        augment_face(image, before, np.random.default_rng(seed), STRONG)
    np.testing.assert_array_equal(image, random_image())
    for name, value in kept.items():
        np.testing.assert_array_equal(before[name], value)


def test_strong_goes_further_than_light_in_everything() -> None:
    weak, strong = LEVELS["light"], LEVELS["strong"]
    for item in fields(Level):
        less, more = (getattr(level, item.name) for level in (weak, strong))
        if item.name in ("jpeg_quality", "coarse_side"):
            less, more = more, less
        assert less < more or item.name == "flip", item.name


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.0, 0, 0), (0.25, 75, 125), (1.0, 400, 400)]
)
def test_so_many_faces_are_mirrored(share: float, least: int, most: int) -> None:
    vary = augmentation("light", share)
    before = labels(np.random.default_rng(0).uniform(20, 91, (68, 2)))
    varied = [vary(random_image(), before, np.random.default_rng(seed))[1] for seed in range(400)]
    assert least <= sum(face["local_mask"] == 0 for face in varied) <= most


def test_none_is_no_augmentation() -> None:
    assert augmentation("none") is None
