"""Intensities of 17 action units from MediaPipe's 478 mesh points and 52 scores.

mesh (N, 478, 3) pixels, scores (N, 52) in [0, 1]
      -> aligned by forehead, nose bridge, temples and eye corners to the mean neutral face,
         averaged with its mirror image: features (N, F)
      -> channels (N, C): distances of the mesh, log-odds of scores, and non-negative amounts of
         FACS-like shapes of ICT-FaceKit, each in deviations of a population of neutral faces
      -> sums of the channels that FACS names for a unit -> anchors -> intensities (N, 17)

`docs/facs-reading.md` says what each unit is read from. All numbers are in
`weights/facs_reading.npz`, made by a script of commit 13c7a5e, `benchmarks/facs_reading.py`.

References:
    Ekman, Friesen, Hager, Facial Action Coding System, 2002.
    Li et al., Learning formation of physically-based face attributes, CVPR 2020 (ICT-FaceKit).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.errors import UsageError

MESH_POINTS = 478
NUM_SCORES = 52
_TABLE = Path(__file__).parents[2] / "weights" / "facs_reading.npz"

# Points that move with the head and hardly with the face: forehead, bridge, temples, eye corners.
STABLE_POINTS = (10, 151, 9, 8, 168, 6, 197, 109, 338, 67, 297, 103, 332, 54, 284, 21, 251, 162,
                 389, 127, 356, 33, 133, 362, 263, 234, 454)  # fmt: skip

# Regions of the mesh, each explained by shapes of ICT-FaceKit (left and right together).
_REGIONS = ("face", "upper", "middle")
FACE_SHAPES = (  # of the first
    "browDown", "browInnerUp", "browOuterUp", "cheekPuff", "cheekRaiser", "eyeBlink", "eyeSquint",
    "eyeWide", "jawOpen", "mouthDimple", "mouthFrown", "mouthFunnel", "mouthLowerDown",
    "mouthPress", "mouthPucker", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
)  # fmt: skip

# ICT-FaceKit's shapes that, at an amount of 1, are level E of a unit; at .2, .4, .6, .8 A to D.
ANCHORS: dict[str, tuple[str, ...]] = {
    "AU01_r": ("browInnerUp",), "AU02_r": ("browOuterUp",), "AU04_r": ("browDown",),
    "AU05_r": ("eyeWide",), "AU06_r": ("cheekRaiser",), "AU07_r": ("eyeSquint",),
    "AU09_r": ("noseSneer",), "AU10_r": ("mouthUpperUp",), "AU12_r": ("mouthSmile",),
    "AU14_r": ("mouthDimple",), "AU15_r": ("mouthFrown",),
    "AU17_r": ("mouthShrugLower", "mouthShrugUpper"), "AU20_r": ("mouthStretch",),
    "AU23_r": ("mouthRollLower", "mouthRollUpper"),
    "AU25_r": ("mouthLowerDown", "mouthUpperUp", "jawOpen"), "AU26_r": ("jawOpen",),
    "AU45_r": ("eyeBlink",),
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Numbers of the reading; F features, C channels, S shapes of a region."""

    mean: np.ndarray  # (478, 3) mean neutral mesh, head upright, symmetric about x = 0
    mirror: np.ndarray  # (478,) index of every point's mirror image
    half: np.ndarray  # (H,) points of the right half and the middle
    score_left: np.ndarray  # (B,) columns of the 52 scores whose log-odds are averaged
    score_right: np.ndarray  # with these
    linear: np.ndarray  # (F, C1) weights of the channels that are linear in the features
    # Per region (F, S) and (S, S): features to the right side of the triangular least-squares
    # problem in the shapes' amounts.
    projections: dict[str, np.ndarray]
    factors: dict[str, np.ndarray]
    pose: np.ndarray  # (3, C) intercept and slopes on pitch and |yaw| of neutral faces
    spread: np.ndarray  # (C,) deviation over neutral faces
    units: np.ndarray  # (C, 17) weights of the channels in each unit
    knots: np.ndarray  # (17, K) sums of channels at the levels
    levels: np.ndarray  # (K,) intensities at the knots
    neutral_scores: np.ndarray  # (52,) median scores of neutral faces
    ict_vertices: np.ndarray  # (478, 3) ICT-FaceKit's vertices around every point
    ict_weights: np.ndarray  # (478, 3) their barycentric weights


@cache
def load_table() -> Table:
    """The table in the package, read once."""
    with np.load(_TABLE) as file:
        values = dict(file)
    regions: dict[str, Any] = {
        key: {region: values.pop(f"{key}_{region}") for region in _REGIONS}
        for key in ("projections", "factors")
    }
    return Table(**values, **regions)


