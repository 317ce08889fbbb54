"""Builds the open PDM from ICT-FaceKit's file, and measures what it is worth.

    python benchmarks/open_pdm.py ICT.npz             # writes mlx_faceau/weights/open_pdm.txt anew
    python benchmarks/open_pdm.py ICT.npz --check     # only compares: 1 where the file differs
    python benchmarks/open_pdm.py ICT.npz --check --landmarks FACES.npz --model face_landmarker.task

With ``--landmarks`` also the questions of ``results/open-pdm.csv`` and ``.png``. How near do fitted
shapes come to MediaPipe's landmarks of photographs (arrays ``NAME_landmarks`` (N, 68, 2), any
pixels), in pixels of the 112 px crop? How exact is the pose of heads of known pose, yaw, pitch and
roll each drawn from -40 to 40 degrees at once, identities and expressions sampled anew, from their
projected vertices: under weak perspective, and as cameras at 1 m and 0.6 m see them? Which noise
suits the fit: where it equals what the fit leaves, and shapes vary as the variances say? With
``--model`` heads are also painted and shown to MediaPipe: picture, mesh, landmarks, fit, pose.
Known pose is the rotation of ICT-FaceKit's own axes, whoever the head is.
"""

import argparse
import csv
import sys
from pathlib import Path

import cv2
import head_renderer
import numpy as np
from timing import RESULTS

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.geometry import (
    euler_to_matrix,
    project,
    standard_crop_matrix,
    transform_points,
)
from mlx_faceau.core.pdm import OPEN_PDM, OPEN_PDM_NOISE, PDM, fit_pdm, read_pdm, write_pdm
from mlx_faceau.data.labels.ict_facekit import ICTFaceKit, read_ict_facekit
from mlx_faceau.data.labels.open_pdm import OPEN_VERTICES, build_open_pdm, sample_heads

RESULT = RESULTS / "open-pdm.csv"
NOISES = (0.25, 0.5, 1.0, 2.0)
LARGEST_ANGLE = 40  # degrees
HEADS, PICTURES, PHOTOGRAPHS = 500, 40, 2000  # at most so many of each set
MUST = {"reconstruction px": 0.8, "pitch error deg": 1.5, "yaw error deg": 1.5}
MUST |= {"roll error deg": 1.5}
CAMERAS = {"weak perspective": 1e9, "camera at 1 m": 1000.0, "camera at 0.6 m": 600.0}  # mm
Row = dict[str, str | int | float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ict", type=Path, metavar="ICT.npz")
    parser.add_argument("--check", action="store_true", help="compare, write no PDM")
    parser.add_argument("--landmarks", type=Path, metavar="FACES.npz", help="measure")
    parser.add_argument("--model", type=Path, metavar="face_landmarker.task")
    args = parser.parse_args()
    model = read_ict_facekit(args.ict)
    built = build_open_pdm(model)
    differs = differences(built, read_pdm(OPEN_PDM)) if OPEN_PDM.exists() else "missing"
    sys.stdout.write(f"{OPEN_PDM.name}: {differs or 'is what the model gives'}\n")
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
        measure(model, read_pdm(OPEN_PDM), faces, args.model)
    return 0


def differences(built: PDM, shipped: PDM) -> str:
    """Empty where both are the same but for the last digits of another BLAS."""
    parts = (("mean", 1e-3), ("basis", 1e-4), ("variances", 1e-2))
    apart = {name: np.abs(getattr(built, name) - getattr(shipped, name)).max() for name, _ in parts}
    return ", ".join(
        f"{name} differs by {apart[name]:.2g}" for name, most in parts if apart[name] > most
    )


def crops(landmarks: np.ndarray, most: int = sys.maxsize) -> np.ndarray:
    """Those that are finite, or some of them, in pixels of their standard crops."""
    found = np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))
    chosen = found if len(found) <= most else np.random.default_rng(0).permutation(found)[:most]
    faces = landmarks[chosen].astype(np.float64)
    return np.stack([transform_points(standard_crop_matrix(face), face) for face in faces])


