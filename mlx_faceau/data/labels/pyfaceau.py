"""Labels from the Python port of OpenFace: pyfaceau, pyclnf and pymtcnn, where they are installed.

They and OpenFace's models have licences of their own, and nothing is ever downloaded from here.
Landmarks and parameters come from pyclnf's fit in a pymtcnn box; action units from FHOG features of
the face aligned to the mean shape and masked, as OpenFace does, through its static models: those
judge one image by itself, as the network has to.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY
from mlx_faceau.data.format.columns import HOG_SIZE
from mlx_faceau.errors import BackendError
from mlx_faceau.video.results import Frame

from .face_labels import FaceLabels, Labels

LICENCE = (
    "labels of pyfaceau, pyclnf and pymtcnn (CC BY-NC 4.0) with OpenFace's models (academic or "
    "non-profit, non-commercial research only); nets trained on them may be used for no more"
)
_INSTALL = (
    "pip install pyfaceau pyclnf pymtcnn pyfhog, read their licences, then run "
    "pyfaceau-download-models yourself"
)


class PyfaceauLabeller:
    """Runs pyfaceau's parts on each frame, which ``load`` imports by name.

    It raises BackendError if a package or its models are not installed.
    """

    name = "pyfaceau"
    licence = LICENCE
    pdm_name, pdm = "openface", None

    def __init__(self, load: Callable[[str], Any] = importlib.import_module) -> None:
        try:
            models = load("pyfaceau.models")
            paths = models.model_paths(models.ensure_models())
            self._detector = load("pymtcnn").MTCNN()
            self._open_fitter = load("pyclnf").CLNF
            self._hog = load("pyfhog").extract_fhog_features
            self._pdm = load("pyfaceau.features.pdm").PDMParser(paths["pdm_file"])
            aligner = load("pyfaceau.alignment.face_aligner").OpenFace22FaceAligner
            self._aligner = aligner(paths["pdm_file"])
            triangles = load("pyfaceau.features.triangulation").TriangulationParser
            self._triangles = triangles(paths["triangulation_file"])
            parser = load("pyfaceau.prediction.model_parser").OF22ModelParser
            static = parser(paths["au_models_dir"]).load_all_models(
                force_model_type="static", verbose=False
            )
            predictor = load("pyfaceau.prediction.batched_au_predictor").BatchedAUPredictor
            self._predictor = predictor(static)
        except ImportError as error:
            raise BackendError(f"pyfaceau cannot run: {error}; {_INSTALL}") from None
        except FileNotFoundError as error:  # what pyfaceau raises without its models
            reason = " ".join(str(error).split())[:120]
            raise BackendError(f"pyfaceau has no models ({reason}); {_INSTALL}") from None

    def begin(self, video: Path) -> Callable[[Frame], Labels]:
        """See :class:`~mlx_faceau.data.labels.face_labels.Labeller`."""
        fitter = self._open_fitter(detector=None)

        def labels(frame: Frame) -> list[FaceLabels]:
            boxes, _ = self._detector.detect(frame.image)
            if boxes is None or len(boxes) == 0:
                return []
            boxes = np.asarray(boxes, np.float64)[:, :4]
            # Faces are numbered from left to right: each frame is fitted by itself.
            order = np.argsort(boxes[:, 0], kind="stable")
            return [self._face(fitter, frame.image, boxes[i], n) for n, i in enumerate(order)]

        return labels

    def _face(self, fitter: Any, image: np.ndarray, box: np.ndarray, number: int) -> FaceLabels:
        landmarks, info = fitter.fit(image, tuple(box), return_params=True)
        params = np.asarray(info["params"], np.float64)
        aligned = self._aligner.align_face(
            image,
            landmarks,
            pose_tx=params[4],
            pose_ty=params[5],
            p_rz=params[3],
            apply_mask=True,
            triangulation=self._triangles,
        )
        hog = np.asarray(self._hog(aligned, cell_size=8), np.float32).reshape(HOG_SIZE)
        geometry = np.asarray(self._pdm.extract_geometric_features(params[6:]), np.float32)
        median = np.zeros(len(hog) + len(geometry), np.float32)  # static models take none
        units = self._predictor.predict(hog, geometry, median)
        if missing := [name for name in AU_NAMES if name not in units]:
            raise BackendError(f"pyfaceau gives no {', '.join(missing)}; {_INSTALL}")
        return FaceLabels(
            np.asarray(landmarks, np.float64),
            params[:6],
            params[6:],
            np.array([units[name] for name in AU_NAMES]).clip(0, MAX_INTENSITY),
            bbox=box,
            confidence=1.0 if info["converged"] else 0.5,
            face_id=number,
            hog=hog,
        )
