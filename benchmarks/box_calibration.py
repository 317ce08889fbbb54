"""How each detector's box maps to the standard crop's square, measured on openly labelled faces.

    python benchmarks/open_photographs.py faces_open.npz --output photographs
    python benchmarks/box_calibration.py photographs --label-model face_landmarker.task \
        --yunet FILE.onnx

The photographs show one face each, with room around it. MediaPipe's Face Landmarker labels them,
enlarged twice. Each is then enlarged by a random factor, put at a random place of a larger image
(edges replicated) and shown to every detector that runs here: dlib and Apple Vision where they are
installed, YuNet with its file. Grey photographs are left out. Calibrations are medians over one
half of the people (``subjects.csv`` names them; else every photograph is a person), errors are
those of the other half. The fractions belong in ``mlx_faceau/video/box_calibration.py``.
"""

import argparse
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
from timing import write_csv

from mlx_faceau.data.format.identity import read_pairs
from mlx_faceau.data.labels.face_mesh import FaceMesh, Pyramid
from mlx_faceau.data.labels.mediapipe import IBUG, find_faces
from mlx_faceau.errors import BackendError, MissingDependency
from mlx_faceau.video.detectors import Detector, DlibDetector, VisionDetector, YuNetDetector
from mlx_faceau.video.fitting import standard_square
from mlx_faceau.video.images import read_image

_ENLARGED = 2.0  # for the labeller
_MIDDLE = 30  # px from the middle at most
_GREY = 8.0  # mean difference of colour channels below which a photograph is grey


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of photographs of one face each")
    parser.add_argument("--label-model", type=Path, required=True, metavar="FILE.task")
    parser.add_argument("--yunet", type=Path, metavar="FILE.onnx")
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("box-calibration.csv"))
    args = parser.parse_args()
    detectors = available(args.yunet)
    if not detectors:
        raise SystemExit("no detector runs here: give --yunet, or install one")
    mesh = FaceMesh(args.label_model)
    table = args.photographs / "subjects.csv"
    subjects = dict(read_pairs(table, "file,subject").values()) if table.is_file() else {}
    paths = sorted(path for path in args.photographs.iterdir() if path.suffix != ".csv")
    generator = np.random.default_rng(0)
    fractions: dict[str, list[np.ndarray]] = {detector.name: [] for detector in detectors}
    validation: list[bool] = []
    for index in generator.permutation(len(paths)):
        photograph = read_image(paths[index])
        if np.ptp(photograph.astype(np.int16), axis=2).mean() < _GREY:
            continue
        landmarks = label(mesh, photograph)
        if landmarks is None:
            continue
        subject = subjects.get(paths[index].name, paths[index].name)
        validation.append(zlib.crc32(subject.encode()) % 2 == 1)
        image, points = placed(photograph, landmarks, generator)
        for detector in detectors:
            fractions[detector.name].append(measured(detector, image, points))
        if len(validation) == args.faces:
            break
    chosen = np.array(validation)
    rows = [
        result_row(name, np.array(found)[~chosen], np.array(found)[chosen])
        for name, found in fractions.items()
    ]
    write_csv(args.output, rows)
    return 0


def available(yunet: Path | None) -> list[Detector]:
    """The detectors that run here; for the others standard error has the reason."""
    detectors: list[Detector] = [] if yunet is None else [YuNetDetector(yunet)]
    for kind in (DlibDetector, VisionDetector):
        try:
            detectors.append(kind())
        except (BackendError, MissingDependency) as error:
            sys.stderr.write(f"{kind.name}: left out: {error}\n")
    return detectors


def label(mesh: FaceMesh, photograph: np.ndarray) -> np.ndarray | None:
    """68 landmarks of the face in the middle of a photograph, or None where it is not found."""
    middle = (np.array(photograph.shape[1::-1]) - 1) / 2
    enlarged = cv2.resize(
        photograph, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC
    )
    for face in find_faces(mesh, Pyramid(enlarged), tiles=()):
        points = np.asarray((face.points[IBUG, :2] + 0.5) / _ENLARGED - 0.5, np.float64)
        if np.linalg.norm(standard_square(points).centre - middle) <= _MIDDLE:
            return points
    return None


def placed(
    photograph: np.ndarray, landmarks: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The photograph enlarged at a random place of a larger image, and the landmarks there."""
    scale = generator.uniform(1.0, 3.0)
    top, bottom, left, right = generator.integers(20, 300, 4).tolist()
    size = [round(scale * pixels) for pixels in photograph.shape[1::-1]]
    enlarged = cv2.resize(photograph, size, interpolation=cv2.INTER_CUBIC)
    image = cv2.copyMakeBorder(enlarged, top, bottom, left, right, cv2.BORDER_REPLICATE)
    factors = np.array(size) / photograph.shape[1::-1]
    return image, (landmarks + 0.5) * factors - 0.5 + [left, top]


def measured(detector: Detector, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(4,): right, down and side of the square in sizes of the box; the size over the side.

    NaN where the detector misses the face.
    """
    square = standard_square(landmarks)
    for found in sorted(detector.detect(image), key=lambda d: -d.score):
        x, y, width, height = found.box
        size = float(np.sqrt(width * height))
        shift = square.centre - [x + (width - 1) / 2, y + (height - 1) / 2]
        if np.linalg.norm(shift) < square.side / 2:
            return np.array([*(shift / size), square.side / size, size / square.side])
    return np.full(4, np.nan)


def result_row(name: str, train: np.ndarray, val: np.ndarray) -> dict[str, str]:
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
