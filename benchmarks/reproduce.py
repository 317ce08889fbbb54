"""Measure every figure of the README and the pages again, one script after the other.

    python benchmarks/reproduce.py
    mlx-faceau data split train.h5 --output parts --val 0.1
    python benchmarks/reproduce.py --train train.h5 --mixed mixed.h5 --val val.h5 --runs FOLDER \
        --part parts/train.h5 --dev parts/val.h5 \
        --landmark-model L --au-model A --detector yunet.onnx --video face.mp4 --openface face.csv \
        --exported FOLDER --ict ict.npz --landmarks68 faces.npz --face-landmarker FILE.task

``exported`` holds both models' files in every precision, each of these commands for L and for A:

    mlx-faceau export L --to onnx,coreml --precision float32 --output FOLDER
    mlx-faceau export L --to onnx,coreml --precision float16 --output FOLDER
    mlx-faceau export L --to onnx --precision int8 --calibration train.h5 --output FOLDER

Scripts that need labelled faces, trained nets or a video run when those are given; the rest says
what it lacks. Exit status 1 if a script fails or misses its bound. An idle machine takes hours.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HISTORIES = sorted((HERE / "results/au").glob("stage*.training_history.json"))
# Script and arguments; {name} stands for what an option gives, and the script waits for it.
SCRIPTS = (
    "startup.py",
    "latency.py",
    "throughput.py",
    "train_step.py",
    "training_equivalence.py",
    "data_loading.py",
    "data_writer.py",
    "data_formats.py",
    "faults.py",
    "fuzz.py",
    "export_speed.py --landmark-model {landmark_model} --au-model {au_model} --calibration {train} "
    "--validation {val}",
    "backend_parity.py {landmark_model} --data {val} --files {exported}",
    "backend_parity.py {au_model} --data {val} --files {exported}",
    "label_noise.py {train}",
    "teacher.py {part} --people {dev} --net {au_model} --landmark-model {landmark_model}",
    "box_calibration.py {train} {val} --yunet {detector} --boxes mtcnn --faces 1000",
    "pipeline.py {video} --landmark-model {landmark_model} --au-model {au_model} "
    "--detector {detector}",
    "openface_agreement.py {video} {openface} --landmark-model {landmark_model} "
    "--au-model {au_model} --detector {detector}",
    "reference.py {here}/recipes/landmark-pose.json --data train={train} mixed={mixed} "
    "--people {val} --run {runs}/landmark-pose",
    "reference.py {here}/recipes/au.json --data train={train} mixed={mixed} "
    "--people {val} --run {runs}/au",
    "learning_curve.py {here}/recipes/au.json --train {part} --dev {dev} --run {runs}/curve "
    "--epochs 20 16 --halvings 3 --with mirror=0 width_mult=0.5 "
    "--histories " + " ".join(f"{{here}}/results/au/{path.name}" for path in HISTORIES),
    "learning_curve.py {here}/recipes/au.json --train {runs}/curve/parts3/train.h5 --dev {dev} "
    "--run {runs}/composed --epochs 20 16 --halvings 0 --with mirror=0 width_mult=0.5 compose=8517 "
    "--results {runs}/composed",
    "ict_vertices.py {ict} {landmarks68}",
    "open_pdm.py {ict} --check --landmarks {landmarks68} --model {face_landmarker}",
    "expression_synthesis.py {faces} {ict} --label-model {face_landmarker}",
    "readme_table.py",
)
INPUTS = (
    "train",
    "mixed",
    "val",
    "part",
    "dev",
    "runs",
    "landmark_model",
    "au_model",
    "detector",
    "video",
    "openface",
    "exported",
    "ict",
    "landmarks68",
    "face_landmarker",
    "faces",
)


def command_of(line: str, given: dict[str, str | None]) -> tuple[list[str], list[str]]:
    """A script's words with what was given in their places, and the options it still lacks."""
    lacking = [name for name in INPUTS if f"{{{name}}}" in line and not given[name]]
    places = {**given, "here": str(HERE)}
    return ([] if lacking else [word.format(**places) for word in line.split()]), lacking


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in INPUTS:
        parser.add_argument("--" + name.replace("_", "-"), metavar="PATH")
    given, failed = vars(parser.parse_args()), []
    for line in SCRIPTS:
        words, lacking = command_of(line, given)
        script = line.split()[0]
        if lacking:
            options = ", ".join("--" + name.replace("_", "-") for name in lacking)
            print(f"{script}: left out; it needs {options}", flush=True)
            continue
        print(f"\n{' '.join(words)}", flush=True)
        if subprocess.run([sys.executable, str(HERE / words[0]), *words[1:]]).returncode:
            failed.append(script)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall done")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
