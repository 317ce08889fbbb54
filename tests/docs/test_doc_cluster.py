"""The recipes for clusters run as they are written, in two processes: each video is done once."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blobs import Blob, draw_frame, write_video
from doc_pages import DOCS, blocks

from mlx_faceau.output.row_file import is_complete

NAMES = [f"clip{i}" for i in range(5)]


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``mlx-faceau`` is this one, with a detector that finds one face."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "videos").mkdir()
    for name in NAMES:
        write_video(tmp_path / "videos" / f"{name}.mp4", [draw_frame([Blob(100, 80, 40)])] * 2)
    (tmp_path / "drawn.py").write_text("def find(image):\n    return [(60, 40, 80, 80, 0.9)]\n")
    program = tmp_path / "bin" / "mlx-faceau"
    program.parent.mkdir()
    command = f'{sys.executable} -m mlx_faceau "$@" --detector drawn:find >> shown.txt'
    program.write_text(f"#!/bin/sh\ncd {tmp_path}\nexec {command}\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}


def recipe(language: str, word: str, folder: Path) -> str:
    found = [b.text for b in blocks(DOCS / "predict.md", language) if word in b.text]
    assert len(found) == 1
    return found[0].replace("/data/", f"{folder}/")


def check_each_done_once(folder: Path) -> None:
    done = re.findall(r"(\w+)\.mp4: 2 frames -> ", (folder / "shown.txt").read_text())
    assert sorted(done) == NAMES
    assert all(is_complete(folder / "results" / f"{name}.csv") for name in NAMES)


def test_two_tasks_of_a_slurm_array_share_a_folder(tmp_path: Path, cluster: dict[str, str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = tmp_path / "predict.sh"
    script.write_text(recipe("sh", "SLURM_ARRAY", tmp_path))
    tasks = [
        subprocess.Popen(
            [bash, str(script)],
            env={**cluster, "SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_COUNT": "2"},
        )
        for number in ("1", "2")
    ]
    assert [task.wait() for task in tasks] == [0, 0]
    check_each_done_once(tmp_path)


@pytest.mark.slow
def test_two_tasks_of_ray_share_a_folder(tmp_path: Path, cluster: dict[str, str]) -> None:
    if subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode:
        pytest.skip("Ray is not here")
    code = recipe("python", "ray.remote", tmp_path)
    code = code.replace("num_cpus=2", "num_cpus=1").replace("/16", "/2").replace("17", "3")
    code = code.replace("import ray\n", "import ray\nray.init(num_cpus=2)\n")
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=cluster,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "[0, 0]" in run.stdout.splitlines(), run.stderr
    check_each_done_once(tmp_path)
