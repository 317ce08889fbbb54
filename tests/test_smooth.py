"""One-Euro smoothing: still values tremble less, fast ones are hardly late."""

from dataclasses import replace

import numpy as np
from blobs import Blob, draw_frame
from test_openface_csv import face

from mlx_faceau.output.smoothing import OneEuroFilter, smoothed
from mlx_faceau.video.results import Frame, FrameResult

IMAGE = draw_frame([])


def run(values: np.ndarray, strength: tuple[float, float], rate: float = 30.0) -> np.ndarray:
    one_euro = OneEuroFilter(*strength)
    return np.array([one_euro(np.array([v]), i / rate)[0] for i, v in enumerate(values)])


def reference(values: np.ndarray, cutoff: float, gain: float, rate: float) -> list[float]:
    """The paper's algorithm for one number, word by word."""

    def alpha(hertz: float) -> float:
        tau = 1 / (2 * np.pi * hertz)
        return 1 / (1 + tau * rate)

    out, speed = [values[0]], 0.0
    for value in values[1:]:
        speed += alpha(1.0) * ((value - out[-1]) * rate - speed)
        a = alpha(cutoff + gain * abs(speed))
        out.append(a * value + (1 - a) * out[-1])
    return out


def test_it_is_the_algorithm_of_the_paper() -> None:
    values = np.random.default_rng(0).normal(size=50).cumsum()
    np.testing.assert_allclose(
        run(values, (1.2, 0.3)), reference(values, 1.2, 0.3, 30.0), rtol=1e-9
    )


def test_noise_at_rest_shrinks_and_a_jump_arrives_soon() -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=300)
    still = run(noise, (1.0, 0.7))
    assert still[30:].std() < 0.5 * noise.std()
    jump = run(np.r_[np.zeros(30), np.full(30, 4.0)], (1.0, 0.7))
    assert jump[36] > 3.2


def stream(faces: list[list[int]], noise: float = 1.0, rate: float = 30.0) -> list[FrameResult]:
    generator = np.random.default_rng(0)
    return [
        FrameResult(
            Frame(i, i / rate, IMAGE),
            tuple(
                face(j, landmarks=Blob(80, 80, 40).landmarks + generator.normal(size=2) * noise)
                for j in ids
            ),
        )
        for i, ids in enumerate(faces)
    ]


def test_faces_are_smoothed_apart_and_start_afresh_after_a_break() -> None:
    raw = stream([[0, 1]] * 20 + [[1]] * 20 + [[0, 1]] * 5)
    smooth = list(smoothed(raw))
    first = [np.array([f.faces[0].landmarks[0] for f in some[:20]]) for some in (raw, smooth)]
    assert first[1][5:].std(axis=0).max() < 0.7 * first[0][5:].std(axis=0).min()
    np.testing.assert_array_equal(smooth[40].faces[0].landmarks, raw[40].faces[0].landmarks)
    assert [len(f.faces) for f in smooth] == [len(f.faces) for f in raw]


def test_every_second_alone_is_smoothed_too() -> None:
    raw = stream([[0]] * 3, rate=1.0)
    pairs = zip(smoothed(raw), raw, strict=True)
    shift = [np.abs(s.faces[0].landmarks - r.faces[0].landmarks).max() for s, r in pairs]
    assert shift[0] == 0
    assert min(shift[1:]) > 0


def test_nothing_is_smoothed_across_a_cut() -> None:
    before, after = stream([[0]] * 10), stream([[0]] * 2)
    aus = np.full(17, 4.0)
    raw = [replace(r, faces=(replace(r.faces[0], au_intensities=aus),)) for r in before]
    for i, result in enumerate(after):
        shot = Frame(10 + i, (10 + i) / 30, 255 - IMAGE)
        moved = replace(result.faces[0], landmarks=Blob(120, 60, 20).landmarks)
        raw.append(replace(result, frame=shot, faces=(moved,)))
    smooth = list(smoothed(raw))
    for name in ("landmarks", "global_params", "local_params", "au_intensities"):
        found, own = (getattr(results[10].faces[0], name) for results in (smooth, raw))
        np.testing.assert_array_equal(found, own)


def test_a_missing_action_unit_net_stays_missing() -> None:
    raw = [FrameResult(Frame(0, 0.0, IMAGE), (face(au_intensities=None),))]
    assert next(smoothed(raw)).faces[0].au_intensities is None
