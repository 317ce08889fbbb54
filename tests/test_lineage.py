"""What files tell about the trainings behind their weights, however many there were."""

from typing import Any

from mlx_faceau.core.provenance import provenance, training_hashes, training_stages

FIRST: dict[str, Any] = {
    "kind": "au_prediction",
    "data": {"hash": "a", "files": ["a"], "faces": 40, "labellers": [{"labeller": "OpenFace"}]},
    "training": {"epochs": 40, "lr": 0.001, "data": ["/home/me/a.h5"], "output": "/home/me/run"},
    "init": None,
    "progress": {"epoch": 40},
}
SECOND: dict[str, Any] = {
    "data": {"hash": "bc", "files": ["b", "c"]},
    "training": {"epochs": 7, "init": "/home/me/run"},
    "init": {"file": "/home/me/run/checkpoint_best.safetensors", "hash": "1", **provenance(FIRST)},
}
THIRD: dict[str, Any] = {
    "data": {"hash": "d"},
    "init": {"file": "other.safetensors", "hash": "2", **provenance(SECOND)},
}


def test_every_training_is_passed_on_with_its_data_and_without_paths() -> None:
    first = {"data": FIRST["data"], "training": {"epochs": 40, "lr": 0.001}}
    second = {"data": SECOND["data"], "training": {"epochs": 7}, "init": {"hash": "1", **first}}
    assert provenance(FIRST) == first
    assert provenance(SECOND) == second
    assert provenance(THIRD) == {"data": THIRD["data"], "init": {"hash": "2", **second}}
    assert provenance(provenance(THIRD)) == provenance(THIRD)


def test_the_trainings_are_listed_from_the_last_to_the_first() -> None:
    assert [stage.get("hash") for stage in training_stages(THIRD)] == [None, "2", "1"]
    assert [stage["data"]["hash"] for stage in training_stages(THIRD)] == ["d", "bc", "a"]


def test_the_files_of_all_trainings_are_known() -> None:
    assert training_hashes(THIRD) == ["d", "b", "c", "a"]


def test_what_older_and_imported_checkpoints_do_not_tell_is_left_out() -> None:
    old = {"data": {"hash": "e"}, "init": {"file": "run/best.safetensors", "hash": "3"}}
    assert provenance(old) == {"data": {"hash": "e"}, "init": {"hash": "3"}}
    assert training_hashes(old) == ["e"]
    assert training_hashes({"data": {"hash": "e", "sketch": ["f"]}}) == ["e", "f"]
    assert training_hashes({"data": {"hash": "e", "fingerprint": ["f"]}}) == ["e", "f"]
    assert provenance({"kind": "au_prediction"}) == {}
    assert training_hashes({"kind": "au_prediction"}) == []
