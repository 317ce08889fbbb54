"""Which exported files exist; docs/export.md has the table."""

from dataclasses import dataclass
from numbers import Integral

from mlx_faceau.errors import ExportError, UsageError

FORMATS = ("onnx", "coreml", "safetensors")
HALF_WEIGHTS = "float16-weights"  # stored in half precision, computed with in float32
PRECISIONS = ("float32", "float16", HALF_WEIGHTS, "int8")
INPUTS = ("tensor", "uint8", "image")
DYNAMIC = "dynamic"
OPSETS = range(12, 22)  # what torch's TorchScript exporter and onnx both write, as asked
MAX_BATCH = 1024
DEFAULT_OPSET = 17
# What each format has where nothing is asked for.
_DEFAULTS: dict[str, dict[str, object]] = {
    "onnx": {"precision": "float32", "batch": DYNAMIC, "opset": DEFAULT_OPSET},
    "coreml": {"precision": "float16", "batch": 1},
    "safetensors": {"precision": "float32", "batch": DYNAMIC},
}


@dataclass(frozen=True)
class Variant:
    """One file that is asked for and can be written; else ExportError says why not."""

    form: str  # "onnx", "coreml" or "safetensors"
    # Of weights and computation: "float32", "float16", "int8", or "float16-weights" with float32
    # computation.
    precision: str | None = None
    # "tensor" (float32 RGB in [0, 1], NCHW), "uint8" (BGR, NHWC, as cv2 gives crops) or "image"
    # (a Core ML image).
    input: str = "tensor"
    batch: int | str | None = None  # faces of one call, a whole number or "dynamic"
    opset: int | None = None  # of an ONNX file

    def __post_init__(self) -> None:
        for name, default in _DEFAULTS.get(self.form, {}).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("batch", "opset"):  # of NumPy's too, but none that JSON does not know
            if isinstance(value := getattr(self, name), Integral) and not isinstance(value, bool):
                object.__setattr__(self, name, int(value))
        for name, known in (("form", FORMATS), ("input", INPUTS), ("precision", PRECISIONS)):
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        if self.batch != DYNAMIC and not _whole(self.batch, range(1, MAX_BATCH + 1)):
            raise UsageError(
                f"batch is {self.batch!r}, expected {DYNAMIC} or a whole number in [1, {MAX_BATCH}]"
            )
        if self.opset is not None and not _whole(self.opset, OPSETS):
            raise UsageError(
                f"opset is {self.opset}, expected a whole number in "
                f"[{OPSETS.start}, {OPSETS.stop - 1}]"
            )
        if reason := self._reason_against():
            opset = "" if self.opset is None else f", opset {self.opset}"
            asked = f"{self.precision}, input {self.input}, batch {self.batch}{opset}"
            raise ExportError(f"no {self.form} file of {asked}: {reason}")

    def describe(self) -> dict[str, object]:
        """What a file's metadata says about it, besides the net it holds."""
        return {"precision": self.precision, "input": self.input, "batch": self.batch}

    def _reason_against(self) -> str:
        """Why the file cannot be written; empty where it can."""
        if self.form == "onnx":
            if self.input == "image":
                return "ONNX has no image type; take --input uint8"
            if self.precision == "int8" and self.opset == OPSETS.start:
                return "scales per channel exist from opset 13 on"
        elif self.opset is not None:
            return "opsets are of ONNX files"
        elif self.form == "coreml":
            if self.precision == HALF_WEIGHTS:
                return "its float16 files store half weights already"
            if self.input == "uint8":
                return "Core ML has no uint8 arrays; take --input image"
            if self.batch == DYNAMIC:
                return "a flexible batch keeps a package off the Neural Engine"
            if self.input == "image" and self.batch != 1:
                return "Core ML takes one image a call; give predict a list"
        elif (
            self.precision not in ("float32", HALF_WEIGHTS)
            or self.input != "tensor"
            or self.batch != DYNAMIC
        ):
            return "weights alone have no input; nets compute in float32"
        return ""


def _whole(value: object, known: range) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in known
