"""Labelled faces of a frame, and what a labeller is: the teacher that training data comes from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mlx_faceau.core.pdm import PDM
from mlx_faceau.core.user_function import load_function, name_of, user_code
from mlx_faceau.data.format import schema
from mlx_faceau.errors import BackendError, DatasetError, UsageError
from mlx_faceau.video.images import IMAGE_SUFFIXES
from mlx_faceau.video.results import Frame

Labels = Sequence["FaceLabels"]


@dataclass(frozen=True)
class FaceLabels:
    """One face, in frame pixels and radians.

    Args:
        landmarks: (68, 2).
        global_params: (6,) scale, rx, ry, rz, tx, ty of the PDM in the frame.
        local_params: (34,).
        au_intensities: (17,) in ``AU_NAMES`` order.
        bbox: (4,) x, y, width, height; None takes the landmarks' bounding box.
        confidence: of the labeller, in [0, 1].
        face_id: tells the people of a video apart.
        hog: (4464,) FHOG of the aligned face, or None.
    """

    landmarks: np.ndarray
    global_params: np.ndarray
    local_params: np.ndarray
    au_intensities: np.ndarray
    bbox: np.ndarray | None = None
    confidence: float = 1.0
    face_id: int = 0
    hog: np.ndarray | None = None

    @property
    def box(self) -> np.ndarray:
        """(4,) x, y, width, height in frame pixels."""
        if self.bbox is not None:
            return np.asarray(self.bbox, np.float64)
        low, high = self.landmarks.min(axis=0), self.landmarks.max(axis=0)
        return np.concatenate([low, high - low])


def is_photograph(path: Path) -> bool:
    """Whether a file counts as a photograph, by its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES


class Labeller(Protocol):
    """Labels the faces of videos and photographs.

    ``licence`` is what its labels may be used for, or empty; ``pdm_name`` the shape model of its
    parameters, or empty; ``pdm`` that model, or None where its file is not at hand.
    """

    @property
    def name(self) -> str: ...

    @property
    def licence(self) -> str: ...

    @property
    def pdm_name(self) -> str: ...

    @property
    def pdm(self) -> PDM | None: ...

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """Get ready for a video.

        Returns:
            What labels its frames; called with frames in order, not necessarily all of them.

        Raises:
            FaceauError: if this video cannot be labelled.
        """
        ...


class CallableLabeller:
    """Any function from a frame to labelled faces.

    Args:
        function: takes an (H, W, 3) uint8 BGR frame, returns a list with a dict for each face:
            ``landmarks``, ``global_params``, ``local_params`` and ``au_intensities`` and, if
            wanted, ``bbox``, ``confidence``, ``face_id`` and ``hog``, all in frame pixels.
        pdm: of its parameters, or None.
    """

    name = "callable"
    licence = ""

    def __init__(
        self,
        function: Callable[[np.ndarray], Sequence[Mapping[str, Any]]],
        pdm: PDM | None = None,
    ) -> None:
        self._function = function
        self.pdm, self.pdm_name = pdm, "given" if pdm else ""

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """See :class:`Labeller`."""

        def label(frame: Frame) -> Labels:
            with user_code(f"labeller {name_of(self._function)}"):
                return [_as_labels(face) for face in self._function(frame.image)]

        return label


_OPTIONAL = ("bbox", "confidence", "face_id", "hog")


def _as_labels(face: Mapping[str, Any]) -> FaceLabels:
    missing = set(schema.LABEL_SHAPES) - set(face)
    unknown = set(face) - set(schema.LABEL_SHAPES) - set(_OPTIONAL)
    if missing or unknown:
        raise UsageError(
            f"a labelled face: missing {sorted(missing)}, unknown {sorted(unknown)}; expected "
            f"{', '.join(schema.LABEL_SHAPES)} and optionally {', '.join(_OPTIONAL)}"
        )
    arrays = {name: np.asarray(face[name], np.float64) for name in schema.LABEL_SHAPES}
    for name, shape in schema.LABEL_SHAPES.items():
        if arrays[name].shape != shape:
            raise UsageError(f"a labelled face: {name} is {arrays[name].shape}, expected {shape}")
    optional: dict[str, Any] = {
        name: face[name] for name in _OPTIONAL if face.get(name) is not None
    }
    return FaceLabels(
        arrays["landmarks"],
        arrays["global_params"],
        arrays["local_params"],
        arrays["au_intensities"],
        **optional,
    )