def rotation_and_scale(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R (N, 3, 3) and k (N,) for which k * source @ R is nearest to the target.

    Points of the source (N, P, 3) and of the target (P, 3) have means of 0.

    Reference:
        Umeyama, Least-squares estimation of transformation parameters, PAMI 1991.
    """
    left, values, right = np.linalg.svd(np.einsum("nij,ik->njk", source, target))
    signs = np.ones_like(values)
    signs[:, 2] = np.sign(np.linalg.det(left @ right))
    rotation = np.einsum("nij,nj,njk->nik", left, signs, right)
    return rotation, (values * signs).sum(1) / (source**2).sum((1, 2))


def align(mesh: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate, scale and shift meshes (N, 478, 3) so that their stable points meet a mean mesh's.

    Returns:
        (N, 478, 3) aligned meshes, scale * (mesh - centre) @ R + target's centre; (N, 3, 3) R.
    """
    stable, target = mesh[:, STABLE_POINTS], mean[STABLE_POINTS, :]
    centre = stable.mean(1, keepdims=True)
    rotation, scale = rotation_and_scale(stable - centre, target - target.mean(0))
    return (mesh - centre) @ rotation * scale[:, None, None] + target.mean(0), rotation


def features(mesh: np.ndarray, scores: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F), and pose (N, 2): pitch and absolute yaw, radians.

    Features are offsets of the aligned mesh, averaged with its mirror image, from the mean one, and
    log-odds of the scores.
    """
    aligned, rotation = align(mesh * [1.0, -1.0, -1.0], table.mean)
    mirrored = aligned[:, table.mirror] * [-1.0, 1.0, 1.0]
    offsets = ((aligned + mirrored) / 2 - table.mean)[:, table.half].reshape(len(mesh), -1)
    clipped = np.clip(scores, 0, 1)
    odds = np.log((clipped + 0.003) / (1.003 - clipped))
    pairs = (odds[:, table.score_left] + odds[:, table.score_right]) / 2
    view = rotation[:, 2]  # the camera's axis in the face's frame
    pitch, yaw = np.arctan2(view[:, 1], view[:, 2]), np.abs(np.arcsin(view[:, 0].clip(-1, 1)))
    return np.concatenate([offsets, pairs], axis=1), np.stack([pitch, yaw], axis=1)


def nonnegative_least_squares(factor: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The x (S,) >= 0 that minimises |factor x - target|, factor (S, S) of full rank.

    Reference:
        Lawson, Hanson, Solving least squares problems, 1974, chapter 23.
    """
    gram, right = factor.T @ factor, factor.T @ target
    amounts, free = np.zeros(len(right)), np.zeros(len(right), bool)
    tolerance = 1e-9 * max(1.0, float(np.abs(right).max()))
    for _ in range(3 * len(right)):
        gradient = np.where(free, -np.inf, right - gram @ amounts)
        if gradient.max() <= tolerance:
            break
        free[gradient.argmax()] = True
        while free.any():
            trial = np.zeros_like(amounts)
            trial[free] = np.linalg.solve(gram[np.ix_(free, free)], right[free])
            blocked = free & (trial <= 0)
            if not blocked.any():
                amounts = trial
                break
            step = (amounts[blocked] / (amounts[blocked] - trial[blocked])).min()
            amounts = amounts + step * (trial - amounts)
            free &= amounts > 1e-12
            amounts[~free] = 0
    return amounts


def explain(region: str, values: np.ndarray, table: Table) -> np.ndarray:
    """(N, S) amounts of the shapes that explain a region in features (N, F)."""
    factor, targets = table.factors[region], values @ table.projections[region]
    return np.array([nonnegative_least_squares(factor, target) for target in targets])


def read_action_units(mesh: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Intensities of the 17 action units of one face or several.

    Args:
        mesh: (478, 3) or (N, 478, 3) points of MediaPipe's Face Landmarker: x right and y down in
            pixels of one scale, z away from the viewer in the same scale.
        scores: (52,) or (N, 52) blendshape scores in [0, 1], in MediaPipe's order.

    Returns:
        (N, 17) float32 in [0, 5], in the order of `AU_NAMES`; rows of non-finite input are NaN.
        One face gives N = 1.

    Raises:
        UsageError: if the shapes are not those above.
    """
    mesh = np.array(mesh, np.float64, ndmin=3)
    scores = np.array(scores, np.float64, ndmin=2)
    if mesh.shape[1:] != (MESH_POINTS, 3) or scores.shape != (len(mesh), NUM_SCORES):
        raise UsageError(
            f"action units need meshes (N, 478, 3) and scores (N, 52), not {mesh.shape} and "
            f"{scores.shape}; pass MediaPipe Face Landmarker's points and blendshapes"
        )
    table = load_table()
    found = np.isfinite(mesh).all((1, 2)) & np.isfinite(scores).all(1)
    intensities = np.full((len(mesh), len(AU_NAMES)), np.nan, np.float32)
    if found.any():
        values, pose = features(mesh[found], scores[found], table)
        amounts = [explain(region, values, table) for region in _REGIONS]
        channels = np.concatenate([values @ table.linear, *amounts], axis=1)
        neutral = np.insert(pose, 0, 1, axis=1) @ table.pose
        sums = np.arcsinh((channels - neutral) / table.spread) @ table.units
        for k, knots in enumerate(table.knots):
            read = np.interp(sums[:, k], knots, table.levels)
            intensities[found, k] = read.clip(0, MAX_INTENSITY)
    return intensities
