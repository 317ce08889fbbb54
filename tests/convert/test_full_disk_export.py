"""A Core ML package that the disk has no room for."""

from pathlib import Path

import pytest
from random_nets import AU, write_checkpoint

pytest.importorskip("torch")

from mlx_faceau.convert import export_coreml
from mlx_faceau.errors import ExportError


def test_coremltools_full_disk_is_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer knows no other words for that."""
    checkpoint = write_checkpoint(tmp_path / "net.safetensors", AU)
    path = tmp_path / "net.mlpackage"

    def convert(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(export_coreml, "_convert", convert)
    text = "[MIL FileWriter]: Unknown error occurred while writing data to the file."
    with pytest.raises(ExportError, match=r"net\.mlpackage: cannot be written; is its disk"):
        export_coreml.export_to_coreml(checkpoint, path)
    text = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        export_coreml.export_to_coreml(checkpoint, path)
    assert [found.name for found in tmp_path.iterdir()] == ["net.safetensors"]
