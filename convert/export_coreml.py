"""A net as a Core ML package: ML program for macOS 13 and later, checked before it is kept.

Input ``image`` (1, 3, 112, 112) float32 RGB in [0, 1], an array and not an image unless asked
for; float32 outputs under the names of the ONNX file. Computation is in float16 unless asked
otherwise.
"""

import contextlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.architectures import IMAGE_SIZE
from mlx_faceau.core.artifact_metadata import COREML_SUFFIX, METADATA_KEY, find_mlmodel
from mlx_faceau.core.preprocess import PIXEL_MAX
from mlx_faceau.errors import ExportError, MissingDependency, UsageError

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingDependency("torch", extra="export") from error

from .check import CalibrationFaces, Check, verify_export
from .mil import load_coremltools, quiet
from .source_model import CombinedModel, SourceModel, read_source
from .variants import Variant

_SMALLEST_WEIGHT = 512  # numbers; smaller ones stay float16, where int8 would save nothing
_DATE = "1970-01-01"  # instead of today's, so that the same net gives the same bytes
_TEXTS = {
    "image": "face crop, RGB",
    "landmarks": "68 points (x, y), pixels of the crop",
    "global_params": "scale, rx, ry, rz (radians), tx, ty (pixels) in the crop",
    "local_params": "shape parameters of the point distribution model",
    "au_intensities": "17 action units in the order of the metadata; clamp to [0, 5]",
}


def export_to_coreml(
    model_or_checkpoint: Any,
    path: Path | str,
    precision: str = "float16",
    *,
    input: str = "tensor",
    batch: int | str = 1,
    faces: CalibrationFaces | None = None,
    force: bool = False,
) -> Check:
    """Write a net as a Core ML package and check that it equals the net.

    Result, errors and the other arguments are those of :func:`mlx_faceau.export_to_onnx`; what
    stands under the name and is no package is an ExportError too, as on Windows, for which
    coremltools has no build. MissingDependency is raised without coremltools.

    Args:
        path: ends with ``.mlpackage``; a package there is replaced once the new one passed.
        precision: of the computation, ``"float16"`` or ``"float32"``; ``"int8"`` keeps the
            weights in 8 bits and computes in float16. Input and outputs stay float32.
        input: ``"tensor"``: float32 RGB in [0, 1], NCHW; ``"image"``: a 112x112 image, which
            Core ML converts to RGB itself.
        batch: faces of one call.
    """
    path = Path(path)
    if path.suffix != COREML_SUFFIX:
        raise UsageError(f"{path}: the ending must be {COREML_SUFFIX}")
    variant = Variant("coreml", precision, input, batch)
    if (faces is not None) != (precision == "int8"):
        raise UsageError("faces to measure on are for int8, which needs them")
    if path.exists() and not (path / "Manifest.json").is_file():
        raise ExportError(f"{path}: exists and is not a Core ML package; move it away")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise ExportError(f"{path}: coremltools opens no file of such a name; rename it") from None
    source = read_source(model_or_checkpoint)
    with _atomic_package(path) as temporary:
        try:
            _convert(source, variant).save(str(temporary))
        except RuntimeError as error:
            if "FileWriter" not in str(error):
                raise
            text = "cannot be written; is its disk, or that of temporary files, full?"
            raise ExportError(f"{path}: {text}") from error
        _finish(temporary, source, variant)
        return verify_export(temporary, path, source, faces, force)


def _convert(source: SourceModel | CombinedModel, variant: Variant) -> Any:
    ct = load_coremltools()
    # coremltools numbers the operations that it adds on and on, through all models of a process.
    ct.converters.mil.Builder.name_count.clear()
    shape = (int(variant.batch or 1), 3, IMAGE_SIZE, IMAGE_SIZE)
    compute = ct.precision.FLOAT32 if variant.precision == "float32" else ct.precision.FLOAT16
    image = ct.TensorType("image", shape, dtype=np.float32)
    if variant.input == "image":
        image = ct.ImageType("image", shape, scale=1 / PIXEL_MAX, color_layout=ct.colorlayout.RGB)
    with quiet():
        # Not traced again to compare: the written file is compared with the net.
        traced: Any = torch.jit.trace(source.net(), torch.zeros(shape), check_trace=False)  # type: ignore[no-untyped-call]
        model = ct.convert(
            traced,
            inputs=[image],
            # Without a type these would be float16: steps of 0.06 px.
            outputs=[ct.TensorType(name, dtype=np.float32) for name in source.output_shapes],
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.macOS13,
            compute_precision=compute,
            skip_model_load=True,
        )
        if variant.precision != "int8":
            return model
        from coremltools.optimize import coreml as optimize  # one scale an output channel

        rounding = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype=np.int8, weight_threshold=_SMALLEST_WEIGHT
        )
        config = optimize.OptimizationConfig(global_config=rounding)
        return optimize.linear_quantize_weights(model, config)


def _finish(package: Path, source: SourceModel | CombinedModel, variant: Variant) -> None:
    """Put the metadata in, and take out what differs from one run to the next."""
    from coremltools.proto import Model_pb2

    path = find_mlmodel(package)
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    about = model.description.metadata
    about.shortDescription = f"{source.kind} net of mlx-faceau"
    about.license = " ".join({part.metadata["licence_note"]: 0 for part in source.parts})
    about.userDefined[METADATA_KEY] = json.dumps(
        {**source.metadata, **variant.describe()}, sort_keys=True
    )
    about.userDefined["com.github.apple.coremltools.conversion_date"] = _DATE
    for feature in (*model.description.input, *model.description.output):
        feature.shortDescription = _TEXTS[feature.name]
    path.write_bytes(model.SerializeToString(deterministic=True))
    # The manifest's items get identifiers made from their paths; coremltools' are random.
    manifest_path = package / "Manifest.json"
    manifest = json.loads(manifest_path.read_text("utf-8"))
    items = manifest["itemInfoEntries"]
    names = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])) for old, item in items.items()}
    manifest["itemInfoEntries"] = {names[old]: item for old, item in items.items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    manifest_path.write_text(json.dumps(manifest, indent=4, sort_keys=True), "utf-8")


@contextlib.contextmanager
def _atomic_package(path: Path) -> Iterator[Path]:
    """A package in a temporary sibling folder that takes the place of ``path`` at the end.

    Where the block fails, an existing package is kept.
    """
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        new, old = folder / f"new{COREML_SUFFIX}", folder / f"old{COREML_SUFFIX}"
        yield new
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
