"""The pipeline on a real video beside the CSV that OpenFace wrote for it.

    python benchmarks/openface_agreement.py VIDEO OPENFACE.csv --landmark-model PATH \\
        --au-model PATH --detector FILE.onnx

Three ways to cut the crops are compared: the pipeline's own tracking, a detection in every frame,
and ideal crops (the standard crop of OpenFace's own landmarks): what is lost is the crops' fault.
The last line is a constant predictor: OpenFace's own mean over the video.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.landmarks import NUM_LANDMARKS, OUTER_EYE_CORNERS
from mlx_faceau.inference.predictor import load_au_predictor, load_predictor
from mlx_faceau.output.neutral_calibration import NeutralBaseline
from mlx_faceau.output.openface_csv import Layout, read_openface_csv
from mlx_faceau.output.smoothing import smoothed
from mlx_faceau.video.align import FrameCrops
from mlx_faceau.video.box_calibration import CALIBRATIONS
from mlx_faceau.video.fitting import fit_landmarks, standard_square
from mlx_faceau.video.pipeline import FacePipeline
from mlx_faceau.video.pose import Camera
from mlx_faceau.video.reader import Video

RESULTS = Path(__file__).parent / "results"
Values = dict[str, np.ndarray]  # landmarks (N, 68, 2), pose (N, 6), aus (N, 17)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--landmark-model", required=True)
    parser.add_argument("--au-model", required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--name", default="openface-agreement", help="of the result file")
    args = parser.parse_args()
    truth = openface(args.csv)
    rows = [compare(name, truth, values) for name, values in readings(args, truth)]
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (RESULTS / f"{args.name}.csv").write_text(table.getvalue())
    sys.stdout.write(table.getvalue())
    return 0


def openface(path: Path) -> Values:
    columns = read_openface_csv(path)
    points = [[columns[f"{axis}_{i}"] for axis in "xy"] for i in range(NUM_LANDMARKS)]
    pose = [columns[f"pose_{kind}{axis}"] for kind in "TR" for axis in "xyz"]
    return {
        "landmarks": np.array(points).transpose(2, 0, 1),
        "pose": np.array(pose).T,
        "aus": np.array([columns[name] for name in AU_NAMES]).T,
    }


def readings(args: argparse.Namespace, truth: Values) -> Iterator[tuple[str, Values]]:
    nets = load_predictor(args.landmark_model), load_au_predictor(args.au_model)
    tracked = list(FacePipeline(*nets, args.detector).video(args.video))
    yield "tracked", collect(tracked)
    yield "tracked, smoothed", collect(smoothed(tracked))
    baseline = NeutralBaseline()
    for found in tracked:
        baseline.add(found)
    yield "tracked, calibrated", collect(map(baseline.apply, tracked))
    pipeline = FacePipeline(*nets, args.detector)
    images = [frame.image for frame in Video(args.video).frames()]
    yield "detected in every frame", collect(map(pipeline.image, images))
    boxes = [(*p.min(axis=0), *(np.ptp(p, axis=0))) for p in truth["landmarks"]]
    calibration = CALIBRATIONS["landmarks"]
    yield (
        "two passes from OpenFace's box",
        collect(pipeline.image(i, [b], calibration) for i, b in zip(images, boxes, strict=True)),
    )
    yield "ideal crops", ideal(nets, images, truth)
    yield (
        "constant predictor",
        {k: np.broadcast_to(v.mean(axis=0), v.shape) for k, v in truth.items()},
    )


def collect(results) -> Values:
    """The largest face of each frame; NaN where there is none."""
    found: Values = {"landmarks": [], "pose": [], "aus": []}
    layout = Layout()
    for result in results:
        face = max(result.faces, key=lambda f: f.global_params[0], default=None)
        height, width = result.frame.image.shape[:2]
        pose = face and layout.pose(face, Camera.usual(width, height))
        found["landmarks"].append(face.landmarks if face else np.full((NUM_LANDMARKS, 2), np.nan))
        found["pose"].append(np.r_[pose.position, pose.angles] if pose else np.full(6, np.nan))
        found["aus"].append(face.au_intensities if face else np.full(len(AU_NAMES), np.nan))
    return {name: np.array(values) for name, values in found.items()}


def ideal(nets, images, truth: Values) -> Values:
    """Both nets on the standard crops of OpenFace's own landmarks, one pass."""
    from mlx_faceau.core.geometry import standard_crop_matrix
    from mlx_faceau.video.results import FaceResult, Frame, FrameResult

    results = []
    for image, points in zip(images, truth["landmarks"], strict=True):
        crops = FrameCrops(image)
        shape = fit_landmarks(nets[0], crops, [standard_square(points)])[0]
        matrix = standard_crop_matrix(points)
        aus = nets[1].predict_batch(crops.crop(matrix)[None])["au_intensities"][0]
        face = FaceResult(
            0, 1.0, True, shape.landmarks, shape.global_params, shape.local_params, matrix, aus
        )
        results.append(FrameResult(Frame(0, 0.0, image), (face,)))
    return collect(results)


def compare(name: str, truth: Values, values: Values) -> dict[str, str]:
    eyes = truth["landmarks"][:, list(OUTER_EYE_CORNERS)]
    size = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1)
    miss = np.linalg.norm(values["landmarks"] - truth["landmarks"], axis=2).mean(axis=1) / size
    pose = np.abs(values["pose"] - truth["pose"])
    row = {
        "crops": name,
        "frames_without_face": int(np.isnan(miss).sum()),
        "landmark_nme_%": f"{100 * np.nanmean(miss):.2f}",
        "landmark_nme_p95_%": f"{100 * np.nanpercentile(miss, 95):.2f}",
        "position_mae_mm": " ".join(f"{v:.0f}" for v in np.nanmean(pose[:, :3], axis=0)),
        "angle_mae_degrees": " ".join(
            f"{v:.1f}" for v in np.degrees(np.nanmean(pose[:, 3:], axis=0))
        ),
        "au_mae": f"{np.nanmean(np.abs(values['aus'] - truth['aus'])):.3f}",
        "au_r_mean": f"{np.mean(correlations(values['aus'], truth['aus'])):.3f}",
    }
    for i, au in enumerate(AU_NAMES):
        row[f"{au[:4]}_mae"] = f"{np.nanmean(np.abs(values['aus'] - truth['aus'])[:, i]):.2f}"
    return row


def correlations(values: np.ndarray, truth: np.ndarray) -> list[float]:
    """Pearson's r of the action units that OpenFace saw move (standard deviation above 0.1)."""
    there = ~np.isnan(values[:, 0])
    moving = np.flatnonzero(truth[there].std(axis=0) > 0.1)
    return [
        float(np.corrcoef(values[there, i], truth[there, i])[0, 1])
        if values[there, i].std() > 0
        else 0.0
        for i in moving
    ]


if __name__ == "__main__":
    sys.exit(main())
