"""Which vertices of ICT-FaceKit lie where MediaPipe puts the 68 points on photographs?

    python benchmarks/ict_vertices.py ICT.npz FACES.npz

Prints ``OPEN_VERTICES`` of ``mlx_faceau/data/labels/open_pdm.py``. FACES.npz has ``open_landmarks``
(N, 68, 2) of photographs by MediaPipe, any pixels: every eighth face is used. In turns a PDM of the
vertices so far, at first those of the model's authors, is fitted to the faces, and each point moves
to the vertex within 12 mm whose projections come nearest to it; mirror pairs move together. The
noise of the fit falls as the vertices settle. Where any vertex lies in a fitted face is read from
the PDM's parameters, by a regression on sampled heads.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from open_pdm import crops

from mlx_faceau.core.geometry import euler_to_matrix
from mlx_faceau.core.landmarks import MIRROR
from mlx_faceau.core.pdm import PDM, Fit, fit_pdm
from mlx_faceau.data.labels.ict_facekit import ICTFaceKit, read_ict_facekit
from mlx_faceau.data.labels.open_pdm import (
    STABLE_POINTS,
    build_open_pdm,
    rotations_onto,
    sample_heads,
)

FACE = 9409  # ICT-FaceKit's vertices below belong to the face's skin
NOISES = (4, 3, 2, 1, 0.5, 0.5)  # px of the crop
REACH = 12.0  # mm
SHARE = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ict", type=Path, metavar="ICT.npz")
    parser.add_argument("faces", type=Path, metavar="FACES.npz")
    args = parser.parse_args()
    model = read_ict_facekit(args.ict)
    with np.load(args.faces) as file:
        points = crops(file["open_landmarks"])[::SHARE]
    vertices = model.landmarks68
    for noise in NOISES:
        pdm = build_open_pdm(model, vertices)
        fit = fit_pdm(pdm, points, noise)
        sys.stdout.write(f"noise {noise}: {fit.error.mean():.3f} px\n")
        vertices = moved(model, vertices, pdm, fit, points)
    sys.stdout.write(f"{vertices.tolist()}\n")
    return 0


def moved(
    model: ICTFaceKit, vertices: np.ndarray, pdm: PDM, fit: Fit, points: np.ndarray
) -> np.ndarray:
    """The vertices (68,) that come nearest to the points (N, 68, 2) in the fitted faces."""
    face = model.neutral[:FACE]
    mirror = mirror_vertices(face)
    distance = np.linalg.norm(face[:, None] - model.neutral[vertices], axis=2)
    within = np.flatnonzero(distance.min(axis=1) < REACH)
    within = within[np.isin(mirror[within], within)]
    shapes = fitted_vertices(model, vertices, within, pdm, fit)
    views = fit.global_params[:, :1, None] * euler_to_matrix(fit.global_params[:, 1:4])[:, :2]
    place = np.full(len(face), -1)
    place[within] = np.arange(len(within))

    def miss(candidates: np.ndarray, point: int) -> np.ndarray:
        seen = shapes[:, place[candidates]] @ views.transpose(0, 2, 1)
        seen += fit.global_params[:, None, 4:] - points[:, point, None]
        return np.asarray(np.linalg.norm(seen, axis=2).mean(axis=0))

    result = vertices.copy()
    for point, other in enumerate(MIRROR):
        near = within[distance[within, point] < REACH]
        if point == other:
            near = near[mirror[near] == near]
        if point <= other:
            best = near[np.argmin(miss(near, point) + miss(mirror[near], other))]
            result[point], result[other] = best, mirror[best]
    return result


def mirror_vertices(face: np.ndarray) -> np.ndarray:
    """(V,) the vertex of each mirror image."""
    nearest = [np.argmin(((face - vertex) ** 2).sum(axis=1)) for vertex in face * (-1, 1, 1)]
    return np.array(nearest)


def fitted_vertices(
    model: ICTFaceKit, vertices: np.ndarray, others: np.ndarray, pdm: PDM, fit: Fit
) -> np.ndarray:
    """(N, len(others), 3) mm in the PDM's axes."""
    both = np.r_[vertices, others]
    neutral, expression = sample_heads(model, both, 1500, np.random.default_rng(1))
    stable = neutral[:, STABLE_POINTS]
    turns = rotations_onto(pdm.mean[STABLE_POINTS], stable)
    heads = (neutral - stable.mean(axis=1, keepdims=True) + expression) @ turns
    heads += (pdm.mean - heads[:, : len(vertices)].mean(axis=0)).mean(axis=0)
    deviations = np.sqrt(pdm.variances)
    local = np.tensordot(heads[:, : len(vertices)] - pdm.mean, pdm.basis, 2) / deviations
    known = np.insert(local, 0, 1, axis=1)
    wanted = heads[:, len(vertices) :].reshape(len(heads), -1)
    weights = np.linalg.lstsq(known, wanted, rcond=None)[0]
    found = np.insert(fit.local_params / deviations, 0, 1, axis=1)
    return np.asarray((found @ weights).reshape(len(found), len(others), 3))


if __name__ == "__main__":
    sys.exit(main())
