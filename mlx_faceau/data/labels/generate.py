"""Training samples from videos and photographs: labelled faces, cut out and measured."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.core.facs import out_of_range
from mlx_faceau.core.pdm import PDM, read_pdm
from mlx_faceau.video.align import FrameCrops
from mlx_faceau.video.images import read_image
from mlx_faceau.video.reader import Span, Video
from mlx_faceau.video.results import Frame

from . import quality
from .face_labels import FaceLabels, Labeller, is_photograph
from .labeller import labeller_for


@dataclass
class VideoReport:
    """The result of processing a video or photograph."""

    video: str  # its name
    frames: int = 0  # number read; 1 of a photograph
    damaged: int = 0  # that could not be read
    faceless: int = 0  # frames without a labelled face
    kept: int = 0  # samples
    # faces left out, by the limit that they exceeded
    dropped: Counter[str] = field(default_factory=Counter)
    error: str = ""  # why the video, or the rest of it, gave nothing; empty without an error
    labeller: str = ""  # its name
    licence: str = ""  # the terms of its labels; may be empty
    # name and hash of its parameters' shape model, empty where not known
    pdm: dict[str, str] = field(default_factory=dict)
    file_hashes: list[str] = field(default_factory=list)  # of the file's path and content

    @property
    def miss(self) -> str:
        """The reason why it gave no sample; empty if it gave one."""
        if self.kept:
            return ""
        dropped = [f"{count} dropped ({name})" for name, count in self.dropped.most_common()]
        return self.error or ", ".join(dropped) or "no face found"

    @property
    def final(self) -> bool:
        """Whether the video need not be tried again: it gave samples, or had no error."""
        return bool(self.kept or not self.error)


class TrainingDataGenerator:
    """Makes training samples from videos and photographs.

    Args:
        labeller: see :func:`mlx_faceau.data.labels.labeller.labeller_for`; None takes an OpenFace
            CSV beside each video, else mediapipe where ``label_model`` is given, else pyfaceau
            where it is installed.
        frame_step: N takes every Nth frame.
        limits: which faces are kept.
        pdm: a PDM or its file: checks landmarks against their parameters, and is fitted where the
            labels have none. mediapipe takes the open PDM unless one is given.
        label_model: mediapipe's ``face_landmarker.task``.

    Raises:
        UsageError: if the labeller is unknown, or ``frame_step`` is below 1.
        BackendError: if the labeller cannot run here.
    """

    def __init__(
        self,
        labeller: "str | Labeller | Callable[..., Any] | None" = None,
        frame_step: int = 1,
        limits: quality.Limits | None = None,
        pdm: PDM | Path | str | None = None,
        label_model: Path | str | None = None,
    ) -> None:
        pdm = pdm if pdm is None or isinstance(pdm, PDM) else read_pdm(pdm)
        self._labeller_for = labeller_for(labeller, pdm, label_model)
        self._span = Span(every=frame_step)
        self._limits = limits or quality.Limits()
        self.report = VideoReport("")  # of the last video; filled while it is read

    def process_video(
        self, path: Path | str, progress: Callable[[Frame], None] = lambda _: None
    ) -> Iterator[dict[str, Any]]:
        """Samples of a video, in order, or of a photograph; ``progress`` gets each frame.

        Yields:
            ``image`` (112, 112, 3) uint8 RGB, the standard crop; ``landmarks`` (68, 2),
            ``global_params`` (6,) in crop space; ``local_params`` (34,); ``au_intensities`` (17,);
            ``bbox`` (4,) and ``warp_matrix`` (2, 3) of the frame; ``frame_idx`` from 0;
            ``quality`` in [0, 1] and the ``measures`` it is made of; ``face_id``; ``hog`` (4464,)
            or None. Arrays but the image are float32.

        Raises:
            VideoError: if the file cannot be read.
            DatasetError: if it cannot be labelled.
        """
        path = Path(path)
        self.report = report = VideoReport(path.name)
        video = None if is_photograph(path) else Video(path)
        frames = video.frames(self._span) if video else [Frame(0, 0.0, read_image(path))]
        labeller = self._labeller_for(path)
        labels = labeller.begin(path)
        report.labeller, report.licence = labeller.name, labeller.licence
        pdm = labeller.pdm
        if labeller.pdm_name:
            report.pdm = {"name": labeller.pdm_name, "hash": pdm.hash if pdm else ""}
        last: dict[int, np.ndarray] = {}
        for frame in frames:
            faces = labels(frame)
            report.frames += 1
            report.faceless += not faces
            crops = FrameCrops(frame.image)
            for face in faces:
                sample = self._sample(crops, face, pdm, last)
                if sample is not None:
                    report.kept += 1
                    yield {**sample, "frame_idx": frame.index}
            report.damaged = video.damaged if video else 0
            progress(frame)
        if video is not None:
            report.damaged = video.damaged
            if hasattr(labels, "check_length"):
                labels.check_length(frame.index, self._span.every, report.kept)

    def _sample(
        self, crops: FrameCrops, face: FaceLabels, pdm: PDM | None, last: dict[int, np.ndarray]
    ) -> dict[str, Any] | None:
        """The sample of a face, or None if it breaks a limit; ``last`` are the last ones kept."""
        try:
            matrix = geometry.standard_crop_matrix(face.landmarks)
            params = geometry.transform_global_params(matrix, face.global_params)
        except ValueError:  # landmarks that are not finite, or all in one place
            self.report.dropped["landmarks"] += 1
            return None
        image = crops.crop(matrix)
        small = quality.reduced(image)
        measures = quality.measure(image, face, matrix, pdm)
        measures["change"] = quality.change(small, last.get(face.face_id))
        score = quality.score(measures)
        labels = (params, face.local_params, face.au_intensities)
        if not all(np.isfinite(value).all() for value in labels) or params[0] <= 0:
            broken: str | None = "parameters"
        elif out_of_range(face.au_intensities[np.newaxis]):
            broken = "au_intensities"
        else:
            broken = self._limits.broken(measures, score)
        if broken is not None:
            self.report.dropped[broken] += 1
            return None
        last[face.face_id] = small
        return {
            "image": image[..., ::-1].copy(),
            "landmarks": geometry.transform_points(matrix, face.landmarks).astype(np.float32),
            "global_params": params.astype(np.float32),
            "local_params": face.local_params.astype(np.float32),
            "au_intensities": face.au_intensities.astype(np.float32),
            "bbox": face.box.astype(np.float32),
            "warp_matrix": matrix.astype(np.float32),
            "quality": score,
            "measures": measures,
            "face_id": face.face_id,
            "hog": face.hog,
        }


def writer_arguments(sample: dict[str, Any], video: str, subject: str | None) -> dict[str, Any]:
    """A yielded sample as the arguments of ``TrainingDataWriter.add_sample``."""
    renamed = {"frame_idx": "frame_index", "quality": "quality_score", "hog": "hog_features"}
    values = {renamed.get(name, name): sample[name] for name in sample if name != "face_id"}
    return {**values, "video_name": video, "subject": subject}
