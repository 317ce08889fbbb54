"""How fast is each exported ONNX file, and what does it cost?

python benchmarks/export_speed.py --landmark-model NET --au-model NET --calibration TRAIN.h5
    --validation OTHER.h5 [--files plain int8] [--threads 1] [--rounds 60]

One process a file, all in turns in one run; the plain file runs twice, to show what chance makes.
The error against labels is of the same faces before and after.
"""

import argparse
import tempfile
from pathlib import Path

from compare import RESULTS, compare, write_csv

from mlx_faceau.cli.export_faces import read_faces
from mlx_faceau.convert.check import Check
from mlx_faceau.convert.export_onnx import export_to_onnx
from mlx_faceau.convert.export_source import Source, read_source

FILES = {
    "plain": {},
    "plain again": {},
    "batch 1": {"batch": 1},
    "uint8 crops": {"input": "uint8"},
    "float16": {"precision": "float16"},
    "int8": {"precision": "int8"},
    "int8 uint8 crops": {"precision": "int8", "input": "uint8"},
}
ERRORS = {"landmark_pose": "landmarks", "au_prediction": "au_intensities"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--landmark-model", required=True)
    parser.add_argument("--au-model", required=True)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--files", nargs="+", default=[*FILES], choices=[*FILES])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--output", type=Path, default=RESULTS / "export-speed.csv")
    args = parser.parse_args()
    rows = []
    for model in (args.landmark_model, args.au_model):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(read_source(model), args, Path(folder))
    write_csv(args.output, rows)
    print_ratios(rows)


def measure(source: Source, args: argparse.Namespace, folder: Path) -> list[dict]:
    faces = read_faces(args.calibration, args.validation, source.output_shapes)
    cases, checks = [], {}
    for name in dict.fromkeys(["plain", *args.files]):  # ratios are to the plain file
        asked = FILES[name]
        path = folder / f"{name.replace(' ', '_')}.onnx"
        more = {"faces": faces} if asked.get("precision") == "int8" else {}
        checks[name] = export_to_onnx(source, path, **asked, **more)
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
    rows = compare(cases, args.rounds)
    plain = rows[0]
    for row in rows:
        row["file"] = Path(row["file"]).name
        for clock in ("cpu", "wall"):
            key = f"{clock}_ms_median"
            row[f"{clock}_faster"] = round(plain[key] / row[key], 3)
        row |= errors(checks[row["case"]], source.kind)
    return rows


def errors(check: Check, kind: str) -> dict[str, float | str]:
    """The largest difference from float64, and for int8 the error against labels."""
    output = ERRORS[kind]
    (row,) = (row for row in check.rows if row.output == output)
    change = next((c for c in check.changes if c.output == output), None)
    return {
        "error_of": output,
        "largest_difference": f"{row.max_error:.3g}",
        "label_error_float32": "" if change is None else round(change.before, 5),
        "label_error_int8": "" if change is None else round(change.after, 5),
    }


def print_ratios(rows: list[dict]) -> None:
    for row in rows:
        print(
            f"{row['net']:14} {row['case']:17} {row['cpu_ms_median']:7.3f} ms CPU "
            f"{row['cpu_faster']:6.2f}x  {row['wall_ms_median']:7.3f} ms wall "
            f"{row['wall_faster']:6.2f}x  {row['megabytes']:5.1f} MB  "
            f"{row['label_error_float32']} -> {row['label_error_int8']}"
        )


if __name__ == "__main__":
    main()
