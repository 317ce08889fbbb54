"""``mlx-faceau predict --aligned``: crops in, the exact numbers of the float64 net out."""

import csv
import json
import sys

import cv2
import numpy as np
import pytest
from random_nets import AU, LANDMARK, random_crops, reference_outputs

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from mlx_faceau.cli.main import main
from mlx_faceau.core.facs import AU_NAMES


@pytest.fixture
def crops(tmp_path):
    """Three crops as PNG files in a folder, beside a file that is no picture."""
    images, folder = random_crops(3), tmp_path / "crops"
    folder.mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index}.png"), image)
    (folder / "notes.txt").write_text("not a picture")
    return folder, images


@pytest.fixture
def models(model_folders):
    landmark, au = (str(model_folders[config.kind]) for config in (LANDMARK, AU))
    return ["--landmark-model", landmark, "--au-model", au, "--backend", "onnx"]


def test_csv_has_a_row_a_crop_in_openface_s_names(crops, models, capsys):
    folder, images = crops
    assert main(["predict", "--aligned", str(folder), *models]) == 0
    printed = capsys.readouterr()
    assert f"{folder}: 1 other file skipped (notes.txt)\n" in printed.err
    rows = list(csv.DictReader(printed.out.splitlines()))
    assert [row["file"] for row in rows] == [str(folder / f"{i}.png") for i in range(3)]
    truth = reference_outputs(LANDMARK, images)
    for axis, letter in enumerate("xy"):
        got = [[float(row[f"{letter}_{i}"]) for i in range(68)] for row in rows]
        np.testing.assert_allclose(got, truth["landmarks"][..., axis], rtol=0, atol=1e-3)
    names = ("p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty")
    got = [[float(row[name]) for name in names] for row in rows]
    np.testing.assert_allclose(got, truth["global_params"], rtol=0, atol=1e-3)
    units = reference_outputs(AU, images)["au_intensities"].clip(0, 5)
    got = [[float(row[name]) for name in AU_NAMES] for row in rows]
    np.testing.assert_allclose(got, units, rtol=0, atol=1e-4)


@pytest.mark.skipif(sys.platform == "win32", reason="no such names")
def test_csv_has_one_row_for_a_name_with_a_carriage_return(crops, models, tmp_path):
    folder, _ = crops
    odd = folder / "a\rb.png"
    (folder / "0.png").rename(odd)
    target = tmp_path / "faces.csv"
    assert main(["predict", "--aligned", str(odd), *models, "--output", str(target)]) == 0
    with target.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == str(odd)
    assert len(row) == 194


def test_a_crop_that_is_named_twice_has_two_rows(crops, models, capsys):
    crop = str(crops[0] / "0.png")
    assert main(["predict", "--aligned", crop, crop, *models]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["file"] for row in rows] == [crop, crop]


def test_json_by_the_ending_of_the_output(crops, models, tmp_path):
    folder, images = crops
    target = tmp_path / "faces.json"
    arguments = ["predict", "--aligned", str(folder / "2.png"), *models, "--output", str(target)]
    assert main(arguments) == 0
    (row,) = json.loads(target.read_text())
    truth = reference_outputs(LANDMARK, images[2:])["landmarks"][0]
    np.testing.assert_allclose(row["landmarks"], truth, rtol=0, atol=1e-3)
    assert np.shape(row["au_intensities"]) == (17,)


@pytest.mark.parametrize(
    ("name", "foreign"), [("a.csv", "file,valence\n"), ("a.json", '[{"file": 1, "valence": 2}]')]
)
def test_another_program_s_file_is_not_replaced(crops, models, tmp_path, capsys, name, foreign):
    path = tmp_path / name
    command = ["predict", "--aligned", str(crops[0] / "0.png"), *models, "--output", str(path)]
    for _ in range(2):  # our own is
        assert main(command) == 0
    path.write_text(foreign)
    assert main(command) == 2
    assert f"{name}: another program's file" in capsys.readouterr().err
    assert path.read_text() == foreign


