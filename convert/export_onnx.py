"""A net as one ``.onnx`` file: float32, any batch size, BatchNorm folded, checked before it stays.

Input ``image`` (batch, 3, 112, 112) RGB in [0, 1]; outputs in the order of the original tool, so
that its predictors, which read them by position, run these files too.
"""

import io
import json
import warnings
from pathlib import Path
from typing import Any

from mlx_faceau.architectures import IMAGE_SIZE
from mlx_faceau.checkpoint import atomic_file
from mlx_faceau.errors import ExportError, MissingDependency
from mlx_faceau.exported import METADATA_KEY, ONNX_SUFFIX

try:
    import onnx
    import torch
except ModuleNotFoundError as error:
    raise MissingDependency(str(error.name), extra="export") from error

from .check import Check, CheckFailed, check_export
from .source import Source, read_source

INPUT_NAME = "image"
OPSETS = range(12, 22)  # what torch's TorchScript exporter and onnx both write, as asked
_TRACE_BATCH = 2  # a trace with one image would bake shapes of one image in


def export_to_onnx(model_or_checkpoint: Any, path: Path | str, opset_version: int = 17) -> Check:
    """Write a net as an ONNX file and prove it equal to the net.

    The same net gives the same bytes. The file appears under its name only after it passed.

    Args:
        model_or_checkpoint: see :func:`~mlx_faceau.convert.source.read_source`.
        path: ends with ``.onnx``.
        opset_version: in [12, 21].

    Returns:
        The passed check: how far the file's outputs are from the float64 net's.

    Raises:
        ValueError: for another ending or opset.
        ExportError: if the file fails its check (``CheckFailed``) or cannot be made.
        CheckpointError: if the checkpoint cannot be read.
    """
    path = Path(path)
    if path.suffix != ONNX_SUFFIX:
        raise ValueError(f"{path}: the ending must be {ONNX_SUFFIX}")
    if isinstance(opset_version, bool) or opset_version not in OPSETS:
        raise ValueError(
            f"opset is {opset_version}, expected a whole number in "
            f"[{OPSETS.start}, {OPSETS.stop - 1}]"
        )
    source = read_source(model_or_checkpoint)
    data = _onnx_bytes(source, int(opset_version))
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
        check = check_export(temporary, source).renamed(path)
        if not check.passed:
            raise CheckFailed(check)
    return check


def _onnx_bytes(source: Source, opset_version: int) -> bytes:
    model = onnx.load_model_from_string(_traced(source, opset_version))
    written = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if written != opset_version:
        raise ExportError(f"torch wrote opset {written} where {opset_version} was asked for")
    text = json.dumps({**source.metadata, "precision": "float32"}, sort_keys=True)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    model.doc_string = f"{source.config.kind} net of mlx-faceau"
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX graph is malformed: {error}") from None
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _traced(source: Source, opset_version: int) -> bytes:
    names = list(source.config.output_shapes)
    buffer: Any = io.BytesIO()  # typed as a path alone, a file object as well
    with warnings.catch_warnings():
        # torch announces its other exporter, which cannot write opsets below 18.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            source.net(),
            (torch.zeros(_TRACE_BATCH, 3, IMAGE_SIZE, IMAGE_SIZE),),
            buffer,
            input_names=[INPUT_NAME],
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in (INPUT_NAME, *names)},
            opset_version=opset_version,
            dynamo=False,
        )
    return bytes(buffer.getvalue())
