"""Checking training files, and the command line around it."""

import json

import cv2
import h5py
import numpy as np
import pytest
from training_files import COMMON, OURS, arrays, texts, write

from mlx_faceau.cli.main import main
from mlx_faceau.data.format.check import au_histogram, check_file, describe_dataset
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.loading.preview import contact_sheet, strongest_units


@pytest.fixture
def path(tmp_path):
    return tmp_path / "faces.h5"


def test_a_sound_file_passes(path):
    report = check_file(write(path, arrays()))
    assert report.failures == []
    assert report.warnings == []
    assert report.samples == 40
    assert report.histogram.sum(axis=1).tolist() == [40] * 17


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("au_intensities", lambda v: v + 1, "au_intensities leave [0, 5] in"),
        ("au_intensities", lambda v: np.where(v > 4.9, np.nan, v), "holds NaN or inf"),
        ("global_params", lambda v: v * [-1, 1, 1, 1, 1, 1], "scale is not positive in 40 samples"),
        ("landmarks", lambda v: v * 2, "samples have landmarks outside the crop"),
        ("images", lambda v: v * 0, "40 of 40 images inspected are of one colour"),
    ],
)
def test_unusable_values_fail(path, name, values, message):
    data = arrays()
    data[name] = values(data[name]).astype(data[name].dtype)
    (failure,) = check_file(write(path, data)).failures
    assert message in failure


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "au_intensities",
            lambda v: v * (np.arange(17) != 12),
            "action units that no face shows: AU20_r",
        ),
        ("global_params", lambda v: v * [1, 90, 90, 90, 1, 1], "an angle exceeds 90 degrees"),
        (
            "landmarks",
            lambda v: v + 100 * (np.arange(40) == 3)[:, None, None],
            "1 of 40 samples have landmarks outside",
        ),
    ],
)
def test_doubtful_values_warn(path, name, values, message):
    data = arrays()
    data[name] = values(data[name]).astype(data[name].dtype)
    report = check_file(write(path, data))
    assert report.failures == []
    assert message in report.warnings[0]


def test_constant_and_absent_action_units_are_told_apart(path):
    data = arrays()
    data["au_intensities"][:, 3], data["au_intensities"][:, 5] = 0, 2
    assert check_file(write(path, data)).warnings == [
        "action units that no face shows: AU05_r",
        "constant action units: AU07_r",
    ]


def test_a_file_without_any_action_unit_is_said_to_be_for_landmarks_alone(path, capsys):
    data = arrays()
    data["au_intensities"][:] = 0
    assert main(["data", "check", str(write(path, data))]) == 0
    told = capsys.readouterr().out
    assert "warning  no face shows any action unit" in told
    assert "sound" not in told
    assert "40 samples, usable; see the warnings" in told


def test_people_under_several_names_are_warned_of(path):
    data = arrays()
    names = [f"person{i // 4}" for i in range(40)]
    names[8:12] = ["Person 1"] * 4
    data["metadata/subjects"] = texts(names)
    for name in ("images", "landmarks", "global_params", "local_params", "au_intensities"):
        data[name][30] = data[name][2]
    data["images"][39] = data["images"][13]
    spelled, faces = check_file(write(path, data)).warnings
    assert spelled.startswith("taken as one subject: 'Person 1', 'person1', which differ in case")
    assert faces == (
        "4 samples hold faces that have several subject names (person0 = person7, "
        "person3 = person9), first in row 2: these are taken as one subject"
    )


def test_all_schema_failures_are_reported_at_once(path):
    data = arrays()
    data["landmarks"] = data["landmarks"][:, :51]
    write(path, data, {**OURS, **COMMON, "color_format": "BGR", "au_names": ["AU01_r"]})
    failures = " | ".join(check_file(path).failures)
    for expected in ("color_format is 'BGR'", "'landmarks' has shape", "au_names"):
        assert expected in failures


def test_slow_storage_and_missing_names_warn(path):
    data = {name: values for name, values in arrays(100).items() if "metadata" not in name}
    warnings = " | ".join(check_file(write(path, data, chunk=100)).warnings)
    assert "chunks of 100" in warnings
    assert "cannot be split" in warnings


def test_the_histogram_counts_by_hand():
    units = np.zeros((4, 17))
    units[:, 0] = [0.2, 0.5, 1.99, 5.0]
    counts = au_histogram(units)
    assert counts[0].tolist() == [1, 1, 1, 0, 0, 1]
    assert counts[1].tolist() == [4, 0, 0, 0, 0, 0]


def test_a_description_counts_people_and_measures_degrees(path):
    data = arrays()
    data["global_params"][:, 2] = np.radians(30)
    report = describe_dataset(FaceDataset(write(path, data)))
    assert (report["samples"], report["subjects"], report["videos"]) == (40, 10, 10)
    assert report["pose"]["ry"]["mean"] == pytest.approx(30, abs=1e-4)
    expected = data["au_intensities"][:, 8]
    assert report["action_units"]["AU12_r"]["above_1"] == (expected > 1).sum()
    json.dumps(report)


