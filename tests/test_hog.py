"""Gradients of the aligned face: against plain Python and geometry, in every framework."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from mlx_faceau.core import geometry
from mlx_faceau.core.hog import (
    align,
    aligned_face,
    histograms,
    hog_constants,
    hog_features,
    to_units,
)
from mlx_faceau.core.pdm import PDM
from mlx_faceau.data.synthetic.shape import shape_model

STEADY = [*range(1, 5), *range(12, 16), *range(27, 30), *range(31, 37), *range(39, 43), 45, 46, 47]
MOBILE = [*range(17, 27), *range(48, 68)]  # brows and mouth
CONSTANTS = hog_constants()
UNSHARPENED = {**CONSTANTS, "sharpener": np.eye(112, dtype=np.float32)}


def weights_of(template: np.ndarray) -> dict[str, np.ndarray]:
    """Alignment onto a template, in units, without a shift."""
    return {
        "template": np.asarray(template, np.float32),
        "shift.weight": np.zeros((2, 136), np.float32),
        "shift.bias": np.zeros(2, np.float32),
    }


def pictures(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.random((count, 28, 28), dtype=np.float32)
    return np.repeat(np.repeat(small, 4, 1), 4, 2) * np.float32(0.9)


@pytest.fixture(scope="module")
def pdm() -> PDM:
    model = shape_model()
    return PDM(model.mean, model.basis, np.full(model.basis.shape[2], 9.0))


@pytest.fixture(scope="module")
def poses(pdm: PDM) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (1200, 68, 2) of faces of known pose (1200, 6), px."""
    rng = np.random.default_rng(3)
    turns = rng.uniform(-0.4, 0.4, (1200, 3))
    places = rng.uniform(50, 62, (1200, 2))
    params = np.concatenate([rng.uniform(0.4, 0.6, (1200, 1)), turns, places], axis=1)
    shapes = rng.normal(0, 2, (1200, 34))
    points = [
        geometry.project(pdm.mean, pdm.basis, p, q) for p, q in zip(params, shapes, strict=True)
    ]
    return np.float32(points), np.float32(params)


def by_the_pixel(image: np.ndarray) -> np.ndarray:
    """Felzenszwalb et al. 2010, section 6, for one grey picture in plain Python.

    Each of 18 directions gets its share cos^16 of a gradient, instead of the nearest all of it.
    """
    cells = np.zeros((14, 14, 18))
    pixels = image.astype(float)
    for y in range(1, 111):
        for x in range(1, 111):
            dx = pixels[y, x + 1] - pixels[y, x - 1]
            dy = pixels[y + 1, x] - pixels[y - 1, x]
            angle = math.atan2(dy, dx)
            cosines = [math.cos(angle - order * math.pi / 9) for order in range(18)]
            length = math.hypot(dx, dy)
            told = length**2 / (length**2 + 1e-6)  # weak gradients tell little
            votes = length * np.maximum(cosines, 0) ** 16 * told**8
            row, column = (y + 0.5) / 8 - 0.5, (x + 0.5) / 8 - 0.5
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    if 0 <= r < 14 and 0 <= c < 14:
                        cells[r, c] += (1 - abs(row - r)) * (1 - abs(column - c)) * votes
    energy = ((cells[..., :9] + cells[..., 9:]) ** 2).sum(-1)
    features = np.zeros((12, 12, 31))
    for r in range(1, 13):
        for c in range(1, 13):
            cell = cells[r, c]
            for number, (up, left) in enumerate(((1, 1), (1, 0), (0, 1), (0, 0))):
                block = energy[r - up : r - up + 2, c - left : c - left + 2].sum()
                norm = math.sqrt(block + 1e-4)
                signed = np.minimum(cell / norm, 0.2)
                features[r - 1, c - 1, :18] += signed / 2
                unsigned = np.minimum((cell[:9] + cell[9:]) / norm, 0.2)
                features[r - 1, c - 1, 18:27] += unsigned / 2
                features[r - 1, c - 1, 27 + number] = signed.sum() / math.sqrt(18)
    return features.transpose(2, 0, 1).reshape(-1)


