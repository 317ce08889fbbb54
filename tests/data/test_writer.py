"""Writing training files: what is stored, what is refused, and that nothing half-written stays."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from killing import run_kills
from training_files import AU_NAMES, COMMON, arrays, write

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.errors import DatasetError, UsageError


def sample(**changes):
    data = arrays(1)
    values = {
        "image": data["images"][0],
        "landmarks": data["landmarks"][0],
        "global_params": data["global_params"][0],
        "local_params": data["local_params"][0],
        "au_intensities": data["au_intensities"][0],
        "bbox": [10, 20, 100, 120],
        "video_name": "clip.mp4",
        "frame_index": 3,
    }
    return {**values, **changes}


def test_written_samples_are_read_back_across_several_blocks(tmp_path):
    path, data = tmp_path / "out.h5", arrays(300)
    with TrainingDataWriter(path, expected_samples=300) as writer:
        writer.add_batch(
            images=data["images"],
            **{name: data[name] for name in ("landmarks", "global_params", "local_params")},
            au_intensities=data["au_intensities"],
            bboxes=data["bboxes"],
            warp_matrices=data["warp_matrices"],
            video_names=[f"v{i // 10}" for i in range(300)],
            frame_indices=range(300),
            subjects=["Zoë"] * 300,
        )
        assert len(writer) == 300
        assert not path.exists()
    dataset = FaceDataset(path)
    np.testing.assert_array_equal(dataset.read_images(range(300)), data["images"])
    for name, values in dataset.labels.items():
        np.testing.assert_array_equal(values, data[name])
    assert set(dataset.subjects) == {"Zoë"}
    assert dataset.videos[299] == "v29"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


def test_the_file_follows_the_schema(tmp_path):
    path = tmp_path / "out.h5"
    with TrainingDataWriter(path) as writer:
        writer.add_sample(**sample(quality_score=0.5, hog_features=np.ones(4464)))
    with h5py.File(path) as file:
        assert file.attrs["format"] == "mlx-faceau"
        assert file.attrs["version"] == 1
        assert file.attrs["landmark_space"] == "crop"
        assert file.attrs["color_format"] == "RGB"
        assert file.attrs["image_size"].tolist() == [112, 112]
        assert file.attrs["au_names"].tolist() == AU_NAMES
        assert file["images"].chunks == (16, 112, 112, 3)
        assert file["images"].compression is None
        assert file["hog_features"].shape == (1, 4464)
        assert np.isnan(file["warp_matrices"][0]).all()  # unknown, not zero
        assert file["bboxes"][0].tolist() == [10, 20, 100, 120]
        assert file["metadata/frame_indices"][0] == 3
        assert file["metadata/quality_scores"][0] == 0.5
        assert file["metadata/video_names"].asstr()[0] == "clip.mp4"


def interrupted(path):
    with TrainingDataWriter(path) as writer:
        writer.add_sample(**sample())
        raise RuntimeError("camera unplugged")


def test_an_error_keeps_the_samples_for_the_next_writer(tmp_path, caplog):
    with pytest.raises(RuntimeError, match="unplugged"):
        interrupted(tmp_path / "out.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5.partial"]
    assert "1 samples are kept" in caplog.text
    with pytest.raises(DatasetError, match="not finished yet"):
        FaceDataset(tmp_path / "out.h5")
    with TrainingDataWriter(tmp_path / "out.h5") as writer:
        writer.add_sample(**sample(frame_index=4))
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["metadata/frame_indices"][:].tolist() == [3, 4]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


def test_reopening_appends_and_keeps_every_column(tmp_path):
    path, data = tmp_path / "out.h5", arrays(3)
    for row in range(3):
        with TrainingDataWriter(path) as writer:
            assert len(writer) == row
            writer.add_sample(
                **sample(image=data["images"][row], frame_index=row, subject=f"s{row}"),
                **({} if row == 1 else {"group": "studio", "measures": {"sharpness": row}}),
            )
    with TrainingDataWriter(path) as writer:  # nothing added: nothing changes
        before = path.stat().st_mtime_ns
    assert path.stat().st_mtime_ns == before
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["images"][:], data["images"])
        assert file["metadata/subjects"].asstr()[:].tolist() == ["s0", "s1", "s2"]
        assert file["metadata/groups"].asstr()[:].tolist() == ["studio", "", "studio"]
        np.testing.assert_equal(file["metadata/measures/sharpness"][:], [0, np.nan, 2])


def test_a_file_of_the_original_tool_is_not_appended_to(tmp_path):
    path = write(tmp_path / "old.h5", arrays(4), COMMON)
    with pytest.raises(DatasetError, match="data convert"):
        TrainingDataWriter(path)


def test_a_file_with_unusable_labels_is_refused_before_any_work(tmp_path):
    path = tmp_path / "out.h5"
    with TrainingDataWriter(path) as writer:
        writer.add_sample(**sample(image=arrays(1)["images"][0], frame_index=0))
    with h5py.File(path, "r+") as file:
        file["au_intensities"][0, 0] = np.nan
    with pytest.raises(DatasetError, match=r"out\.h5"):
        TrainingDataWriter(path)


def test_a_second_writer_waits_for_the_first_to_be_done(tmp_path):
    with TrainingDataWriter(tmp_path / "out.h5") as writer:
        writer.add_sample(**sample())
        with pytest.raises(DatasetError, match="another writer has it open"):
            TrainingDataWriter(tmp_path / "out.h5")
    assert len(FaceDataset(tmp_path / "out.h5")) == 1


def test_a_relative_path_stays_where_it_was_when_the_folder_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with TrainingDataWriter("faces.h5") as writer:
        writer.add_sample(**sample())
        writer.flush()
        monkeypatch.chdir("elsewhere")
        writer.add_sample(**sample(frame_index=8))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["faces.h5"]
    with h5py.File(tmp_path / "faces.h5") as file:
        assert len(file["images"]) == 2


def test_threads_may_share_a_writer(tmp_path):
    data = arrays(320)

    def produce(start):
        for row in range(start, 320, 4):
            writer.add_sample(**sample(image=data["images"][row], frame_index=row))

    with TrainingDataWriter(tmp_path / "out.h5") as writer, ThreadPoolExecutor(4) as pool:
        list(pool.map(produce, range(4)))
    with h5py.File(tmp_path / "out.h5") as file:
        frames = file["metadata/frame_indices"][:]
        assert sorted(frames) == list(range(320))
        np.testing.assert_array_equal(file["images"][:], data["images"][frames])


def test_a_shard_that_was_cut_short_by_something_else_is_named(tmp_path):
    path = tmp_path / "out.h5"
    with pytest.raises(RuntimeError, match="unplugged"):
        interrupted(path)
    shard = tmp_path / "out.h5.partial" / f"{0:012d}.h5"
    shard.write_bytes(shard.read_bytes()[:-700])
    with pytest.raises(DatasetError, match=r"out\.h5\.partial.0{12}\.h5: damaged or incomplete"):
        TrainingDataWriter(path)


def test_a_file_that_is_no_folder_of_shards_is_left_alone(tmp_path):
    (tmp_path / "out.h5.partial").write_text("precious")
    with pytest.raises(DatasetError, match="not a folder of shards"):
        TrainingDataWriter(tmp_path / "out.h5")
    assert (tmp_path / "out.h5.partial").read_text() == "precious"


def test_the_temporary_file_of_a_killed_writer_is_not_taken_for_a_shard(tmp_path):
    folder = tmp_path / "out.h5.partial"
    folder.mkdir()
    (folder / ".000000000000.h5.k3yz.h5").write_bytes(b"half a shard")
    with TrainingDataWriter(tmp_path / "out.h5") as writer:
        writer.add_sample(**sample())
    assert len(FaceDataset(tmp_path / "out.h5")) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


def test_shards_that_were_merged_are_not_merged_again(tmp_path):
    """As after a kill between the file's last rename and the removal of its shards."""
    path, folder = tmp_path / "out.h5", tmp_path / "out.h5.partial"
    writer = TrainingDataWriter(path)
    for frame in range(2):
        writer.add_sample(**sample(frame_index=frame))
        writer.flush()
    shutil.copytree(folder, tmp_path / "copy")
    writer.close()
    (tmp_path / "copy").rename(folder)
    (folder / f"{0:012d}.h5").unlink()
    with TrainingDataWriter(path) as writer:
        assert len(writer) == 2
        writer.add_sample(**sample(frame_index=2))
    with h5py.File(path) as file:
        assert file["metadata/frame_indices"][:].tolist() == [0, 1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


def test_shards_of_another_file_are_refused(tmp_path):
    path = tmp_path / "out.h5"
    with TrainingDataWriter(path) as writer:
        writer.add_sample(**sample())
    with pytest.raises(RuntimeError, match="unplugged"):
        interrupted(path)
    path.unlink()
    with pytest.raises(DatasetError, match="begins at another row than 0"):
        TrainingDataWriter(path)


def test_a_full_disk_keeps_what_was_flushed(tmp_path, monkeypatch):
    path = tmp_path / "out.h5"
    writer = TrainingDataWriter(path)
    writer.add_sample(**sample(frame_index=0))
    writer.flush()
    writer.add_sample(**sample(frame_index=1))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mlx_faceau.core.atomic_io.os.fsync", refuse)
        with pytest.raises(DatasetError, match="No space left"):
            writer.flush()
    writer.close()  # there is room again
    with h5py.File(path) as file:
        assert file["metadata/frame_indices"][:].tolist() == [0, 1]


def test_a_writer_killed_at_random_moments_loses_nothing_that_was_flushed(tmp_path):
    kills = run_kills(tmp_path / "out.h5", 3, seed=7, longest=0.5)
    assert [kill["lost"] for kill in kills] == [0] * 3
    assert [kill["wrong"] for kill in kills] == [0] * 3
    assert any(kill["flushed"] for kill in kills)


def test_no_samples_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(DatasetError, match="no sample was added"):
        TrainingDataWriter(tmp_path / "out.h5").close()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_replaced(tmp_path):
    path = tmp_path / "out.h5"
    path.write_text("precious")
    with pytest.raises(DatasetError, match="not an HDF5 file"):
        TrainingDataWriter(path)
    assert path.read_text() == "precious"


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        TrainingDataWriter(tmp_path / "absent" / "out.h5")


def test_a_disk_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="GB are free"):
        TrainingDataWriter(tmp_path / "out.h5", expected_samples=10**15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((112, 112, 3), np.float32)}, "image is float32"),
        ({"image": np.zeros((112, 112), np.uint8)}, "expected uint8"),
        ({"landmarks": np.zeros((68, 3))}, r"landmarks has shape \(68, 3\)"),
        ({"landmarks": np.full((68, 2), 300.0)}, "not in crop space"),
        ({"local_params": np.full(34, np.nan)}, "local_params holds NaN"),
        ({"au_intensities": np.full(17, 5.1)}, r"expected \[0, 5\]"),
        ({"au_intensities": np.full(17, -0.1)}, r"expected \[0, 5\]"),
        ({"global_params": np.zeros(6)}, "scale is 0"),
        ({"frame_index": -1}, "frame_index"),
        ({"frame_index": 1.5}, "frame_index"),
        ({"video_name": ""}, "video_name"),
        ({"video_name": "caf\udce9.mp4"}, "a text in UTF-8"),
        ({"au_intensities": dict.fromkeys(AU_NAMES, 1.0)}, "au_intensities: expected an array"),
        ({"local_params": "none"}, "local_params: expected an array"),
        ({"quality_score": 1.5}, "quality_score"),
        ({"warp_matrix": np.zeros((3, 3))}, "warp_matrix has shape"),
        ({"hog_features": np.zeros(100)}, "hog_features has shape"),
    ],
)
def test_bad_samples_are_refused_and_not_added(tmp_path, changes, message):
    with TrainingDataWriter(tmp_path / "out.h5") as writer:
        writer.add_sample(**sample())
        with pytest.raises(UsageError, match=message):
            writer.add_sample(**sample(**changes))
        assert len(writer) == 1
    assert len(FaceDataset(tmp_path / "out.h5")) == 1


def test_hog_features_are_given_for_all_or_none(tmp_path):
    with TrainingDataWriter(tmp_path / "out.h5") as writer:
        writer.add_sample(**sample())
        with pytest.raises(ValueError, match="all samples"):
            writer.add_sample(**sample(hog_features=np.zeros(4464)))


def test_unequal_columns_of_a_batch_are_refused(tmp_path):
    with TrainingDataWriter(tmp_path / "out.h5") as writer:
        writer.add_sample(**sample())
        with pytest.raises(ValueError, match="differ in length"):
            writer.add_batch(images=arrays(2)["images"], landmarks=arrays(3)["landmarks"])


def test_a_buffer_reused_by_the_caller_does_not_change_what_is_written(tmp_path):
    image = np.full((112, 112, 3), 7, np.uint8)
    with TrainingDataWriter(tmp_path / "out.h5") as writer:
        writer.add_sample(**sample(image=image))
        image[:] = 9
    assert FaceDataset(tmp_path / "out.h5").read_images([0]).max() == 7
