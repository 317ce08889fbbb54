"""How each detector's box maps to the standard crop's square, measured on labelled faces.

    python benchmarks/box_calibration.py FACES_TRAIN.npz FACES_VAL.npz --yunet FILE.onnx

Every crop of the files *is* its standard square. It is enlarged by a random factor, put at a random
place of a larger picture (edges replicated) and shown to the detectors. MTCNN's boxes come with
the files. Medians are taken over training people, the error that is left over validation people.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mlx_faceau.architectures import IMAGE_SIZE
from mlx_faceau.detect import DlibDetector, YuNetDetector
from mlx_faceau.geometry import CROP_CENTRE, transform_points

RESULT = Path(__file__).parent / "results" / "box-calibration.csv"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=1500)
    args = parser.parse_args()
    detectors = [YuNetDetector(args.yunet), DlibDetector()]
    train = measure(args.train, args.faces, detectors)
    val = measure(args.val, args.faces, detectors)
    rows = [line(name, train[name], val[name]) for name in train]
    with RESULT.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(RESULT.read_text())
    return 0


def measure(path: Path, count: int, detectors: list) -> dict[str, np.ndarray]:
    """Boxes in crop pixels (N, 4) of each detector; a missed face is a row of NaN."""
    boxes: dict[str, list[np.ndarray]] = {detector.name: [] for detector in detectors}
    boxes["mtcnn"] = []
    for crop, bbox, warp, generator in faces(path, count):
        factor = generator.uniform(1.2, 4.0)
        margins = generator.integers(20, 300, 4)
        size = round(IMAGE_SIZE * factor)
        picture = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
        picture = cv2.copyMakeBorder(picture, *map(int, margins), cv2.BORDER_REPLICATE)
        corner = np.array([margins[2], margins[0]])
        for detector in detectors:
            found = detector.detect(picture)
            best = max(found, key=lambda d: d.score, default=None)
            box = np.full(4, np.nan) if best is None else np.array(best.box)
            box[:2] = (box[:2] - corner + 0.5) * IMAGE_SIZE / size - 0.5
            box[2:] *= IMAGE_SIZE / size
            boxes[detector.name].append(box)
        scale = np.hypot(warp[0, 0], warp[1, 0])
        boxes["mtcnn"].append(np.r_[transform_points(warp, bbox[None, :2])[0], bbox[2:] * scale])
    return {name: np.array(rows) for name, rows in boxes.items()}


def faces(path: Path, count: int) -> Iterator[tuple[np.ndarray, ...]]:
    data = np.load(path)
    jpeg, offsets = data["jpeg"], data["jpeg_offsets"]
    bbox, warp = data["bbox"], data["warp"]
    generator = np.random.default_rng(0)
    for index in generator.permutation(len(bbox))[:count]:
        crop = cv2.imdecode(jpeg[offsets[index] : offsets[index + 1]], cv2.IMREAD_COLOR)
        yield crop, bbox[index], warp[index], generator


def line(name: str, train: np.ndarray, val: np.ndarray) -> dict[str, object]:
    right, down, side = np.nanmedian(fractions(train), axis=0)
    size = np.sqrt(val[:, 2] * val[:, 3])
    errors = fractions(val) - (right, down, 0)
    shift = np.hypot(errors[:, 0], errors[:, 1]) * size / IMAGE_SIZE
    scale = np.abs(np.log(side * size / IMAGE_SIZE))
    return {
        "detector": name,
        "right": f"{right:.4f}",
        "down": f"{down:.4f}",
        "side": f"{side:.4f}",
        "val_faces": len(val),
        "val_missed": int(np.isnan(val[:, 0]).sum()),
        "val_shift_median": f"{np.nanmedian(shift):.3f}",
        "val_shift_p95": f"{np.nanpercentile(shift, 95):.3f}",
        "val_log_scale_median": f"{np.nanmedian(scale):.3f}",
        "val_log_scale_p95": f"{np.nanpercentile(scale, 95):.3f}",
    }


def fractions(boxes: np.ndarray) -> np.ndarray:
    """(N, 3): right, down and side of the crop's square, in sizes of each box."""
    size = np.sqrt(boxes[:, 2] * boxes[:, 3])
    centre = boxes[:, :2] + (boxes[:, 2:] - 1) / 2
    shift = (CROP_CENTRE - centre) / size[:, None]
    return np.column_stack([shift, IMAGE_SIZE / size])


if __name__ == "__main__":
    sys.exit(main())
