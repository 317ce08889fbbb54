"""Which exported files exist; docs/export.md has the table."""

from dataclasses import dataclass

from mlx_faceau.errors import ExportError, UsageError

FORMATS = ("onnx", "coreml", "safetensors")
HALF_WEIGHTS = "float16-weights"  # stored in half precision, computed with in float32
PRECISIONS = ("float32", "float16", HALF_WEIGHTS, "int8")
INPUTS = ("tensor", "uint8", "image")
DYNAMIC = "dynamic"
OPSETS = range(12, 22)  # what torch's TorchScript exporter and onnx both write, as asked
MAX_BATCH = 1024
DEFAULT_OPSET = 17
_DEFAULT_PRECISION = {"onnx": "float32", "coreml": "float16", "safetensors": "float32"}
_DEFAULT_BATCH: dict[str, int | str] = {"onnx": DYNAMIC, "coreml": 1, "safetensors": DYNAMIC}


@dataclass(frozen=True)
class Variant:
    """One file that is asked for; where a value is None, the format has its own.

    Raises:
        UsageError: for a value that no format knows.
    """

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
        if self.form in FORMATS:
            defaults = {
                "precision": _DEFAULT_PRECISION[self.form],
                "batch": _DEFAULT_BATCH[self.form],
                "opset": DEFAULT_OPSET if self.form == "onnx" else None,
            }
            for name, default in defaults.items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, default)
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

    def describe(self) -> dict[str, object]:
        """What a file's metadata says about it, besides the net it holds."""
        return {"precision": self.precision, "input": self.input, "batch": self.batch}


def _whole(value: object, known: range) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in known


def check_variant(variant: Variant) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ExportError: with the reason.
    """
    if reason := _reason_against(variant):
        asked = [str(variant.precision), f"input {variant.input}", f"batch {variant.batch}"]
        if variant.opset is not None:
            asked.append(f"opset {variant.opset}")
        raise ExportError(f"no {variant.form} file of {', '.join(asked)}: {reason}")


def _reason_against(v: Variant) -> str:
    """Why a file cannot be written; empty where it can."""
    if v.form == "onnx":
        if v.input == "image":
            return "ONNX has no image type; take --input uint8"
        if v.precision == "int8" and v.opset == OPSETS.start:
            return "scales per channel exist from opset 13 on"
    elif v.opset is not None:
        return "opsets are of ONNX files"
    elif v.form == "coreml":
        if v.precision == HALF_WEIGHTS:
            return "its float16 files store half weights already"
        if v.input == "uint8":
            return "Core ML has no uint8 arrays; take --input image"
        if v.batch == DYNAMIC:
            return "a flexible batch keeps a package off the Neural Engine"
        if v.input == "image" and v.batch != 1:
            return "Core ML takes one image a call; give predict a list"
    elif v.precision not in ("float32", HALF_WEIGHTS) or v.input != "tensor" or v.batch != DYNAMIC:
        return "weights alone have no input; nets compute in float32"
    return ""
