"""Which exported files exist: one table that decides, and that docs/export.md shows.

The first rule that fits a request answers it: with nothing, or with the reason against it.
"""

from dataclasses import dataclass

from mlx_faceau.errors import ExportError, UsageError

FORMATS = ("onnx", "coreml", "safetensors")
HALF_WEIGHTS = "float16-weights"  # stored in half precision, computed with in float32
PRECISIONS = ("float32", "float16", HALF_WEIGHTS, "int8")
INPUTS = ("tensor", "uint8", "image")
DYNAMIC = "dynamic"
OPSETS = range(12, 22)  # what torch's TorchScript exporter and onnx both write, as asked
MAX_BATCH = 1024
_BATCHES = range(1, MAX_BATCH + 1)
DEFAULT_OPSET = 17
DEFAULT_PRECISION = {"onnx": "float32", "coreml": "float16", "safetensors": "float32"}
DEFAULT_BATCH = {"onnx": DYNAMIC, "coreml": 1, "safetensors": DYNAMIC}

ANY = "any"


@dataclass(frozen=True)
class Variant:
    """One file that is asked for.

    Args:
        form: ``"onnx"``, ``"coreml"`` or ``"safetensors"``.
        precision: of weights and computation: ``"float32"``, ``"float16"``, ``"int8"``, or
            ``"float16-weights"`` with float32 computation; None takes the format's own.
        input: ``"tensor"`` (float32 RGB in [0, 1], NCHW), ``"uint8"`` (BGR, NHWC, as cv2 gives
            crops) or ``"image"`` (a Core ML picture).
        batch: faces of one call, a whole number or ``"dynamic"``; None takes the format's own.
        opset: of an ONNX file; None takes 17 there.

    Raises:
        ValueError: for a value that no format knows.
    """

    form: str
    precision: str | None = None
    input: str = "tensor"
    batch: int | str | None = None
    opset: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("form", FORMATS), ("input", INPUTS)):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )
        if self.precision is None:
            object.__setattr__(self, "precision", DEFAULT_PRECISION[self.form])
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
            )
        if self.batch is None:
            object.__setattr__(self, "batch", DEFAULT_BATCH[self.form])
        if self.batch != DYNAMIC and (
            not isinstance(self.batch, int) or not _whole(self.batch) or self.batch not in _BATCHES
        ):
            raise UsageError(
                f"batch is {self.batch!r}, expected {DYNAMIC} or a whole number in [1, {MAX_BATCH}]"
            )
        if self.opset is None and self.form == "onnx":
            object.__setattr__(self, "opset", DEFAULT_OPSET)
        if self.opset is not None and (not _whole(self.opset) or self.opset not in OPSETS):
            raise UsageError(
                f"opset is {self.opset}, expected a whole number in "
                f"[{OPSETS.start}, {OPSETS.stop - 1}]"
            )

    def describe(self) -> dict[str, object]:
        """What a file's metadata says about it, besides the net it holds."""
        return {"precision": self.precision, "input": self.input, "batch": self.batch}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Rule:
    """One row of the table; each cell is a value, several with "/", or ``any``."""

    form: str
    precision: str
    input: str
    batch: str  # "1", "N" (a whole number above 1) or "dynamic"
    opset: str  # a whole number, "given", or "-" where none is
    reason: str = ""  # against it; empty: it is written

    def fits(self, variant: Variant) -> bool:
        """Whether every cell allows what the variant has."""
        batch = {1: "1", DYNAMIC: DYNAMIC}.get(variant.batch or DYNAMIC, "N")
        opset = "-" if variant.opset is None else f"given/{variant.opset}"
        cells = (self.form, self.precision, self.input, self.batch, self.opset)
        values = (variant.form, str(variant.precision), variant.input, batch, opset)
        return all(
            cell == ANY or set(value.split("/")) & set(cell.split("/"))
            for cell, value in zip(cells, values, strict=True)
        )


RULES = (
    Rule("onnx", ANY, "image", ANY, ANY, "ONNX has no picture type; take --input uint8"),
    Rule("onnx", "int8", ANY, ANY, "12", "scales per channel exist from opset 13 on"),
    Rule("onnx", ANY, ANY, ANY, ANY),
    Rule("coreml", HALF_WEIGHTS, ANY, ANY, ANY, "its float16 files store half weights already"),
    Rule("coreml", ANY, ANY, ANY, "given", "opsets are of ONNX files"),
    Rule("coreml", ANY, "uint8", ANY, "-", "Core ML has no uint8 arrays; take --input image"),
    Rule(
        "coreml", ANY, ANY, DYNAMIC, "-", "a flexible batch keeps a package off the Neural Engine"
    ),
    Rule("coreml", ANY, "image", "N", "-", "Core ML takes one picture a call; give predict a list"),
    Rule("coreml", ANY, "tensor", "1/N", "-"),
    Rule("coreml", ANY, "image", "1", "-"),
    Rule("safetensors", f"float32/{HALF_WEIGHTS}", "tensor", DYNAMIC, "-"),
    Rule("safetensors", ANY, ANY, ANY, ANY, "weights alone have no input; nets compute in float32"),
)


def check_variant(variant: Variant) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ExportError: with the reason.
    """
    rule = next(rule for rule in RULES if rule.fits(variant))
    if rule.reason:
        asked = [str(variant.precision), f"input {variant.input}", f"batch {variant.batch}"]
        if variant.opset is not None:
            asked.append(f"opset {variant.opset}")
        raise ExportError(f"no {variant.form} file of {', '.join(asked)}: {rule.reason}")


def markdown_table() -> str:
    """The table as docs/export.md shows it."""
    lines = [
        "| `--to` | `--precision` | `--input` | `--batch` | `--opset` | written? |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {rule.form} | {rule.precision} | {rule.input} | {rule.batch} | {rule.opset} "
        f"| {'no: ' + rule.reason if rule.reason else 'yes'} |"
        for rule in RULES
    ]
    return "\n".join(lines)
