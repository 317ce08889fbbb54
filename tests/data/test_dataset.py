"""Reading training files: what is accepted, what is refused and how."""

import logging
import multiprocessing
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from training_files import AU_NAMES, COMMON, OURS, arrays, row_numbers, texts, write

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.errors import DatasetError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "faces.h5"


def refused(path: Path, **options) -> str:
    with pytest.raises(DatasetError) as caught:
        FaceDataset(path, **options)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def test_labels_images_and_names_come_as_written(path):
    data = arrays()
    dataset = FaceDataset(write(path, data))
    assert len(dataset) == 40
    for name in ("landmarks", "global_params", "local_params", "au_intensities"):
        np.testing.assert_array_equal(dataset.labels[name], data[name])
        assert dataset.labels[name].dtype == np.float32
    assert dataset.subjects[:5].tolist() == ["person0"] * 4 + ["person1"]
    assert dataset.videos[39] == "video9"
    assert dataset.groups is None
    assert dataset.masks["global_mask"].all()
    assert dataset.masks["local_mask"].all()


@pytest.mark.parametrize("chunk", [7, 16, 1000])
def test_images_are_read_in_any_order_with_repeats(path, chunk):
    data = arrays()
    dataset = FaceDataset(write(path, data, chunk=chunk))
    wanted = [39, 0, 17, 17, 3, 2, 15, 16]
    np.testing.assert_array_equal(dataset.read_images(wanted), data["images"][wanted])
    assert dataset.read_images([]).shape == (0, 112, 112, 3)


def test_an_index_out_of_range_is_refused(path):
    dataset = FaceDataset(write(path, arrays()))
    with pytest.raises(ValueError, match=r"\[0, 40\)"):
        dataset.read_images([40])


def test_a_permuted_order_of_action_units_is_put_right(path):
    data, order = arrays(), np.random.default_rng(1).permutation(17)
    shuffled = {**data, "au_intensities": data["au_intensities"][:, order]}
    names = [AU_NAMES[i] for i in order]
    dataset = FaceDataset(write(path, shuffled, {**OURS, **COMMON, "au_names": names}))
    np.testing.assert_array_equal(dataset.labels["au_intensities"], data["au_intensities"])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"au_names": [*AU_NAMES[:-1], "AU46_r"]}, "AU45_r, AU46_r"),
        ({"au_names": [*AU_NAMES[:-1], "AU01_r"]}, "AU45_r"),
        ({"au_names": AU_NAMES[:3]}, "AU06_r"),
        ({"color_format": "BGR"}, "'BGR', expected 'RGB'"),
        ({"color_format": None}, "None, expected 'RGB'"),
        ({"image_size": (224, 224)}, "[224, 224], expected [112, 112]"),
        ({"format": "other"}, "'other'"),
        ({"version": 2}, "version is 2"),
        ({"landmark_space": "frame"}, "'frame', expected 'crop'"),
    ],
)
def test_foreign_attributes_are_refused(path, attributes, message):
    merged = {**OURS, **COMMON, **attributes}
    write(path, arrays(4), {key: value for key, value in merged.items() if value is not None})
    assert message in refused(path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("landmarks", np.zeros((40, 51, 2), "f4"), "(40, 51, 2), expected (40, 68, 2)"),
        ("landmarks", np.zeros((39, 68, 2), "f4"), "(39, 68, 2), expected (40, 68, 2)"),
        ("au_intensities", np.zeros((40, 17), "i4"), "'au_intensities' is int32"),
        ("images", np.zeros((40, 112, 112, 3), "f4"), "'images' is float32, expected uint8"),
        ("images", np.zeros((40, 3, 112, 112), "u1"), "expected (N, 112, 112, 3)"),
        ("warp_matrices", np.zeros((40, 3, 3), "f4"), "expected (40, 2, 3)"),
        ("metadata/subjects", texts(["a"]), "'metadata/subjects' has shape (1,)"),
        ("metadata/video_names", np.zeros(40), "'metadata/video_names' is float64"),
    ],
)
def test_wrong_shapes_and_types_are_refused(path, name, values, message):
    write(path, {**arrays(), name: values})
    assert message in refused(path)


def test_a_missing_data_set_is_named(path):
    data = arrays(4)
    del data["local_params"]
    assert "no data set 'local_params'" in refused(write(path, data))