def measure(
    model: ICTFaceKit, pdm: PDM, faces: dict[str, np.ndarray], landmarker: Path | None
) -> None:
    heads = {name: projected_heads(model, distance) for name, distance in CAMERAS.items()}
    pictures: list[np.ndarray] = []
    if landmarker is not None:
        points, angles, pictures = photographed_heads(model, landmarker)
        heads["painted heads, MediaPipe"] = (points, angles)
    rows, missed, turned = [], {}, {}
    for name, points in (faces | {name: points for name, (points, _) in heads.items()}).items():
        missed[name] = fit_pdm(pdm, points, OPEN_PDM_NOISE).error
        rows.append(row("reconstruction px", name, OPEN_PDM_NOISE, missed[name]))
    for name, (points, angles) in heads.items():
        errors = pose_errors(pdm, points, angles, OPEN_PDM_NOISE)
        turned[name] = (np.degrees(angles), errors)
        rows += [row(f"{axis} error deg", name, OPEN_PDM_NOISE, errors[axis]) for axis in errors]
    mixed = np.random.default_rng(0).permutation(np.concatenate(list(faces.values())))[:1000]
    for noise in NOISES:
        fits = reconstruction(pdm, mixed, noise)
        rows += [row(what, "photographs, mixed", noise, values) for what, values in fits]
        errors = pose_errors(pdm, *heads["weak perspective"], noise)
        rows += [
            row(f"{axis} error deg", "weak perspective, by noise", noise, errors[axis])
            for axis in errors
        ]
    share = expression_shares(model, pdm)
    rows.append(row("share of shape in modes", "expressions of ICT-FaceKit", 0.0, share))
    with atomic_file(RESULT) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(RESULT.read_text())
    plot(pdm, {name: missed[name] for name in faces}, turned, pictures)


def row(what: str, name: str, noise: float, values: np.ndarray) -> Row:
    return {
        "what": what,
        "faces": name,
        "noise_px": noise,
        "count": len(values),
        "mean": f"{values.mean():.3f}",
        "p95": f"{np.percentile(values, 95):.3f}",
        "must": MUST.get(what, ""),
    }


def reconstruction(pdm: PDM, points: np.ndarray, noise: float) -> list[tuple[str, np.ndarray]]:
    """Mean distance of each face; what is left per coordinate; squared parameters / variance."""
    fit = fit_pdm(pdm, points, noise)
    left = points - project(pdm.mean, pdm.basis, fit.global_params, fit.local_params)
    equations = left[0].size
    unbiased = equations / (equations - 6 - len(pdm.variances))
    return [
        ("reconstruction px", fit.error),
        ("residual deviation px", np.sqrt((left**2).mean(axis=(1, 2)) * unbiased)),
        ("squared parameter / variance", (fit.local_params**2 / pdm.variances).mean(axis=1)),
    ]


def sampled_heads(
    model: ICTFaceKit, vertices: np.ndarray | slice, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, V, 3) mm around the middle of the 68 points, and (N, 3) angles; not the PDM's samples."""
    generator = np.random.default_rng(1234)
    neutral, expression = sample_heads(model, vertices, count, generator)
    angles = np.radians(generator.uniform(-LARGEST_ANGLE, LARGEST_ANGLE, (count, 3)))
    return neutral + expression, angles


def projected_heads(model: ICTFaceKit, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, 68, 2) crop pixels of the PDM's vertices, and (N, 3) angles."""
    shapes, angles = sampled_heads(model, OPEN_VERTICES, HEADS)
    shapes -= shapes.mean(axis=1, keepdims=True)
    seen = [
        head_renderer.see(shape, turn, 400, distance, 300)[:, :2]
        for shape, turn in zip(shapes, euler_to_matrix(angles), strict=True)
    ]
    return crops(np.stack(seen)), angles


