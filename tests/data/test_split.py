"""Dividing people among files, and rewriting files."""

import h5py
import numpy as np
import pytest
from training_files import COMMON, arrays, texts, write

from mlx_faceau.cli.main import main
from mlx_faceau.core import geometry
from mlx_faceau.core.pdm import PDM, write_pdm
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.merge import merge_files
from mlx_faceau.data.format.split import partition_by_list, partition_dataset
from mlx_faceau.data.synthetic.shape import shape_model
from mlx_faceau.errors import DatasetError

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """400 pictures of 80 people; each unit is shown by few of them, one by three people only."""
    data, rng = arrays(400), np.random.default_rng(3)
    people = np.sort(rng.integers(0, 80, 400))
    data["metadata/subjects"] = texts([f"person{p}" for p in people])
    shows = rng.random((80, 17)) < 0.15
    shows[:, 7] = np.arange(80) % 27 == 0
    data["au_intensities"] = (3 * shows[people]).astype("f4")
    path = write(tmp_path_factory.mktemp("split") / "uneven.h5", data)
    return FaceDataset(path)


def test_every_sample_is_in_one_part_and_every_person_too(uneven):
    parts = partition_dataset(uneven, SHARES).parts
    assert list(parts) == list(SHARES)
    together = np.concatenate(list(parts.values()))
    assert sorted(together) == list(range(400))
    people = [set(uneven.subjects[indices]) for indices in parts.values()]
    assert sum(map(len, people)) == len(set.union(*people))


def test_parts_show_every_unit_in_their_share_and_better_than_by_chance(uneven):
    shown = uneven.labels["au_intensities"] > 1
    total = shown.sum(axis=0)

    def by_chance(seed):
        """The parts of people in random order, cut where the shares end."""
        order = np.random.default_rng(seed).permutation(np.unique(uneven.subjects))
        ends = np.round(np.cumsum(list(SHARES.values())) * len(order)).astype(int)
        people = np.split(order, ends[:-1])
        return {
            name: np.flatnonzero(np.isin(uneven.subjects, own))
            for name, own in zip(SHARES, people, strict=True)
        }

    def deviation(parts):
        found = {name: shown[rows].sum(axis=0) / total for name, rows in parts.items()}
        return np.mean([np.abs(found[name] - SHARES[name]) for name in SHARES])

    balanced = [partition_dataset(uneven, SHARES, seed).parts for seed in range(3)]
    for parts in balanced:
        assert max(abs(len(parts[name]) / 400 - share) for name, share in SHARES.items()) < 0.04
    chance = np.mean([deviation(by_chance(seed)) for seed in range(3)])
    assert np.mean([deviation(parts) for parts in balanced]) < 0.6 * chance
    # Three people show the unit, in three parts: where each has one there is something to learn.
    parts = partition_dataset(uneven, {"a": 1, "b": 1, "c": 1}).parts
    assert all(shown[rows, 7].any() for rows in parts.values())


