"""Choosing a labeller by name, and labelling by a function of the user's own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.pdm import PDM
from mlx_faceau.core.user_function import load_function, name_of, user_code
from mlx_faceau.data.format import schema
from mlx_faceau.errors import BackendError, DatasetError, UsageError
from mlx_faceau.video.results import Frame

from .face_labels import FaceLabels, Labeller, Labels
from .openface import OpenFaceLabeller, find_csv

_OPTIONAL = ("bbox", "confidence", "face_id", "hog")


def open_labeller(
    choice: "str | Labeller | Callable[..., Any] | None",
    pdm: PDM | None = None,
    label_model: Path | str | None = None,
) -> Labeller:
    """Open the labeller that a choice names.

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
        return AutoLabeller(pdm, label_model)
    if choice == "openface-csv":
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


class CallableLabeller:
    """Any function from a frame to labelled faces.

    Args:
        function: takes an (H, W, 3) uint8 BGR frame, returns a list with a dict for each face:
            ``landmarks``, ``global_params``, ``local_params`` and ``au_intensities`` and,
            optionally, ``bbox``, ``confidence``, ``face_id`` and ``hog``, all in frame pixels.
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
        """See :class:`~mlx_faceau.data.labels.face_labels.Labeller`."""

        def label(frame: Frame) -> Labels:
            with user_code(f"labeller {name_of(self._function)}"):
                return [_as_labels(face) for face in self._function(frame.image)]

        return label


def _as_labels(face: Mapping[str, Any]) -> FaceLabels:
    missing = set(schema.LABEL_SHAPES) - set(face)
    unknown = set(face) - set(schema.LABEL_SHAPES) - set(_OPTIONAL)
    if missing or unknown:
        raise UsageError(
            f"a labelled face: missing {sorted(missing)}, unknown {sorted(unknown)}; expected "
            f"{', '.join(schema.LABEL_SHAPES)} and optionally {', '.join(_OPTIONAL)}"
        )
    values: dict[str, Any] = {name: face[name] for name in _OPTIONAL if face.get(name) is not None}
    for name, shape in schema.LABEL_SHAPES.items():
        values[name] = np.asarray(face[name], np.float64)
        if values[name].shape != shape:
            raise UsageError(f"a labelled face: {name} is {values[name].shape}, expected {shape}")
    return FaceLabels(**values)


class AutoLabeller:
    """An OpenFace CSV beside the video, else mediapipe or pyfaceau.

    Its attributes are those of the labeller that the last video took.

    Args:
        pdm: see :func:`open_labeller`.
        label_model: of mediapipe; without it pyfaceau is tried.
    """

    def __init__(self, pdm: PDM | None = None, label_model: Path | str | None = None) -> None:
        self._csv = OpenFaceLabeller(pdm)
        self._fallback: Labeller | None = None
        if label_model is not None:
            self._fallback = open_labeller("mediapipe", pdm, label_model)
        self._use(self._csv)

    def _use(self, labeller: Labeller) -> Labeller:
        self.name, self.licence = labeller.name, labeller.licence
        self.pdm_name, self.pdm = labeller.pdm_name, labeller.pdm
        return labeller

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """See :class:`~mlx_faceau.data.labels.face_labels.Labeller`.

        Raises:
            DatasetError: if none can label this video, naming the four ways to labels.
        """
        if find_csv(video) is not None:
            return self._use(self._csv).begin(video)
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
        return self._use(self._fallback).begin(video)
