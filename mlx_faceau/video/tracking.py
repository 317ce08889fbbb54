"""Who is who from frame to frame: identities, when to detect, what to do when a face is lost.

Nothing here looks at pixels: it is squares, looks and confidences, so that it can be tested without
a network. A face is *followed* while its crop comes from its last landmarks, and *missing* while it
is remembered but not seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .appearance import unit
from .confidence import UNCHECKED, Agreement

_SAME_PLACE = 0.45  # cost (shift in sides + log size ratio) below which squares are one face
_SAME_LOOK = 0.80  # likeness above which a face is recognised wherever it is
_PLAUSIBLE_LOOK = 0.45  # likeness that a face which reappears near its old place needs
_TWINS = 0.25  # two followed squares closer than this show one face
_SEARCH_EVERY = 5  # frames between detections while a face is missing or doubted
_GROWN = 1.35  # change of size since the detector's last word at which it is asked at once
_NEVER = -1_000_000  # a frame before all others
_DOUBTED = 0.1  # agreement of two crops below which the detector is asked at once
# A net that follows its crop drags a track away: the larger the share it follows, the more the next
# crop stays where the detector put it relative to the landmarks; below and above these not at all
# and wholly.
_TRUSTED, _UNTRUSTED = 0.2, 0.6


@dataclass(frozen=True)
class Candidate:
    """A face that a detector found: its standard crop's square, score, look, and its marks."""

    centre: np.ndarray
    side: float
    score: float
    look: np.ndarray
    marks: np.ndarray | None = None


@dataclass
class Track:
    """One person: where the face was last, and how sure that was.

    Args:
        face_id: from 0, never used again.
        centre: (2,) px of the square that the next crop is cut from.
        side: px of that square.
        score: the detector's, when it last saw the face, as far as the landmarks met its marks.
        look: unit vector of the face's appearance.
        last_frame: index of the frame it was last followed in.
    """

    face_id: int
    centre: np.ndarray
    side: float
    score: float
    look: np.ndarray
    last_frame: int
    agreement: Agreement = UNCHECKED
    checked: int = _NEVER  # index of the frame in which it was last looked at twice
    weak: int = 0
    missing: bool = False
    anchored: bool = False  # placed by the detector in this frame: its crop needs a second pass
    marks: np.ndarray | None = None  # (5, 2) px that the detector marked in this frame
    anchor_shift: np.ndarray = field(default_factory=lambda: np.zeros(2))
    anchor_scale: float = 0.0
    confirmed_side: float = 0.0  # px of the side when the detector last saw the face

    @property
    def doubted(self) -> bool:
        """Whether the net sees nothing here, or the size has run away as no face's does."""
        grown = abs(np.log(self.side / (self.confirmed_side or self.side))) > np.log(_GROWN)
        return bool(grown or self.agreement.value < _DOUBTED)

    @property
    def reserve(self) -> tuple[float, float]:
        """How much of the detector's place and size is kept, in [0, 1]; 0 for a net that sees."""
        return _reserve(self.agreement.shift), _reserve(self.agreement.scale)

    def anchor(self, centre: np.ndarray, side: float) -> None:
        """Remember where the detector's square lies relative to the landmarks' square."""
        self.anchor_shift = (self.centre - centre) / side
        self.anchor_scale = float(np.log(self.side / side))

    def next_square(self, centre: np.ndarray, side: float) -> tuple[np.ndarray, float]:
        """The square to look at next, when the landmarks' own is this one."""
        shift, scale = self.reserve
        return (
            centre + shift * side * self.anchor_shift,
            side * float(np.exp(scale * self.anchor_scale)),
        )

    def distance(self, centre: np.ndarray, side: float) -> float:
        """Shift in sides plus log ratio of sizes; 0 for the same square."""
        shift = float(np.linalg.norm(centre - self.centre) / np.sqrt(side * self.side))
        return shift + abs(float(np.log(side / self.side)))


