"""Every Python block of the pages runs, a page at a time, on tiny nets and drawn faces."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import write_video
from doc_pages import NAMES, REPOSITORY, blocks
from random_nets import AU, LANDMARK

from mlx_faceau.video import detectors as detect
from mlx_faceau.video.detectors import CallableDetector
from mlx_faceau.weights import builtin

FACE = (220, 140, 200, 200)  # of the frame below: x, y, width, height
WITH_PYTHON = [name for name in NAMES if blocks(REPOSITORY / name, "python")]
FOLDERS = {  # in the pages' examples -> kind of net
    "runs/landmarks": LANDMARK.kind,
    "models/landmarks": LANDMARK.kind,
    "runs/au": AU.kind,
    "models/aus": AU.kind,
}


@pytest.fixture
def examples(
    model_folders: dict[str, Path],
    stand_in: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A current folder with the files that the pages talk about, and a detector that finds."""
    pytest.importorskip("h5py")
    from mlx_faceau.convert.pyfaceau import write_pyfaceau
    from mlx_faceau.data.synthetic.people import synthesize, write_synthetic

    for name, kind in FOLDERS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(model_folders[kind])
    write_pyfaceau(tmp_path / "original.pt", LANDMARK, _weights(model_folders[LANDMARK.kind]))
    write_synthetic(tmp_path / "faces.h5", 16, seed=1)
    crop = synthesize(1, 2)["images"][0][..., ::-1]
    frame = np.full((480, 640, 3), 200, np.uint8)
    x, y, width, height = FACE
    frame[y : y + height, x : x + width] = cv2.resize(crop, (width, height))
    cv2.imwrite(str(tmp_path / "crop.png"), crop)
    cv2.imwrite(str(tmp_path / "photo.jpg"), frame)
    write_video(tmp_path / "interview.mp4", [frame] * 5)
    find: Callable[[np.ndarray], list[tuple[int, ...]]] = lambda _: [FACE]  # noqa: E731
    monkeypatch.setattr(detect, "_open_first", lambda folders: CallableDetector(find))
    monkeypatch.setattr(builtin, "FOLDER", stand_in)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _weights(folder: Path) -> dict[str, np.ndarray]:
    from mlx_faceau.core.checkpoint import load_checkpoint

    return load_checkpoint(folder).weights()


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_blocks_of_a_page_run_one_after_the_other(
    name: str, examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    crop = cv2.imread("crop.png")
    namespace: dict[str, Any] = {"__name__": name, "crop": crop}
    run = [block for block in blocks(REPOSITORY / name, "python") if block.reason is None]
    for block in run:
        padding = "\n" * (block.line - 1)  # so that a traceback names the page's own line
        code = compile(padding + block.text, str(REPOSITORY / name), "exec")
        exec(code, namespace)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    # What the loops over faces do must have happened.
    if any("for face in" in block.text for block in run):
        assert namespace.get("face") is not None


def test_there_are_blocks_and_few_are_left_out() -> None:
    every = [block for name in WITH_PYTHON for block in blocks(REPOSITORY / name, "python")]
    left_out = [block.reason for block in every if block.reason]
    assert len(every) >= 15
    assert len(left_out) <= len(every) // 5, left_out
    assert sys.version_info >= (3, 11)