def test_a_contact_sheet_shows_each_face_with_its_landmarks():
    images = np.zeros((12, 112, 112, 3), np.uint8)
    landmarks = np.full((12, 68, 2), 20.0)
    landmarks[11] = 90.0
    sheet = contact_sheet(images, landmarks, np.zeros((12, 17)))
    assert sheet.shape == (2 * 224, 10 * 224, 3)
    lit = np.argwhere(sheet[224:, 224:448].any(axis=2))
    # Twice enlarged, the centre of pixel 90 lies at 180.5.
    np.testing.assert_allclose(lit.mean(axis=0), 180.5, atol=0.6)
    assert not sheet[224:, 448:].any()


def test_a_single_face_is_counted_in_the_singular(tmp_path, capsys):
    faces = str(tmp_path / "faces.h5")
    assert main(["data", "synth", "--output", faces, "--count", "1"]) == 0
    main(["data", "check", faces])
    main(["data", "stats", faces])
    printed = capsys.readouterr().out
    for text in ("1 synthetic face\n", "1 sample, ", "1 sample, 1 subject, 1 video, "):
        assert text in printed
    assert "1 samples" not in printed


def test_stats_print_no_minus_before_a_zero(tmp_path, capsys):
    data = arrays()
    data["global_params"][:, 1:4] = -1e-6
    assert main(["data", "stats", str(write(tmp_path / "faces.h5", data))]) == 0
    assert "-0.000 " not in capsys.readouterr().out


