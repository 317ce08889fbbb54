"""How each detector's box maps to the standard crop's square, measured on labelled faces.

    python benchmarks/box_calibration.py TRAIN.h5 VAL.h5 --yunet FILE.onnx --boxes mtcnn
    python benchmarks/box_calibration.py TRAIN.h5 VAL.h5        # on a Mac: Apple Vision

Takes training files of other people each. A face's crop is enlarged by a random factor, put at a
random place of a larger picture (edges replicated) and shown to every detector that runs here: dlib
and Apple Vision where they are installed, YuNet with its file. ``--boxes`` says whose the files'
own boxes are. Medians are taken over the first file, the error that is left over the second.
Detectors that do not run here keep their lines in the result; the fractions of a new one belong
into ``mlx_faceau/video/box_calibration.py``.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from timing import RESULTS, write_csv

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.geometry import transform_points
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.schema import opened
from mlx_faceau.errors import BackendError, MissingDependency
from mlx_faceau.video.detectors import Detector, DlibDetector, VisionDetector, YuNetDetector
from mlx_faceau.video.fitting import standard_square

RESULT = RESULTS / "box-calibration.csv"
Boxes = dict[str, np.ndarray]  # by detector (N, 4); a missed face is a row of NaN


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--yunet", type=Path, metavar="FILE.onnx")
    parser.add_argument("--boxes", metavar="NAME", help="detector that the files' own boxes are of")
    parser.add_argument("--faces", type=int, default=1500)
    args = parser.parse_args()
    detectors = available(args.yunet)
    train, val = (measure(path, args, detectors) for path in (args.train, args.val))
    if not train[0]:
        raise SystemExit("no detector runs here: give --yunet or --boxes, or install one")
    rows = [line(name, *(fractions_of(name, part) for part in (train, val))) for name in train[0]]
    write_csv(RESULT, rows, key="detector")
    return 0


def available(yunet: Path | None) -> list[Detector]:
    """The detectors that run here; the others say why not."""
    detectors: list[Detector] = [] if yunet is None else [YuNetDetector(yunet)]
    for kind in (DlibDetector, VisionDetector):
        try:
            detectors.append(kind())
        except (BackendError, MissingDependency) as error:
            sys.stderr.write(f"{kind.name}: left out: {error}\n")
    return detectors


def measure(
    path: Path, args: argparse.Namespace, detectors: list[Detector]
) -> tuple[Boxes, np.ndarray]:
    """Boxes in pixels of the stored crops, and the true squares (N, 3): centre and side."""
    faces = FaceDataset(path)
    chosen = np.random.default_rng(0).permutation(len(faces))[: args.faces]
    squares = [standard_square(points) for points in faces.labels["landmarks"][chosen]]
    boxes: Boxes = {detector.name: np.full((len(chosen), 4), np.nan) for detector in detectors}
    for row, (picture, corner, scale) in enumerate(pictures(faces, chosen)):
        for detector in detectors:
            best = max(detector.detect(picture), key=lambda d: d.score, default=None)
            if best is not None:
                x, y, width, height = best.box
                place = (np.array([x, y]) - corner + 0.5) / scale - 0.5
                boxes[detector.name][row] = *place, width / scale, height / scale
    if args.boxes:
        boxes[args.boxes] = own_boxes(faces, chosen)
    return boxes, np.array([[*centre, side] for centre, side in squares])


def pictures(
    faces: FaceDataset, chosen: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Each face in a picture (BGR), the crop's corner there, and how far the crop was enlarged."""
    generator = np.random.default_rng(1)
    for index in chosen:
        crop = faces.read_images([index])[0, ..., ::-1]
        size = round(IMAGE_SIZE * generator.uniform(1.2, 4.0))
        top, bottom, left, right = generator.integers(20, 300, 4).tolist()
        picture = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
        picture = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REPLICATE)
        yield picture, np.array([left, top]), size / IMAGE_SIZE


def own_boxes(faces: FaceDataset, chosen: np.ndarray) -> np.ndarray:
    """The files' boxes, which are in pixels of their frames, in pixels of the crops."""
    rows = faces.rows[chosen]
    with opened(faces.path) as file:
        boxes, warps = (file[name][:][rows].astype(float) for name in ("bboxes", "warp_matrices"))
    corners = transform_points(warps, boxes[:, None, :2])[:, 0]
    scales = np.hypot(warps[:, 0, 0], warps[:, 1, 0])
    return np.column_stack([corners, boxes[:, 2:] * scales[:, None]])


def fractions_of(name: str, part: tuple[Boxes, np.ndarray]) -> np.ndarray:
    """(N, 4): right, down and side of the square, in sizes of each box; the size over the side."""
    boxes, squares = part[0][name], part[1]
    size = np.sqrt(boxes[:, 2] * boxes[:, 3])
    centre = boxes[:, :2] + (boxes[:, 2:] - 1) / 2
    shift = (squares[:, :2] - centre) / size[:, None]
    return np.column_stack([shift, squares[:, 2] / size, size / squares[:, 2]])


def line(name: str, train: np.ndarray, val: np.ndarray) -> dict[str, str]:
    right, down, side, _ = np.nanmedian(train, axis=0)
    shift = np.hypot(val[:, 0] - right, val[:, 1] - down) * val[:, 3]
    scale = np.abs(np.log(side * val[:, 3]))
    return {
        "detector": name,
        "right": f"{right:.4f}",
        "down": f"{down:.4f}",
        "side": f"{side:.4f}",
        "val_faces": str(len(val)),
        "val_missed": str(int(np.isnan(val[:, 0]).sum())),
        "val_shift_median": f"{np.nanmedian(shift):.3f}",
        "val_shift_p95": f"{np.nanpercentile(shift, 95):.3f}",
        "val_log_scale_median": f"{np.nanmedian(scale):.3f}",
        "val_log_scale_p95": f"{np.nanpercentile(scale, 95):.3f}",
    }


if __name__ == "__main__":
    sys.exit(main())
