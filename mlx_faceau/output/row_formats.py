"""Rows of results other than OpenFace's CSV: JSON lines, and a finished CSV as Parquet."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlx_faceau.core.atomic_io import atomic_file
from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.video.results import FrameResult

from .openface_csv import FILE_COLUMN, Layout


def json_lines(result: FrameResult, layout: Layout) -> list[str]:
    """One JSON object a face, or one with ``"face_id": null`` where there is none.

    Keys are those of the Python API; pose in millimetres and radians, the rest in pixels of the
    displayed frame, whose width and height are ``image_size``.
    """
    frame = result.frame
    height, width = frame.image.shape[:2]
    first: dict[str, Any] = {FILE_COLUMN: result.source} if layout.file_column else {}
    first |= {
        "frame": frame.index + 1,
        "timestamp": round(frame.timestamp, 6),
        "image_size": [width, height],
    }
    if not result.faces:
        return [json.dumps({**first, "face_id": None, "success": False, "confidence": 0.0})]
    lines = []
    for face in result.faces:
        values: dict[str, Any] = {
            "face_id": face.face_id,
            "confidence": round(face.confidence, 4),
            "success": face.success,
        }
        if "pose" in layout.groups:
            values["position_mm"] = _rounded(face.pose.position)
            values["angles"] = _rounded(face.pose.angles)
        if "2d" in layout.groups:
            values["landmarks"] = _rounded(face.landmarks)
        if "params" in layout.groups:
            values["global_params"] = _rounded(face.global_params)
            values["local_params"] = _rounded(face.local_params)
        if "aus" in layout.groups and face.au_intensities is not None:
            units = _rounded(face.au_intensities)
            values["au_intensities"] = dict(zip(AU_NAMES, units, strict=True))
        lines.append(json.dumps({**first, **values}))
    return lines


def _rounded(values: np.ndarray) -> Any:
    return (np.round(np.asarray(values, np.float64), 4) + 0.0).tolist()  # no minus before a zero


def write_parquet(csv_path: Path, path: Path, record: Mapping[str, Any]) -> None:
    """A finished CSV as Parquet: names without spaces, block by block, whole or not at all.

    The record of what made it (see :mod:`.run_record`) is kept in the file's metadata.
    """
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    with csv_path.open() as file:
        names = [name.strip() for name in file.readline().split(",")]
    types = {"frame": "int64", "face_id": "int64", "success": "int64", FILE_COLUMN: "string"}
    reader = arrow_csv.open_csv(
        csv_path,
        read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
        convert_options=arrow_csv.ConvertOptions(
            column_types={name: types.get(name, "float64") for name in names}
        ),
    )
    schema = reader.schema.with_metadata({"mlx-faceau": json.dumps(record)})
    with atomic_file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for batch in reader:
            writer.write_batch(batch.cast(schema) if batch.schema != schema else batch)
