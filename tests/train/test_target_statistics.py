"""Statistics of the training targets."""

import json
from typing import Any

import numpy as np
import pytest

from mlx_faceau.errors import CheckpointError
from mlx_faceau.train.target_statistics import TargetStatistics

SHAPES = {"landmarks": (2, 2)}
LABELS = {
    "landmarks": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
    "global_params": np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, np.nan]], np.float32),
}


def test_masked_samples_do_not_count_and_a_label_that_never_changes_gets_deviation_one() -> None:
    statistics = TargetStatistics.of(LABELS, {"global_mask": np.array([1.0, 1, 0])})
    np.testing.assert_allclose(statistics.means["global_params"], [2.0, 5.0])
    np.testing.assert_allclose(statistics.deviations["global_params"], [1.0, 1.0])
    np.testing.assert_allclose(statistics.means["landmarks"], [[4, 5], [6, 7]])
    assert statistics.count == 3


def test_a_label_that_no_sample_has_is_left_unscaled() -> None:
    statistics = TargetStatistics.of(LABELS, {"global_mask": np.zeros(3)})
    mean, deviation = statistics.scaling(["global_params"])["global_params"]
    assert (mean.tolist(), deviation.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_statistics_survive_the_metadata_exactly() -> None:
    statistics = TargetStatistics.of({"landmarks": LABELS["landmarks"] / 7}, {})
    content = json.loads(json.dumps(statistics.to_json()))
    back = TargetStatistics.from_json(content, "file", SHAPES)
    np.testing.assert_array_equal(back.means["landmarks"], statistics.means["landmarks"])
    np.testing.assert_array_equal(back.deviations["landmarks"], statistics.deviations["landmarks"])


@pytest.mark.parametrize(
    "content",
    [
        {"count": 3, "landmarks": [1]},
        {"count": 3},
        {"count": 3, "landmarks": {"mean": [1], "deviation": [1]}},
        {"count": 3, "landmarks": {"mean": ["x"], "deviation": [1]}},
    ],
)
def test_malformed_statistics_name_their_file(content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"model\.onnx: malformed target_statistics"):
        TargetStatistics.from_json(content, "model.onnx", SHAPES)
