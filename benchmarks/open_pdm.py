"""Builds the open PDM from ICT-FaceKit's file, and measures what it is worth.

    python benchmarks/open_pdm.py ICT.npz             # writes mlx_faceau/weights/open_pdm.txt anew
    python benchmarks/open_pdm.py ICT.npz --check     # only compares: 1 where the file differs
    python benchmarks/open_pdm.py ICT.npz --check --landmarks FACES.npz   # results/open-pdm.csv

How near do fitted shapes come to MediaPipe's landmarks of photographs (arrays ``NAME_landmarks``
(N, 68, 2), any pixels), in pixels of the 112 px crop? How exact is the pose of heads of known pose,
whose projected vertices are fitted: yaw, pitch and roll are drawn from -40 to 40 degrees at once,
under weak perspective and as cameras at 1 m and 0.6 m see them? Known pose is the rotation of
ICT-FaceKit's own axes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from timing import RESULTS, Row, write_csv

from mlx_faceau.core.geometry import euler_to_matrix, standard_crop_matrix, transform_points
from mlx_faceau.core.pdm import OPEN_PDM, OPEN_PDM_NOISE, PDM, fit_pdm, read_pdm, write_pdm
from mlx_faceau.data.labels.ict_facekit import ICTFaceKit, read_ict_facekit
from mlx_faceau.data.labels.open_pdm import OPEN_VERTICES, build_open_pdm, sample_heads

LARGEST_ANGLE = 40  # degrees
HEADS, PHOTOGRAPHS = 500, 2000  # at most so many of each set
CAMERAS = {"weak perspective": 1e9, "camera at 1 m": 1000.0, "camera at 0.6 m": 600.0}  # mm
MUST = {"reconstruction px": 0.8, "pitch error deg": 1.5, "yaw error deg": 1.5}
MUST |= {"roll error deg": 1.5}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ict", type=Path, metavar="ICT.npz")
    parser.add_argument("--check", action="store_true", help="compare, write no PDM")
    parser.add_argument("--landmarks", type=Path, metavar="FACES.npz", help="measure")
    args = parser.parse_args()
    model = read_ict_facekit(args.ict)
    built = build_open_pdm(model)
    differs = differences(built, read_pdm(OPEN_PDM)) if OPEN_PDM.exists() else "missing"
    print(f"{OPEN_PDM.name}: {differs or 'is what the model gives'}")
    if differs and args.check:
        return 1
    if differs:  # signed zeros are no difference: the file and its hash stay
        write_pdm(OPEN_PDM, built)
    if args.landmarks:
        with np.load(args.landmarks) as file:
            faces = {
                name.removesuffix("_landmarks"): crops(file[name], PHOTOGRAPHS)
                for name in file
                if name.endswith("_landmarks")
            }
        write_csv(RESULTS / "open-pdm.csv", measure(model, read_pdm(OPEN_PDM), faces))
    return 0


def differences(built: PDM, shipped: PDM) -> str:
    """Empty where both are the same but for the last digits of another BLAS."""
    parts = (("mean", 1e-3), ("basis", 1e-4), ("variances", 1e-2))
    found = {name: np.abs(getattr(built, name) - getattr(shipped, name)).max() for name, _ in parts}
    return ", ".join(
        f"{name} differs by {found[name]:.2g}" for name, most in parts if found[name] > most
    )


def crops(landmarks: np.ndarray, most: int = sys.maxsize) -> np.ndarray:
    """Those that are finite, or some of them, in pixels of their standard crops."""
    found = np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))
    chosen = found if len(found) <= most else np.random.default_rng(0).permutation(found)[:most]
    faces = landmarks[chosen].astype(np.float64)
    return np.stack([transform_points(standard_crop_matrix(face), face) for face in faces])


def measure(model: ICTFaceKit, pdm: PDM, faces: dict[str, np.ndarray]) -> list[Row]:
    heads = {name: projected_heads(model, distance) for name, distance in CAMERAS.items()}
    rows = [
        row("reconstruction px", name, fit_pdm(pdm, points, OPEN_PDM_NOISE).error)
        for name, points in (faces | {name: points for name, (points, _) in heads.items()}).items()
    ]
    for name, (points, angles) in heads.items():
        errors = pose_errors(pdm, points, angles, OPEN_PDM_NOISE)
        rows += [row(f"{axis} error deg", name, errors[axis]) for axis in errors]
    return [*rows, row("share of shape in modes", "expressions", expression_shares(model, pdm))]


def row(what: str, name: str, values: np.ndarray) -> Row:
    return {
        "what": what,
        "faces": name,
        "count": len(values),
        "mean": f"{values.mean():.3f}",
        "p95": f"{np.percentile(values, 95):.3f}",
        "must": MUST.get(what, ""),
    }


def projected_heads(model: ICTFaceKit, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, 68, 2) crop pixels of the PDM's vertices, and (N, 3) angles; not the PDM's samples.

    The camera looks at the middle of the points from a distance in mm.
    """
    generator = np.random.default_rng(1234)
    neutral, expression = sample_heads(model, OPEN_VERTICES, HEADS, generator)
    angles = np.radians(generator.uniform(-LARGEST_ANGLE, LARGEST_ANGLE, (HEADS, 3)))
    shapes = neutral + expression
    shapes -= shapes.mean(axis=1, keepdims=True)
    seen = shapes @ euler_to_matrix(angles).transpose(0, 2, 1)
    return crops(seen[..., :2] * distance / (distance + seen[..., 2:])), angles


def pose_errors(
    pdm: PDM, points: np.ndarray, angles: np.ndarray, noise: float
) -> dict[str, np.ndarray]:
    """Degrees between the angles found and known, by axis."""
    errors = np.degrees(np.abs(fit_pdm(pdm, points, noise).global_params[:, 1:4] - angles))
    return dict(zip(("pitch", "yaw", "roll"), errors.T, strict=True))


def expression_shares(model: ICTFaceKit, pdm: PDM) -> np.ndarray:
    """Of each expression that moves the points by a millimetre or more, the share in the modes."""
    moves = model.expression[:, OPEN_VERTICES]
    moves = moves[np.linalg.norm(moves, axis=(1, 2)) > 1]
    amounts = np.tensordot(moves, pdm.basis, 2)
    return np.asarray((amounts**2).sum(axis=1) / (moves**2).sum(axis=(1, 2)))


if __name__ == "__main__":
    sys.exit(main())
