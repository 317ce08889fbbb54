"""Write the photographs of an archive of face squares as a folder that ``data generate`` reads.

    python benchmarks/open_photographs.py faces_open.npz --output photographs
    mlx-faceau data generate photographs --labels mediapipe --label-model face_landmarker.task \
        --subjects photographs/subjects.csv --output photographs.h5

The archive holds ``jpeg``, ``jpeg_offsets``, ``source``, ``subject`` and, where known, ``name``.
Many portraits of early members of Congress are engravings or paintings: they are left out by a rule
that was looked at on contact sheets. It keeps more paintings than it should rather than teach a net
what lines of an engraver look like.
"""

import argparse
import csv
import re
from pathlib import Path

import cv2
import numpy as np

STRICT = ("voteview", "house", "senate", "governors", "sfhq_t2i")
_FACE = 1.4 / 2.2  # side of the standard crop / side of the square
# Members of Congress are numbered by when they entered; later ones were photographed.
_LAST_DRAWN_MEMBER = 10700
_GRAIN_LIMIT = -0.0785  # of grain - 0.3 mid-tones; engravings have much grain and no mid-tones
_PAINTED_SATURATION = 45  # mean of the face; early photographs have no colour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archives", type=Path, nargs="+", help=".npz of JPEG squares")
    parser.add_argument("--sources", nargs="+", default=STRICT)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    args.output.mkdir(parents=True)
    rows, drawn = [], 0
    for path in args.archives:
        with np.load(path) as archive:
            jpeg, offsets = archive["jpeg"], archive["jpeg_offsets"]
            sources, subjects = archive["source"], archive["subject"]
            names = archive["name"] if "name" in archive else np.full(len(subjects), "")
        for row in np.flatnonzero(np.isin(sources, args.sources)):
            data = jpeg[offsets[row] : offsets[row + 1]]
            subject = str(subjects[row])
            if is_drawn(cv2.imdecode(data, cv2.IMREAD_COLOR), subject):
                drawn += 1
                continue
            file = args.output / f"{sources[row]}-{row:05d}.jpg"
            data.tofile(file)
            rows.append((file.name, str(names[row]) or subject))
    with (args.output / "subjects.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    print(f"{args.output}: {len(rows)} photographs, {drawn} engravings and paintings left out")


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