def open_labeller(
    choice: "str | Labeller | Callable[..., Any] | None",
    pdm: PDM | None = None,
    label_model: Path | str | None = None,
) -> Labeller:
    """The labeller that a choice names.

    Args:
        choice: ``"openface-csv"``, ``"mediapipe"``, ``"pyfaceau"``,
            ``"callable:package.module:function"``, a function from a frame to labelled faces, a
            labeller, or ``"auto"`` or None: an OpenFace CSV beside each video, else mediapipe where
            its model is given, else pyfaceau where it is installed.
        pdm: fits parameters to landmarks where a CSV holds none, and to mediapipe's.
        label_model: mediapipe's ``face_landmarker.task``.

    Raises:
        ValueError: if the choice is none of these.
        BackendError: if it cannot run here.
    """
    if choice is None or choice == "auto":
        return AutoLabeller(pdm, label_model)
    if choice == "openface-csv":
        from .openface import OpenFaceLabeller

        return OpenFaceLabeller(pdm)
    if choice == "mediapipe":
        from .mediapipe import MediaPipeLabeller

        return MediaPipeLabeller(label_model, pdm)
    if choice == "pyfaceau":
        from .pyfaceau import PyfaceauLabeller

        return PyfaceauLabeller()
    if isinstance(choice, str) and choice.startswith("callable:"):
        function = load_function(choice.removeprefix("callable:"), f"labeller {choice}")
        return CallableLabeller(function, pdm)
    if hasattr(choice, "begin"):
        return choice  # type: ignore[return-value]
    if callable(choice):
        return CallableLabeller(choice, pdm)
    raise UsageError(
        f"labeller {choice!r} is none of auto, openface-csv, mediapipe, pyfaceau, "
        "callable:package.module:function"
    )


class AutoLabeller:
    """An OpenFace CSV beside the video, else mediapipe or pyfaceau.

    Args:
        pdm: see :func:`open_labeller`.
        label_model: of mediapipe; without it pyfaceau is tried.
    """

    def __init__(self, pdm: PDM | None = None, label_model: Path | str | None = None) -> None:
        self._csv = self._used = open_labeller("openface-csv", pdm)
        self._fallback: Labeller | None = None
        if label_model is not None:
            self._fallback = open_labeller("mediapipe", pdm, label_model)

    @property
    def name(self) -> str:
        """Of the one that the last video took."""
        return self._used.name

    @property
    def licence(self) -> str:
        """Likewise."""
        return self._used.licence

    @property
    def pdm_name(self) -> str:
        """Likewise."""
        return self._used.pdm_name

    @property
    def pdm(self) -> PDM | None:
        """Likewise."""
        return self._used.pdm

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """See :class:`Labeller`.

        Raises:
            DatasetError: if none can label this video, naming the four ways to labels.
        """
        from .openface import find_csv

        self._used = self._csv
        if find_csv(video) is not None:
            return self._csv.begin(video)
        if self._fallback is None:
            try:
                self._fallback = open_labeller("pyfaceau")
            except BackendError as error:
                raise DatasetError(
                    f"{video}: nothing labels it; four ways: put the CSV of OpenFace's "
                    f"FeatureExtraction beside it ({video.stem}.csv); give MediaPipe's model file "
                    "(--label-model face_landmarker.task); install pyfaceau with its models; or "
                    "give a function of your own (--labels callable:package.module:function). "
                    f"pyfaceau: {error}"
                ) from None
        self._used = self._fallback
        return self._fallback.begin(video)
