"""Crops from face boxes: whose boxes a file holds, and what they cut."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

from labelled_faces import write_faces

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.synthetic.people import write_synthetic
from mlx_faceau.errors import DatasetError
from mlx_faceau.evaluation.crops import MEASURED, box_crops
from mlx_faceau.video.box_calibration import CALIBRATIONS

COUNT = 40


def boxed_faces(path: Path, detector: str, error: float = 1.0, offset: float = 0.0) -> FaceDataset:
    """Faces in frames, in boxes that err like the detector's.

    The box is written from the square by the inverse of the calibration's definition: the centre
    moved back by (right, down) sizes, the size the side over the calibrated one.
    """
    rng = np.random.default_rng(3)
    right, down, side_share = (
        getattr(CALIBRATIONS[detector], name) for name in ("right", "down", "side")
    )
    boxes, warps = [], []
    for _ in range(COUNT):
        side, (x, y) = rng.uniform(200, 400), rng.uniform(300, 500, 2)  # of the true square
        scale = 112 / side
        warps.append([[scale, 0, 55.5 - scale * x], [0, scale, 55.5 - scale * y]])
        wrong = rng.normal(0, error * MEASURED[detector].shift / 1.1774, 2)
        size = side / side_share * np.exp(error * rng.normal(0, MEASURED[detector].scale / 0.6745))
        x += (wrong[0] + offset) * side - size * right
        y += wrong[1] * side - size * down
        boxes.append([x - (size - 1) / 2, y - (size - 1) / 2, size, size])
    return FaceDataset(write_faces(path, COUNT, 1, np.array(boxes), np.array(warps)))


@pytest.mark.parametrize("detector", MEASURED)
def test_a_files_boxes_are_recognised_as_their_detectors(detector: str, tmp_path: Path) -> None:
    found = box_crops(boxed_faces(tmp_path / "faces.h5", detector))
    assert found is not None
    assert found.name == f"{detector} boxes"
    assert "own boxes" in found.about


def test_boxes_without_error_cut_the_stored_crop_again(tmp_path: Path) -> None:
    found = box_crops(boxed_faces(tmp_path / "faces.h5", "yunet", error=0.0), "file")
    assert found is not None
    expected = np.broadcast_to([[1.0, 0, 0], [0, 1, 0]], (COUNT, 2, 3))
    np.testing.assert_allclose(found.matrices, expected, atol=2e-4)  # boxes are float32


def test_boxes_that_lie_to_the_right_cut_what_lies_to_the_right(tmp_path: Path) -> None:
    found = box_crops(boxed_faces(tmp_path / "faces.h5", "dlib", error=0.0, offset=0.05))
    assert found is not None
    np.testing.assert_allclose(found.matrices[:, 0, 2], -0.05 * 112, atol=1e-3)


def test_boxes_of_an_unknown_detector_are_not_taken_for_a_known_ones(tmp_path: Path) -> None:
    dataset = boxed_faces(tmp_path / "faces.h5", "yunet", offset=0.25)
    with pytest.raises(DatasetError, match="fit no calibrated detector; use --boxes yunet"):
        box_crops(dataset, "file")
    found = box_crops(dataset, "auto")
    assert found is not None
    assert found.about.startswith("simulated")
    assert "fit no calibrated detector" in found.about


def test_boxes_made_from_the_crops_do_not_pass_for_a_detectors(tmp_path: Path) -> None:
    dataset = FaceDataset(write_faces(tmp_path / "faces.h5", 5, 1))
    with pytest.raises(DatasetError, match="made from the labels"):
        box_crops(dataset, "file")


@pytest.mark.parametrize("more", [0, 1])  # some count a box's last pixel too
def test_bounding_boxes_of_the_landmarks_do_not_pass_for_a_detectors(
    more: int, tmp_path: Path
) -> None:
    """As a labeller's faces get that come without boxes: longer than wide, or wider than long."""
    rng = np.random.default_rng(4)
    corner, extent = rng.uniform(100, 300, (COUNT, 2)), rng.uniform(120, 240, (COUNT, 2))
    middle, scale = corner + extent / 2, 112 / (1.4 * extent.max(axis=1))
    warps = np.zeros((COUNT, 2, 3))
    warps[:, 0, 0] = warps[:, 1, 1] = scale
    warps[:, :, 2] = 55.5 - scale[:, None] * middle
    boxes = np.concatenate([corner, extent + more], axis=1)
    dataset = FaceDataset(write_faces(tmp_path / "faces.h5", COUNT, 1, boxes, warps))
    with pytest.raises(DatasetError, match="made from the labels"):
        box_crops(dataset, "file")


def test_synthetic_peoples_boxes_are_nobodys(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "faces.h5", 24, seed=1)
    found = box_crops(FaceDataset(tmp_path / "faces.h5"), "auto")
    assert found is not None
    assert found.name == "yunet boxes"
    assert "simulated" in found.about
    assert "made from the labels" in found.about


class Faces:
    """As many faces as it takes to measure a spread; nothing of them is read."""

    path, rows = Path("faces.h5"), np.arange(1500)

    def __len__(self) -> int:
        return len(self.rows)


@pytest.mark.parametrize("detector", MEASURED)
def test_simulated_boxes_err_by_the_medians_that_were_measured(detector: str) -> None:
    found = box_crops(Faces(), detector)
    assert found is not None
    scales = np.hypot(found.matrices[:, 0, 0], found.matrices[:, 1, 0])
    centre = np.full(2, 55.5)
    shift = found.matrices[:, :, :2] @ centre + found.matrices[:, :, 2] - centre
    measured = MEASURED[detector]
    assert np.median(np.hypot(*shift.T)) / 112 == pytest.approx(measured.shift, rel=0.08)
    assert np.median(np.abs(np.log(scales))) == pytest.approx(measured.scale, rel=0.08)


def test_no_boxes_means_no_crops() -> None:
    assert box_crops(Faces(), "none") is None