class Tracker:
    """The people of one video.

    Args:
        detect_every: frames between detections while all is well.
        memory: frames of the source for which a missing face is remembered.
        patience: frames in a row of low confidence after which a face is missing.
        max_faces: at most so many are followed; None follows all.
    """

    def __init__(
        self,
        detect_every: int = 30,
        memory: int = 150,
        patience: int = 3,
        max_faces: int | None = None,
    ) -> None:
        self.detect_every = detect_every
        self.memory = memory
        self.patience = patience
        self.max_faces = max_faces
        self.tracks: list[Track] = []
        self._detected = _NEVER
        self._next_id = 0

    @property
    def followed(self) -> list[Track]:
        """Tracks whose face is in sight."""
        return [track for track in self.tracks if not track.missing]

    def detection_due(self, index: int) -> bool:
        """Whether the detector should look at frame ``index``."""
        since = index - self._detected
        if not self.followed or since >= self.detect_every:
            return True
        return since >= _SEARCH_EVERY and any(t.missing or t.doubted for t in self.tracks)

    def start_frame(self, index: int) -> None:
        """Forget who has been missing too long."""
        self.tracks = [
            t for t in self.tracks if not t.missing or index - t.last_frame <= self.memory
        ]
        for track in self.tracks:
            track.anchored, track.marks = False, None

    def cut(self) -> None:
        """The scene changed: everybody is missing, and may be recognised by looks alone."""
        for track in self.tracks:
            track.missing = True
            track.centre = np.full(2, np.inf)
        self._detected = _NEVER

    def detected(self, index: int, candidates: Sequence[Candidate]) -> None:
        """Take in what the detector found in frame ``index``.

        Followed faces are confirmed (and put back in place where they had drifted away), missing
        ones are found again by place and look, the rest are new.
        """
        self._detected = index
        free = list(candidates)
        unseen = self.followed
        for track, candidate in _cheapest_pairs(unseen, free, _following_cost):
            self._confirm(track, candidate)
            unseen.remove(track)
        for track in unseen:
            track.score, track.checked = 0.0, _NEVER  # now the crops alone must vouch for it
        absent = [track for track in self.tracks if track.missing]
        for track, candidate in _cheapest_pairs(absent, free, _returning_cost):
            if self._has_room():
                self._place(track, candidate)
        for candidate in sorted(free, key=lambda c: -c.score):
            self._add(candidate, index)

    def _confirm(self, track: Track, candidate: Candidate) -> None:
        track.score, track.marks = candidate.score, candidate.marks
        drifted = track.distance(candidate.centre, candidate.side) > _SAME_PLACE / 2
        if drifted or max(track.reserve) > 0:
            self._place(track, candidate)
        track.confirmed_side = track.side

    def _place(self, track: Track, candidate: Candidate) -> None:
        track.centre, track.side = candidate.centre, candidate.side
        track.score, track.marks = candidate.score, candidate.marks
        track.confirmed_side = candidate.side
        track.missing, track.anchored, track.weak = False, True, 0
        track.checked = _NEVER

    def _add(self, candidate: Candidate, index: int) -> None:
        if not self._has_room():
            return
        track = Track(
            self._next_id, candidate.centre, candidate.side, candidate.score, candidate.look, index
        )
        track.anchored, track.confirmed_side, track.marks = True, candidate.side, candidate.marks
        self.tracks.append(track)
        self._next_id += 1

    def _has_room(self) -> bool:
        return self.max_faces is None or len(self.followed) < self.max_faces

    def followed_to(
        self, track: Track, index: int, square: tuple[np.ndarray, float], look: np.ndarray
    ) -> None:
        """A face's landmarks were read in frame ``index``; ``square`` is their standard crop's."""
        centre, side = track.next_square(*square)
        track.centre, track.side, track.last_frame = centre, side, index
        if not any(self._near(track, other) for other in self.followed if other is not track):
            track.look = unit(0.9 * track.look + 0.1 * look)

    def _near(self, one: Track, other: Track) -> bool:
        return one.distance(other.centre, other.side) < 1.0

    def judge(self, track: Track, success: bool, size: tuple[int, int]) -> None:
        """Lose a face that has been doubtful for a while or has left the picture.

        Args:
            track: a followed face.
            success: whether its confidence reached the threshold in this frame.
            size: height and width of the frame.
        """
        track.weak = 0 if success else track.weak + 1
        x, y = track.centre
        outside = not (0 <= x < size[1] and 0 <= y < size[0])
        if track.weak >= self.patience or outside:
            track.missing = True

    def part_twins(self, looks: dict[int, np.ndarray]) -> list[Track]:
        """Of two tracks on one face, let the one go that looks less like it.

        Args:
            looks: face_id -> the face's look in this frame.

        Returns:
            The tracks that were let go: hidden behind the other face, as far as one can tell.
        """
        gone = []
        tracks = self.followed
        for i, one in enumerate(tracks):
            for other in tracks[i + 1 :]:
                if one.missing or other.missing:
                    continue
                if one.distance(other.centre, other.side) >= _TWINS:
                    continue
                hidden = min(
                    one, other, key=lambda t: (float(t.look @ looks[t.face_id]), -t.face_id)
                )
                hidden.missing = True
                gone.append(hidden)
        return gone


def _reserve(share: float) -> float:
    return float(np.clip((share - _TRUSTED) / (_UNTRUSTED - _TRUSTED), 0.0, 1.0))


def _following_cost(track: Track, candidate: Candidate) -> float:
    """Size counts half: a track that has shrunk or grown away still lies on its face."""
    larger = max(track.side, candidate.side)
    shift = float(np.linalg.norm(candidate.centre - track.centre)) / larger
    place = shift + 0.5 * abs(float(np.log(candidate.side / track.side)))
    if place >= 2 * _SAME_PLACE:
        return np.inf
    return place + 0.5 * (1 - float(track.look @ candidate.look))


def _returning_cost(track: Track, candidate: Candidate) -> float:
    likeness = float(track.look @ candidate.look)
    if not np.isfinite(track.centre).all():
        return 1 - likeness if likeness >= _SAME_LOOK else np.inf
    place = track.distance(candidate.centre, candidate.side)
    if likeness < _PLAUSIBLE_LOOK or (place > 2.0 and likeness < _SAME_LOOK):
        return np.inf
    return 0.3 * place + (1 - likeness)


def _cheapest_pairs(
    tracks: Sequence[Track],
    candidates: list[Candidate],
    cost: Callable[[Track, Candidate], float],
) -> list[tuple[Track, Candidate]]:
    """Pairs in the order of their cost; what is taken leaves ``candidates``."""
    costs = [
        (cost(track, candidate), i, j)
        for i, track in enumerate(tracks)
        for j, candidate in enumerate(candidates)
    ]
    taken: dict[int, int] = {}  # track -> candidate
    for value, i, j in sorted(costs):
        if np.isfinite(value) and i not in taken and j not in taken.values():
            taken[i] = j
    pairs = [(tracks[i], candidates[j]) for i, j in taken.items()]
    candidates[:] = [c for j, c in enumerate(candidates) if j not in taken.values()]
    return pairs
