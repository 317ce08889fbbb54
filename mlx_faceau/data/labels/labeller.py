"""Choosing a labeller by name, and labelling by a function of the user's own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.pdm import PDM
from mlx_faceau.core.user_function import load_function, name_of, user_code
from mlx_faceau.data.format.columns import COLUMNS, LABELS
from mlx_faceau.errors import BackendError, DatasetError, UsageError
from mlx_faceau.video.results import Frame

from .face_labels import FaceLabels, Labeller, Labels
from .mediapipe import MediaPipeLabeller
from .openface import OpenFaceLabeller, find_csv
from .pyfaceau import PyfaceauLabeller

_OPTIONAL = ("bbox", "confidence", "face_id", "hog")


def labeller_for(
    choice: "str | Labeller | Callable[..., Any] | None",
    pdm: PDM | None = None,
    label_model: Path | str | None = None,
) -> Callable[[Path], Labeller]:
    """From a video or photograph to its labeller; the function raises DatasetError without one.

    Args:
        choice: ``"openface-csv"``, ``"mediapipe"``, ``"pyfaceau"``,
            ``"callable:package.module:function"``, a function from a frame to labelled faces, a
            labeller, or ``"auto"`` or None: an OpenFace CSV beside each video, else mediapipe where
            its model is given, else pyfaceau where it is installed.
        pdm: fits parameters to landmarks where a CSV holds none, and to mediapipe's.
        label_model: mediapipe's ``face_landmarker.task``.

    Raises:
        UsageError: if the choice is none of these.
        BackendError: if it cannot run here.
    """
    if choice is None or choice == "auto":
        return _automatic(pdm, label_model)
    labeller: Labeller
    if choice == "openface-csv":
        labeller = OpenFaceLabeller(pdm)
    elif choice == "mediapipe":
        labeller = MediaPipeLabeller(label_model, pdm)
    elif choice == "pyfaceau":
        labeller = PyfaceauLabeller()
    elif isinstance(choice, str) and choice.startswith("callable:"):
        function = load_function(choice.removeprefix("callable:"), f"labeller {choice}")
        labeller = CallableLabeller(function, pdm)
    elif hasattr(choice, "begin"):
        labeller = choice  # type: ignore[assignment]
    elif callable(choice):
        labeller = CallableLabeller(choice, pdm)
    else:
        raise UsageError(
            f"labeller {choice!r} is none of auto, openface-csv, mediapipe, pyfaceau, "
            "callable:package.module:function"
        )
    return lambda _: labeller


def _automatic(pdm: PDM | None, label_model: Path | str | None) -> Callable[[Path], Labeller]:
    csv = OpenFaceLabeller(pdm)
    other: Labeller | None = None if label_model is None else MediaPipeLabeller(label_model, pdm)

    def choose(video: Path) -> Labeller:
        nonlocal other
        if find_csv(video) is not None:
            return csv
        if other is None:
            try:
                other = PyfaceauLabeller()
            except BackendError as error:
                raise DatasetError(
                    f"{video}: nothing labels it; four ways: put the CSV of OpenFace's "
                    f"FeatureExtraction beside it ({video.stem}.csv); give MediaPipe's model file "
                    "(--label-model face_landmarker.task); install pyfaceau with its models; or "
                    "give a function of your own (--labels callable:package.module:function). "
                    f"pyfaceau: {error}"
                ) from None
        return other

    return choose


class CallableLabeller:
    """Any function from an (H, W, 3) uint8 BGR frame to a list with a dict for each face.

    That holds ``landmarks``, ``global_params``, ``local_params`` and ``au_intensities`` and,
    optionally, ``bbox``, ``confidence``, ``face_id`` and ``hog``, all in frame pixels; ``pdm`` is
    the shape model of its parameters.
    """

    name, licence = "callable", ""

    def __init__(
        self, function: Callable[[np.ndarray], Sequence[Mapping[str, Any]]], pdm: PDM | None = None
    ) -> None:
        self._function = function
        self.pdm, self.pdm_name = pdm, "given" if pdm else ""

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """See :class:`~mlx_faceau.data.labels.face_labels.Labeller`."""

        def label(frame: Frame) -> Labels:
            with user_code(f"labeller {name_of(self._function)}"):
                return [_as_labels(face) for face in self._function(frame.image)]

        return label


def _as_labels(face: Mapping[str, Any]) -> FaceLabels:
    missing, unknown = set(LABELS) - set(face), set(face) - {*LABELS, *_OPTIONAL}
    if missing or unknown:
        raise UsageError(
            f"a labelled face: missing {sorted(missing)}, unknown {sorted(unknown)}; expected "
            f"{', '.join(LABELS)} and optionally {', '.join(_OPTIONAL)}"
        )
    values: dict[str, Any] = {name: face[name] for name in _OPTIONAL if face.get(name) is not None}
    for name in LABELS:
        shape = COLUMNS[name].shape
        values[name] = np.asarray(face[name], np.float64)
        if values[name].shape != shape:
            raise UsageError(f"a labelled face: {name} is {values[name].shape}, expected {shape}")
    return FaceLabels(**values)
