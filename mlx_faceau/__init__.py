"""Facial landmarks, head pose and action units on your own machine.

Everything public is loaded on first use (PEP 562): importing the package needs the standard
library alone, and a library is imported only when something that needs it is touched.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # type checkers and editors do not run __getattr__
    from .convert.export_coreml import export_to_coreml as export_to_coreml
    from .convert.export_onnx import export_to_onnx as export_to_onnx
    from .core.facs import AU_NAMES as AU_NAMES
    from .core.facs import NUM_AUS as NUM_AUS
    from .data.format.writer import TrainingDataWriter as TrainingDataWriter
    from .data.labels.generate import TrainingDataGenerator as TrainingDataGenerator
    from .inference.predictor import AUPredictor as AUPredictor
    from .inference.predictor import LandmarkPosePredictor as LandmarkPosePredictor
    from .inference.predictor import load_au_predictor as load_au_predictor
    from .inference.predictor import load_predictor as load_predictor
    from .models import AUPredictionLoss as AUPredictionLoss
    from .models import AUPredictionNet as AUPredictionNet
    from .models import ConcordanceCorrelationLoss as ConcordanceCorrelationLoss
    from .models import LandmarkPoseLoss as LandmarkPoseLoss
    from .models import UnifiedLandmarkPoseNet as UnifiedLandmarkPoseNet
    from .models import WingLoss as WingLoss
    from .video.align import FaceAligner as FaceAligner
    from .video.pipeline import FacePipeline as FacePipeline

_HOMES = {
    "AU_NAMES": ".core.facs",
    "NUM_AUS": ".core.facs",
    "load_predictor": ".inference.predictor",
    "load_au_predictor": ".inference.predictor",
    "LandmarkPosePredictor": ".inference.predictor",
    "AUPredictor": ".inference.predictor",
    "FaceAligner": ".video.align",
    "FacePipeline": ".video.pipeline",
    "UnifiedLandmarkPoseNet": ".models",
    "AUPredictionNet": ".models",
    "WingLoss": ".models",
    "LandmarkPoseLoss": ".models",
    "ConcordanceCorrelationLoss": ".models",
    "AUPredictionLoss": ".models",
    "TrainingDataWriter": ".data.format.writer",
    "TrainingDataGenerator": ".data.labels.generate",
    "export_to_onnx": ".convert.export_onnx",
    "export_to_coreml": ".convert.export_coreml",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in (*_HOMES, "__version__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlx_faceau.core.libraries import LOAD_ERRORS, library_error, package_version

    if name == "__version__":  # reading it takes ten times as long as all the rest
        return package_version()

    try:
        return getattr(import_module(_HOMES[name], __name__), name)
    except LOAD_ERRORS as error:
        if library := library_error(error):
            raise library from error
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
