"""Draws the pictures of the pages, all from synthetic faces: python docs/scripts/draw_pictures.py

Needs matplotlib (the extra "train"). Run it again after a change of the geometry or of the drawn
people, look at the pictures, and commit them.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.landmarks import GROUPS
from mlx_faceau.data.synthetic.marks import marks
from mlx_faceau.data.synthetic.paint import paint_face, sample_appearance
from mlx_faceau.data.synthetic.shape import shape_model

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

PICTURES = Path(__file__).resolve().parents[1] / "pictures"
SIZE = 112
FRAME = (640, 480)
SEED = 7
DPI = 80
TURN = np.radians(25)
_POINTS, _BOX, _CROP = "#e63946", "#1d3557", "#f4a261"


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        draw(PICTURES / name)
        print(PICTURES / name)


def draw_spaces(path: Path) -> None:
    """One face in frame space and in crop space, and the square between them."""
    image, points = _posed(np.radians([4, 18, 8]))
    warp = geometry.square_crop_matrix(np.array([250.0, 225.0]), 240.0)
    there = geometry.to_frame(warp, points)["landmarks"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.6), width_ratios=(4, 3), layout="constrained"
    )
    left.imshow(_photograph(image, warp))
    left.plot(*there.T, ".", color=_POINTS, ms=2)
    corners = geometry.to_frame(warp, np.array([[-0.5, -0.5], [SIZE - 0.5, SIZE - 0.5]]))
    _rectangle(left, *corners["landmarks"], _CROP, "standard crop: 1.4 x the longer side")
    _rectangle(left, there.min(axis=0), there.max(axis=0), _BOX, "bounding box of the 68 points")
    left.set(title="Frame space: pixels of the picture", xlabel="x", ylabel="y")
    left.legend(loc="lower right", fontsize=8)
    right.imshow(image)
    right.plot(*points.T, ".", color=_POINTS, ms=4)
    centre = geometry.CROP_CENTRE
    right.plot([centre], [centre], "+", color="black", ms=14)
    right.annotate("(55.5, 55.5)", (centre + 2, centre - 2), fontsize=8)
    right.set(title="Crop space: pixels of the 112 x 112 crop", xlabel="x", ylabel="y")
    right.set(xticks=[0, 28, 56, 84, 111], yticks=[0, 28, 56, 84, 111])
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def draw_landmarks(path: Path) -> None:
    """The 68 points with their numbers."""
    image, points = _posed(np.zeros(3), {"AU25_r": 4.0, "AU26_r": 3.0})
    figure, axis = plt.subplots(figsize=(7.4, 7.4), layout="constrained")
    axis.imshow(image, alpha=0.45)
    for group in GROUPS.values():
        axis.plot(*points[list(group)].T, ".-", lw=0.8, ms=4)
    for number, (x, y) in enumerate(points):
        axis.annotate(str(number), (x + 0.4, y - 0.5), fontsize=7)
    low, high = points.min(axis=0) - 4, points.max(axis=0) + 4
    axis.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xlabel="x", ylabel="y")
    axis.set_title("0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 mouth", fontsize=10)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def draw_angles(path: Path) -> None:
    """What a positive and a negative rx, ry and rz look like."""
    figure, axes = plt.subplots(2, 3, figsize=(6.6, 4.7), layout="constrained")
    for column, name in enumerate(("rx", "ry", "rz")):
        for row, sign in enumerate((1, -1)):
            angles = np.zeros(3)
            angles[column] = sign * TURN
            image, points = _posed(angles)
            axis = axes[row, column]
            axis.imshow(image)
            axis.plot(*points.T, ".", color=_POINTS, ms=2)
            axis.set_title(f"{name} = {'+' if sign > 0 else '-'}{np.degrees(TURN):.0f}°")
            axis.set_axis_off()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


DRAWINGS: dict[str, Callable[[Path], None]] = {
    "spaces.png": draw_spaces,
    "landmarks.png": draw_landmarks,
    "angles.png": draw_angles,
}


def _photograph(crop: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """A grey frame with a drawn crop where its matrix says it was cut from."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(crop, warp, FRAME, flags=flags, borderValue=(214, 214, 214))


def _posed(
    angles: np.ndarray, active: Mapping[str, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A face turned by (rx, ry, rz), resting but for active units: picture and landmarks."""
    model, rng = shape_model(), np.random.default_rng(SEED)
    units = np.array([(active or {}).get(name, 0.0) for name in AU_NAMES])
    local = units @ model.expression
    params = np.array([1.0, *angles, 0.0, 0.0])
    warp = geometry.standard_crop_matrix(geometry.project(model.mean, model.basis, params, local))
    params = geometry.transform_global_params(warp, params)
    points = geometry.project(model.mean, model.basis, params, local)
    followed = np.einsum("mp,pck->mck", marks().weights, model.basis)
    mark_points = geometry.project(marks().points, followed, params, local)
    appearance = sample_appearance(rng)
    return paint_face(points, mark_points, units, appearance, float(params[0]), rng), points


def _rectangle(axis: Any, low: np.ndarray, high: np.ndarray, color: str, label: str) -> None:
    width, height = high - low
    axis.add_patch(Rectangle(low, width, height, fill=False, ec=color, lw=1.8, label=label))


if __name__ == "__main__":
    sys.exit(main())
