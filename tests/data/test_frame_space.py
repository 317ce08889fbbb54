"""Files of the original tool: labels move from frame pixels to crop space."""

import logging

import numpy as np
import pytest
from training_files import COMMON, arrays, write

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import DatasetError

SCALE = 0.5
SHIFT = np.array([-20.0, -60.0])


@pytest.fixture
def frame_data():
    """Data whose crop coordinates are known: frame = (crop - shift) / scale."""
    data = arrays()
    crop = {name: data[name].copy() for name in ("landmarks", "global_params")}
    data["landmarks"] = ((crop["landmarks"] - SHIFT) / SCALE).astype("f4")
    data["global_params"][:, 0] /= SCALE
    data["global_params"][:, 4:] = (crop["global_params"][:, 4:] - SHIFT) / SCALE
    matrix = np.float32([[SCALE, 0, SHIFT[0]], [0, SCALE, SHIFT[1]]])
    data["warp_matrices"] = np.tile(matrix, (40, 1, 1))
    return data, crop


def test_warp_matrices_move_landmarks_and_pose_to_the_crop(tmp_path, frame_data):
    data, crop = frame_data
    dataset = FaceDataset(write(tmp_path / "original.h5", data, COMMON))
    for name in crop:
        np.testing.assert_allclose(dataset.labels[name], crop[name], atol=1e-4)
    assert dataset.masks["global_mask"].all()


def test_samples_with_an_unusable_matrix_are_left_out_and_counted(tmp_path, frame_data, caplog):
    data, _ = frame_data
    data["warp_matrices"][4] = 0
    data["warp_matrices"][5, 0, 0] = np.nan
    data["warp_matrices"][6, 0, 1] = 0.3  # shears
    with caplog.at_level(logging.WARNING):
        dataset = FaceDataset(write(tmp_path / "original.h5", data, COMMON))
    assert dataset.rows.tolist() == [0, 1, 2, 3, *range(7, 40)]
    assert "3 of 40 samples have no usable warp matrix" in caplog.text


@pytest.mark.parametrize("matrices", ["absent", "zero"])
def test_frame_pixels_without_matrices_are_refused(tmp_path, frame_data, matrices):
    data, _ = frame_data
    if matrices == "zero":
        data["warp_matrices"][:] = 0
    else:
        del data["warp_matrices"]
    with pytest.raises(DatasetError, match="landmarks are in frame pixels"):
        FaceDataset(write(tmp_path / "original.h5", data, COMMON))


def test_crop_space_is_assumed_and_said_where_nearly_all_points_lie_inside(tmp_path, caplog):
    data = arrays()
    del data["warp_matrices"]
    data["landmarks"][0, 0] = 150
    with caplog.at_level(logging.WARNING):
        dataset = FaceDataset(write(tmp_path / "original.h5", data, COMMON))
    assert "taken as crop space" in caplog.text
    assert len(dataset) == 39
    assert not dataset.masks["global_mask"].any()
    assert dataset.masks["local_mask"].all()


def test_a_real_file_of_the_original_tool_is_read(shared_folder):
    path = shared_folder / "data" / "original_tool_200.h5"
    dataset = FaceDataset(path, keep_outside=True)
    assert len(dataset) == 200
    assert dataset.outside == 190  # its crop cuts chins
    centre = dataset.labels["landmarks"].mean(axis=(0, 1))
    np.testing.assert_allclose(centre, [56, 66], atol=6)
    np.testing.assert_allclose(dataset.labels["global_params"][:, 4:].mean(0), centre, atol=4)
    assert len(FaceDataset(path)) == 10
    assert dataset.read_images([0, 199]).std() > 20
