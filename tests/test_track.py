"""Identities from squares and looks alone, without nets or pictures."""

import numpy as np
import pytest

from mlx_faceau.video.appearance import SceneCuts, look
from mlx_faceau.video.confidence import Agreement
from mlx_faceau.video.tracking import Candidate, Tracker

LOOKS = np.eye(5)


def seen(x: float, who: int = 0, side: float = 100.0, score: float = 0.9) -> Candidate:
    return Candidate(np.array([x, 200.0]), side, score, LOOKS[who])


def started(*candidates: Candidate, **options: int) -> Tracker:
    tracker = Tracker(**options)
    tracker.detected(0, candidates)
    return tracker


def test_ids_count_up_by_score() -> None:
    tracker = started(seen(100, 0, score=0.7), seen(500, 1, score=0.95))
    assert {t.face_id: t.centre[0] for t in tracker.tracks} == {0: 500, 1: 100}


def test_a_confirmed_face_keeps_its_square_and_a_drifted_one_is_put_back() -> None:
    tracker = started(seen(100), seen(500, 1))
    tracker.start_frame(30)
    tracker.detected(30, [seen(104, 0), seen(540, 1)])
    assert {t.centre[0] for t in tracker.tracks} == {100, 540}
    assert {t.centre[0] for t in tracker.tracks if t.anchored} == {540}


def test_a_track_whose_size_ran_away_is_doubted_and_put_back_on_its_face() -> None:
    tracker = started(seen(100))
    track = tracker.tracks[0]
    tracker.followed_to(track, 1, (np.array([105.0, 205.0]), 40.0), LOOKS[0])
    assert tracker.detection_due(5)
    tracker.detected(5, [seen(100)])
    assert [(t.face_id, t.side) for t in tracker.tracks] == [(0, 100.0)]
    assert not track.doubted


def test_a_face_the_detector_does_not_see_loses_its_score_not_its_place() -> None:
    tracker = started(seen(100), seen(500, 1))
    for track in tracker.tracks:
        track.checked = 28
    tracker.detected(30, [seen(500, 1)])
    lost, there = sorted(tracker.tracks, key=lambda track: track.centre[0])
    assert (lost.score, lost.missing, there.score) == (0.0, False, 0.9)
    assert lost.checked < 0 < there.checked  # looked at twice at once, and not only when it is due


def test_a_doubtful_face_is_missing_after_patience_and_searched_for() -> None:
    tracker = started(seen(100), patience=3)
    track = tracker.tracks[0]
    for index in range(1, 4):
        assert not tracker.detection_due(index)
        tracker.judge(track, success=False, size=(480, 640))
    assert track.missing
    assert tracker.detection_due(4)


def test_a_success_in_between_forgives() -> None:
    tracker = started(seen(100), patience=2)
    track = tracker.tracks[0]
    for success in (False, True, False):
        tracker.judge(track, success, (480, 640))
    assert not track.missing


def test_a_face_outside_the_picture_is_missing_at_once() -> None:
    tracker = started(seen(100))
    tracker.tracks[0].centre = np.array([-5.0, 50.0])
    tracker.judge(tracker.tracks[0], success=True, size=(480, 640))
    assert tracker.tracks[0].missing


def test_while_one_of_two_is_missing_the_detector_is_asked_every_few_frames() -> None:
    tracker = started(seen(100), seen(500, 1))
    tracker.tracks[0].missing = True
    assert next(i for i in range(1, 12) if tracker.detection_due(i)) == 5


def test_a_missing_face_is_recognised_nearby_by_a_plausible_look() -> None:
    tracker = started(seen(100))
    tracker.tracks[0].missing = True
    nearby = Candidate(np.array([150.0, 200]), 100, 0.9, np.array([0.7, 0.714, 0, 0, 0]))
    tracker.detected(20, [nearby])
    assert [(t.face_id, t.missing) for t in tracker.tracks] == [(0, False)]


def test_a_stranger_at_the_place_of_a_missing_face_is_new() -> None:
    tracker = started(seen(100))
    tracker.tracks[0].missing = True
    tracker.detected(20, [seen(100, who=3)])
    assert [t.face_id for t in tracker.followed] == [1]


