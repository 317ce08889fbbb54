"""The built-in pair: made, named, checked, and taken wherever a model path goes."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from random_nets import AU, BOTH, LANDMARK, random_crops, write_checkpoint

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from stand_in import (
    VERSION,
    build_builtin,
    build_stand_in,
    stand_in_pair,
    stand_in_pdm,
    stand_in_weights,
)
from wire import write_onnx

import mlx_faceau
from mlx_faceau import FacePipeline, export_to_onnx, load_au_predictor, load_predictor
from mlx_faceau.cli.main import main
from mlx_faceau.cli.model_metadata import read_models
from mlx_faceau.convert.pyfaceau import read_pyfaceau
from mlx_faceau.convert.source_model import read_source
from mlx_faceau.core.checkpoint import (
    describe,
    file_hash,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from mlx_faceau.core.facs import PRESENCE_KEY
from mlx_faceau.core.pdm import read_pdm, write_pdm
from mlx_faceau.errors import CheckpointError
from mlx_faceau.inference.backends.choice import Machine, choose, find_files
from mlx_faceau.output.openface_csv import presence_thresholds, read_openface_csv
from mlx_faceau.weights import builtin

BOX = (90.0, 60.0, 100.0, 100.0)
IS_FILLED = (builtin.FOLDER / builtin.INDEX_NAME).is_file()
REAL = pytest.mark.skipif(not IS_FILLED, reason="the built-in weights are not in this checkout yet")


@pytest.fixture
def pair(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in in the place of the built-in pair, a face detector that knows, an empty folder
    to work in and an empty home."""
    folder = shutil.copytree(stand_in, tmp_path / "weights")
    monkeypatch.setattr(builtin, "FOLDER", folder)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setitem(sys.modules, "drawn", SimpleNamespace(find=lambda image: [BOX]))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    cv2.imwrite("photo.png", random_crops(1).repeat(2, axis=1).repeat(2, axis=2)[0])
    return folder


def stored_outputs(config, crops: np.ndarray) -> dict[str, np.ndarray]:
    """The float64 torch net of the weights rounded by hand."""
    import torch

    from mlx_faceau.torch_fallback import build

    net = build(config)
    weights = stand_in_weights(config)
    net.load_weights_dict(
        {n: np.float32(w.astype(np.float16)) if w.ndim > 1 else w for n, w in weights.items()}
    )
    images = torch.from_numpy(crops[..., ::-1].transpose(0, 3, 1, 2) / 255.0)
    with torch.inference_mode():
        outputs = net.double().eval()(images)
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.mark.parametrize("backend", ["onnx", "torch", "mlx"])
def test_every_backend_computes_with_the_same_stored_weights(pair: Path, backend: str) -> None:
    if backend == "mlx":
        pytest.importorskip("mlx.core")
    crops = random_crops(3, seed=5)
    wanted = {**stored_outputs(LANDMARK, crops), **stored_outputs(AU, crops)}
    found = load_predictor(backend=backend).predict_batch(crops)
    found |= load_au_predictor("builtin", backend=backend).predict_batch(crops)
    for name in ("landmarks", "global_params", "local_params"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=2e-3, err_msg=name)
    clamped = wanted["au_intensities"].clip(0, 5)
    np.testing.assert_allclose(found["au_intensities"], clamped, rtol=0, atol=1e-4)


def test_results_record_name_and_hash_of_the_pair(pair: Path) -> None:
    wanted = {"name": VERSION, "hash": "0" * 64}
    assert load_predictor().describe()["model"] == wanted
    assert load_au_predictor(builtin.NAMES[-1], backend="torch").describe()["model"] == wanted
    told = FacePipeline(detector=lambda image: [BOX]).describe()
    assert [told[key]["model"] for key in ("landmark_model", "au_model")] == [wanted, wanted]


def test_a_model_of_ones_own_is_named_by_its_file_and_hash(model_folders) -> None:
    path = model_folders["landmark_pose"] / "checkpoint_best.safetensors"
    for backend in ("torch", "onnx"):
        told = load_predictor(model_folders["landmark_pose"], backend=backend).describe()
        assert told["model"]["hash"] == file_hash(path)
        assert told["model"]["name"] == told["path"]


