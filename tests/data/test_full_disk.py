"""A training file that the disk has no room for: one error, no tracebacks, nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("h5py")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")

WRITE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from killing import sample
from mlx_faceau.data.format.row_io import create_file
from mlx_faceau.data.format.columns import batch_of_one, checked_block
from mlx_faceau.errors import DatasetError
size = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    with create_file(Path(sys.argv[1])) as file:
        for number in range(40):
            file.append(checked_block(batch_of_one(sample(number))))
except DatasetError as error:
    print(error)
"""


@pytest.mark.parametrize("size", [0, 3_000, 700_000, 1_550_000])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(size: int, tmp_path: Path) -> None:
    path = tmp_path / "faces.h5"
    path.write_text("the old file")
    command = [sys.executable, "-c", WRITE, str(path), str(size), str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"{path}: cannot be written ({os.strerror(27)})\n"
    assert result.stderr == ""
    assert path.read_text() == "the old file"
    assert [found.name for found in tmp_path.iterdir()] == ["faces.h5"]
