"""Stability of tracked landmarks, beside a detection in every frame and beside OpenFace.

    python benchmarks/tracking.py VIDEO... [--landmark-model PATH] [--detector FILE.onnx]

For each video: the largest step of the mean landmark between successive frames, in pixels and in
percent of the face's standard crop, with the frame it leads to; nothing is smoothed. OpenFace's
row comes from ``NAME.openface.csv`` beside the video, where there is one. Of several tracked
faces the one in most frames is measured; without tracks, the largest.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from timing import RESULTS, Row, timed, write_csv

from mlx_faceau.core.landmarks import NUM_LANDMARKS
from mlx_faceau.inference.predictor import load_predictor
from mlx_faceau.output.openface_csv import read_openface_csv
from mlx_faceau.video.fitting import standard_square
from mlx_faceau.video.pipeline import FacePipeline
from mlx_faceau.video.reader import Video
from mlx_faceau.video.results import FaceResult


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
    results: list[Sequence[FaceResult]] = []  # of each frame
    cpu, _ = timed(lambda: results.extend(result.faces for result in pipeline.video(path)))
    ids = Counter(face.face_id for faces in results for face in faces)
    most = max(ids, key=ids.__getitem__, default=None)
    faces = {i: face for i, found in enumerate(results) for face in found if face.face_id == most}
    row = figures(faces, cpu / len(results))
    yield {"video": path.name, "crops": "tracked", **row, "face_ids": len(ids)}
    results, frames = [], Video(path).frames()
    cpu, _ = timed(lambda: results.extend(pipeline.image(frame.image).faces for frame in frames))
    faces = {i: max(found, key=size) for i, found in enumerate(results) if found}
    row = figures(faces, cpu / len(results))
    yield {"video": path.name, "crops": "detected in every frame", **row}
    beside = path.with_suffix(".openface.csv")
    if beside.is_file():
        columns = read_openface_csv(beside)
        points = [[columns[f"{axis}_{i}"] for axis in "xy"] for i in range(NUM_LANDMARKS)]
        moved = steps(dict(enumerate(np.moveaxis(points, 2, 0))))
        yield {"video": path.name, "crops": "OpenFace", **moved}


def size(face: FaceResult) -> float:
    return float(face.global_params[0])


def figures(faces: dict[int, FaceResult], cpu: float) -> Row:
    """Figures of one face in the frames that show it; ``cpu`` is in seconds a frame."""
    confidence = [face.confidence for face in faces.values()] or [0.0]
    return {
        **steps({index: face.landmarks for index, face in faces.items()}),
        "success": f"{np.mean([face.success for face in faces.values()] or [0]):.3f}",
        "confidence_min": f"{min(confidence):.2f}",
        "confidence_median": f"{np.median(confidence):.2f}",
        "cpu_ms_a_frame": f"{1e3 * cpu:.1f}",
    }


def steps(landmarks: dict[int, np.ndarray]) -> Row:
    """Steps of the mean landmark from a frame to the next one, where both show the face."""
    frames = {"frames": str(len(landmarks))}
    pairs = [index for index in landmarks if index - 1 in landmarks]
    if not pairs:
        return frames
    centres = {index: points.mean(axis=0) for index, points in landmarks.items()}
    sizes = [np.linalg.norm(centres[i] - centres[i - 1]) for i in pairs]
    side = float(np.median([standard_square(points).side for points in landmarks.values()]))
    return {
        **frames,
        "step_max_px": f"{max(sizes):.2f}",
        "at_frame": str(pairs[int(np.argmax(sizes))]),
        "step_max_%_of_crop": f"{100 * max(sizes) / side:.2f}",
        "step_p95_px": f"{np.percentile(sizes, 95):.2f}",
        "step_median_px": f"{np.median(sizes):.2f}",
    }


if __name__ == "__main__":
    main()