def test_half_of_the_bytes_hold_the_weights_and_the_header_says_whose_they_are(pair: Path) -> None:
    for config in BOTH:
        path = pair / f"{config.kind}.safetensors"
        metadata = read_metadata(path)
        assert metadata["builtin"] == VERSION
        assert metadata["pdm"] == {"name": "open", "hash": stand_in_pdm().hash}
        assert metadata["licence_note"].startswith("MIT")
        whole = sum(array.nbytes for array in stand_in_weights(config).values())
        for file in (path, pair / f"{config.kind}.onnx"):
            assert file.stat().st_size < 0.62 * whole + 100_000
        assert {a.dtype.name for a in load_checkpoint(path).arrays.values()} == {"float32"}


@pytest.mark.parametrize("name", ["landmark_pose.onnx", "au_prediction.onnx"])
@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_file_that_is_lost_or_damaged_is_one_line(
    pair: Path, capsys: pytest.CaptureFixture[str], name: str, harm: str
) -> None:
    if harm == "lost":
        (pair / name).unlink()
    else:
        data = bytearray((pair / name).read_bytes())
        data[len(data) // 2] ^= 1
        (pair / name).write_bytes(data)
    words = ["predict", "photo.png", "--detector", "drawn:find", "--backend", "onnx"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{name}: {'missing' if harm == 'lost' else 'damaged'}" in error
    assert "reinstall mlx-faceau" in error
    assert not Path("photo.csv").exists()


def test_without_its_index_there_is_no_pair(pair: Path) -> None:
    (pair / builtin.INDEX_NAME).write_text("{}")
    with pytest.raises(CheckpointError, match=r"builtin\.json: damaged"):
        load_predictor()
    (pair / builtin.INDEX_NAME).unlink()
    with pytest.raises(CheckpointError, match="there is no built-in pair here; reinstall"):
        load_au_predictor()


def test_predict_without_models_takes_the_pair_and_the_open_pdm(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "photo.png", "--detector", "drawn:find", "--report", "--backend", "onnx"]
    assert main(words) == 0
    files = "photo.csv, photo.report.html, photo.run.json"
    assert f"-> {files} ({VERSION}, detector callable)" in capsys.readouterr().out
    columns = read_openface_csv("photo.csv")
    assert {"AU12_r", "X_0", "Z_67", "p_33"} <= columns.keys()
    # Points of the PDM's own size: those of the rigid shape, moved by the local parameters.
    spread = np.ptp([columns[f"X_{i}"][0] for i in range(68)])
    assert 0.3 < spread / np.ptp(stand_in_pdm().mean[:, 0]) < 3
    page = Path("photo.report.html").read_text()
    assert page.count(VERSION) == 2
    assert '<th scope="row">face detector</th><td>callable</td>' in page


@pytest.mark.parametrize("problem", [RuntimeError, PermissionError])
def test_the_pair_needs_no_home_folder(
    pair: Path, monkeypatch: pytest.MonkeyPatch, problem: type[Exception]
) -> None:
    """A service's user may have none, or the variable names another user's."""

    def home() -> Path:
        raise problem("no home")

    monkeypatch.setattr(Path, "home", home)
    assert load_predictor().backend == "onnx"


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_a_folder_of_both_nets_gives_the_columns_that_the_pair_gives(pair: Path, form: str) -> None:
    """Those of the shape model too, which the landmark net among the two files records."""
    assert main(["export", "builtin", "--to", form, "--output", "both"]) == 0
    models = ["--landmark-model", "both", "--au-model", "both"]
    for name, more in (("own.csv", []), ("folder.csv", models)):
        words = ["predict", "photo.png", "--detector", "drawn:find", "--output", name]
        assert main([*words, *more]) == 0
    own, folder = read_openface_csv("own.csv"), read_openface_csv("folder.csv")
    assert own.keys() == folder.keys()
    np.testing.assert_allclose(folder["X_30"], own["X_30"], atol=0.1)


def test_with_one_net_the_other_is_named_as_missing(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["predict", "photo.png", "--detector", "drawn:find", "--backend", "onnx"]
    assert main([*both, "--landmark-model", "builtin"]) == 0
    assert "no action units: give --au-model" in capsys.readouterr().err
    assert "AU12_r" not in read_openface_csv("photo.csv")
    assert main([*both, "--au-model", "builtin"]) == 2
    assert "give --landmark-model PATH or builtin" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no landmark_model"):
        FacePipeline(au_model="builtin", detector=lambda image: [])


def test_aligned_crops_are_predicted_by_both_nets(pair: Path) -> None:
    cv2.imwrite("crop.png", random_crops(1)[0])
    assert main(["predict", "--aligned", "crop.png", "--output", "o.json"]) == 0
    (row,) = json.loads(Path("o.json").read_text())
    assert {"landmarks", "au_intensities"} <= row.keys()


def test_a_pdm_that_the_net_was_not_taught_with_is_refused(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = stand_in_pdm()
    write_pdm("other.txt", replace(other, mean=other.mean * 1.01))
    words = ["predict", "photo.png", "--detector", "drawn:find", "--pdm"]
    assert main([*words, "other.txt"]) == 2
    assert "the landmark net was trained with another one (open" in capsys.readouterr().err
    assert main([*words, str(pair / "open_pdm.txt"), "--columns", "3d"]) == 0
    (landmarks, _) = read_models("builtin")
    aus = {**describe(AU), "pdm": {"name": "OpenFace's", "hash": "1" * 64}}
    nets = {LANDMARK.kind: landmarks, AU.kind: aus}
    both = write_onnx(Path("both.onnx"), {**describe(AU), "kind": "combined", "nets": nets})
    assert main([*words, "other.txt", "--landmark-model", str(both)]) == 2
    assert "the landmark net was trained with another one (open" in capsys.readouterr().err


def test_info_and_benchmark_know_the_name(
    pair: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["info", "builtin", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [about["builtin"] for about in models.values()] == [VERSION, VERSION]
    assert [about["kind"] for about in models.values()] == ["landmark_pose", "au_prediction"]
    pytest.importorskip("mlx_faceau.models", exc_type=ImportError)
    from mlx_faceau.cli import benchmark

    monkeypatch.setattr(benchmark, "_SECONDS_EACH", 0.01)
    assert main(["benchmark", "--batch", "2"]) == 0  # builtin is the default
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if "builtin" in line] == [
        "landmark_pose, builtin",
        "au_prediction, builtin",
    ]


def test_evaluate_measures_both_nets(
    pair: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5py")
    from mlx_faceau.data.synthetic.people import write_synthetic
    from mlx_faceau.evaluation import report

    monkeypatch.setattr(report, "draw_evaluation", lambda evaluation, path: None)  # it takes long
    write_synthetic(Path("faces.h5"), 24, 0)
    words = ["evaluate", "builtin", "--data", "faces.h5", "--output", "made", "--boxes", "none"]
    assert main([*words, "--backend", "onnx"]) == 0
    for kind in ("landmark_pose", "au_prediction"):
        record = json.loads(Path("made", kind, "evaluation.json").read_text())
        assert record["model"]["name"] == VERSION
        assert record["model"]["checkpoint"] == "0" * 64
    assert capsys.readouterr().out.count("builtin (onnx) on faces.h5") == 2


def test_core_ml_files_are_made_where_auto_looks_for_them(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("coremltools")
    from quick_core_ml import quick_conversion

    mac, libraries = Machine("Darwin", "arm64"), dict.fromkeys(("coreml", "mlx", "onnx", "torch"))
    before = choose(mac, find_files("builtin", AU.kind), libraries)
    assert before.backend == "mlx"
    assert "mlx-faceau export builtin --to coreml" in dict(before.passed_over)["coreml"]
    words = ["export", "builtin", "--to", "coreml", "--precision", "float32"]
    with quick_conversion():
        assert main(words) == 0  # in float16 untrained nets fail their check
    after = choose(mac, find_files("builtin", AU.kind), libraries)
    assert (after.backend, after.path) == ("coreml", builtin.coreml_file(AU.kind))
    assert {path.name for path in after.path.parent.glob("*.mlpackage")} == {
        "landmark_pose.mlpackage",
        "au_prediction.mlpackage",
    }
    shutil.copyfile(pair / "landmark_pose.safetensors", pair / "au_prediction.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        find_files("builtin", AU.kind)
    assert main(["export", "builtin", "--to", "onnx"]) == 2
    assert "give --output DIR" in capsys.readouterr().err


def test_export_writes_both_nets_and_a_combined_file(pair: Path) -> None:
    assert main(["export", "builtin", "--output", "made"]) == 0
    assert {p.name for p in Path("made").glob("*.onnx")} == {f"{c.kind}.onnx" for c in BOTH}
    assert main(["export", "--combine", "builtin", "builtin", "--output", "both"]) == 0
    assert Path("both", "combined.onnx").is_file()
    (metadata,) = read_models("both")
    assert metadata["kind"] == "combined"
    assert load_predictor("both", "onnx").describe()["kind"] == "landmark_pose"
    assert load_au_predictor("both", "onnx").describe()["kind"] == "au_prediction"
    assert export_to_onnx(VERSION, "python.onnx").passed
    assert Path("python.onnx").read_bytes() == Path("both", "combined.onnx").read_bytes()


def test_convert_writes_both_nets(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "builtin", "--output", "made/pair.pt"]) == 0
    for config in BOTH:
        assert read_pyfaceau(f"made/pair_{config.kind}.pt", width_mult=0.25)[0].kind == config.kind
    assert main(["convert", "builtin", "--output", "made/pair.pt"]) == 2
    assert "give --force" in capsys.readouterr().err


def test_a_training_starts_from_the_built_in_net(
    pair: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("h5py")
    from mlx_faceau.train.config import AUTrainConfig, LandmarkPoseTrainConfig
    from mlx_faceau.train.run import first_weights, load_init, origin_of
    from mlx_faceau.train.target_statistics import TargetStatistics

    shapes = {"landmarks": (68, 2), "global_params": (6,), "local_params": (34,)}
    means = {name: np.full(shape, 2.0) for name, shape in {**shapes, "au_intensities": 17}.items()}
    statistics = TargetStatistics(9, means, means)
    given = {"data": ["x.h5"], "init": "builtin", "width_mult": 0.25, "framework": "torch"}
    config = AUTrainConfig(**given)
    start = first_weights(config, init := load_init(config), statistics)
    stored = load_checkpoint(pair / "au_prediction.safetensors").weights()
    assert all(np.array_equal(start[name], stored[name]) for name in stored)
    assert origin_of(init)["hash"] == file_hash(pair / "au_prediction.safetensors")

    config = LandmarkPoseTrainConfig(**given)
    stored = load_checkpoint(pair / "landmark_pose.safetensors").weights()
    init, pdm = load_init(config), {"name": "open", "hash": stand_in_pdm().hash}
    same = first_weights(config, init, statistics, pdm)
    assert all(np.array_equal(same[name], stored[name]) for name in stored)
    other = first_weights(config, init, statistics, {"name": "openface", "hash": "1" * 64})
    anew = {name for name in stored if not np.array_equal(other[name], stored[name])}
    assert anew
    assert {name.split(".")[0] for name in anew} == {"local_head"}
    assert "was trained with the open PDM, these labels come with the openface one" in caplog.text


def test_the_same_nets_give_the_same_files(stand_in: Path, tmp_path: Path) -> None:
    again = build_stand_in(tmp_path / "again")
    index = json.loads((again / builtin.INDEX_NAME).read_text())
    assert index == json.loads((stand_in / builtin.INDEX_NAME).read_text())
    assert {*index["files"]} == {
        "open_pdm.txt",
        *(f"{config.kind}{end}" for config in BOTH for end in (".onnx", ".safetensors")),
    }


def test_nets_that_may_not_ship_are_refused(stand_in: Path) -> None:
    source = stand_in_pair().parts[0]
    data = {"labellers": [{"labeller": "OpenFace CSV", "licence": "research"}]}
    taught = replace(source, metadata={**source.metadata, "data": data})
    with pytest.raises(ValueError, match="labels of OpenFace CSV may not be shipped"):
        build_builtin.named(taught, stand_in, VERSION)
    other = {**source.metadata, "pdm": {"name": "given", "hash": "1" * 64}}
    with pytest.raises(ValueError, match="trained with the given PDM"):
        build_builtin.named(replace(source, metadata=other), stand_in, VERSION)


def test_thresholds_of_presence_are_those_of_the_highest_f1_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU01 is there in every third face, AU02 in too few; the net reads only AU01, as .2 or .7."""
    pytest.importorskip("h5py")
    from mlx_faceau.data.format.writer import TrainingDataWriter

    with TrainingDataWriter(tmp_path / "faces.h5") as writer:
        for row in range(400):
            there = row % 3 == 0
            writer.add_sample(
                image=np.full((112, 112, 3), int(there), np.uint8),
                landmarks=np.full((68, 2), 50, np.float32),
                global_params=np.float32([3, 0, 0, 0, 55, 55]),
                local_params=np.zeros(34, np.float32),
                au_intensities=np.float32([2 * there, 2 * (row < 49), *[0] * 15]),
                bbox=np.float32([15, 15, 80, 80]),
                video_name=f"{row}.png",
                frame_index=0,
                warp_matrix=np.eye(2, 3, dtype=np.float32),
            )

    def predict_batch(crops: np.ndarray) -> dict[str, np.ndarray]:
        intensities = np.zeros((len(crops), 17))
        intensities[:, 0] = np.where(crops[:, 0, 0, 0] == 1, 0.7, 0.2)
        return {"au_intensities": intensities}

    net = SimpleNamespace(predict_batch=predict_batch)
    monkeypatch.setattr(build_builtin, "load_au_predictor", lambda _: net)
    found = build_builtin.presence_thresholds("net", [tmp_path / "faces.h5"])
    levels = presence_thresholds({PRESENCE_KEY: json.loads(json.dumps(found))})
    assert 0.2 < levels[0] <= 0.7
    assert levels[1:] == (1.0,) * 16
    checkpoint = write_checkpoint(tmp_path / "au.safetensors", AU)
    stored = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, stored.arrays, {**stored.metadata, PRESENCE_KEY: found})
    assert presence_thresholds(read_source(checkpoint).metadata) == levels  # as exports carry it


def test_the_card_answers_first_and_grades_every_unit(tmp_path: Path) -> None:
    units = [name.removesuffix("_r") for name in mlx_faceau.AU_NAMES]
    r = {unit: 0.9 - 0.02 * i for i, unit in enumerate(units)}
    area = {unit: 0.9 for unit in units if unit not in ("AU14", "AU45")}
    neutral = dict.fromkeys(units, 0.1)
    figures = {
        "people": {"au_r": r, **{f"au_{key}": neutral for key, _ in build_builtin.PRESENCE}},
        "posed": {
            "net": {"auc": area | {"AU02": 0.7}, "mean_of_neutral_faces": neutral},
            "labeller": {"auc": area},
        },
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(figures))
    (tmp_path / "evaluation.md").write_text("| judged on | nets |\n|---|---|\n\n| unit |\n")
    path = tmp_path / "evaluation.json"
    build_builtin.write_card(stand_in_pair(), tmp_path, VERSION, path)
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert card.splitlines()[0].startswith("May these weights be used commercially? **Yes**")
    rows = [line for line in card.splitlines() if re.match(r"\| AU\d\d ", line)]
    assert len(rows) == 17
    grades = {row[2:6]: row.split(" | ")[1] for row in rows}
    assert (grades["AU01"], grades["AU02"], grades["AU45"]) == ("strong", "fair", "weak")
    for source in ("voteview", "CivilServiceUSA", "SFHQ-T2I", "muxspace", "liveportrait"):
        assert source in card
    assert "| judged on | nets |" in card
    build_builtin.write_card(stand_in_pair(), tmp_path, VERSION)
    assert "Not measured." in (tmp_path / "MODEL_CARD.md").read_text()


@REAL
def test_the_shipped_files_are_those_of_the_index_and_belong_together() -> None:
    index = builtin.read_index()
    assert index["name"] in builtin.NAMES
    for name in index["files"]:
        builtin.check(builtin.FOLDER / name)
    assert sum(path.stat().st_size for path in builtin.FOLDER.iterdir()) < 60e6
    card = (builtin.FOLDER / "MODEL_CARD.md").read_text()
    assert card.startswith("May these weights be used commercially? **Yes**")
    assert "Not measured" not in card
    for notice in ("LICENSE", "NOTICE-ICT-FaceKit.txt", "NOTICE-MediaPipe.txt"):
        assert (builtin.FOLDER / notice).is_file()
    for config in BOTH:
        metadata = read_metadata(builtin.checkpoint_file(config.kind))
        assert metadata["model"]["width_mult"] == 1.0
        assert metadata["pdm"]["hash"] == read_pdm(builtin.FOLDER / builtin.PDM_NAME).hash


@REAL
def test_the_shipped_files_of_a_net_compute_the_same() -> None:
    crops = random_crops(4)
    for load in (load_predictor, load_au_predictor):
        answers = [load(backend=backend).predict_batch(crops) for backend in ("onnx", "torch")]
        for name, first in answers[0].items():
            if isinstance(first, np.ndarray):
                np.testing.assert_allclose(first, answers[1][name], rtol=0, atol=1e-3)


@REAL
def test_all_five_faces_of_a_group_are_found_by_the_installed_detector(shared_folder: Path) -> None:
    pytest.importorskip("dlib")
    image = cv2.imread(str(shared_folder / "data" / "images" / "multi_face.jpg"))
    assert len(FacePipeline(detector="dlib").image(image).faces) == 5


@REAL
def test_the_demo_finds_one_smiling_face(tmp_path: Path, capsys) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("dlib")
    assert main(["demo", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "AU12 Lip Corner Puller" in printed
    assert len(read_openface_csv(tmp_path / "astronaut.csv")["face_id"]) == 1