def test_the_seed_decides_alone(uneven):
    one, same, other = (
        partition_dataset(uneven, SHARES, seed=seed).parts["train"] for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


@pytest.mark.parametrize("content", ["Ren\xe9,train".encode("latin-1"), b"x" * 200_000 + b",train"])
def test_a_list_that_is_no_csv_in_utf_8_is_refused(uneven, tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"list\.csv: not a CSV file in UTF-8"):
        partition_by_list(uneven, tmp_path / "list.csv")


def test_what_cannot_be_divided_is_refused(uneven, tmp_path):
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            partition_dataset(uneven, {"train": 1 - wrong, "val": wrong})
    data = arrays(8)
    data["metadata/subjects"] = texts(["one"] * 8)
    with pytest.raises(DatasetError, match="1 subjects cannot be divided into 2"):
        partition_dataset(FaceDataset(write(tmp_path / "one.h5", data)), {"a": 1, "b": 1})


def test_a_list_is_followed_to_the_letter(tmp_path):
    dataset = FaceDataset(write(tmp_path / "faces.h5", arrays(12)))
    (tmp_path / "who.csv").write_text("person0, train\nvideo1,val\n\nperson2,train\n")
    parts = partition_by_list(dataset, tmp_path / "who.csv").parts
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "train": [0, 1, 2, 3, 8, 9, 10, 11],
        "val": [4, 5, 6, 7],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person0,train\nperson1,val\n", "4 samples of"),
        ("person0,train\nvideo1,val\nperson2,val\nnobody,val\n", "1 name not in that file: nobody"),
        ("person0;train\n", "line 1 is not 'name,part'"),
        ("person0,../up\n", "cannot be a file's name"),
        ("person0,train\nperson0,val\n", "in two parts"),
    ],
    ids=["unlisted", "stranger", "format", "path", "twice"],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, text, message):
    dataset = FaceDataset(write(tmp_path / "faces.h5", arrays(12)))
    (tmp_path / "who.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        partition_by_list(dataset, tmp_path / "who.csv")


def test_a_list_of_videos_that_tears_a_subject_apart_is_warned_of(tmp_path, caplog):
    data = arrays(12)
    data["metadata/subjects"] = texts(["Anna"] * 8 + ["Ben"] * 4)
    dataset = FaceDataset(write(tmp_path / "faces.h5", data))
    for part, warnings in (("train", 0), ("val", 1)):
        (tmp_path / "who.csv").write_text(f"video0,train\nvideo1,{part}\nBen,val\n")
        partition_by_list(dataset, tmp_path / "who.csv")
        assert len(caplog.messages) == warnings
    assert "1 subject in several parts: Anna" in caplog.text


def test_the_command_writes_parts_that_share_nobody(tmp_path, capsys):
    path = str(write(tmp_path / "faces.h5", arrays(40)))
    folder = tmp_path / "parts"
    command = ["data", "split", path, "--output", str(folder), "--val", "0.2", "--test", "0.2"]
    assert main(command) == 0
    files = {part.stem: FaceDataset(part) for part in folder.iterdir()}
    assert sorted(files) == ["test", "train", "val"]
    assert sum(map(len, files.values())) == 40
    train, val = str(folder / "train.h5"), str(folder / "val.h5")
    assert main(["data", "check", train, "--against", val]) == 0
    rows = files["val"].read_images(range(len(files["val"])))[:, 0, 0, 0]
    np.testing.assert_array_equal(  # labels stay with their pictures
        files["val"].labels["landmarks"], arrays(40)["landmarks"][rows]
    )
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err


def test_an_original_file_becomes_ours_and_keeps_its_features(tmp_path):
    original = arrays(30)
    matrix = geometry.similarity_matrix(0.5, 0.1, (3.0, 4.0))
    in_crop = original["landmarks"].copy()
    back = geometry.invert(matrix)
    original["landmarks"] = geometry.transform_points(back, in_crop).astype("f4")
    original["warp_matrices"] = np.tile(np.float32(matrix), (30, 1, 1))
    original["hog_features"] = np.random.default_rng(0).random((30, 4464)).astype("f4")
    path = write(tmp_path / "old.h5", original, COMMON, chunk=30)
    assert main(["data", "convert", str(path), "--output", str(tmp_path / "new.h5")]) == 0
    dataset = FaceDataset(tmp_path / "new.h5")
    np.testing.assert_allclose(dataset.labels["landmarks"], in_crop, atol=1e-4)
    np.testing.assert_array_equal(dataset.read_images(range(30)), original["images"])
    with h5py.File(tmp_path / "new.h5") as file:
        np.testing.assert_array_equal(file["hog_features"][:], original["hog_features"])
        assert file.attrs["format"] == "mlx-faceau"
        assert file["images"].chunks[0] == 16


def test_the_real_original_file_is_converted(shared_folder, tmp_path):
    source = shared_folder / "data" / "original_tool_200.h5"
    assert merge_files([source], tmp_path / "new.h5").samples == 200
    old, new = (FaceDataset(path, keep_outside=True) for path in (source, tmp_path / "new.h5"))
    for name, values in old.labels.items():
        np.testing.assert_array_equal(new.labels[name], values)
    np.testing.assert_array_equal(new.read_images([199, 3]), old.read_images([199, 3]))


def test_poses_in_no_known_space_need_a_pdm(tmp_path):
    """As the original's batch writer left them: zero matrices, poses of the frame."""
    model, rng = shape_model(), np.random.default_rng(0)
    data = arrays(3)
    truth = np.array([[0.55, 0.1, -0.2, 0.05, 55, 52]] * 3)
    local = rng.normal(0, 1, (3, 34))
    data["landmarks"] = geometry.project(model.mean, model.basis, truth, local).astype("f4")
    data["warp_matrices"][:] = 0
    data["global_params"][:, 4:] = 700
    path = write(tmp_path / "old.h5", data, COMMON)
    with pytest.raises(DatasetError, match="not in crop space"):
        merge_files([path], tmp_path / "new.h5")
    write_pdm(tmp_path / "pdm.txt", PDM(model.mean, model.basis, np.full(34, 9.0)))
    options = ["--output", str(tmp_path / "new.h5"), "--pdm", str(tmp_path / "pdm.txt")]
    assert main(["data", "convert", str(path), *options]) == 0
    labels = FaceDataset(tmp_path / "new.h5").labels
    drawn = geometry.project(
        model.mean, model.basis, labels["global_params"], labels["local_params"]
    )
    assert np.abs(drawn - data["landmarks"]).max() < 1.5
    np.testing.assert_allclose(labels["global_params"][:, 4:], [[55, 52]] * 3, atol=3)
