"""Mirror images of faces whose shape model, landmarks and pictures are known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

pytest.importorskip("h5py")

from mlx_faceau.core.geometry import flip_global_params, flip_landmarks, project
from mlx_faceau.core.landmarks import MIRROR
from mlx_faceau.core.pdm import PDM
from mlx_faceau.data.labels.openface_au_models import Mirrored
from mlx_faceau.errors import DatasetError

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


def draw(variances: np.ndarray, askew: float = 0.0, mixed: bool = True) -> Drawn:
    """Faces of a model of more symmetric than antisymmetric modes.

    ``mixed`` turns the modes into one another; the mean is symmetric but for ``askew`` mm, rms of
    each coordinate.
    """
    count = len(variances)
    rng = np.random.default_rng(4)
    mean = rng.normal(size=(68, 3)) * (35, 40, 20)
    modes = rng.normal(size=(count, 68, 3))
    signs = np.where(np.arange(count) < 0.6 * count, 1, -1)[:, None, None]
    pure = np.linalg.qr(((modes + signs * turned(modes)) / 2).reshape(count, 204).T)[0]
    turn = np.linalg.qr(rng.normal(size=(count, count)))[0]
    basis = pure @ turn if mixed else pure
    noise = rng.normal(size=(68, 3))
    even = (mean + turned(mean)) / 2 + askew * (noise - turned(noise)) / 2**0.5
    pdm = PDM(even, basis.reshape(68, 3, count), variances)
    params = np.column_stack(
        [rng.uniform(0.5, 0.8, COUNT), rng.uniform(-0.5, 0.5, (COUNT, 3)), np.full((COUNT, 2), 55)]
    )
    local = rng.normal(size=(COUNT, count)) * np.sqrt(variances)
    each = zip(params, local, strict=True)
    labels = {
        "landmarks": np.stack([project(pdm.mean, pdm.basis, p, q) for p, q in each]),
        "global_params": params,
        "local_params": local,
    }
    images = rng.integers(0, 256, (COUNT, 112, 112, 3), np.uint8)
    return Drawn(pdm, {name: np.float32(values) for name, values in labels.items()}, images)


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return draw(np.geomspace(400, 20, MODES))


def test_shape_parameters_are_those_of_the_shape_mirrored_in_space(drawn: Drawn) -> None:
    rows = np.array([1, 4, 11])
    found = Mirrored(drawn, rows, drawn.pdm).labels["local_params"]
    own = drawn.labels["local_params"][rows]
    basis = drawn.pdm.basis.reshape(204, MODES)
    shapes = np.stack([turned(drawn.pdm.shape(local)) for local in own])
    expected = np.linalg.lstsq(basis, (shapes - drawn.pdm.mean).reshape(3, 204).T, rcond=None)[0].T
    assert np.abs(expected - own).max() > 10  # a mirrored shape is another one
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_mirrored_parameters_draw_the_mirrored_landmarks(drawn: Drawn) -> None:
    rows = np.arange(COUNT)
    found = Mirrored(drawn, rows, drawn.pdm).labels
    for row in rows:
        assert found["global_params"][row] == pytest.approx(
            flip_global_params(drawn.labels["global_params"][row]), abs=2e-3
        )
        points = project(
            drawn.pdm.mean, drawn.pdm.basis, found["global_params"][row], found["local_params"][row]
        )
        np.testing.assert_allclose(points, found["landmarks"][row], atol=0.05)
        own = drawn.labels["landmarks"][row]
        np.testing.assert_allclose(found["landmarks"][row][36], [111, 0] + own[45] * [-1, 1])


def redrawn(faces: Drawn) -> Drawn:
    """Their mirror images, as data of their own: landmarks are what the parameters draw."""
    images, pdm = Mirrored(faces, np.arange(COUNT), faces.pdm), faces.pdm
    pose, local = images.labels["global_params"], images.labels["local_params"]
    labels = {**images.labels, "landmarks": np.float32(project(pdm.mean, pdm.basis, pose, local))}
    return Drawn(pdm, labels, images.read_images(np.arange(COUNT)))


def test_twice_mirrored_faces_are_as_they_were(drawn: Drawn) -> None:
    once = redrawn(drawn)
    twice = redrawn(once)
    for name, values in drawn.labels.items():
        assert np.abs(once.labels[name] - values).max() > 0.5
        np.testing.assert_allclose(twice.labels[name], values, atol=0.2)
    np.testing.assert_array_equal(twice.images, drawn.images)


def test_shape_parameters_of_a_model_that_is_askew_stay_those_of_faces() -> None:
    """A mean that is askew has no mirror: the fit must not spend weak modes on what it misses."""
    faces = draw(np.geomspace(400, 0.2, 34), askew=0.3, mixed=False)
    once = redrawn(faces)
    missed = np.abs(once.labels["landmarks"] - flip_landmarks(faces.labels["landmarks"]))
    assert 0.1 < missed.mean() < 0.5  # px
    deviations = np.sqrt(faces.pdm.variances)
    own, other, back = (
        found.labels["local_params"] / deviations for found in (faces, once, redrawn(once))
    )
    assert np.square(other).mean() < 1.4 * np.square(own).mean()
    assert np.sqrt(np.square(back - own).mean()) < 0.5


def test_a_face_without_a_positive_scale_has_no_mirror_image(drawn: Drawn) -> None:
    labels = {**drawn.labels, "global_params": drawn.labels["global_params"].copy()}
    labels["global_params"][[3, 5], 0] = 0
    broken = replace(drawn, labels=labels)
    assert Mirrored(broken, np.array([2, 4]), drawn.pdm).labels["local_params"].shape == (2, MODES)
    with pytest.raises(DatasetError, match="the scale of 2 faces is not positive"):
        _ = Mirrored(broken, np.arange(COUNT), drawn.pdm).labels


def test_pictures_and_masks_are_those_of_the_rows(drawn: Drawn) -> None:
    images = Mirrored(drawn, np.array([7, 2, 9]), drawn.pdm)
    pixels = images.read_images(np.array([2, 0]))
    np.testing.assert_array_equal(pixels, drawn.images[[9, 7]][:, :, ::-1])
    np.testing.assert_array_equal(images.masks["global_mask"], [7, 2, 9])
