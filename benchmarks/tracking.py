"""Stability of tracked landmarks, beside a detection in every frame and beside OpenFace.

    python benchmarks/tracking.py VIDEO... [--landmark-model PATH] [--detector FILE.onnx]

For each video: the largest step of the mean landmark between successive frames, in pixels and in
percent of the face's standard crop, with the frame it leads to; nothing is smoothed. OpenFace's
row comes from ``NAME.openface.csv`` beside the video, where there is one. Of several tracked
faces the one in most frames is measured; without tracks, the largest.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
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
    start = time.process_time()
    tracked = list(pipeline.video(path))
    cpu = time.process_time() - start
    ids = Counter(face.face_id for result in tracked for face in result.faces)
    most = ids.most_common(1)[0][0] if ids else None
    faces = [[face for face in result.faces if face.face_id == most] for result in tracked]
    yield {"video": path.name, "crops": "tracked", **figures(faces, cpu), "face_ids": len(ids)}
    start = time.process_time()
    faces = [pipeline.image(frame.image).faces for frame in Video(path).frames()]
    cpu = time.process_time() - start
    yield {"video": path.name, "crops": "detected in every frame", **figures(faces, cpu)}
    beside = path.with_suffix(".openface.csv")
    if beside.is_file():
        columns = read_openface_csv(beside)
        points = [[columns[f"{axis}_{i}"] for axis in "xy"] for i in range(NUM_LANDMARKS)]
        moved = steps(dict(enumerate(np.moveaxis(points, 2, 0))))
        yield {"video": path.name, "crops": "OpenFace", **moved}


def figures(results: list[Sequence[FaceResult]], cpu: float) -> Row:
    """Figures of the largest face of each frame."""
    largest = {
        index: max(faces, key=lambda face: face.global_params[0])
        for index, faces in enumerate(results)
        if faces
    }
    confidence = [face.confidence for face in largest.values()] or [0.0]
    return {
        **steps({index: face.landmarks for index, face in largest.items()}),
        "success": f"{np.mean([face.success for face in largest.values()] or [0]):.3f}",
        "confidence_min": f"{min(confidence):.2f}",
        "confidence_median": f"{np.median(confidence):.2f}",
        "cpu_ms_a_frame": f"{1e3 * cpu / max(1, len(results)):.1f}",
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
