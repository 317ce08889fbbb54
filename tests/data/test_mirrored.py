"""Mirror images of faces whose shape model, landmarks and pictures are known."""

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("h5py")

from mlx_faceau.data.mirrored import Mirrored
from mlx_faceau.geometry import flip_global_params, project
from mlx_faceau.landmarks import MIRROR
from mlx_faceau.pdm import PDM

COUNT, MODES = 12, 8


@dataclass(frozen=True)
class Drawn:
    """Faces that a shape model drew."""

    pdm: PDM
    labels: dict[str, np.ndarray]
    images: np.ndarray

    @property
    def masks(self) -> dict[str, np.ndarray]:
        return {"global_mask": np.arange(COUNT, dtype=np.float32)}

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        return self.images[indices]


def turned(points: np.ndarray) -> np.ndarray:
    """Points (..., 68, 3) mirrored in space."""
    return points[..., MIRROR, :] * [-1, 1, 1]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """A model of five symmetric and three antisymmetric modes, turned into one another."""
    rng = np.random.default_rng(4)
    mean = rng.normal(size=(68, 3)) * (35, 40, 20)
    modes = rng.normal(size=(MODES, 68, 3))
    signs = np.array([1, 1, 1, 1, 1, -1, -1, -1])[:, None, None]
    pure = np.linalg.qr(((modes + signs * turned(modes)) / 2).reshape(MODES, 204).T)[0]
    mixed = pure @ np.linalg.qr(rng.normal(size=(MODES, MODES)))[0]
    variances = np.geomspace(400, 20, MODES)
    pdm = PDM((mean + turned(mean)) / 2, mixed.reshape(68, 3, MODES), variances)
    params = np.column_stack(
        [rng.uniform(0.5, 0.8, COUNT), rng.uniform(-0.5, 0.5, (COUNT, 3)), np.full((COUNT, 2), 55)]
    )
    local = rng.normal(size=(COUNT, MODES)) * np.sqrt(variances)
    each = zip(params, local, strict=True)
    labels = {
        "landmarks": np.stack([project(pdm.mean, pdm.basis, p, q) for p, q in each]),
        "global_params": params,
        "local_params": local,
    }
    images = rng.integers(0, 256, (COUNT, 112, 112, 3), np.uint8)
    return Drawn(pdm, {name: np.float32(values) for name, values in labels.items()}, images)


def test_shape_parameters_are_those_of_the_shape_mirrored_in_space(drawn: Drawn) -> None:
    rows = np.array([1, 4, 11])
    found = Mirrored(drawn, rows, drawn.pdm).labels["local_params"]
    own = drawn.labels["local_params"][rows]
    basis = drawn.pdm.basis.reshape(204, MODES)
    shapes = np.stack([turned(drawn.pdm.shape(local)) for local in own])
    expected = np.linalg.lstsq(basis, (shapes - drawn.pdm.mean).reshape(3, 204).T, rcond=None)[0].T
    assert np.abs(expected - own).max() > 10  # a mirrored shape is another one
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_mirrored_parameters_draw_the_mirrored_landmarks(drawn: Drawn) -> None:
    rows = np.arange(COUNT)
    found = Mirrored(drawn, rows, drawn.pdm).labels
    for row in rows:
        assert found["global_params"][row] == pytest.approx(
            flip_global_params(drawn.labels["global_params"][row])
        )
        points = project(
            drawn.pdm.mean, drawn.pdm.basis, found["global_params"][row], found["local_params"][row]
        )
        np.testing.assert_allclose(points, found["landmarks"][row], atol=0.02)
        own = drawn.labels["landmarks"][row]
        np.testing.assert_allclose(found["landmarks"][row][36], [111, 0] + own[45] * [-1, 1])


def test_twice_mirrored_faces_are_as_they_were(drawn: Drawn) -> None:
    rows = np.arange(COUNT)
    twice = Mirrored(Mirrored(drawn, rows, drawn.pdm), rows, drawn.pdm)
    for name, values in drawn.labels.items():
        np.testing.assert_allclose(twice.labels[name], values, atol=0.05)
    np.testing.assert_array_equal(twice.read_images(rows), drawn.images)


def test_pictures_and_masks_are_those_of_the_rows(drawn: Drawn) -> None:
    images = Mirrored(drawn, np.array([7, 2, 9]), drawn.pdm)
    pixels = images.read_images(np.array([2, 0]))
    np.testing.assert_array_equal(pixels, drawn.images[[9, 7]][:, :, ::-1])
    np.testing.assert_array_equal(images.masks["global_mask"], [7, 2, 9])