def in_numpy(array: np.ndarray) -> np.ndarray:
    return array


def in_mlx(array: np.ndarray) -> object:
    return pytest.importorskip("mlx.core", exc_type=ImportError).array(array)


def in_torch(array: np.ndarray) -> object:
    return pytest.importorskip("torch").from_numpy(array)


def as_numpy(array) -> np.ndarray:
    return array.numpy() if hasattr(array, "numpy") else np.array(array)


by_framework = pytest.mark.parametrize("own", [in_numpy, in_mlx, in_torch])


def grid_sample(image, x, y):
    """Torch's own sampling, which the net has in torch."""
    from mlx_faceau.torch_fallback.nets import sample

    return sample(image, x, y)


@by_framework
def test_histograms_are_those_of_the_paper(own: Callable) -> None:
    image = pictures(1)
    constants = {name: own(array) for name, array in CONSTANTS.items()}
    found = as_numpy(histograms(own(image), constants))
    assert found.shape == (1, 4464)
    np.testing.assert_allclose(found[0], by_the_pixel(image[0]), atol=2e-5)


@by_framework
def test_all_frameworks_find_the_same_features(own: Callable, poses: tuple) -> None:
    points = to_units(poses[0][:6])
    weights = weights_of(points.mean(axis=0))
    rng = np.random.default_rng(1)
    weights["shift.weight"] = rng.normal(0, 0.002, (2, 136)).astype(np.float32)
    weights["shift.bias"] = np.float32([0.02, -0.03])
    images = pictures(6, seed=2)
    wide = [
        {name: a.astype(float) for name, a in values.items()} for values in (weights, CONSTANTS)
    ]
    expected = hog_features(images.astype(float), points.astype(float), *wide)
    ours = [{name: own(a) for name, a in values.items()} for values in (weights, CONSTANTS)]
    sample = grid_sample if own is in_torch else None
    found = as_numpy(hog_features(own(images), own(points), *ours, sample))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.05 < found.mean() < 0.2


@by_framework
def test_the_crop_is_sharpened_before_it_is_sampled(own: Callable, poses: tuple) -> None:
    """By a quarter of the second differences along each axis; a border counts as continued."""
    points = to_units(poses[0][:3])
    weights = weights_of(points.mean(axis=0))
    images = pictures(3, seed=4)
    kernel = np.array([[-0.25, 1.5, -0.25]])
    sharp = [
        cv2.sepFilter2D(i, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE) for i in images
    ]
    expected = aligned_face(np.stack(sharp), points, weights, UNSHARPENED)
    ours = [{name: own(a) for name, a in values.items()} for values in (weights, CONSTANTS)]
    sample = grid_sample if own is in_torch else None
    found = as_numpy(aligned_face(own(images), own(points), *ours, sample))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(found) > 1


def reference_matrix(pdm: PDM, points: np.ndarray, params: np.ndarray) -> np.ndarray:
    """OpenFace's alignment in float64: Kabsch's rotation, ratio of sizes, origin at (56, 56)."""
    source = points[STEADY] - points[STEADY].mean(axis=0)
    target = 0.7 * (pdm.mean[STEADY, :2] - pdm.mean[STEADY, :2].mean(axis=0))
    left, _, right = np.linalg.svd(target.T @ source)
    turn = left @ np.diag([1, np.linalg.det(left @ right)]) @ right
    matrix = turn * np.linalg.norm(target) / np.linalg.norm(source)
    return np.column_stack([matrix, 56 - matrix @ params[4:6]])