def photographed_heads(
    model: ICTFaceKit, landmarker: Path
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """What MediaPipe sees of painted heads, 1 m away; those that it misses are left out."""
    from mlx_faceau.data.labels.face_mesh import FaceMesh, Pyramid
    from mlx_faceau.data.labels.mediapipe import IBUG, find_faces

    net, colours = FaceMesh(landmarker), head_renderer.paint(model)
    shapes, angles = sampled_heads(model, slice(None), PICTURES)
    found, pictures = [], []
    for shape, turn in zip(shapes, euler_to_matrix(angles), strict=True):
        centred = shape - shape[OPEN_VERTICES].mean(axis=0)
        seen = head_renderer.see(centred, turn, 400, 1000.0, 375)
        picture = head_renderer.draw(model, centred @ turn.T, colours, seen, 400)
        meshes = find_faces(net, Pyramid(picture))
        found.append(meshes[0].points[IBUG, :2] if meshes else np.full((68, 2), np.nan))
        pictures.append(picture)
    landmarks = np.stack(found)
    seen_at_all = np.isfinite(landmarks).all(axis=(1, 2))
    sys.stdout.write(f"MediaPipe found {seen_at_all.sum()} of {PICTURES} painted heads\n")
    return crops(landmarks), angles[seen_at_all], pictures


def pose_errors(
    pdm: PDM, points: np.ndarray, angles: np.ndarray, noise: float
) -> dict[str, np.ndarray]:
    """Degrees between the angles found and known, by axis."""
    apart = np.degrees(np.abs(fit_pdm(pdm, points, noise).global_params[:, 1:4] - angles))
    return dict(zip(("pitch", "yaw", "roll"), apart.T, strict=True))


def expression_shares(model: ICTFaceKit, pdm: PDM) -> np.ndarray:
    """Of each expression that moves the points by a millimetre or more, the share in the modes."""
    moves = model.expression[:, OPEN_VERTICES]
    moves = moves[np.linalg.norm(moves, axis=(1, 2)) > 1]
    amounts = np.tensordot(moves, pdm.basis, 2)
    return np.asarray((amounts**2).sum(axis=1) / (moves**2).sum(axis=(1, 2)))


def plot(
    pdm: PDM,
    missed: dict[str, np.ndarray],
    turned: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]],
    pictures: list[np.ndarray],
) -> None:
    """Modes, reconstruction, pose by angle, and the painted heads."""
    from matplotlib.figure import Figure

    figure = Figure((14, 10), layout="constrained")
    grid = figure.subplots(3, 6)
    for axes, mode in zip(grid[0], range(6), strict=True):
        for amount, colour in ((-2, "tab:blue"), (0, "0.7"), (2, "tab:red")):
            local = np.zeros(len(pdm.variances))
            local[mode] = amount * np.sqrt(pdm.variances[mode])
            axes.plot(*pdm.shape(local)[:, :2].T, ".", color=colour, markersize=3)
        axes.set(title=f"mode {mode + 1}, ±2 sd", aspect="equal", xticks=[], yticks=[])
        axes.invert_yaxis()
    for axes in grid[1:, :3].ravel():
        axes.remove()
    left = figure.add_subplot(grid[1, 0].get_gridspec()[1, :3])
    for name, error in missed.items():
        label = f"{name}: {len(error)}, mean {error.mean():.2f}"
        left.hist(error, 60, range=(0, 1.6), density=True, histtype="step", label=label)
    left.axvline(MUST["reconstruction px"], color="k", linestyle=":")
    left.set(title="reconstruction of MediaPipe's 68 points, px of the 112 px crop")
    left.legend()
    right = figure.add_subplot(grid[1, 0].get_gridspec()[2, :3])
    edges = np.linspace(-LARGEST_ANGLE, LARGEST_ANGLE, 9)
    for (name, (angles, found)), style in zip(turned.items(), ("-", "--", ":", "-."), strict=False):
        for column, (axis, colour) in enumerate(
            (("pitch", "tab:red"), ("yaw", "tab:blue"), ("roll", "tab:green"))
        ):
            bins = np.digitize(angles[:, column], edges[1:-1])
            means = [found[axis][bins == k].mean() if k in bins else np.nan for k in range(8)]
            label = f"{axis}, {name}: {found[axis].mean():.2f}"
            right.plot((edges[1:] + edges[:-1]) / 2, means, style, color=colour, label=label)
    right.axhline(1.5, color="k", linewidth=0.5)
    right.set(title="mean error by the angle itself, degrees", ylim=(0, 8))
    right.legend(fontsize=6, ncols=2)
    for axes, picture in zip(grid[1:, 3:].ravel(), pictures, strict=False):
        axes.imshow(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    for axes in grid[1:, 3:].ravel():
        axes.set_axis_off()
    figure.savefig(RESULT.with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    sys.exit(main())
