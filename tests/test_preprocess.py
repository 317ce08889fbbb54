import numpy as np
import pytest

from mlx_faceau.core.preprocess import check_crops, fill_batch, scale_rgb, to_network_input


def test_bgr_bytes_become_rgb_floats() -> None:
    crop = np.zeros((112, 112, 3), np.uint8)
    crop[3, 4] = (255, 51, 0)  # blue, green, red
    result = to_network_input(crop)
    assert result.shape == (1, 112, 112, 3)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result[0, 3, 4], np.float32([0, 0.2, 1]))


def test_scaling_divides_exactly_as_float32() -> None:
    ramp = np.resize(np.arange(256, dtype=np.uint8), (1, 112, 112, 3))
    np.testing.assert_array_equal(scale_rgb(ramp), ramp.astype(np.float32) / np.float32(255))


def test_memory_layout_does_not_matter() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), dtype=np.uint8)
    strided = np.repeat(crops, 2, axis=0)[::2]
    np.testing.assert_array_equal(
        to_network_input(np.asfortranarray(strided)), scale_rgb(crops[..., ::-1])
    )


def test_a_batch_is_filled_up_with_its_last_image() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(3, 2)
    filled = fill_batch(images, 5)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled, [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]])


@pytest.mark.parametrize("size", [2, 3])
def test_a_batch_that_is_full_is_not_copied(size: int) -> None:
    images = np.zeros((3, 2), np.float32)
    assert fill_batch(images, size) is images


def test_an_empty_batch_stays_empty() -> None:
    assert to_network_input(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 112, 112, 3)


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (np.zeros((112, 112, 3), np.float32), "uint8"),
        (np.zeros((112, 112), np.uint8), "shape"),
        (np.zeros((112, 112, 4), np.uint8), "shape"),
        (np.zeros((100, 112, 3), np.uint8), "FaceAligner"),
        (np.zeros((1, 1, 112, 112, 3), np.uint8), "shape"),
        (np.zeros((3, 112, 112), np.uint8), "shape"),
        ([[0]], "NumPy array"),
        (None, "cv2.imread"),
    ],
)
def test_anything_else_is_refused(crops: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_crops(crops)  # type: ignore[arg-type]
