"""Do made expressions carry the action unit that drives them, and who sees it?

    python benchmarks/expression_synthesis.py faces_open.npz ict_facekit.npz \
        --label-model face_landmarker.task --sources house senate sfhq_t2i --photographs 40

Each photograph gets every action unit alone at a drawn intensity. The FACS reading then reads the
moved mesh, and the mesh that the Face Landmarker finds in the made picture. Columns: correlation
and slope of either reading's change (less that of the photograph made without a change) on the
driven intensity, and the mean distance between exact landmarks and those found, in crop pixels,
which for unchanged faces is the row ``none``.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from compare import RESULTS
from make_expressions import photographs

from mlx_faceau.core.facs import AU_NAMES, NUM_AUS
from mlx_faceau.data.labels.face_mesh import FaceMesh, Mesh, Pyramid, Region
from mlx_faceau.data.labels.facs_reading import read_action_units
from mlx_faceau.data.labels.ict_facekit import read_ict_facekit
from mlx_faceau.data.labels.mediapipe import IBUG, find_faces
from mlx_faceau.data.synthetic.expression_model import ExpressionModel
from mlx_faceau.data.synthetic.expression_render import make_face
from mlx_faceau.data.synthetic.made_expressions import mesh_expressions

RESULT = RESULTS / "expression-synthesis.csv"
_ABOVE_NOTHING = 1.0  # least driven intensity
_NO_UNIT = -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("ict", type=Path)
    parser.add_argument("--label-model", type=Path, required=True)
    parser.add_argument("--sources", nargs="+")
    parser.add_argument("--photographs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    net, model = FaceMesh(args.label_model), mesh_expressions(read_ict_facekit(args.ict))
    pictures = [picture for _, _, picture in photographs(args.faces, args.sources)]
    rows = []
    for picture in (pictures[index] for index in rng.permutation(len(pictures))):
        if found := find_faces(net, Pyramid(picture), tiles=()):
            rows.append(measure(picture, found[0], net, model, rng))
        if len(rows) == args.photographs:
            break
    with args.output.open("w", newline="") as file:
        writer = csv.writer(file)
        names = "unit faces mesh_r mesh_slope picture_r picture_slope landmark_error"
        writer.writerow(names.split())
        writer.writerows(table(np.stack(rows)))
    print(args.output.read_text())


def measure(
    picture: np.ndarray, face: Mesh, net: FaceMesh, model: ExpressionModel, rng: np.random.Generator
) -> np.ndarray:
    """(18, 4): no unit, then each alone: driven, read from the moved mesh and from the picture,
    landmark error; NaN where the made face was not found."""
    rows = np.full((NUM_AUS + 1, 4), np.nan)
    resting = np.zeros((2, NUM_AUS))
    for unit in range(_NO_UNIT, NUM_AUS):
        driven = 0.0 if unit == _NO_UNIT else float(rng.uniform(_ABOVE_NOTHING, 5))
        units = driven * (np.arange(NUM_AUS) == unit)
        made = make_face(picture[..., ::-1].copy(), face.points, model, model.amounts(units))
        pyramid = Pyramid(made.image[..., ::-1].copy())
        seen = net.fit(pyramid, net.fit(pyramid, Region(np.full(2, 55.5), 120.0, 0.0)).region)
        meshes = Mesh(made.mesh, 1.0), seen
        read = np.concatenate([read_action_units(mesh.points, net.scores(mesh)) for mesh in meshes])
        if unit == _NO_UNIT:
            resting = read
        error = np.linalg.norm(seen.points[IBUG, :2] - made.landmarks, axis=1).mean()
        if seen.presence > 0.5:
            rows[unit + 1] = driven, *(read - resting)[:, unit], error
    return rows


def table(rows: np.ndarray) -> list[list[object]]:
    """Lines of the table from (photographs, 18, 4) measurements."""
    lines: list[list[object]] = []
    for number, name in enumerate(("none", *AU_NAMES)):
        driven, mesh, seen, error = rows[np.isfinite(rows[:, number]).all(axis=1), number].T
        figures: list[object] = [""] * 4
        if number:
            figures = [
                f"{value:.2f}"
                for read in (mesh, seen)
                for value in (np.corrcoef(driven, read)[0, 1], (driven @ read) / (driven @ driven))
            ]
        lines.append([name, len(driven), *figures, f"{error.mean():.2f}"])
    return lines


if __name__ == "__main__":
    main()
