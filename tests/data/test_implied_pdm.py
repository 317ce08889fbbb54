"""The shape model behind labels: of synthetic faces it is known."""

import numpy as np
import pytest

pytest.importorskip("h5py")

from mlx_faceau.core.geometry import project
from mlx_faceau.data.labels.openface_au_models import implied_pdm
from mlx_faceau.data.synthetic.people import synthesize
from mlx_faceau.data.synthetic.shape import shape_model
from mlx_faceau.errors import DatasetError

NAMES = ("landmarks", "global_params", "local_params")


@pytest.fixture(scope="module")
def labels() -> list[np.ndarray]:
    faces = synthesize(300, seed=1)
    return [faces[name] for name in NAMES]


def test_landmarks_and_parameters_imply_the_model_that_drew_them(labels: list[np.ndarray]) -> None:
    found, drawn = implied_pdm(*labels), shape_model()
    np.testing.assert_allclose(found.mean, drawn.mean, atol=0.01)  # mm
    np.testing.assert_allclose(found.basis, drawn.basis, atol=2e-3)
    np.testing.assert_allclose(found.variances, labels[2].var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_mode_that_never_varies_belongs_to_the_mean(
    labels: list[np.ndarray], value: float
) -> None:
    drawn, params = shape_model(), labels[1]
    local = labels[2].copy()
    local[:, 33] = value
    points = project(drawn.mean, drawn.basis, params, local)
    found = implied_pdm(points, params, local)
    np.testing.assert_allclose(found.mean, drawn.mean + value * drawn.basis[..., 33], atol=0.01)
    np.testing.assert_allclose(found.basis[..., :33], drawn.basis[..., :33], atol=2e-3)
    np.testing.assert_allclose(found.basis[..., 33], 0, atol=1e-6)
    assert 0 < found.variances[33] < 1e-6


def test_too_few_faces_are_refused(labels: list[np.ndarray]) -> None:
    with pytest.raises(DatasetError, match=r"200 faces .* too few .* it takes 210"):
        implied_pdm(*(values[:200] for values in labels))


def test_landmarks_that_no_parameters_explain_are_refused(labels: list[np.ndarray]) -> None:
    shuffled = np.roll(labels[0], 1, axis=0)
    with pytest.raises(DatasetError, match="of no shape model"):
        implied_pdm(shuffled, *labels[1:])
