"""Results drawn into a frame."""

import numpy as np
import pytest
from blobs import Blob, draw_frame
from test_openface_csv import face

from mlx_faceau.video.overlay import draw
from mlx_faceau.video.results import Frame, FrameResult

IMAGE = draw_frame([Blob(100, 80, 40)])


def test_drawing_marks_the_landmarks_on_a_copy() -> None:
    result = FrameResult(Frame(0, 0.0, IMAGE.copy()), (face(au_intensities=np.ones(17)),))
    drawn = draw(result)
    assert drawn is not result.frame.image
    np.testing.assert_array_equal(result.frame.image, IMAGE)
    at = np.rint(result.faces[0].landmarks).astype(int)
    white = drawn[at[:, 1], at[:, 0]].min(axis=1) > 150
    assert white.mean() > 0.7


@pytest.mark.parametrize("shift", [-500.0, 60.0, 1e9])
def test_faces_partly_or_far_outside_can_be_drawn(shift: float) -> None:
    far = face(landmarks=Blob(100, 80, 40).landmarks + shift, success=False)
    assert draw(FrameResult(Frame(0, 0.0, IMAGE), (far,))).shape == IMAGE.shape
