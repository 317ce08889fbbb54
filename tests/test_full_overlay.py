"""An overlay that the disk has no room for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")

RECORD = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_result_files import varying_results
from mlx_faceau.output.result_files import OutputFiles, write_results
from mlx_faceau.errors import VideoError
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
folder = Path(sys.argv[1])
try:
    write_results(varying_results(60), OutputFiles(folder / "a.csv", overlay=folder / "a.mp4"), "a")
except VideoError as error:
    print(error)
"""


def test_a_cut_overlay_is_an_error_and_its_rows_count_as_unfinished(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RECORD, str(tmp_path), str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    place = tmp_path / "a.mp4"
    assert result.stdout == f"{place}: cannot be written: File too large\n"
    assert (tmp_path / "a.csv.incomplete").exists()
