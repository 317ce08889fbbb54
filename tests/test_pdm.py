"""PDM files, and parameters recovered from landmarks that known parameters drew."""

from pathlib import Path

import numpy as np
import pytest

from mlx_faceau.core.geometry import project
from mlx_faceau.core.pdm import PDM, fit_pdm, read_pdm, write_pdm
from mlx_faceau.errors import DatasetError


@pytest.fixture
def pdm() -> PDM:
    return random_pdm(np.random.default_rng(0))


def random_pdm(generator: np.random.Generator, points: int = 68, modes: int = 8) -> PDM:
    """A face-sized cloud with depth, and orthonormal modes that no rigid motion can imitate."""
    mean = generator.normal(size=(points, 3)) * (35, 40, 20)
    basis = np.linalg.qr(generator.normal(size=(3 * points, modes)))[0].reshape(points, 3, modes)
    return PDM(mean, basis, np.geomspace(400, 20, modes))


def test_a_written_file_reads_back_exactly(tmp_path: Path, pdm: PDM) -> None:
    write_pdm(tmp_path / "pdm.txt", pdm)
    read = read_pdm(tmp_path / "pdm.txt")
    np.testing.assert_array_equal(read.mean, pdm.mean)
    np.testing.assert_array_equal(read.basis, pdm.basis)
    np.testing.assert_array_equal(read.variances, pdm.variances)


def test_coordinates_are_stored_x_then_y_then_z_after_comments_and_blank_lines(
    tmp_path: Path,
) -> None:
    text = """# mean
6
1
6
1
2
10
20
100
200

# modes
6
1
6
.1
.2
.3
.4
.5
.6
# variances
1
1
6
4
"""
    (tmp_path / "pdm.txt").write_text(text)
    read = read_pdm(tmp_path / "pdm.txt")
    assert read.mean.tolist() == [[1, 10, 100], [2, 20, 200]]
    assert read.shape(np.array([10.0])).tolist() == [[2, 13, 105], [4, 24, 206]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "before the mean"),
        ("999999999\n999999999\n6\n1", "999999999 x 999999999"),
        ("6\n1\n5\n1", "type 5"),
        ("6\n1\n6\n1 2 3", "3 of 6 numbers"),
        ("6\n1\n6\n1 2 3 4 5 x", "could not convert"),
        ("4\n1\n6\n1 2 3 4", "not a multiple of 3"),
        ("3\n1\n6\n1 2 3\n2\n1\n6\n1 2\n1\n1\n6\n1", "do not belong together"),
        ("3\n1\n6\n1 2 3\n3\n1\n6\n1 2 3\n1\n1\n6\n0", "not positive"),
        ("3\n1\n6\n1 2 nan\n3\n1\n6\n1 2 3\n1\n1\n6\n1", "not finite"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pdm.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_pdm(tmp_path / "pdm.txt")


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No such file"):
        read_pdm(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(DatasetError, match="not a text file"):
        read_pdm(tmp_path / "binary")


@pytest.mark.parametrize("seed", range(5))
def test_fitting_recovers_the_parameters_that_drew_the_landmarks(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pdm = random_pdm(generator)
    angles = generator.uniform(-0.5, 0.5, 3)
    params = np.r_[generator.uniform(0.5, 4), angles, generator.uniform(-200, 900, 2)]
    local = generator.normal(size=8) * np.sqrt(pdm.variances)
    fit = fit_pdm(pdm, project(pdm.mean, pdm.basis, params, local), noise=1e-4)
    np.testing.assert_allclose(fit.global_params, params, atol=1e-4)
    np.testing.assert_allclose(fit.local_params, local, atol=1e-3)
    assert fit.error < 1e-4


def test_noisy_landmarks_are_fitted_better_with_the_prior_than_without(pdm: PDM) -> None:
    generator = np.random.default_rng(1)
    truth, trusting, careful = [], [], []
    for _ in range(20):
        params = np.r_[1.0, generator.uniform(-0.3, 0.3, 3), 100, 120]
        local = generator.normal(size=8) * np.sqrt(pdm.variances)
        seen = project(pdm.mean, pdm.basis, params, local) + generator.normal(size=(68, 2)) * 4
        truth.append(local)
        trusting.append(fit_pdm(pdm, seen, noise=1e-3).local_params)
        careful.append(fit_pdm(pdm, seen, noise=4.0).local_params)
    error = [np.square(np.array(found) - truth).mean() for found in (trusting, careful)]
    assert error[1] < 0.95 * error[0]


def test_landmarks_without_extent_or_of_another_number_are_refused(pdm: PDM) -> None:
    with pytest.raises(ValueError, match="one place"):
        fit_pdm(pdm, np.ones((68, 2)))
    with pytest.raises(ValueError, match="expected"):
        fit_pdm(pdm, np.ones((5, 2)))


def test_many_faces_are_fitted_as_each_of_them_alone(pdm: PDM) -> None:
    generator = np.random.default_rng(3)
    params = np.concatenate(
        [
            generator.uniform(0.5, 4, (300, 1)),
            generator.uniform(-0.6, 0.6, (300, 3)),
            generator.uniform(-200, 900, (300, 2)),
        ],
        axis=1,
    )
    local = generator.normal(size=(300, 8)) * np.sqrt(pdm.variances)
    seen = project(pdm.mean, pdm.basis, params, local) + generator.normal(size=(300, 68, 2))
    together = fit_pdm(pdm, seen.reshape(3, 100, 68, 2))
    assert together.error.shape == (3, 100)
    for row in (0, 150, 255, 256, 299):  # of two blocks
        alone = fit_pdm(pdm, seen[row])
        place = divmod(row, 100)
        np.testing.assert_allclose(together.global_params[place], alone.global_params, atol=1e-9)
        np.testing.assert_allclose(together.local_params[place], alone.local_params, atol=1e-9)
        assert together.error[place] == pytest.approx(alone.error)


def test_no_faces_give_no_parameters(pdm: PDM) -> None:
    assert fit_pdm(pdm, np.zeros((0, 68, 2))).local_params.shape == (0, 8)


@pytest.mark.parametrize(
    "start", [np.zeros(6), np.ones(5), np.r_[np.nan, np.ones(5)], np.r_[-1.0, np.zeros(5)]]
)
def test_a_start_that_is_no_pose_is_refused(pdm: PDM, start: np.ndarray) -> None:
    seen = project(pdm.mean, pdm.basis, np.r_[1.2, np.zeros(3), 50, 60], np.zeros(8))
    with pytest.raises(ValueError, match=r"start is .* expected six numbers, the first positive"):
        fit_pdm(pdm, seen, start=start)


def test_a_fit_comes_to_the_same_from_a_pose_that_is_nearly_right(pdm: PDM) -> None:
    generator = np.random.default_rng(2)
    params = np.r_[1.2, 0.1, -0.4, 0.2, 50, 60]
    local = generator.normal(size=8) * np.sqrt(pdm.variances)
    seen = project(pdm.mean, pdm.basis, params, local) + generator.normal(size=(68, 2))
    cold = fit_pdm(pdm, seen)
    warm = fit_pdm(pdm, seen, start=params + np.array([0.05, 0.05, -0.05, 0.05, 2, -2]))
    np.testing.assert_allclose(warm.global_params, cold.global_params, atol=1e-4)
    np.testing.assert_allclose(warm.local_params, cold.local_params, atol=1e-3)
