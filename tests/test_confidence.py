"""Signals of a fit's quality, and the curves that calibrate them."""

import numpy as np
import pytest
from blobs import Blob, BlobDetector, BlobLandmarks, draw_frame

from mlx_faceau import FacePipeline
from mlx_faceau.core.architectures import LandmarkPoseConfig
from mlx_faceau.core.checkpoint import describe
from mlx_faceau.errors import CheckpointError
from mlx_faceau.video.confidence import (
    ConfidenceCurves,
    Curve,
    agreement_signal,
    box_signal,
    marks_signal,
    share_inside,
)
from mlx_faceau.video.fitting import Square, agreement_of, standard_square

FACE = Blob(100, 100, 40).landmarks
SIZE = (240, 320)
SQUARE = Square(np.array([102.0, 97.0]), 112.0)


def followed(points: np.ndarray, shift: float, scale: float) -> np.ndarray:
    """Points of a net that follows these shares of the crop's shift and growth."""
    other = SQUARE.moved()
    growth = (other.side / SQUARE.side) ** scale
    return (
        (points - SQUARE.centre) * growth + SQUARE.centre + shift * (other.centre - SQUARE.centre)
    )


def test_landmarks_that_stay_agree_and_those_that_follow_the_crop_do_not() -> None:
    assert agreement_signal(agreement_of(FACE, FACE, SQUARE)) == 1
    along = agreement_of(FACE, followed(FACE, 1.0, 1.0), SQUARE)
    assert along.share == pytest.approx(1)
    np.testing.assert_allclose(along.gain, 1)
    assert agreement_signal(along) == pytest.approx(np.exp(-1 / 0.36))


def test_gains_of_shift_and_scale_are_told_apart() -> None:
    centred = FACE - FACE.mean(axis=0) + SQUARE.centre
    np.testing.assert_allclose(
        agreement_of(centred, followed(centred, 0.3, 0.0), SQUARE).gain, (0.3, 0.3, 0.0), atol=1e-9
    )
    np.testing.assert_allclose(
        agreement_of(centred, followed(centred, 0.0, 0.7), SQUARE).gain, (0.0, 0.0, 0.7), atol=1e-9
    )


def test_agreement_does_not_depend_on_the_size_of_the_face() -> None:
    large = Square(SQUARE.centre * 3, SQUARE.side * 3)
    one = agreement_of(FACE, FACE + 2, SQUARE)
    assert agreement_of(FACE * 3, (FACE + 2) * 3, large).share == pytest.approx(one.share)


def marks_of(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose and corners of the mouth as a detector would mark them."""
    right, left = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    return np.stack([right, left, landmarks[30], landmarks[48], landmarks[54]])


def test_the_marks_signal_falls_with_the_distance_in_spreads_of_the_marks() -> None:
    marks = marks_of(FACE)
    assert marks_signal(FACE, marks) == 1
    spread = np.sqrt(np.square(marks - marks.mean(axis=0)).sum(axis=1).mean())
    offset = FACE + np.array([0.4 * spread, 0])
    assert marks_signal(offset, marks) == pytest.approx(np.exp(-1))
    assert marks_signal(3 * offset, 3 * marks) == pytest.approx(np.exp(-1))


@pytest.mark.parametrize("degrees", [90, 180])
def test_an_upright_mean_face_on_a_face_that_lies_misses_its_marks(degrees: float) -> None:
    angle, centre = np.radians(degrees), FACE.mean(axis=0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    lying = (FACE - centre) @ turn.T + centre
    assert marks_signal(FACE, marks_of(lying)) < 0.01


def test_a_box_far_from_the_landmarks_does_not_vouch_for_them() -> None:
    own = standard_square(FACE)
    assert box_signal(own, own) == 1
    assert box_signal(own, Square(own.centre + 0.5 * own.side, own.side)) < 0.2


def test_half_of_a_face_beyond_the_edge_is_half_inside() -> None:
    assert share_inside(FACE, SIZE) == 1
    assert share_inside(Blob(0, 100, 40).landmarks, SIZE) == pytest.approx(0.5, abs=0.03)


class Described(BlobLandmarks):
    """A net whose file carries curves."""

    def __init__(self, recorded: object) -> None:
        self.recorded = recorded

    def describe(self) -> dict[str, object]:
        metadata = describe(LandmarkPoseConfig(), confidence=self.recorded)
        return {"path": "net.onnx", "metadata": metadata}


def test_the_pipeline_takes_the_curves_of_its_net() -> None:
    """Without marks: 1 - (1 - curve(agreement)) (1 - detector's word); this detector says 0."""
    image = draw_frame([Blob(120, 110, 30)])
    low = ConfidenceCurves(agreement=Curve((0.0, 1.0), (0.1, 0.3)))
    silent = BlobDetector(score=0.0)
    default, calibrated = (
        FacePipeline(net, None, silent).image(image).faces[0].confidence
        for net in (BlobLandmarks(), Described(low.to_json()))
    )
    assert default > 0.95
    assert calibrated == pytest.approx(0.1 + 0.2 * default, abs=0.01)


def test_curves_survive_their_json() -> None:
    curves = ConfidenceCurves(Curve((0.25, 0.5), (0.0, 1.0)), Curve((0.125,), (0.5,)))
    assert ConfidenceCurves.from_metadata({"confidence": curves.to_json()}, "a") == curves
    assert ConfidenceCurves.from_metadata(None, "a") == ConfidenceCurves()
    assert ConfidenceCurves.from_metadata({}, "a") == ConfidenceCurves()


@pytest.mark.parametrize(
    "recorded",
    [
        5,
        {},
        {"marks": {"signal": [0, 1], "confidence": [1, 0]}},
        {"marks": {"signal": [0, 1], "confidence": [0, 1.5]}},
        {"marks": {"signal": [0, float("nan")], "confidence": [0, 1]}},
        {"marks": {"signal": [0, 1], "confidence": [0]}},
        {"marks": {"signal": [], "confidence": []}},
    ],
)
def test_malformed_curves_are_refused_with_the_files_name(recorded: object) -> None:
    if isinstance(recorded, dict):
        recorded = {**ConfidenceCurves().to_json(), **recorded} if recorded else recorded
    with pytest.raises(CheckpointError, match=r"net\.onnx: malformed 'confidence'"):
        FacePipeline(Described(recorded), None, BlobDetector())
