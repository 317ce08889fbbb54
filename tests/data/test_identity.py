"""Names in several spellings are one person, and so are names that share a face."""

import numpy as np
import pytest
from training_files import arrays, texts, write

from mlx_faceau.cli.main import main
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.identity import (
    duplicate_faces,
    face_digests,
    merge_names,
    subject_key,
    unify_spellings,
)
from mlx_faceau.data.format.split import partition_by_list, partition_dataset, split_dataset
from mlx_faceau.errors import DatasetError

ALIKE = [
    "subj01", "Subj01", "SUBJ 01", " subj01 ", "subj_01", "subj-01", "subj\u201301", "sub j01",
    "subj\u00a001", "subj\t01", "\uff53\uff55\uff42\uff4a\uff10\uff11",
    "subj\u200b01", "subj__01", "\ufeffsubj01",
]  # fmt: skip


@pytest.mark.parametrize("name", ALIKE, ids=ascii)
def test_spellings_of_one_name(name):
    assert subject_key(name) == "subj01"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1-11", "11-1"),
        ("s 1 11", "s_11_1"),
        ("1 1", "11"),
        ("subj01", "subj1"),
        ("Müller", "Muller"),
        ("-", "_"),
        ("a.mp4", "a.mkv"),
    ],
)
def test_names_of_different_people(one, other):
    assert subject_key(one) != subject_key(other)


def test_composed_and_decomposed_letters_are_the_same():
    assert subject_key("Zo\u00eb") == subject_key("Zoe\u0308") == subject_key("ZOE\u0308")
    assert subject_key("STRASSE") == subject_key("straße")


def test_one_spelling_is_chosen_and_names_without_another_stay():
    names = np.array(["b-1", "B 1", "a", "", "b-1"], object)
    assert unify_spellings(names).tolist() == ["B 1", "B 1", "a", "", "B 1"]
    assert unify_spellings(names[[0, 2, 4]]).tolist() == ["b-1", "a", "b-1"]


def copied(rows: dict[int, int], names: list[str]) -> dict[str, np.ndarray]:
    data = arrays(len(names))
    for target, source in rows.items():
        for name in ("images", "landmarks", "global_params", "local_params", "au_intensities"):
            data[name][target] = data[name][source]
    data["metadata/subjects"] = texts(names)
    data["metadata/video_names"] = texts([f"video{i}" for i in range(len(names))])
    return data


def test_names_that_share_a_face_become_one_over_any_number_of_steps(tmp_path):
    names = ["a", "a", "b", "b", "c", "c", "d", "d"]
    dataset = FaceDataset(write(tmp_path / "a.h5", copied({2: 0, 5: 3}, names)))
    digests = face_digests(dataset)
    assert merge_names(np.array(names), digests).tolist() == ["a"] * 6 + ["d"] * 2
    groups = [rows.tolist() for rows in duplicate_faces(digests, np.array(names))]
    assert sorted(groups) == [[0, 2], [0, 2], [3, 5], [3, 5]]  # by picture and by labels


def test_what_many_people_share_is_no_face(tmp_path):
    """Black pictures, and labels of frames in which nobody was found."""
    names = [f"p{i // 2}" for i in range(40)]
    data = copied(dict.fromkeys(range(1, 40, 2), 1), names)
    digests = face_digests(FaceDataset(write(tmp_path / "a.h5", data)))
    assert merge_names(np.array(names), digests).tolist() == names


def test_the_same_face_of_one_person_is_nothing_to_tell(tmp_path):
    names = ["a", "a", "b", "b"]
    dataset = FaceDataset(write(tmp_path / "a.h5", copied({1: 0}, names)))
    assert not list(duplicate_faces(face_digests(dataset), np.array(names)))


def test_a_split_keeps_spellings_and_shared_faces_on_one_side(tmp_path):
    names = [f"person{i // 4}" for i in range(36)] + ["Person_0"] * 4
    dataset = FaceDataset(write(tmp_path / "a.h5", copied({20: 30}, names)))
    for seed in range(6):
        for sides in (
            vars(split_dataset(dataset, 0.4, seed, digests=face_digests(dataset))),
            partition_dataset(dataset, {"train": 0.6, "validation": 0.4}, seed=seed).parts,
        ):
            train = set(sides["train"].tolist())
            for together in ({0, 36}, {20, 28, 30}):
                assert together <= train or not together & train


def test_a_list_names_a_person_in_any_spelling(tmp_path):
    names = ["a 1"] * 4 + ["A_1"] * 4 + ["b"] * 4
    dataset = FaceDataset(write(tmp_path / "a.h5", copied({}, names)))
    (tmp_path / "list.csv").write_text("a-1,train\nB,val\n")
    parts = partition_by_list(dataset, tmp_path / "list.csv").parts
    assert parts["train"].tolist() == list(range(8))
    (tmp_path / "list.csv").write_text("a 1,train\nA_1,val\nb,val\n")
    with pytest.raises(DatasetError, match="line 2: 'A_1' is in two parts"):
        partition_by_list(dataset, tmp_path / "list.csv")


def test_a_list_that_tears_a_face_apart_is_refused(tmp_path, capsys):
    names = ["a"] * 4 + ["b"] * 4
    path = write(tmp_path / "a.h5", copied({5: 2}, names))
    (tmp_path / "list.csv").write_text("a,train\nb,val\n")
    command = ["data", "split", str(path), "--list", str(tmp_path / "list.csv")]
    assert main([*command, "--output", str(tmp_path / "parts")]) == 2
    assert "one face would be in several parts: rows [2, 5]" in capsys.readouterr().err
