"""Calibrate a landmark net's confidence: the probability of a good fit, by observable signals.

    python benchmarks/confidence_calibration.py MODEL FACES.h5 --detector FILE.onnx --write

Every face is fitted in crops like a tracker's: nearly in place, moved, rotated, partly covered,
and with its blocks shuffled so that there is no face. A fit is good if its error is at
most 8 % of the outer eye corners' distance. Curves come from half of the people, the reliability
table from the others; the curves that ``--write`` stores in the checkpoint, from all. What is
exported from it later carries them. Take faces of people that the net was not trained on.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import isotonic_regression
from timing import RESULTS, Row, write_csv

from mlx_faceau.core.checkpoint import load_checkpoint, save_checkpoint
from mlx_faceau.core.geometry import similarity_matrix, transform_points
from mlx_faceau.core.metrics import nme
from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.evaluation.bootstrap import subjects_of
from mlx_faceau.inference.predictor import load_predictor
from mlx_faceau.video import fitting
from mlx_faceau.video.align import FrameCrops
from mlx_faceau.video.confidence import (
    GOOD_NME,
    METADATA_KEY,
    ConfidenceCurves,
    Curve,
    agreement_signal,
    marks_signal,
)
from mlx_faceau.video.detectors import Detector, open_detector
from mlx_faceau.video.tracking import detect_near

CASES = ("in place", "moved", "turned", "covered", "no face")
_BORDER = 112  # px of replicated edge around the stored crop
_FINDING_ERROR = 0.03  # of crops in place: standard deviation of shift (sides) and log side
_BINS = 40  # of a curve, before it is made monotone
_MOVED = 0.15  # of moved crops
_TURNED = np.radians(60)  # either way
# Of a fit: both signals (``marks`` is NaN where the detector saw no face), outcome, whose it is.
_FIT = np.dtype([("agreement", "f8"), ("marks", "f8"), ("good", "?"), ("person", "i8")])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--detector", required=True, help="one that marks points (YuNet's file)")
    parser.add_argument("--count", type=int, default=3000, help="faces that are drawn")
    parser.add_argument("--write", action="store_true", help="store the curves in MODEL")
    parser.add_argument("--output", type=Path, default=RESULTS / "confidence.csv")
    args = parser.parse_args()
    detector, net = open_detector(args.detector), load_predictor(args.model)
    fits = measure(net, detector, FaceDataset(args.faces), args.count)
    if np.isnan(fits["marks"]).all():
        raise SystemExit(f"{args.detector}: it marked no points in any face; give YuNet's file")
    half = fits["person"] % 2 == 0
    both = {"signal itself": ConfidenceCurves(), "calibrated": curves_of(fits[half])}
    write_csv(args.output, [row for item in both.items() for row in table(*item, fits[~half])])
    if args.write:
        checkpoint = load_checkpoint(args.model)
        metadata = {**checkpoint.metadata, METADATA_KEY: curves_of(fits).to_json()}
        save_checkpoint(checkpoint.path, checkpoint.arrays, metadata)
        sys.stdout.write(f"{checkpoint.path}: curves of {len(fits)} fits are stored\n")
    return 0


def measure(
    net: fitting.Predictor, detector: Detector, faces: FaceDataset, count: int
) -> np.ndarray:
    """(N,) fits of faces drawn at random."""
    generator = np.random.default_rng(0)
    people = np.unique(subjects_of(faces)[1], return_inverse=True)[1]
    rows = []
    for number, index in enumerate(generator.permutation(len(faces))[:count]):
        image = faces.read_images([index])[0, ..., ::-1]
        points = faces.labels["landmarks"][index].astype(np.float64)
        case = make_case(CASES[number % len(CASES)], image, points, generator)
        rows.append((*fit_of(net, detector, *case), people[index]))
    return np.array(rows, _FIT)


def make_case(
    case: str, image: np.ndarray, points: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None, fitting.Square]:
    """A frame, its landmarks (None without a face), and the square that is fitted."""
    frame = cv2.copyMakeBorder(image, *[_BORDER] * 4, cv2.BORDER_REPLICATE)
    points = points + _BORDER
    true = fitting.standard_square(points)
    spread = _MOVED if case == "moved" else _FINDING_ERROR
    shift, scale = generator.normal(0, spread, 2), generator.normal(0, spread)
    square = fitting.Square(true.centre + shift * true.side, true.side * float(np.exp(scale)))
    if case == "turned":
        matrix = similarity_matrix(1.0, float(generator.uniform(-_TURNED, _TURNED)), (0.0, 0.0))
        matrix[:, 2] = true.centre - matrix[:, :2] @ true.centre
        frame = cv2.warpAffine(frame, matrix, frame.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        points = transform_points(matrix[None], points[None])[0]
    elif case == "covered":
        left, top = _BORDER + generator.integers(0, 80, 2)
        width, height = generator.integers(30, 80, 2)
        frame[top : top + height, left : left + width] = generator.integers(0, 256, 3)
    elif case == "no face":
        size = image.shape[0] // 4
        blocks = image.reshape(4, size, 4, size, 3).swapaxes(1, 2).reshape(16, size, size, 3)
        blocks = generator.permutation(blocks).reshape(4, 4, size, size, 3).swapaxes(1, 2)
        inner = slice(_BORDER, _BORDER + image.shape[0])
        frame[inner, inner] = blocks.reshape(image.shape)
        points = None
    return frame, points, square


def fit_of(
    net: fitting.Predictor,
    detector: Detector,
    frame: np.ndarray,
    points: np.ndarray | None,
    square: fitting.Square,
) -> tuple[float, float, bool]:
    """Both signals, and whether the fit is good."""
    crops = FrameCrops(frame)
    own, other = fitting.fit_landmarks(net, crops, [square, square.moved()])
    agreement = agreement_signal(fitting.agreement_of(own.landmarks, other.landmarks, square))
    found = detect_near(detector, frame, square, int(getattr(detector, "region_side", 112)))
    marks = np.nan
    if found is not None and found.marks is not None:
        marks = marks_signal(own.landmarks, found.marks) * found.score
    good = points is not None and nme(points[None], own.landmarks[None])[0] <= GOOD_NME
    return agreement, marks, bool(good)


def curves_of(fits: np.ndarray) -> ConfidenceCurves:
    marked = fits[~np.isnan(fits["marks"])]
    return ConfidenceCurves(
        fitted_curve(marked["marks"], marked["good"]),
        fitted_curve(fits["agreement"], fits["good"]),
    )


def fitted_curve(signal: np.ndarray, good: np.ndarray) -> Curve:
    """Isotonic regression of the share of good fits in bins of equal size.

    Reference:
        Zadrozny, Elkan, Transforming classifier scores into accurate multiclass probability
        estimates, KDD 2002.
    """
    bins = np.array_split(np.argsort(signal, kind="stable"), min(_BINS, len(signal)))
    weights = np.array([len(part) for part in bins])
    signals = np.array([signal[part].mean() for part in bins])
    shares = isotonic_regression([good[part].mean() for part in bins], weights=weights).x
    levels = np.unique(shares)
    means = [
        np.average(signals[shares == level], weights=weights[shares == level]) for level in levels
    ]
    return Curve(tuple(map(float, means)), tuple(levels.tolist()))


def table(name: str, curves: ConfidenceCurves, fits: np.ndarray) -> list[Row]:
    """The reliability of either signal; Brier score: mean square of confidence less outcome."""
    rows: list[Row] = []
    for signal in ("marks", "agreement"):
        known = fits[~np.isnan(fits[signal])]
        confidence = np.array([getattr(curves, signal)(value) for value in known[signal]])
        bins = np.minimum((confidence * 10).astype(int), 9)
        for i in np.unique(bins):
            row = {"signal": signal, "curve": name, "bin": f"{i / 10:.1f}-{(i + 1) / 10:.1f}"}
            row["fits"] = str((bins == i).sum())
            row["confidence"] = f"{confidence[bins == i].mean():.3f}"
            row["measured_good"] = f"{known['good'][bins == i].mean():.3f}"
            row["brier"] = f"{np.square(confidence - known['good']).mean():.3f}"
            rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
