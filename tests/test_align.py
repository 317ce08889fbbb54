"""Cutting crops: the same pixels as blurring and sampling the whole frame."""

from typing import Any

import cv2
import numpy as np
import pytest
from blobs import Blob, draw_frame

from mlx_faceau import FaceAligner
from mlx_faceau.core.geometry import similarity_matrix, square_crop_matrix, standard_crop_matrix
from mlx_faceau.errors import UsageError
from mlx_faceau.video.align import FrameCrops, crop_frame
from mlx_faceau.video.box_calibration import CALIBRATIONS

FRAME = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)


def whole_frame_crop(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """SPEC section 4 word by word, blurred in float64 and rounded once."""
    shrink = 1 / np.hypot(matrix[0, 0], matrix[1, 0])
    if shrink > 1.25:
        sigma = 0.5 * np.sqrt(shrink**2 - 1)
        exact = frame.astype(np.float64)
        exact = cv2.GaussianBlur(exact, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        frame = np.rint(exact).astype(np.uint8)
    return cv2.warpAffine(frame, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("side", [40.0, 112.0, 139.0, 141.0, 250.5, 700.0])
@pytest.mark.parametrize("centre", [(200.0, 150.0), (3.3, 290.7), (-300.0, 150.0), (399.0, 0.0)])
def test_a_crop_has_the_pixels_of_the_whole_frame_blurred_and_sampled(
    side: float, centre: tuple[float, float]
) -> None:
    matrix = square_crop_matrix(np.array(centre), side)
    crop = crop_frame(FRAME, matrix).astype(int)
    assert np.abs(crop - whole_frame_crop(FRAME, matrix)).max() <= 1


@pytest.mark.parametrize("side", [100.0, 250.0])
def test_a_second_crop_near_the_first_is_the_same_as_one_of_its_own(side: float) -> None:
    smooth = cv2.GaussianBlur(FRAME, (0, 0), 3)
    crops = FrameCrops(smooth)
    crops.crop(square_crop_matrix(np.array([200.0, 150.0]), side))
    near = square_crop_matrix(np.array([200.0 + 0.01 * side, 150.0]), side * 1.015)
    far = square_crop_matrix(np.array([120.0, 100.0]), side * 0.6)
    for matrix, regions in ((near, 1), (far, 2)):
        assert np.abs(crops.crop(matrix).astype(int) - crop_frame(smooth, matrix)).max() <= 2
        assert len(crops._regions) == regions  # the near one is sampled from the first one's pixels


def test_a_turned_crop_has_them_too() -> None:
    matrix = similarity_matrix(0.5, 0.4, (20.0, -30.0))
    assert (
        np.abs(crop_frame(FRAME, matrix).astype(int) - whole_frame_crop(FRAME, matrix)).max() <= 1
    )


@pytest.mark.parametrize("side", [1e6, 1e9, 1e12])
def test_a_box_far_larger_than_its_frame_gives_a_crop(side: float) -> None:
    crop = FaceAligner().align(FRAME, (-side / 2, -side / 2, side, side))
    assert crop.shape == (112, 112, 3)
    assert abs(crop.mean() - FRAME.mean()) < 20  # of noise: its mean, blurred


def test_boxes_and_landmarks_of_one_face_give_one_crop() -> None:
    blob = Blob(100, 80, 40)
    frame = draw_frame([blob])
    aligner = FaceAligner(CALIBRATIONS["landmarks"])
    low, size = blob.landmarks.min(axis=0), np.ptp(blob.landmarks, axis=0)
    by_box = aligner.align(frame, (*(low + 0), *(size + 0)))
    by_landmarks = aligner.align(frame, landmarks=blob.landmarks)
    assert by_box.shape == (112, 112, 3)
    assert np.abs(by_box.astype(int) - by_landmarks).mean() < 8  # a box counts pixels: half off
    np.testing.assert_array_equal(
        aligner.matrix(landmarks=blob.landmarks), standard_crop_matrix(blob.landmarks)
    )


def test_without_a_calibration_the_box_is_the_square() -> None:
    matrix = FaceAligner().matrix((10, 20, 112, 112))
    np.testing.assert_allclose(matrix, [[1, 0, -10], [0, 1, -20]])


def test_both_or_neither_of_box_and_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="either a box or landmarks"):
        FaceAligner().align(FRAME)
    with pytest.raises(ValueError, match="either a box or landmarks"):
        FaceAligner().align(FRAME, (0, 0, 9, 9), landmarks=Blob(50, 50, 9).landmarks)


@pytest.mark.parametrize(
    "box", [(1, 2, 3), (0, 0, 0, 5), (0, 0, np.nan, 5), "abcd", 5, np.array([[1, 2, 3, 4]])]
)
def test_what_is_no_box_is_refused(box: Any) -> None:
    with pytest.raises(UsageError, match="a face box is x, y, width, height"):
        FaceAligner().align(FRAME, box)


@pytest.mark.parametrize("frame", [FRAME[..., 0], FRAME.astype(float), FRAME[:0], None])
def test_what_is_no_bgr_frame_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a frame is"):
        crop_frame(frame, square_crop_matrix(np.array([50.0, 50]), 50))