def test_faces_are_aligned_as_openface_does(pdm: PDM, poses: tuple) -> None:
    """The shape model's origin, which landmarks alone tell, goes to the middle."""
    from mlx_faceau.data.labels.openface_au_models import alignment_of

    points, params = (np.split(values, [1100]) for values in poses)
    weights = alignment_of(pdm, points[0], params[0])
    alignment, aligned = align(to_units(points[1]), weights, CONSTANTS)
    x, y = alignment.to_crop(CONSTANTS["grid"])
    for index, (face, pose) in enumerate(zip(points[1], params[1], strict=True)):
        matrix = reference_matrix(pdm, face, pose)
        expected = geometry.transform_points(matrix, face)
        np.testing.assert_allclose(aligned[index], to_units(expected), atol=2e-3)  # of 56 px
        # Where a pixel of the aligned face, 30 to the right and 70 down, comes from.
        there = np.array([x[index, 70, 30], y[index, 70, 30]])
        back = np.linalg.solve(matrix[:, :2], np.array([30, 70]) - matrix[:, 2])
        np.testing.assert_allclose(there, to_units(back), atol=2e-3)  # of 56 px


@pytest.mark.parametrize("framework", ["torch", "mlx"])
def test_gradients_are_those_of_finite_differences(framework: str, poses: tuple) -> None:
    """Of smooth images; black ones beside a face, without any gradient, give 0 and no NaN."""
    points = to_units(poses[0][:2])
    weights = weights_of(points.mean(axis=0))
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in pictures(2, seed=2)])
    images[1] = 0
    towards = np.random.default_rng(0).normal(size=(2, 4464)).astype(np.float32)

    def value(moved: np.ndarray) -> float:
        wide = [
            {name: a.astype(float) for name, a in values.items()} for values in (weights, CONSTANTS)
        ]
        return float((hog_features(images.astype(float), moved, *wide) * towards).sum())

    found = gradient(framework, images, points, weights, towards)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1], 0, atol=1e-6)
    for landmark, axis in ((30, 0), (30, 1), (36, 0), (45, 1), (8, 1), (62, 0)):
        step = np.zeros(points.shape)
        step[0, landmark, axis] = 1e-5
        expected = (value(points + step) - value(points - step)) / 2e-5
        assert found[0, landmark, axis] == pytest.approx(expected, rel=0.02, abs=0.2)


def gradient(framework: str, images: np.ndarray, points: np.ndarray, weights, towards):
    """Of the features' product with ``towards``, by the points."""
    if framework == "torch":
        torch = pytest.importorskip("torch")
        from mlx_faceau.torch_fallback.nets import sample

        ours = [
            {name: torch.from_numpy(a) for name, a in values.items()}
            for values in (weights, CONSTANTS)
        ]
        at = torch.from_numpy(points).requires_grad_()
        features = hog_features(torch.from_numpy(images), at, *ours, sample)
        (features * torch.from_numpy(towards)).sum().backward()
        return at.grad.numpy()
    pytest.importorskip("mlx.core")
    from mlx_faceau.models import mx

    ours = [{name: mx.array(a) for name, a in values.items()} for values in (weights, CONSTANTS)]
    return np.array(
        mx.grad(lambda p: (hog_features(mx.array(images), p, *ours) * mx.array(towards)).sum())(
            mx.array(points)
        )
    )


@by_framework
@pytest.mark.parametrize("spread", [0.0, 1e-20, np.nan], ids=["one place", "nearly", "nan"])
def test_landmarks_without_a_face_end_no_process(own: Callable, spread: float) -> None:
    points = np.full((1, 68, 2), 0.1, np.float32)
    points += np.float32(spread) * np.random.default_rng(0).random((1, 68, 2), np.float32)
    weights, constants = (
        {name: own(array) for name, array in values.items()}
        for values in (weights_of(np.random.default_rng(1).uniform(-1, 1, (68, 2))), CONSTANTS)
    )
    sample = grid_sample if own is in_torch else None
    images = own(pictures(1))
    found = as_numpy(hog_features(images, own(points), weights, constants, sample))
    assert found.shape == (1, 4464)
    assert np.isfinite(found).all() or np.isnan(spread)


