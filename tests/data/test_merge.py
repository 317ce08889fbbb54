"""Merging training files: every column arrives, people stay who they are."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from training_files import COMMON, arrays, texts, write

from mlx_faceau.cli.main import main
from mlx_faceau.core import geometry
from mlx_faceau.core.file_lock import Lock
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.merge import merge_files
from mlx_faceau.errors import DatasetError


def test_all_columns_of_all_files_arrive_in_order(tmp_path):
    one, two = arrays(30), arrays(300, seed=1)
    one["metadata/groups"] = texts(["studio"] * 30)
    two["metadata/subjects"] = texts([f"other{i}" for i in range(300)])
    paths = [write(tmp_path / "1.h5", one), write(tmp_path / "2.h5", two)]
    report = merge_files(paths, tmp_path / "out.h5")
    assert (report.samples, report.duplicates) == (330, 0)
    with h5py.File(tmp_path / "out.h5") as file:
        for name in set(one) - {"metadata/groups"}:
            found = file[name].asstr()[:] if one[name].dtype == object else file[name][:]
            np.testing.assert_array_equal(found, np.concatenate([one[name], two[name]]))
        groups = file["metadata/groups"].asstr()[:].tolist()
        assert groups == ["studio"] * 30 + [""] * 300
        assert file["images"].chunks == (16, 112, 112, 3)


def test_columns_that_one_file_lacks_say_so(tmp_path):
    """A file of variants has no boxes and matrices of its own; its people are the same."""
    one, two = arrays(20), arrays(20, seed=1)
    for name in ("bboxes", "warp_matrices", "metadata/quality_scores"):
        del two[name]
    paths = [write(tmp_path / "1.h5", one), write(tmp_path / "2.h5", two)]
    report = merge_files(paths, tmp_path / "out.h5")
    assert report.notes == ["5 subjects of the same name are taken for the same"]
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.isnan(file["warp_matrices"][20:]).all()
        np.testing.assert_array_equal(file["warp_matrices"][:20], one["warp_matrices"])
        assert file["metadata/quality_scores"][:].tolist() == [1.0] * 40
    subjects = FaceDataset(tmp_path / "out.h5").subjects
    assert subjects.tolist() == [f"person{i // 4}" for i in range(20)] * 2


def test_labels_of_the_original_tool_come_out_in_crop_space(tmp_path):
    original = arrays(20)
    matrix = geometry.similarity_matrix(0.5, 0.2, (3.0, 4.0))
    back = geometry.invert(matrix)
    in_crop = original["landmarks"].copy()
    original["landmarks"] = geometry.transform_points(back, in_crop).astype("f4")
    original["warp_matrices"] = np.tile(np.float32(matrix), (20, 1, 1))
    del original["metadata/subjects"]
    path = write(tmp_path / "old.h5", original, COMMON)
    merge_files([path], tmp_path / "out.h5")
    dataset = FaceDataset(tmp_path / "out.h5")
    np.testing.assert_allclose(dataset.labels["landmarks"], in_crop, atol=1e-4)
    assert dataset.subjects is None


def test_repeated_samples_of_a_later_file_are_left_out(tmp_path):
    one, two = arrays(20), arrays(30)
    two["au_intensities"] = np.concatenate(
        [one["au_intensities"], arrays(30)["au_intensities"][20:]]
    )
    for name in ("images", "landmarks", "global_params", "local_params"):
        two[name][:20] = one[name]
    two["au_intensities"][3] += 0.25  # another label of the same picture is another sample
    two["au_intensities"] = two["au_intensities"].clip(0, 5)
    paths = [write(tmp_path / "1.h5", one), write(tmp_path / "2.h5", two)]
    report = merge_files(paths, tmp_path / "out.h5")
    assert (report.samples, report.duplicates) == (31, 19)
    expected = np.concatenate([one["images"], two["images"][[3, *range(20, 30)]]])
    np.testing.assert_array_equal(FaceDataset(tmp_path / "out.h5").read_images(range(31)), expected)


@pytest.mark.parametrize("both", [True, False])
def test_hog_features_stay_if_all_files_have_them(tmp_path, both):
    one, two = arrays(4), arrays(4, seed=1)
    for data in (one, two) if both else (one,):
        data["hog_features"] = np.ones((4, 4464), "f4")
    paths = [write(tmp_path / "1.h5", one), write(tmp_path / "2.h5", two)]
    notes = " ".join(merge_files(paths, tmp_path / "out.h5").notes)
    with h5py.File(tmp_path / "out.h5") as file:
        assert ("hog_features" in file) == both
    assert ("hog_features left out: 1 of 2 files lack them" in notes) != both


def test_a_file_given_twice_and_a_target_that_exists_are_refused(tmp_path, capsys):
    path = write(tmp_path / "1.h5", arrays(4))
    with pytest.raises(DatasetError, match="given twice"):
        merge_files([path, path], tmp_path / "out.h5")
    assert main(["data", "merge", str(path), "--output", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert len(FaceDataset(path)) == 4


def test_parameters_that_are_in_no_known_space_are_refused_and_leave_nothing(tmp_path):
    original = arrays(4)
    del original["warp_matrices"]
    path = write(tmp_path / "old.h5", original, COMMON)
    with pytest.raises(DatasetError, match="4 samples are not in crop space"):
        merge_files([path], tmp_path / "out.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.h5"]


def test_the_command_joins_compressed_files_that_pass_the_check(tmp_path, capsys):
    paths = [str(write(tmp_path / f"{i}.h5", arrays(20, seed=i))) for i in range(2)]
    output = str(tmp_path / "out.h5")
    assert main(["data", "merge", *paths, "--output", output, "--compress"]) == 0
    assert "40 samples of 2 files" in capsys.readouterr().out
    assert main(["data", "check", output]) == 0
    with h5py.File(output) as file:
        assert file["images"].compression == "lzf"


def test_a_file_that_another_program_is_writing_is_refused_and_not_replaced(tmp_path, capsys):
    source, output = write(tmp_path / "1.h5", arrays(40)), tmp_path / "parts" / "train.h5"
    output.parent.mkdir()
    left = output.with_name(".train.h5.ab_c12x3.h5")
    left.touch()
    lock = Lock(Path(f"{output}.lock"), DatasetError("held"))
    for arguments in (
        ["split", source, "--output", output.parent],
        ["merge", source, "--output", output],
        ["synth", "--count", "8", "--output", output],
    ):
        assert main(["data", *map(str, arguments)]) == 2
        assert f"{output}: another program is writing it; wait" in capsys.readouterr().err
    assert sorted(path.name for path in output.parent.iterdir()) == [left.name, "train.h5.lock"]
    lock.release()
    assert main(["data", "split", str(source), "--output", str(output.parent)]) == 0
    assert sorted(path.name for path in output.parent.iterdir()) == ["train.h5", "val.h5"]
