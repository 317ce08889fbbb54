"""Each person's neutral face as the zero of their action units.

A static model predicts some intensity for a neutral face: a low brow, a smiling mouth. In most
frames of a video most units of a person are neutral, so a low quantile of each unit over the
frames is that person's offset; it is subtracted, and negative results become 0.

Reference:
    Baltrusaitis, Mahmoud, Robinson, Cross-dataset learning and person-specific normalisation for
    automatic Action Unit detection, FERA at FG 2015.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY, NUM_AUS
from mlx_faceau.errors import counted
from mlx_faceau.video.results import FrameResult

from .openface_csv import PRESENCE_NAMES, Layout, presences

_QUANTILE = 0.3  # of a person's successful frames: below the median, which a smile may reach
MIN_FRAMES = 30  # with fewer nothing is subtracted
_STEPS = 500  # steps of the histogram: 0.01 on the scale of 0 to 5


class NeutralCalibration:
    """Histograms of intensities by person, so that memory stays flat; and the offsets from them."""

    def __init__(self) -> None:
        self._counts: dict[int, np.ndarray] = {}

    def add(self, result: FrameResult) -> None:
        """Count a frame's faces; those without success or action units are left out."""
        for face in result.faces:
            counts = self._counts.setdefault(
                face.face_id, np.zeros((NUM_AUS, _STEPS + 1), np.int64)
            )
            if face.success and face.au_intensities is not None:
                steps = np.rint(face.au_intensities / MAX_INTENSITY * _STEPS).astype(int)
                counts[np.arange(NUM_AUS), np.clip(steps, 0, _STEPS)] += 1

    def notes(self) -> list[str]:
        """One line for each face with too few frames to be calibrated."""
        frames = {face_id: int(counts[0].sum()) for face_id, counts in self._counts.items()}
        return [
            f"face {face_id}: no neutral face is subtracted: "
            f"{counted(count, 'frame')} with success, expected at least {MIN_FRAMES}"
            for face_id, count in sorted(frames.items())
            if count < MIN_FRAMES
        ]

    def offsets(self, face_id: int) -> np.ndarray:
        """(17,) intensities to subtract; zeros for a person with too few frames."""
        counts = self._counts.get(face_id)
        if counts is None or counts[0].sum() < MIN_FRAMES:
            return np.zeros(NUM_AUS)
        rank = _QUANTILE * counts.sum(axis=1, keepdims=True)
        reached = np.cumsum(counts, axis=1) > rank
        return np.asarray(reached.argmax(axis=1) * (MAX_INTENSITY / _STEPS))

    def corrected(self, face_id: int, intensities: np.ndarray) -> np.ndarray:
        """(17,) intensities in [0, 5] above the person's own neutral face."""
        return np.asarray(np.clip(intensities - self.offsets(face_id), 0.0, MAX_INTENSITY))

    def rewrite(self, path: Path, layout: Layout, csv: bool) -> None:
        """Correct a finished table of CSV or JSON lines; it is replaced whole, or not at all."""
        corrected: Callable[[str], str] = self._json_line
        if csv:
            firsts = (AU_NAMES[0], PRESENCE_NAMES[0], "face_id")
            places = [layout.columns.index(name) for name in firsts]
            corrected = partial(self._csv_line, places, layout.presence_thresholds)
        with (
            atomic_file(path) as temporary,  # the last to end: Windows replaces no open file
            path.open(encoding="utf-8") as old,
            temporary.open("w", encoding="utf-8", newline="\n") as new,  # as the rows were written
        ):
            new.write(old.readline() if csv else "")  # the header
            new.writelines(map(corrected, old))

    def _csv_line(self, places: Sequence[int], thresholds: Sequence[float], line: str) -> str:
        cells, (first, presence, face_id) = line.rstrip("\n").split(", "), places
        values = np.array(cells[first : first + NUM_AUS], np.float64)
        if values.any():  # zeros stay what they are, those of a frame without a face too
            above = self.corrected(int(cells[face_id]), values)
            written = [f"{value:.2f}" for value in above]
            cells[first : first + NUM_AUS] = written
            cells[presence : presence + NUM_AUS] = presences(written, thresholds)
        return ", ".join(cells) + "\n"

    def _json_line(self, line: str) -> str:
        row = json.loads(line)
        if "au_intensities" in row:
            values = np.array([row["au_intensities"][name] for name in AU_NAMES])
            values = np.round(self.corrected(row["face_id"], values), 4)
            row["au_intensities"] = dict(zip(AU_NAMES, values.tolist(), strict=True))
        return json.dumps(row) + "\n"
