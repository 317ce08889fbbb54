"""What is added to a batch last: auxiliary answers, and smaller images in the first epochs."""

import numpy as np
import pytest

from mlx_faceau.train.finishing import Auxiliary, Finishing, side_of_epoch
from mlx_faceau.train.targets import TargetStatistics

COUNT = 400


@pytest.mark.parametrize(
    ("first", "epochs", "expected"),
    [
        (112, 3, [112, 112, 112]),
        (64, 8, [64, 64, 80, 80, 96, 96, 112, 112]),
        (64, 6, [64, 64, 80, 96, 96, 112]),
        (48, 2, [48, 80]),
    ],
)
def test_images_grow_in_equal_parts_of_the_training(
    first: int, epochs: int, expected: list[int]
) -> None:
    assert [side_of_epoch(epoch, epochs, first) for epoch in range(epochs)] == expected


def test_epochs_beyond_the_last_keep_full_size() -> None:
    assert side_of_epoch(9, 8, 64) == 112


def labels() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.ones(COUNT, np.float32)
    mask[::2] = 0
    return {
        "images": rng.integers(0, 256, (COUNT, 112, 112, 3), np.uint8),
        "landmarks": rng.normal(50, 9, (COUNT, 68, 2)).astype(np.float32),
        "local_params": rng.normal(2, 5, (COUNT, 34)).astype(np.float32),
        "global_mask": np.ones(COUNT, np.float32),
        "local_mask": mask,
        "index": np.arange(COUNT)[::-1],
    }


@pytest.fixture
def auxiliary() -> Auxiliary:
    batch = labels()
    known = {name: batch[name] for name in ("landmarks", "local_params")}
    statistics = TargetStatistics.of(known, {})
    answers = np.random.default_rng(1).normal(size=(COUNT, 17 + 256)).astype(np.float32)
    answers = (answers - answers.mean(axis=0)) / answers.std(axis=0)
    return Auxiliary(answers, np.linspace(2, 0.1, 17 + 256), statistics)


def test_each_kind_of_answer_costs_a_constant_predictor_a_quarter(auxiliary: Auxiliary) -> None:
    answers = auxiliary.of(labels())
    assert answers.shape == (COUNT, 443)
    assert answers.dtype == np.float32
    cost = np.nanmean(np.square(answers, dtype=np.float64), axis=0)
    for part in np.split(cost, [136, 170, 187]):
        assert part.sum() == pytest.approx(0.25, rel=0.02)


def test_answers_belong_to_the_batch_s_faces(auxiliary: Auxiliary) -> None:
    batch = labels()
    scores = auxiliary.of(batch)[:, 170:187] * np.sqrt(17 * 4)
    np.testing.assert_allclose(scores, auxiliary.answers[::-1, :17], rtol=1e-5)
    moved = {**batch, "landmarks": batch["landmarks"] + np.float32(3)}
    shift = (auxiliary.of(moved) - auxiliary.of(batch))[:, :136] * np.sqrt(136 * 4)
    expected = 3 / auxiliary.statistics.deviations["landmarks"].reshape(-1)
    np.testing.assert_allclose(shift, np.tile(expected, (COUNT, 1)), rtol=1e-3)


def test_a_mirrored_face_has_no_shape_parameters_and_no_components(auxiliary: Auxiliary) -> None:
    answers = auxiliary.of(labels())
    assert np.isnan(answers[::2, 136:170]).all()
    assert np.isnan(answers[::2, 187:]).all()
    assert np.isfinite(answers[::2, :136]).all()
    assert np.isfinite(answers[::2, 170:187]).all()
    assert np.isfinite(answers[1::2]).all()


def test_larger_components_count_more(auxiliary: Auxiliary) -> None:
    answers = auxiliary.of(labels())[1::2, 187:]
    expected = np.sqrt(auxiliary.deviations[17:] / auxiliary.deviations[17:].sum() / 4)
    rows = auxiliary.answers[::-1][1::2, 17:]
    np.testing.assert_allclose(answers, rows * expected, rtol=1e-4)


def test_small_images_show_the_same_face(auxiliary: Auxiliary) -> None:
    batch = labels()
    batch["images"] = np.repeat(np.repeat(batch["images"][:, ::16, ::16], 16, 1), 16, 2)
    finished = Finishing(8, 64)({**batch}, 3)
    assert finished["images"].shape == (COUNT, 80, 80, 3)
    assert "auxiliary" not in finished
    # 7 x 7 blocks of 16 pixels: the middle of each keeps its colour
    middles = np.int64((np.arange(7) + 0.5) * 80 / 7)
    np.testing.assert_array_equal(
        finished["images"][:, middles][:, :, middles], batch["images"][:, 8::16, 8::16]
    )


def test_full_size_images_are_left_alone(auxiliary: Auxiliary) -> None:
    batch = labels()
    finished = Finishing(8, 64, auxiliary)({**batch}, 7)
    assert finished["images"] is batch["images"]
    np.testing.assert_array_equal(finished["auxiliary"], auxiliary.of(batch))
