"""Write the photographs of an archive of face squares as a folder that ``data generate`` reads.

    python benchmarks/open_photographs.py faces_open.npz --output photographs
    mlx-faceau data generate photographs --labels mediapipe --label-model face_landmarker.task \
        --subjects photographs/subjects.csv --output photographs.h5

The archive holds ``jpeg``, ``jpeg_offsets``, ``source``, ``subject`` and, where known, ``name``.
With ``--openface faces_open_openface.npz`` (research only) the output has only the faces that
OpenFace labels well, each with its CSV, for ``data generate photographs/*.jpg --labels
openface-csv``. ``--people faces_train.npz`` gives people of its names its subjects, so that a
training on both files keeps a person on one side.
Many portraits of early members of Congress are engravings or paintings. A rule on grain, mid-tones
and colour leaves them out; it was checked on contact sheets. It removes engravings reliably and
keeps some paintings.
"""

import argparse
import csv
import re
from pathlib import Path

import cv2
import numpy as np

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.geometry import transform_global_params, transform_points
from mlx_faceau.output.openface_csv import GROUPS

STRICT = ("voteview", "house", "senate", "governors", "sfhq_t2i")
_FACE = 1.4 / 2.2  # side of the standard crop / side of the square
# Members of Congress are numbered by when they entered; later ones were photographed.
_LAST_DRAWN_MEMBER = 10700
_GRAIN_LIMIT = -0.0785  # of grain - 0.3 mid-tones; engravings have much grain and no mid-tones
_MAX_NME = 0.08  # of OpenFace's landmarks from an independent detector's
_PAINTED_SATURATION = 45  # mean of the face; early photographs have no colour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archives", type=Path, nargs="+", help=".npz of JPEG squares")
    parser.add_argument("--sources", nargs="+", default=STRICT)
    parser.add_argument("--openface", type=Path, help=".npz of OpenFace's labels of one archive")
    parser.add_argument("--people", type=Path, help=".npz whose subjects end in people's names")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    args.output.mkdir(parents=True)
    rows, drawn, known = [], 0, {}
    if args.people:
        with np.load(args.people) as archive:
            known = {str(who).split(":", 1)[1]: str(who) for who in archive["subject"]}
    for path in args.archives:
        with np.load(path) as archive:
            jpeg, offsets = archive["jpeg"], archive["jpeg_offsets"]
            sources, subjects = archive["source"], archive["subject"]
            names = archive["name"] if "name" in archive else np.full(len(subjects), "")
            labels = read_openface(args.openface, archive["warp"]) if args.openface else None
        for row in np.flatnonzero(np.isin(sources, args.sources)):
            if labels is not None and row not in labels:
                continue
            data = jpeg[offsets[row] : offsets[row + 1]]
            subject = str(subjects[row])
            if is_drawn(cv2.imdecode(data, cv2.IMREAD_COLOR), subject):
                drawn += 1
                continue
            file = args.output / f"{sources[row]}-{row:05d}.jpg"
            data.tofile(file)
            if labels is not None:
                write_table(file.with_suffix(".csv"), labels[row])
            name = str(names[row])
            rows.append((file.name, known.get(name, name or subject)))
    with (args.output / "subjects.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    print(f"{args.output}: {len(rows)} photographs, {drawn} engravings and paintings left out")


def read_openface(path: Path, warps: np.ndarray) -> dict[int, np.ndarray]:
    """By row of the archive (193,) landmarks x, y, PDM parameters and intensities, in the square.

    Args:
        path: ``index`` (N,) rows of the archive, ``nme``, and labels in source pixels.
        warps: (rows, 2, 3) source pixels to the square's.
    """
    with np.load(path) as archive:
        labels = {name: archive[name] for name in archive.files}
    faces = {}
    for n in np.flatnonzero(labels["nme"] < _MAX_NME).tolist():
        warp = warps[labels["index"][n]].astype(float)
        points = transform_points(warp, labels["landmarks"][n])
        pose = transform_global_params(warp, labels["global_params"][n])
        parts = [*points.T, pose, labels["local_params"][n], labels["au"][n]]
        faces[int(labels["index"][n])] = np.concatenate(parts)
    return faces


def write_table(path: Path, values: np.ndarray) -> None:
    """The values of one face as OpenFace's CSV of one frame."""
    columns = [*GROUPS["2d"], *GROUPS["params"], *AU_NAMES]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "timestamp", "confidence", "success", *columns])
        writer.writerow([1, 0, 1, 1, *(f"{value:.6f}" for value in values)])


def is_drawn(square: np.ndarray, subject: str) -> bool:
    """Whether a portrait (H, W, 3) uint8 BGR is an engraving or a painting."""
    member = re.fullmatch(r"vv:(\d+)", subject)
    if not member or int(member[1]) > _LAST_DRAWN_MEMBER:
        return False
    margin = round(len(square) * (1 - _FACE) / 2)
    face = cv2.resize(square[margin:-margin, margin:-margin], (112, 112))
    if cv2.cvtColor(face, cv2.COLOR_BGR2HSV)[..., 1].mean() > _PAINTED_SATURATION:
        return True
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)[30:100, 30:82].astype(float)
    grain = (grey - cv2.GaussianBlur(grey, (0, 0), 1.2)).std() / (grey.std() + 5)
    mid_tones = ((grey > 50) & (grey < 205)).mean()
    return bool(grain - 0.3 * mid_tones > _GRAIN_LIMIT)


if __name__ == "__main__":
    main()
