"""Histograms of oriented gradients against one written pixel by pixel, and against geometry."""

import math

import numpy as np

from mlx_faceau.data.labels.fhog import fhog


def picture(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.repeat(np.repeat(rng.integers(0, 256, (28, 28, 3), np.uint8), 4, 0), 4, 1)


def by_the_pixel(image: np.ndarray) -> np.ndarray:
    """Felzenszwalb et al. 2010, section 6, for one picture in plain Python."""
    cells = np.zeros((14, 14, 18))
    pixels = image.astype(float)
    for y in range(1, 111):
        for x in range(1, 111):
            slopes = [
                (
                    pixels[y, x + 1, c] - pixels[y, x - 1, c],
                    pixels[y + 1, x, c] - pixels[y - 1, x, c],
                )
                for c in range(3)
            ]
            dx, dy = max(slopes, key=lambda slope: slope[0] ** 2 + slope[1] ** 2)
            along = [
                (dx * math.cos(o * math.pi / 9) + dy * math.sin(o * math.pi / 9), -o)
                for o in range(18)
            ]
            best = -max((round(value, 6), order) for value, order in along)[1]
            row, column = (y + 0.5) / 8 - 0.5, (x + 0.5) / 8 - 0.5
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    if 0 <= r < 14 and 0 <= c < 14:
                        share = (1 - abs(row - r)) * (1 - abs(column - c))
                        cells[r, c, best] += share * math.hypot(dx, dy)
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
                features[r - 1, c - 1, 27 + number] = 0.2357 * signed.sum()
    return features.reshape(-1)


def test_features_are_those_of_the_paper() -> None:
    image = picture()
    np.testing.assert_allclose(fhog(image[None])[0], by_the_pixel(image), atol=2e-5)


def test_pictures_do_not_influence_one_another() -> None:
    images = np.stack([picture(seed) for seed in range(3)])
    together = fhog(images)
    assert together.shape == (3, 4464)
    assert together.dtype == np.float32
    for image, features in zip(images, together, strict=True):
        np.testing.assert_array_equal(fhog(image[None])[0], features)


def test_a_flat_picture_has_no_gradients() -> None:
    assert not fhog(np.full((1, 112, 112, 3), 200, np.uint8)).any()


def test_turning_a_picture_round_turns_cells_and_directions() -> None:
    """Half a turn reverses rows, columns and each of the 18 directions."""
    image = picture(4)
    turned = fhog(np.ascontiguousarray(image[::-1, ::-1])[None]).reshape(12, 12, 31)
    features = fhog(image[None]).reshape(12, 12, 31)[::-1, ::-1]
    np.testing.assert_allclose(turned[..., :9], features[..., 9:18], atol=1e-5)
    np.testing.assert_allclose(turned[..., 18:27], features[..., 18:27], atol=1e-5)
    np.testing.assert_allclose(turned[..., 27:], features[..., :26:-1], atol=1e-5)
