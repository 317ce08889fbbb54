"""OpenFace's CSV: columns, formats, what its readers make of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from blobs import Blob, draw_frame

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.geometry import project
from mlx_faceau.core.pdm import PDM
from mlx_faceau.errors import DatasetError
from mlx_faceau.output.openface_csv import Layout, read_openface_csv
from mlx_faceau.video.pose import Camera
from mlx_faceau.video.results import FaceResult, Frame, FrameResult

BLOB = Blob(100, 80, 40)


def face(face_id: int = 0, **changes: object) -> FaceResult:
    values = {
        "face_id": face_id,
        "confidence": 0.987,
        "success": True,
        "landmarks": BLOB.landmarks,
        "global_params": np.array([1.25, 0.1, -0.2, 0.05, 100.0, 80.0]),
        "local_params": np.arange(34) / 10,
        "warp_matrix": np.eye(2, 3),
        "camera": Camera.from_size(320, 240),
        "au_intensities": np.linspace(0, 2, 17),
    }
    return FaceResult(**(values | changes))  # type: ignore[arg-type]


def found(*faces: FaceResult, index: int = 0) -> FrameResult:
    return FrameResult(Frame(index, index / 30, draw_frame([BLOB])), faces)


def pdm() -> PDM:
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(68, 3)) * (35, 40, 20)
    basis = np.linalg.qr(generator.normal(size=(204, 34)))[0].reshape(68, 3, 34)
    return PDM(mean, basis, np.full(34, 9.0))


def write(path: Path, layout: Layout, *frames: FrameResult) -> Path:
    lines = [layout.header(), *(line for frame in frames for line in layout.lines(frame))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_and_header_are_those_of_openface_without_gaze(shared_folder: Path) -> None:
    layout = Layout(("aus", "params", "3d", "2d", "pose"), pdm())
    with (shared_folder / "data/video/subj01_timepoint01.openface.csv").open() as file:
        theirs = file.readline().rstrip("\n")
    expected = [n for n in theirs.split(", ") if "gaze" not in n and "eye_" not in n]
    assert layout.columns == [name for name in expected if name != "AU28_c"]
    assert layout.header() == ", ".join(layout.columns)


def test_decimals_are_those_of_openface() -> None:
    layout = Layout()
    cells = dict(
        zip(layout.columns, layout.lines(found(face(), index=7))[0].split(", "), strict=True)
    )
    assert [cells[n] for n in layout.columns[:5]] == ["8", "0", "0.233", "0.99", "1"]
    assert cells["x_0"] == "140.0"
    assert cells["p_scale"] == "1.250"
    assert cells["p_33"] == "3.300"
    assert (cells["AU02_r"], cells["AU02_c"]) == ("0.12", "0.00")
    assert (cells["AU45_r"], cells["AU45_c"]) == ("2.00", "1.00")


def test_a_small_negative_number_is_a_plain_zero() -> None:
    line = Layout().lines(found(face(local_params=np.full(34, -1e-5))))[0]
    assert "-0.000" not in line


def test_presence_begins_at_the_stated_intensity_of_each_unit() -> None:
    layout = Layout(("aus",), presence_thresholds=(0.3, 0.5, *[1.0] * 15))
    line = layout.lines(found(face(au_intensities=np.r_[0.29, 0.5, np.zeros(15)])))[0]
    assert line.split(", ")[5 + 17 : 5 + 19] == ["0.00", "1.00"]


def test_a_frame_without_faces_is_a_line_of_zeros_without_success(tmp_path: Path) -> None:
    layout = Layout()
    columns = read_openface_csv(write(tmp_path / "a.csv", layout, found(face()), found(index=1)))
    assert columns["success"].tolist() == [1, 0]
    assert columns["frame"].tolist() == [1, 2]
    assert all(columns[name][1] == 0 for name in layout.columns[5:])


def test_several_faces_are_several_lines_of_a_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", Layout(("2d",)), found(face(0), face(3)))
    columns = read_openface_csv(path)
    assert columns["face_id"].tolist() == [0, 3]
    assert columns["frame"].tolist() == [1, 1]


def test_distance_is_focal_length_over_scale_and_place_follows() -> None:
    camera = Camera(500, 500, 160, 120)
    pose = face(camera=camera).pose
    np.testing.assert_allclose(pose.position, (-60 / 1.25, -40 / 1.25, 400))


def test_a_head_on_the_axis_keeps_its_angles_and_one_beside_it_is_turned_by_the_line_of_sight() -> (
    None
):
    camera = Camera(500, 500, 100, 80)
    np.testing.assert_allclose(face(camera=camera).pose.angles, (0.1, -0.2, 0.05))
    beside = Camera(500, 500, 350, 80)
    straight = face(global_params=np.array([1, 0, 0, 0, 100.0, 80.0]), camera=beside)
    # It shows its face to the camera from 250 px to the left: it really looks to the right.
    angles = straight.pose.angles
    np.testing.assert_allclose(angles, (0, -np.arctan(0.5), 0), atol=1e-12)


def test_with_a_pdm_pose_and_points_meet_the_landmarks_in_perspective() -> None:
    model, camera = pdm(), Camera(700, 700, 320, 240)
    local = np.random.default_rng(1).normal(size=34)
    turned = model.shape(local) @ np.array([[0.98, 0, 0.2], [0, 1, 0], [-0.2, 0, 0.98]])
    points = turned + np.array([40, -30, 900])
    landmarks = points[:, :2] / points[:, 2:] * 700 + (320, 240)
    params = np.array([700 / 900, 0, 0.2, 0, *landmarks.mean(axis=0)])
    seen = face(
        landmarks=landmarks, global_params=params, local_params=local, camera=camera, pdm=model
    )
    layout = Layout(("pose", "3d"), model)
    cells = np.array(layout.lines(found(seen))[0].split(", ")[5:], float)
    np.testing.assert_allclose(cells[:3], (40, -30, 900), atol=15)
    again = cells[6:].reshape(3, 68).T
    drawn = again[:, :2] / again[:, 2:] * 700 + (320, 240)
    assert np.abs(drawn - landmarks).mean() < 1.0


def test_pdm_projection_is_the_limit_of_a_far_head() -> None:
    model, local = pdm(), np.zeros(34)
    far = 1e6
    camera = Camera(far, far, 0, 0)
    params = np.array([1.0, 0.1, 0.2, 0.3, 0.0, 0.0])
    landmarks = project(model.mean, model.basis, params, local)
    seen = face(
        landmarks=landmarks, global_params=params, local_params=local, camera=camera, pdm=model
    )
    np.testing.assert_allclose(seen.pose.angles, params[1:4], atol=1e-3)


def test_wrong_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="no column groups"):
        Layout(("gaze",))
    with pytest.raises(ValueError, match="need the PDM"):
        Layout(("3d",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an OpenFace CSV"),
        ("a,b\n1,2\n", "not an OpenFace CSV"),
        ("frame, timestamp\n1, 2, 3\n", "line 2 has 3 cells"),
        ("frame, timestamp\n1, x\n", "line 2"),
    ],
)
def test_a_file_that_is_no_openface_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_openface_csv(tmp_path / "a.csv")


def test_numbers_that_windows_could_not_compute_are_nan(tmp_path: Path) -> None:
    rows = ["frame, timestamp, AU01_r", "1, 0.0, -nan(ind)", "2, 0.04, nan(ind)", "3, 0.08, 1.5"]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    columns = read_openface_csv(tmp_path / "a.csv")
    np.testing.assert_array_equal(columns["AU01_r"], [np.nan, np.nan, 1.5])


def test_openfaces_own_files_of_both_styles_are_read(shared_folder: Path) -> None:
    new = read_openface_csv(shared_folder / "data/video/subj01_timepoint01.openface.csv")
    assert (len(new), len(new["AU01_r"])) == (714, 158)
    old = read_openface_csv(shared_folder / "data/csv/openface_v1_style.csv")
    assert len(old) == 431
    assert "face_id" not in old


@pytest.fixture
def forty_rows(tmp_path: Path) -> Path:
    frames = [found(face(), index=i) for i in range(40)]
    return write(tmp_path / "a.csv", Layout(), *frames)


def test_pandas_reads_it(forty_rows: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(forty_rows, skipinitialspace=True)
    assert list(table.columns) == Layout().columns
    assert table["AU45_r"].iloc[0] == 2.0
    assert {str(kind) for kind in table.dtypes} <= {"int64", "float64"}


def test_exploface_reads_it_and_finds_the_units_that_are_present(forty_rows: Path) -> None:
    exploface = pytest.importorskip("exploface")
    detections = exploface.get_detections(exploface.get_feature_time_series(forty_rows))
    present = [name[:4] for name, value in face().aus.items() if value >= 1]
    assert detections["feature"].tolist() == present
    assert set(zip(detections["start"], detections["end"], strict=True)) == {(0.0, 1.3)}


def test_py_feat_reads_it(forty_rows: Path) -> None:
    """In a process of its own: importing py-feat changes the settings of threads, and warns."""
    code = f"""
