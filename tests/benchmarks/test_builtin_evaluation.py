"""The figures of the built-in pair follow their definitions."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY

pytest.importorskip("h5py")
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import builtin_evaluation


def test_f1_and_balanced_accuracy_of_presence_follow_their_definitions() -> None:
    truth, units = np.zeros((8, 17)), np.zeros((8, 17))
    truth[:3, 0] = 1.0
    units[[0, 1, 3], 0] = 1.0  # precision and recall are 2/3
    truth[:, 1] = 2.0  # no face lacks it
    net = SimpleNamespace(describe=lambda: {"metadata": None})
    found = builtin_evaluation.presence(net, truth, units)
    assert found["au_faces_present"]["AU01"] == 3
    assert found["au_f1"]["AU01"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["au_balanced_accuracy"]["AU01"] == pytest.approx((2 / 3 + 4 / 5) / 2, abs=1e-4)
    assert np.isnan(found["au_balanced_accuracy"]["AU02"])
