"""``mlx-faceau info``: the machine on one screen, and models described."""

import json
import sys
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
from random_nets import AU, LANDMARK, write_checkpoint
from wire import write_onnx

from mlx_faceau.cli import info
from mlx_faceau.cli.main import main
from mlx_faceau.core.checkpoint import describe

SCREEN = (32, 160)  # lines and characters of a terminal window that is not maximised


def skip_without(library: str) -> None:
    """As pytest.importorskip, but nothing is loaded, which takes seconds."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[bool, str]]:
    """What the libraries answer, to be set by a test: no process is started."""
    answers: dict[str, tuple[bool, str]] = {}
    monkeypatch.setattr(
        info, "probe", lambda names: {name: answers.get(name, (True, "cpu")) for name in names}
    )
    return answers


def test_the_installation_is_printed_as_json_and_on_one_screen(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["info", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["libraries"]["numpy"] == np.__version__
    assert report["libraries"]["safetensors"] == version("safetensors")
    assert set(report["backends"]) == {"coreml", "mlx", "onnx", "torch"}
    for name, library in (("torch", "torch"), ("onnx", "onnxruntime")):
        installed = report["libraries"][library] is not None
        assert report["backends"][name].startswith("usable, sees") == installed
    print("\n".join(info._lines(report)))
    lines = capsys.readouterr().out.splitlines()
    for name, state in report["backends"].items():
        assert f"  {name:8} {state}" in lines
    assert len(lines) <= SCREEN[0]
    assert max(len(line) for line in lines if "BLAS" not in line) <= SCREEN[1]


def test_a_library_that_does_not_load_is_named_with_a_remedy(probed, tmp_path, monkeypatch) -> None:
    skip_without("onnxruntime")
    probed["onnx"] = (False, "ImportError: wrong machine")
    monkeypatch.chdir(tmp_path)
    state = info.installation()["backends"]["onnx"]
    assert state == (
        "onnxruntime is installed but does not load (ImportError: wrong machine); run: "
        "pip install --force-reinstall onnxruntime"
    )


def test_training_without_its_extra_names_the_line_that_installs_it(
    probed, tmp_path, monkeypatch
) -> None:
    skip_without("torch")
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.chdir(tmp_path)
    state = info.installation()["training"]["torch"]
    assert state == 'h5py is not installed; run: pip install "mlx-faceau[train]"'


def test_a_mac_s_detectors_have_the_remedies_of_a_mac(monkeypatch) -> None:
    monkeypatch.setattr(info, "find_spec", lambda name: None)
    states = info._detector_states("Darwin", {})
    assert "mlx-faceau[detect]" in states["vision"]
    assert states["dlib"].endswith("run: pip install dlib-bin")
    monkeypatch.setattr(info, "find_spec", lambda name: object())
    assert info._detector_states("Darwin", {"Vision": "broken"})["vision"] == "broken"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("print('noise'); print('cuda')", (True, "cuda")),
        ("import no_such_library", (False, "ModuleNotFoundError: No module named")),
        ("import os; os._exit(4)", (False, "its process ended with status 4")),
    ],
    ids=["fine", "missing", "killed"],
)
def test_a_library_is_asked_in_a_process_of_its_own(monkeypatch, question, answer) -> None:
    monkeypatch.setitem(info._PROBES, "onnx", question)
    loads, text = info.probe(["onnx"])["onnx"]
    assert (loads, text[: len(answer[1])]) == answer


def test_models_of_every_format_are_described(tmp_path, capsys) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint_best.safetensors", AU)
    onnx = write_onnx(tmp_path / "net.onnx", describe(LANDMARK))
    assert main(["info", "--json", str(tmp_path), str(checkpoint), str(onnx)]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    kinds = [about["kind"] for about in models.values()]
    assert kinds == ["au_prediction", "au_prediction", "landmark_pose"]
    assert models[str(onnx)]["model"]["width_mult"] == 0.25
    assert main(["info", str(checkpoint)]) == 0
    printed = capsys.readouterr().out
    assert "  kind             au_prediction" in printed
    assert "  model            dropout 0.3, width_mult 0.25\n" in printed
    nets = {config.kind: describe(config) for config in (LANDMARK, AU)}
    nets["landmark_pose"]["pdm"] = {"name": "open", "hash": "1"}
    both = write_onnx(tmp_path / "both.onnx", {**describe(AU), "kind": "combined", "nets": nets})
    assert main(["info", "--json", str(both)]) == 0
    landmarks, aus = json.loads(capsys.readouterr().out)["models"].values()
    assert (landmarks["kind"], aus["kind"]) == ("landmark_pose", "au_prediction")
    assert (landmarks["pdm"], "pdm" in aus) == ("open, SHA-256 1", False)


def test_a_model_s_description_says_what_would_run_it_and_what_not(tmp_path, capsys) -> None:
    skip_without("torch")
    write_checkpoint(tmp_path / "checkpoint_best.safetensors", AU)
    assert main(["info", "--json", str(tmp_path)]) == 0
    about = json.loads(capsys.readouterr().out)["models"][str(tmp_path)]
    assert about["runs with"] in (
        "torch (checkpoint_best.safetensors)",
        "mlx (checkpoint_best.safetensors)",  # on Apple Silicon
    )
    if about["runs with"].startswith("torch"):
        assert "'mlx-faceau export' makes it" in about["not with onnx"]


def test_a_file_that_is_no_model_is_one_line(tmp_path, capsys) -> None:
    foreign = write_onnx(tmp_path / "detector.onnx", None)
    assert main(["info", str(foreign)]) == 2
    assert "detector.onnx: does not say which net it is" in capsys.readouterr().err