def test_nan_and_inf_labels_are_counted_and_located(path):
    data = arrays()
    data["local_params"][[7, 9], 3] = np.nan, np.inf
    message = refused(write(path, data))
    assert "'local_params' holds NaN or inf in 2 of 40 samples, first in row 7" in message


def test_an_empty_file_is_refused(path):
    assert "no samples" in refused(write(path, arrays(0)))


def test_a_missing_file_is_refused(path):
    assert "no such file" in refused(path)


def test_a_folder_is_called_a_folder(path):
    assert f"{path.parent}: a folder; give" in refused(path.parent)


def test_a_file_of_another_kind_is_refused(path):
    path.write_text("frame, face_id\n1, 0\n")
    assert "not an HDF5 file" in refused(path)


def test_a_truncated_file_is_refused(path):
    write(path, arrays())
    path.write_bytes(path.read_bytes()[:300_000])
    assert "damaged or incomplete" in refused(path)


def test_damaged_images_are_reported_when_read(path):
    with h5py.File(write(path, arrays()), "a") as file:
        values = file["images"][:]
        del file["images"]
        file.create_dataset("images", data=values, chunks=(16, 112, 112, 3), compression="gzip")
        place = file["images"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    dataset = FaceDataset(path)
    assert dataset.read_images([0]).any()
    with pytest.raises(DatasetError, match="damaged or incomplete"):
        dataset.read_images([17])


def test_samples_with_landmarks_outside_the_crop_are_dropped_or_kept_and_said(path, caplog):
    data = arrays()
    data["landmarks"][[3, 20], 8, 1] = 113.5, -0.5
    write(path, data)
    with caplog.at_level(logging.WARNING):
        dropped, kept = FaceDataset(path), FaceDataset(path, keep_outside=True)
    assert (len(dropped), len(kept), dropped.outside) == (38, 40, 2)
    assert (dropped.left_out, kept.left_out) == (2, 0)
    assert [record.getMessage().rsplit(": ")[-1] for record in caplog.records] == [
        "dropped",
        "kept",
    ]
    assert row_numbers(dropped.read_images([2, 3, 18, 19])).tolist() == [2, 4, 19, 21]
    assert dropped.subjects[3] == "person1"


def test_a_file_is_known_by_its_hash_with_and_without_what_lies_outside(path, caplog):
    data = arrays()
    whole = FaceDataset(write(path.with_name("whole.h5"), data))
    assert whole.hashes() == {whole.hash}
    data["landmarks"][[3, 20], 8, 1] = 113.5, -0.5
    write(path, data)
    dropped, kept = FaceDataset(path), FaceDataset(path, keep_outside=True)
    caplog.clear()
    assert dropped.hashes() == kept.hashes() == {dropped.hash, kept.hash}
    assert len(dropped.hashes()) == 2
    assert caplog.records == []  # which of them are used was said once


def test_a_file_whose_samples_all_lie_outside_has_one_hash(path):
    data = arrays()
    data["landmarks"][:, 8, 1] = 113.5
    kept = FaceDataset(write(path, data), keep_outside=True)
    assert kept.hashes() == {kept.hash}


def test_a_file_without_a_usable_sample_is_refused(path):
    data = arrays(4)
    data["landmarks"][:, 0] = 120
    assert "no usable sample among 4" in refused(write(path, data))


def test_a_dataset_survives_pickling_and_fork(path):
    dataset = FaceDataset(write(path, arrays()))
    dataset.read_images([0])  # the file is open now
    copied = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copied.read_images([5]), dataset.read_images([5]))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(dataset.read_images([17])))
    child.start()
    assert receiver.poll(20)
    np.testing.assert_array_equal(receiver.recv(), dataset.read_images([17]))
    child.join()


def test_the_hash_follows_labels_and_sampled_images_alone(tmp_path):
    def hash_of(data, name="other.h5"):
        return FaceDataset(write(tmp_path / name, data)).hash

    data = arrays()
    reference = hash_of(data, "first.h5")
    assert hash_of(arrays()) == reference
    for name in ("landmarks", "au_intensities"):
        changed = {**data, name: data[name] * np.float32(0.999)}
        assert hash_of(changed) != reference
    first_image = data["images"].copy()
    first_image[0] ^= 1
    assert hash_of({**data, "images": first_image}) != reference
