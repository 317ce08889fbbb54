"""The script draws exactly the pictures that the pages show, from synthetic faces alone."""

import importlib.util
from pathlib import Path

import cv2
import pytest
from doc_pages import DOCS


def test_every_picture_can_be_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("h5py")
    spec = importlib.util.spec_from_file_location("draw", DOCS / "scripts" / "draw_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "PICTURES", tmp_path)
    script.main()
    drawn = {path.name: cv2.imread(str(path)) for path in tmp_path.iterdir()}
    committed = {path.name: cv2.imread(str(path)) for path in (DOCS / "pictures").iterdir()}
    committed.pop("measured-face.png")  # a rendered head, as "predict --overlay" draws it
    assert drawn.keys() == committed.keys()
    for name, picture in drawn.items():
        # matplotlib's releases set letters a little differently; the drawing is the same.
        assert picture.shape == pytest.approx(committed[name].shape, abs=4), name
        small = [cv2.resize(image, (60, 60)).mean(axis=2) for image in (picture, committed[name])]
        assert abs(small[0] - small[1]).mean() < 4, name