def test_a_missing_face_is_recognised_far_away_by_the_same_look_alone() -> None:
    tracker = started(seen(100))
    tracker.tracks[0].missing = True
    tracker.detected(20, [seen(900, who=0)])
    assert [t.face_id for t in tracker.followed] == [0]


def test_a_forgotten_face_comes_back_as_a_new_one() -> None:
    tracker = started(seen(100), memory=50)
    tracker.tracks[0].missing = True
    tracker.start_frame(51)
    tracker.detected(51, [seen(100)])
    assert [t.face_id for t in tracker.tracks] == [1]


def test_of_two_tracks_on_one_face_the_one_that_looks_like_it_stays() -> None:
    tracker = started(seen(100, 0), seen(130, 1))
    for track in tracker.tracks:
        track.centre = np.array([110.0, 200.0])
    gone = tracker.part_twins({0: LOOKS[1], 1: LOOKS[1]})
    assert [t.face_id for t in gone] == [0]


def test_who_returns_finds_no_place_where_all_are_taken() -> None:
    tracker = started(seen(100, 0), max_faces=1)
    tracker.tracks[0].missing = True
    tracker.detected(5, [seen(500, 1)])
    tracker.detected(10, [seen(500, 1), seen(100, 0)])
    assert [t.face_id for t in tracker.followed] == [1]
    tracker.tracks[1].missing = True
    tracker.detected(15, [seen(100, 0)])
    assert [t.face_id for t in tracker.followed] == [0]


def test_a_face_in_sight_is_not_forgotten_between_frames_far_apart() -> None:
    tracker = started(seen(100), memory=50)
    tracker.start_frame(60)
    assert [t.face_id for t in tracker.followed] == [0]


def test_a_cut_leaves_looks_alone_to_recognise_people_by() -> None:
    tracker = started(seen(100, 0), seen(500, 1))
    tracker.cut()
    assert tracker.followed == []
    assert tracker.detection_due(1)
    tracker.detected(1, [seen(505, 0), seen(100, 4)])
    assert {t.face_id: t.centre[0] for t in tracker.followed} == {0: 505, 2: 100}


@pytest.mark.parametrize(("share", "error"), [(0.8, 6.0), (0.0, 30.0)])
def test_a_net_that_follows_its_crop_does_not_drag_the_track_away(
    share: float, error: float
) -> None:
    """A drawn net: it follows 80 % of its crop's displacement and errs by 6 px to the right."""
    face = np.array([300.0, 200.0])

    def read(track: object) -> tuple[np.ndarray, float]:
        return face + 0.8 * (track.centre - face) + (6.0, 0.0), 100.0  # type: ignore[attr-defined]

    tracker = started(Candidate(face, 100.0, 0.9, LOOKS[0]))
    track = tracker.tracks[0]
    track.agreement = Agreement(share, shift=share, scale=0.0)
    track.anchor(*read(track))
    for index in range(1, 60):
        tracker.followed_to(track, index, read(track), LOOKS[0])
    assert np.linalg.norm(read(track)[0] - face) == pytest.approx(error, abs=1.0)


def test_looks_are_alike_under_other_light_and_unlike_for_other_faces() -> None:
    generator = np.random.default_rng(0)
    one, other = (
        np.kron(generator.integers(40, 200, (14, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for _ in range(2)
    )
    brighter = np.clip(one.astype(int) + 15, 0, 255).astype(np.uint8)
    assert look(one) @ look(one) == pytest.approx(1)
    assert look(one) @ look(brighter) > 0.7
    assert look(one) @ look(other) < 0.6


def test_a_cut_is_noticed_and_motion_and_noise_are_not() -> None:
    generator = np.random.default_rng(0)
    shots = [generator.integers(0, 255, (9, 16, 3)).repeat(20, 0).repeat(20, 1) for _ in range(2)]
    cuts = SceneCuts()
    noticed = []
    for index in range(20):
        shot = np.roll(shots[index >= 12], index, axis=1)
        noisy = shot + generator.normal(0, 8, shot.shape)
        noticed.append(cuts.is_cut(np.clip(noisy, 0, 255).astype(np.uint8)))
    assert [i for i, cut in enumerate(noticed) if cut] == [12]
