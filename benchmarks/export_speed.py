"""How fast is each exported ONNX file, and what does it cost?

    python benchmarks/export_speed.py --landmark-model NET --au-model NET \
        --calibration TRAIN.h5 --validation OTHER.h5

One process a file, all in turns in one run; the plain file runs twice, which shows the noise of the
measurement. The error against the labels is of the same faces for every file.
"""

import argparse
import tempfile
from pathlib import Path

from cases import EXPORTED, in_turns
from timing import RESULTS, Row, write_csv

from mlx_faceau.cli.export_faces import read_faces
from mlx_faceau.convert.check import Check
from mlx_faceau.convert.export_onnx import export_to_onnx
from mlx_faceau.convert.source_model import SourceModel, read_source

OUTPUT = {"landmark_pose": "landmarks", "au_prediction": "au_intensities"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--landmark-model", required=True)
    parser.add_argument("--au-model", required=True)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--output", type=Path, default=RESULTS / "export-speed.csv")
    args = parser.parse_args()
    rows: list[Row] = []
    for model in (args.landmark_model, args.au_model):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(read_source(model), args, Path(folder))
    write_csv(args.output, rows)


def measure(source: SourceModel, args: argparse.Namespace, folder: Path) -> list[Row]:
    faces = read_faces(args.calibration, args.validation, source.output_shapes)
    cases, checks = [], []
    for name, options in EXPORTED.items():
        path = folder / f"{name.replace(' ', '_')}.onnx"
        more = {"faces": faces} if options.get("precision") == "int8" else {}
        checks.append(export_to_onnx(source, path, **options, **more))
        cases.append(
            {
                "net": source.kind,
                "task": "exported",
                "case": name,
                "batch": 1,
                "threads": args.threads,
                "file": str(path),
                "megabytes": round(path.stat().st_size / 1e6, 1),
            }
        )
    rows = in_turns(cases, args.rounds)
    for row, check in zip(rows, checks, strict=True):
        row["file"] = Path(row["file"]).name
        for clock in ("cpu", "wall"):
            key = f"{clock}_ms_median"
            row[f"{clock}_faster"] = round(rows[0][key] / row[key], 3)
        row |= errors(check, OUTPUT[source.kind])
    return rows


def errors(check: Check, output: str) -> Row:
    """The largest difference from float64, and for int8 the error against the labels."""
    (largest,) = (row.max_error for row in check.rows if row.output == output)
    change = next((change for change in check.changes if change.output == output), None)
    return {
        "error_of": output,
        "largest_difference": f"{largest:.3g}",
        "label_error_float32": "" if change is None else round(change.before, 5),
        "label_error_int8": "" if change is None else round(change.after, 5),
    }


if __name__ == "__main__":
    main()
