"""How steadily tracked landmarks move, beside a detection in every frame and beside OpenFace.

    python benchmarks/tracking.py VIDEO... [--landmark-model PATH] [--detector FILE.onnx]

For each video: the largest step of the mean landmark between successive frames, in pixels and in
percent of the face's standard crop, with the frame it leads to; nothing is smoothed. OpenFace's
row comes from ``NAME.openface.csv`` beside the video, where there is one. Of several faces the one
that is seen most counts; without tracks, the largest.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from timing import RESULTS, Row, write_csv

from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.inference.predictor import load_predictor
from mlx_faceau.output.openface_csv import read_openface_csv
from mlx_faceau.video.fitting import standard_square
from mlx_faceau.video.pipeline import FacePipeline
from mlx_faceau.video.reader import Video
from mlx_faceau.video.results import FaceResult, FrameResult

COLUMNS = ("step_max_px", "at_frame", "step_max_%_of_crop", "step_p95_px", "step_median_px")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--landmark-model", default="builtin")
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS / "tracking.csv")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    net = load_predictor(args.landmark_model, threads=1)
    pipeline = FacePipeline(net, None, args.detector)
    write_csv(args.output, [row for video in args.videos for row in measure(pipeline, video)])


def measure(pipeline: FacePipeline, path: Path) -> Iterator[Row]:
    start = time.process_time()
    tracked = list(pipeline.video(path))
    cpu = time.process_time() - start
    ids = Counter(face.face_id for result in tracked for face in result.faces)
    most = ids.most_common(1)[0][0] if ids else None
    yield row(path, "tracked", tracked, lambda f: f.face_id == most, cpu, len(ids))
    start = time.process_time()
    detected = [pipeline.image(frame.image) for frame in Video(path).frames()]
    cpu = time.process_time() - start
    yield row(path, "detected in every frame", detected, lambda f: True, cpu)
    beside = path.with_suffix(".openface.csv")
    if beside.is_file():
        columns = read_openface_csv(beside)
        points = [[columns[f"{axis}_{i}"] for axis in "xy"] for i in range(NUM_LANDMARKS)]
        yield {**common(path, "OpenFace"), **steps(dict(enumerate(np.moveaxis(points, 2, 0))))}


def row(
    path: Path,
    name: str,
    results: Iterable[FrameResult],
    wanted: Callable[[FaceResult], bool],
    cpu: float,
    faces: int | None = None,
) -> Row:
    shown: dict[int, FaceResult] = {}
    for index, result in enumerate(results):
        largest = max(filter(wanted, result.faces), key=lambda f: f.global_params[0], default=None)
        if largest is not None:
            shown[index] = largest
    confidence = [face.confidence for face in shown.values()] or [0.0]
    return {
        **common(path, name),
        **steps({index: face.landmarks for index, face in shown.items()}),
        "success": f"{np.mean([face.success for face in shown.values()] or [0]):.3f}",
        "confidence_min": f"{min(confidence):.2f}",
        "confidence_median": f"{np.median(confidence):.2f}",
        "face_ids": "" if faces is None else str(faces),
        "cpu_ms_a_frame": f"{1e3 * cpu / max(1, index + 1):.1f}",
    }


def common(path: Path, name: str) -> Row:
    return {"video": path.name, "crops": name}


def steps(landmarks: dict[int, np.ndarray]) -> Row:
    """Steps of the mean landmark from a frame to the next one, where both show the face."""
    pairs = [index for index in landmarks if index - 1 in landmarks]
    if not pairs:
        return {"frames": str(len(landmarks)), **dict.fromkeys(COLUMNS, "")}
    sizes = [
        np.linalg.norm(landmarks[i].mean(axis=0) - landmarks[i - 1].mean(axis=0)) for i in pairs
    ]
    side = float(np.median([standard_square(points).side for points in landmarks.values()]))
    values = (
        f"{max(sizes):.2f}",
        str(pairs[int(np.argmax(sizes))]),
        f"{100 * max(sizes) / side:.2f}",
        f"{np.percentile(sizes, 95):.2f}",
        f"{np.median(sizes):.2f}",
    )
    return {"frames": str(len(landmarks)), **dict(zip(COLUMNS, values, strict=True))}


if __name__ == "__main__":
    main()
