"""The picture of the training curves."""

import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_faceau.output.plotting import new_figure
from mlx_faceau.train import history
from mlx_faceau.train.history import draw_curves


def entries(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    loss = {"training": {"loss": 2.0}, "validation": {"loss": 1.0}}
    return [{"epoch": n, "learning_rate": 0.1, **loss, "metrics": metrics} for n in (1, 2)]


@pytest.mark.parametrize(
    "metrics",
    [
        {"correlation": 0.9, "correlation_without_mean": 0.5, "mae": 2.0},
        {"correlation": float("nan"), "mae": 2.0, "aus": {}},
    ],
)
def test_curves_are_drawn_for_both_nets(metrics: dict[str, Any], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("matplotlib")
    path = draw_curves(entries(metrics), tmp_path)
    assert path is not None
    image = cv2.imread(str(path))
    assert image.shape[0] > 500
    assert len({tuple(pixel) for pixel in image[::7, ::7].reshape(-1, 3).tolist()}) > 3


@pytest.mark.parametrize("taught", [False, True])
def test_training_and_validation_are_of_the_same_loss(
    taught: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    figure = new_figure(11, 7)
    monkeypatch.setattr(history, "new_figure", lambda *_: figure)
    drawn = entries({"correlation": 0.9, "mae": 2.0, "aus": {}})
    for entry in drawn:
        entry["validation"] = {"loss": 0.7, "ccc": 0.3}
        entry["training"] = {"loss": 0.6, "ccc": 0.2}
        if taught:
            entry["training"] |= {"loss": 2.6, "auxiliary": 0.5}
    draw_curves(drawn, tmp_path)
    heights = [line.get_ydata()[-1] for line in figure.axes[0].lines]
    assert heights == ([0.2, 0.3] if taught else [0.6, 0.7])


def test_without_matplotlib_a_line_says_so_and_nothing_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw_curves(entries({"correlation": 0.9}), tmp_path) is None
    assert "training curves not written: matplotlib is not installed" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_without_an_epoch_nothing_is_drawn(tmp_path: Path) -> None:
    assert draw_curves([], tmp_path) is None