def test_statistics_of_a_damaged_file_are_still_json(tmp_path, capsys):
    data = arrays()
    path = write(tmp_path / "faces.h5", data)
    with h5py.File(path, "r+") as file:
        file["metadata/quality_scores"][3] = np.nan

    def refuse(constant):
        raise AssertionError(constant)

    assert main(["data", "stats", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert report["quality"]["score"]["mean"] is None
    assert report["action_units"]["AU12_r"]["mean"] == pytest.approx(
        data["au_intensities"][:, 8].mean()
    )


def test_synth_check_stats_and_preview_work_together(tmp_path, capsys):
    faces, sheet = tmp_path / "faces.h5", tmp_path / "sheet.png"
    command = ["data", "synth", "--output", str(faces), "--count", "12", "--people", "3"]
    assert main([*command, "--seed", "1"]) == 0
    assert main(["data", "check", str(faces)]) == 0
    assert "12 samples, sound" in capsys.readouterr().out
    assert main(["data", "stats", str(faces), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subjects"] == 3
    assert main(["data", "stats", str(faces)]) == 0
    assert "AU45_r" in capsys.readouterr().out
    assert main(["data", "preview", str(faces), "--output", str(sheet), "--count", "4"]) == 0
    plain = cv2.imread(str(sheet))
    assert plain.shape == (224, 4 * 224, 3)
    varied = ["data", "preview", str(faces), "--output", str(sheet), "--count", "4"]
    assert main([*varied, "--augment", "strong"]) == 0
    assert (cv2.imread(str(sheet)) != plain).mean() > 0.5


def test_a_failed_check_exits_with_1_and_an_unreadable_file_with_2(path, capsys):
    data = arrays()
    data["au_intensities"][3] = np.nan
    assert main(["data", "check", str(write(path, data)), "--json"]) == 1
    assert "NaN" in json.loads(capsys.readouterr().out)["failures"][0]
    path.write_text("no HDF5")
    assert main(["data", "check", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_synth_refuses_to_replace_a_file(path, capsys):
    path.write_text("precious")
    assert main(["data", "synth", "--output", str(path), "--count", "4"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert path.read_text() == "precious"


def test_a_preview_does_not_replace_the_file_it_shows(path, capsys):
    before = write(path, arrays(4)).read_bytes()
    assert main(["data", "preview", str(path), "--output", str(path)]) == 2
    assert "no image format has this ending" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["faces.h5", "plot"])
def test_statistics_are_drawn_into_png_files_alone(path, capsys, name):
    before = write(path, arrays(4)).read_bytes()
    assert main(["data", "stats", str(path), "--output", str(path.with_name(name))]) == 2
    assert "must be .png" in capsys.readouterr().err
    assert {file.name for file in path.parent.iterdir()} == {path.name}
    assert path.read_bytes() == before


@pytest.mark.parametrize("action", ["split", "preview", "synth"])
def test_a_negative_seed_is_one_line_and_status_2(path, tmp_path, capsys, action):
    file = [] if action == "synth" else [str(write(path, arrays(4)))]
    assert main(["data", action, *file, "--output", str(tmp_path / "o.png"), "--seed", "-1"]) == 2
    assert capsys.readouterr().err == "mlx-faceau: --seed is -1, expected at least 0\n"


@pytest.mark.parametrize("count", ["0", "-3"])
def test_bad_counts_are_one_line_and_status_2(path, tmp_path, capsys, count):
    output = ["--output", str(tmp_path / "out"), "--count", count]
    assert main(["data", "synth", *output]) == 2
    assert main(["data", "preview", str(write(path, arrays(4))), *output]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert not (tmp_path / "out").exists()


def test_captions_name_the_strongest_units_on_a_dark_band():
    units = np.zeros(17)
    units[[8, 4, 16, 0]] = 3.14, 2.0, 0.6, 0.4
    assert strongest_units(units) == "AU12 3.1  AU06 2.0  AU45 0.6"
    images, landmarks = np.full((2, 112, 112, 3), 120, np.uint8), np.full((2, 68, 2), 50.0)
    sheet = contact_sheet(images, landmarks, np.stack([units, np.zeros(17)]))
    assert (sheet[204:, :224] == 255).any()
    assert (sheet[204:, 224:] == 40).all()
    np.testing.assert_array_equal(sheet[:204, :224], sheet[:204, 224:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_params": [1, 1, 1, 1, 10, 10]}, "global_params are not in crop space"),
        ({"landmarks": 1 / 112}, "fractions instead of pixels"),
        ({"metadata/quality_scores": 1.5}, "quality_scores leave [0, 1]"),
    ],
    ids=["pose", "landmarks", "quality"],
)
def test_labels_in_the_wrong_space_fail(path, change, message):
    data = arrays()
    for name, factor in change.items():
        data[name] = (data[name] * np.float32(factor)).astype("f4")
    assert any(message in failure for failure in check_file(write(path, data)).failures)


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("landmarks", lambda v: (v - 55) * 0.5 + 55, "crops are not the standard ones"),
        ("landmarks", lambda v: v + 15, "+15, +15 px from the middle"),
        ("au_intensities", lambda v: v / 5, "on a scale of 0 to 5"),
    ],
    ids=["margin", "shift", "scale"],
)
def test_doubtful_crops_and_scales_warn(path, name, function, message):
    data = arrays(120)
    data[name] = function(data[name]).astype("f4")
    assert any(message in warning for warning in check_file(write(path, data)).warnings)


def test_two_sides_of_a_split_must_share_neither_people_nor_pictures(path, tmp_path):
    one, other = arrays(20), arrays(20, seed=1)
    names = [f"other {i // 4}" for i in range(20)]
    for kind in ("subjects", "video_names"):
        other[f"metadata/{kind}"] = texts(names)
    write(path, one)
    clean = write(tmp_path / "clean.h5", other)
    assert check_file(path, clean).failures == []
    other["images"][7] = one["images"][3]
    names[8:12] = ["person2"] * 4
    other["metadata/subjects"] = texts(names)
    mixed = write(tmp_path / "mixed.h5", other)
    people, pictures = check_file(path, mixed).failures
    assert people == f"1 subject also in {mixed}: person2"
    assert pictures == f"1 face also in {mixed}, by their image or all labels"
    assert main(["data", "check", str(path), "--against", str(mixed)]) == 1


def test_two_sides_may_share_a_videos_name_where_they_name_other_subjects(path, tmp_path):
    one, other = arrays(20), arrays(20, seed=1)
    other["metadata/subjects"] = texts([f"other {i // 4}" for i in range(20)])
    write(path, one)
    apart = write(tmp_path / "apart.h5", other)  # as split leaves two recordings of one name
    assert check_file(path, apart).failures == []
    other["metadata/subjects"] = texts(["other 0"] * 4 + [""] * 16)
    partly = write(tmp_path / "partly.h5", other)  # the rest are those whom the videos' names tell
    (failure,) = check_file(path, partly).failures
    assert failure == f"4 subjects also in {partly}: person1, person2, person3 ..."


def test_statistics_are_drawn_and_quality_is_described(path, tmp_path, capsys):
    data = arrays()
    data["metadata/quality_scores"] = np.linspace(0, 1, 40).astype("f4")
    data["metadata/measures/sharpness"] = np.r_[np.nan, np.arange(39)].astype("f4")
    data["metadata/groups"] = texts(["studio"] * 30 + ["street"] * 10)
    picture = tmp_path / "stats.png"
    assert main(["data", "stats", str(write(path, data)), "--output", str(picture)]) == 0
    assert "10 street, 30 studio" in capsys.readouterr().out
    assert cv2.imread(str(picture)).shape == (800, 1300, 3)
    report = describe_dataset(FaceDataset(path))
    assert report["quality"]["sharpness"]["mean"] == pytest.approx(19)
    assert report["quality"]["score"]["mean"] == pytest.approx(0.5)
