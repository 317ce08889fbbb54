"""A net as one ``.onnx`` file, checked before it is kept; both nets as one, on request.

Input ``image`` (batch, 3, 112, 112) RGB in [0, 1], or crops as cv2 gives them; outputs float32 in
the order of the original tool, so that its predictors, which read them by position, run these
files too.
"""

import io
import json
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_faceau.core.architectures import IMAGE_SIZE, HOGHeadConfig
from mlx_faceau.core.artifact_metadata import METADATA_KEY, ONNX_SUFFIX
from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.errors import ExportError, MissingDependency, UsageError

try:
    import onnx
    import torch
except ModuleNotFoundError as error:
    raise MissingDependency(str(error.name), extra="export") from error

from .check import CalibrationFaces, Check, network_input, verify_export
from .onnx_graph import INPUT_NAME, pool_globally, quantise, store_half, take_uint8, to_float16
from .source_model import CombinedModel, SourceModel, read_source
from .variants import DEFAULT_OPSET, DYNAMIC, HALF_WEIGHTS, Variant

# Of torch's exporter: BatchNorm is not folded, so that the weights keep their values.
_UNFOLDED: dict[str, Any] = {
    "training": torch.onnx.TrainingMode.PRESERVE,
    "do_constant_folding": False,
}
_SAMPLING = 16  # opset from which ONNX samples images
_TRACE_BATCH = 2  # a trace with one image would bake shapes of one image in


def export_to_onnx(
    model_or_checkpoint: Any,
    path: Path | str,
    opset_version: int = DEFAULT_OPSET,
    *,
    precision: str = "float32",
    input: str = "tensor",
    batch: int | str = DYNAMIC,
    faces: CalibrationFaces | None = None,
    force: bool = False,
) -> Check:
    """Write a net as an ONNX file and check that it equals the net.

    The same net, and for int8 the same faces, give the same bytes. The file appears under its
    name only after it passed.

    Args:
        model_or_checkpoint: see :func:`~mlx_faceau.convert.source_model.read_source`; or a
            :class:`~mlx_faceau.convert.source_model.CombinedModel`, or ``"builtin"``, for one
            file with the outputs of both nets.
        path: ends with ``.onnx``.
        opset_version: in [12, 21].
        precision: ``"float32"``; ``"float16"`` for GPUs; ``"float16-weights"``, half the size and
            computed in float32; ``"int8"``. Input and outputs keep their types.
        input: ``"tensor"``: float32 RGB in [0, 1], NCHW; ``"uint8"``: BGR, (batch, 112, 112, 3).
        batch: faces of one call, or ``"dynamic"``.
        faces: what int8 is calibrated and measured with; for int8 alone.
        force: keep an int8 file whose accuracy falls by more than the bound.

    Returns:
        The passed check: how far the file's outputs are from the float64 net's.

    Raises:
        ValueError: for another ending, opset, precision, input or batch; for int8 without faces.
        ExportError: if there is no such file, it fails its check or int8 costs too much
            (``CheckFailed``), or it cannot be made.
        CheckpointError: if the checkpoint cannot be read.
    """
    path = Path(path)
    if path.suffix != ONNX_SUFFIX:
        raise UsageError(f"{path}: the ending must be {ONNX_SUFFIX}")
    variant = Variant("onnx", precision, input, batch, opset_version)
    if (faces is not None) != (precision == "int8"):
        raise UsageError("faces to calibrate on are for int8, which needs them")
    source = read_source(model_or_checkpoint)
    with atomic_file(path) as temporary:
        model = traced(source, variant)
        if faces is not None:  # first as it will be quantised: int8 hides mistakes
            unrounded = replace(variant, precision="float32")
            temporary.write_bytes(onnx_bytes(deepcopy(model), source, unrounded, None))
            verify_export(temporary, path, source)
        temporary.write_bytes(onnx_bytes(model, source, variant, faces))
        return verify_export(temporary, path, source, faces, force)


def onnx_bytes(
    model: onnx.ModelProto,
    source: SourceModel | CombinedModel,
    variant: Variant,
    faces: CalibrationFaces | None,
) -> bytes:
    """The file of a variant, made of its trace, which changes."""
    if variant.precision == HALF_WEIGHTS:
        store_half(model)
    if faces is not None:
        model = quantise(model, source, network_input(faces.calibration))
    if variant.precision == "float16":
        to_float16(model)
    if variant.input == "uint8":
        take_uint8(model)
    about = {**source.metadata, **variant.describe()}
    if faces is not None:
        about["calibration"] = {"faces": len(faces.calibration), "data_hash": faces.hash}
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about, sort_keys=True)})
    model.doc_string = f"{source.kind} net of mlx-faceau"
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX graph is malformed: {error}") from None
    return bytes(model.SerializeToString(deterministic=True))


def traced(source: SourceModel | CombinedModel, variant: Variant) -> onnx.ModelProto:
    """The graph that a variant's file is made of, in float32; of int8 as it is quantised."""
    if variant.precision == HALF_WEIGHTS:
        source = source.rounded_to_half()
    if int(variant.opset or 0) < _SAMPLING and any(
        isinstance(p.config, HOGHeadConfig) for p in source.parts
    ):
        raise ExportError(f"a HOG head samples images, from opset {_SAMPLING} on")
    names = list(source.output_shapes)
    dynamic = variant.batch == DYNAMIC
    images = _TRACE_BATCH if dynamic else int(variant.batch or 1)
    buffer: Any = io.BytesIO()  # typed as a path alone, a file object as well
    with warnings.catch_warnings():
        # torch announces its other exporter, which cannot write opsets below 18.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            source.net(),
            (torch.zeros(images, 3, IMAGE_SIZE, IMAGE_SIZE),),
            buffer,
            input_names=[INPUT_NAME],
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in (INPUT_NAME, *names)} if dynamic else None,
            opset_version=variant.opset,
            dynamo=False,
            **_UNFOLDED if variant.precision == HALF_WEIGHTS else {},
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    written = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if written != variant.opset:
        raise ExportError(f"torch wrote opset {written} where {variant.opset} was asked for")
    if variant.precision == "int8":
        pool_globally(model.graph)
    return model