from feat.utils.io import read_openface
fex = read_openface({str(forty_rows)!r})
fex.au_columns = [c for c in fex.au_columns if c in fex]
print(len(fex), fex.aus.shape[1], fex.landmarks.shape[1], fex.poses.shape[1], fex.AU45_r[39])
"""
    if subprocess.run([sys.executable, "-c", "import feat"], capture_output=True).returncode:
        pytest.skip("py-feat is not here")
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert run.stdout.split() == [b"40", b"34", b"136", b"6", b"2.0"], run.stderr.decode()


def test_numbers_read_back_within_their_decimals(tmp_path: Path) -> None:
    one = face()
    columns = read_openface_csv(write(tmp_path / "a.csv", Layout(), found(one)))
    np.testing.assert_allclose([columns[n][0] for n in AU_NAMES], one.au_intensities, atol=0.0051)
    xs = [columns[f"x_{i}"][0] for i in range(68)]
    np.testing.assert_allclose(xs, one.landmarks[:, 0], atol=0.051)


def test_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "clip.csv"
    path.write_text("frame, timestamp, gaze_0_x, x_0\n1,  0.0,  0.5,  100.5\n2,  0.1,  0.6,  101\n")
    columns = read_openface_csv(path, {"frame", "x_0", "absent"})
    assert list(columns) == ["frame", "x_0"]
    assert columns["x_0"].tolist() == [100.5, 101.0]
    path.write_text("frame, timestamp, gaze_0_x, x_0\n1,  0.0,  0.5\n")
    with pytest.raises(DatasetError, match="3 cells"):
        read_openface_csv(path, {"frame"})