def test_the_ending_decides_and_a_dash_is_standard_output(crops, models, tmp_path, capsys):
    folder, _ = crops
    crop = ["predict", "--aligned", str(folder / "0.png"), *models, "--output"]
    assert main([*crop, str(tmp_path / "out.jsonl")]) == 2
    assert "jsonl: --aligned writes csv or json" in capsys.readouterr().err
    before = (folder / "0.png").read_bytes()
    for more in ((), ("--format", "csv")):
        assert main([*crop, str(folder / "0.png"), *more]) == 2
        assert "png: --aligned writes csv or json" in capsys.readouterr().err
    assert (folder / "0.png").read_bytes() == before
    assert main([*crop, "-"]) == 0
    assert capsys.readouterr().out.startswith("file,x_0,")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_grey_picture_and_one_with_alpha_are_read_as_colour(crops, models, tmp_path, capsys):
    _, images = crops
    grey = cv2.cvtColor(images[0], cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    opaque = np.dstack([images[1], np.full((112, 112), 255, np.uint8)])
    cv2.imwrite(str(tmp_path / "alpha.png"), opaque)
    files = [str(tmp_path / "grey.png"), str(tmp_path / "alpha.png")]
    assert main(["predict", "--aligned", *files, *models]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    shown = np.stack([cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), images[1]])
    truth = reference_outputs(LANDMARK, shown)["landmarks"]
    got = [[float(row[f"x_{i}"]) for i in range(68)] for row in rows]
    np.testing.assert_allclose(got, truth[..., 0], rtol=0, atol=1e-3)


def test_bad_input_is_one_line_and_leaves_no_file(crops, models, tmp_path, capsys):
    folder, _ = crops
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), np.zeros((200, 300, 3), np.uint8))
    empty = tmp_path / "empty"
    empty.mkdir()
    target = tmp_path / "out.csv"
    cases = {
        (str(large), *models): "large.png: 300x200 pixels, but --aligned means 112x112",
        (str(folder / "notes.txt"), *models): "notes.txt: not a readable image",
        (str(tmp_path / "none.png"), *models): "none.png: no such file or folder",
        (str(empty), *models): "no images",
        ("webcam", *models): "reads image files, not a webcam",
        (str(folder / "0.png"), "webcam", *models): "reads image files, not a webcam",
        (str(folder), *models, "--format", "parquet"): "parquet: --aligned writes csv or json",
        (str(folder), *models, "--format", "json"): "out.csv: contradicts --format json",
        (str(folder), *models, "--overlay", "--detect-every", "3"): (
            "--detect-every, --overlay: not with --aligned"
        ),
    }
    for arguments, message in cases.items():
        assert main(["predict", "--aligned", *arguments, "--output", str(target)]) == 2
        error = capsys.readouterr().err
        assert (message in error, error.count("\n")) == (True, 1), error
        assert not target.exists()


@pytest.mark.parametrize("form", ["csv", "json"])
def test_bad_crops_are_named_and_the_rest_is_done(crops, models, tmp_path, capsys, form):
    folder, images = crops
    cv2.imwrite(str(folder / "0b.png"), np.zeros((100, 112, 3), np.uint8))
    (folder / "1b.png").write_bytes((folder / "1.png").read_bytes()[:500])
    (folder / "3.jpg").write_bytes(b"")
    target = tmp_path / f"faces.{form}"
    assert main(["predict", "--aligned", str(folder), *models, "--output", str(target)]) == 1
    text = target.read_text()
    rows = json.loads(text) if form == "json" else list(csv.DictReader(text.splitlines()))
    assert [row["file"] for row in rows] == [str(folder / f"{i}.png") for i in range(3)]
    truth = reference_outputs(LANDMARK, images)["landmarks"]
    got = [row["landmarks"][0][0] if form == "json" else float(row["x_0"]) for row in rows]
    np.testing.assert_allclose(got, truth[:, 0, 0], rtol=0, atol=1e-3)
    passed_over, *named, total = capsys.readouterr().err.splitlines()
    assert passed_over.endswith("1 other file skipped (notes.txt)")
    assert [line.split(": ")[1] for line in named] == [
        str(folder / name) for name in ("0b.png", "1b.png", "3.jpg")
    ]
    assert "112x100 pixels, but --aligned means 112x112" in named[0]
    assert total == "3 of 6 crops could not be read"


def test_without_one_good_crop_nothing_is_written(models, tmp_path, capsys):
    target = tmp_path / "faces.csv"
    target.write_text(older := "file,x_0,y_0\n")
    bad = [tmp_path / name for name in ("a.png", "b.png")]
    for path in bad:
        path.write_bytes(b"no picture")
    command = ["predict", "--aligned", *models, "--output", str(target)]
    assert main([*command, *map(str, bad)]) == 2
    assert "none of the 2 crops could be read" in capsys.readouterr().err
    assert main([*command, str(bad[0])]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert target.read_text() == older
