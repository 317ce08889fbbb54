"""ICT-FaceKit's file is read into our axes and units, and refused where it is damaged."""

from pathlib import Path

import numpy as np
import pytest
from ict_like import SHAPES, ict_arrays, write_ict

from mlx_faceau.core.pdm import OPEN_PDM, read_pdm
from mlx_faceau.data.labels.open_pdm import read_ict_facekit
from mlx_faceau.errors import DatasetError


def test_centimetres_with_y_up_become_millimetres_with_y_down(tmp_path: Path) -> None:
    model = read_ict_facekit(write_ict(tmp_path / "ict.npz"))
    np.testing.assert_allclose(model.neutral[model.landmarks68], read_pdm(OPEN_PDM).mean, atol=1e-4)
    assert model.expression_names == SHAPES
    np.testing.assert_allclose(model.expression[0, 12 + 8], (0, 20, 5), atol=1e-4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.npz: not an \.npz file"):
        read_ict_facekit(tmp_path / "none.npz")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("text.npz", "one.npy"):
        with pytest.raises(DatasetError, match=name):
            read_ict_facekit(tmp_path / name)


def test_a_file_without_one_of_the_arrays_is_refused(tmp_path: Path) -> None:
    arrays = ict_arrays()
    del arrays["identity"]
    with pytest.raises(DatasetError, match="identity"):
        read_ict_facekit(write_ict(tmp_path / "ict.npz", arrays))