def test_brows_and_mouth_do_not_move_the_face(poses: tuple) -> None:
    points = to_units(poses[0][:1])
    moved = points.copy()
    moved[:, MOBILE] += np.random.default_rng(1).normal(0, 0.1, (len(MOBILE), 2))
    weights = weights_of(points[0])
    both = (
        align(each, weights, CONSTANTS)[0].to_crop(CONSTANTS["grid"]) for each in (points, moved)
    )
    for before, after in zip(*both, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_the_aligned_face_shows_what_the_crop_shows_inside_its_outline(
    pdm: PDM, poses: tuple
) -> None:
    points = poses[0][7]
    crop = np.full((112, 112), 0.4, np.float32)
    for x, y in points[[30, 36, 45]]:
        cv2.circle(crop, (round(x), round(y)), 2, 1.0, -1)
    template = 0.7 * pdm.mean[:, :2] + 56
    weights = weights_of(to_units(template))
    face = aligned_face(crop[None], to_units(points)[None], weights, UNSHARPENED)[0]
    aligned = (align(to_units(points)[None], weights, CONSTANTS)[1][0] + 1) * 56 - 0.5
    count, _, _, centres = cv2.connectedComponentsWithStats((face > 0.75).astype(np.uint8))
    assert count == 4
    for point in aligned[[30, 36, 45]]:
        assert np.linalg.norm(centres[1:] - point, axis=1).min() < 1
    outline = aligned.copy()
    outline[[0, *range(16, 27)], 1] -= 30
    hull = cv2.convexHull(outline.astype(np.float32))
    distance = np.array(
        [
            [cv2.pointPolygonTest(hull, (float(x), float(y)), True) for x in range(112)]
            for y in range(112)
        ]
    )
    assert (face[distance > 0.5] >= 0.39).all()
    assert not face[distance < -3].any()  # the tangents' polygon is a little larger
    assert (distance > 0.5).sum() > 4000


def test_pictures_do_not_influence_one_another(poses: tuple) -> None:
    images, points = pictures(3), to_units(poses[0][:3])
    weights = weights_of(points[0])
    together = hog_features(images, points, weights, CONSTANTS)
    for index in range(3):
        one = slice(index, index + 1)
        alone = hog_features(images[one], points[one], weights, CONSTANTS)[0]
        np.testing.assert_allclose(alone, together[index], atol=1e-6)


def test_a_flat_picture_has_no_gradients() -> None:
    assert histograms(np.full((1, 112, 112), 0.8, np.float32), CONSTANTS).max() < 1e-30


def test_turning_a_picture_round_turns_cells_and_directions() -> None:
    """Half a turn reverses rows, columns and each of the 18 directions."""
    image = pictures(1, seed=4)
    turned = histograms(np.ascontiguousarray(image[:, ::-1, ::-1]), CONSTANTS).reshape(31, 12, 12)
    features = histograms(image, CONSTANTS).reshape(31, 12, 12)[:, ::-1, ::-1]
    np.testing.assert_allclose(turned[:9], features[9:18], atol=1e-5)
    np.testing.assert_allclose(turned[18:27], features[18:27], atol=1e-5)
    np.testing.assert_allclose(turned[27:], features[:26:-1], atol=1e-5)


def test_a_moved_and_turned_crop_has_nearly_the_same_features(poses: tuple) -> None:
    """What the alignment is for; a smooth picture, as sampling it twice blurs."""
    points = poses[0][11]
    crop = cv2.GaussianBlur(pictures(1, seed=5)[0], (0, 0), 2.5)
    matrix = geometry.similarity_matrix(0.9, 0.25, (3.0, -2.0))
    moved = cv2.warpAffine(crop, matrix, (112, 112), flags=cv2.INTER_CUBIC)
    weights = weights_of(to_units(points * 0.8 + 12))
    both = hog_features(
        np.stack([crop, moved]),
        to_units(np.stack([points, geometry.transform_points(matrix, points)])),
        weights,
        CONSTANTS,
    )
    unlike = hog_features(moved[None], to_units(points)[None], weights, CONSTANTS)[0]
    assert np.abs(both[0] - both[1]).mean() < 0.15 * np.abs(both[0] - unlike).mean()
