"""Drawn people and perfect nets for the pipeline's tests: a face is an ellipse in its own colour.

Faces have a high saturation, the background has none. The fake nets really look at the crop: what
they find moves with the picture, not with the crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlx_faceau.video.box_calibration import CALIBRATIONS
from mlx_faceau.video.detectors import Detection

COLOURS = [(40, 40, 220), (40, 200, 40), (220, 60, 40), (30, 190, 220), (200, 40, 190)]


def template() -> np.ndarray:
    """(68, 2) landmarks whose bounding box is [-1, 1] in both directions."""
    turn = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


@dataclass(frozen=True)
class Blob:
    """A face: centre and half size in pixels, and who it is."""

    x: float
    y: float
    half: float
    person: int = 0

    @property
    def landmarks(self) -> np.ndarray:
        return template() * self.half + (self.x, self.y)


def draw_frame(
    blobs: Sequence[Blob], size: tuple[int, int] = (240, 320), background: int = 90
) -> np.ndarray:
    """(H, W, 3) uint8 BGR; later blobs lie in front."""
    frame = np.full((*size, 3), background, np.uint8)
    for blob in blobs:
        centre = (round(blob.x * 16), round(blob.y * 16))
        colour = COLOURS[blob.person]
        for half, shade in ((blob.half, colour), (blob.half * 0.3, tuple(c // 2 for c in colour))):
            axes = (round(half * 16), round(half * 16))
            cv2.ellipse(frame, centre, axes, 0, 0, 360, shade, -1, cv2.LINE_AA, shift=4)
    return frame


def boxes_of(image: np.ndarray) -> list[tuple[float, float, float, float]]:
    """x, y, width, height of every coloured region; touching people of two colours are two."""
    spread = image.max(axis=2).astype(int) - image.min(axis=2)
    hue = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 0]
    boxes = []
    for colour in COLOURS:
        wanted = int(cv2.cvtColor(np.uint8([[colour]]), cv2.COLOR_BGR2HSV)[0, 0, 0])
        near = np.abs((hue.astype(int) - wanted + 90) % 180 - 90) <= 6
        mask = (near & (spread > 60)).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        boxes += [tuple(map(float, stats[i, :4])) for i in range(1, count) if stats[i, 4] > 20]
    return boxes


class BlobDetector:
    """Finds every blob; counts its calls."""

    name = "blobs"
    calibration = CALIBRATIONS["landmarks"]

    def __init__(self, score: float = 0.9) -> None:
        self.score = score
        self.calls = 0

    def detect(self, frame: np.ndarray) -> list[Detection]:
        self.calls += 1
        return [Detection(box, self.score) for box in boxes_of(frame)]


class BlobLandmarks:
    """A perfect landmark net: the blob nearest the crop's middle, or a mean face without one."""

    def predict_batch(self, crops: np.ndarray) -> dict[str, Any]:
        landmarks = np.stack([self._landmarks(crop) for crop in crops]).astype(np.float32)
        middle = (landmarks.max(axis=1) + landmarks.min(axis=1)) / 2
        scale = np.ptp(landmarks[:, :, 0], axis=1) / 140
        pose = np.zeros((len(crops), 6), np.float32)
        pose[:, 0], pose[:, 4:] = scale, middle
        return {
            "landmarks": landmarks,
            "global_params": pose,
            "local_params": np.zeros((len(crops), 34), np.float32),
        }

    def _landmarks(self, crop: np.ndarray) -> np.ndarray:
        boxes = boxes_of(crop)
        if not boxes:
            return template() * 40 + 55.5
        x, y, width, height = min(
            boxes, key=lambda b: np.hypot(b[0] + b[2] / 2 - 56, b[1] + b[3] / 2 - 56)
        )
        half = np.array([(width - 1) / 2, (height - 1) / 2])
        return template() * half + (x + half[0], y + half[1])


class BlobAUs:
    """An action unit net that reads the person: every intensity is its number plus one half."""

    def predict_batch(self, crops: np.ndarray) -> dict[str, Any]:
        middle = crops[:, 20, 56].astype(int)
        people = [min(range(5), key=lambda i: np.abs(COLOURS[i] - pixel).sum()) for pixel in middle]
        return {"au_intensities": np.repeat(np.float32(people)[:, None] + 0.5, 17, axis=1)}


def write_video(path: Path, frames: Sequence[np.ndarray], rate: float = 25.0) -> Path:
    """Frames as a video file; MPEG-4 blurs them a little."""
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path
