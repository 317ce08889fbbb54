"""What is added to a batch last: smaller images in the first epochs."""

import numpy as np
import pytest

from mlx_faceau.train.datasets import BatchTransform, image_size_of_epoch

COUNT = 40


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
    assert [image_size_of_epoch(epoch, epochs, first) for epoch in range(epochs)] == expected


def test_epochs_beyond_the_last_keep_full_size() -> None:
    assert image_size_of_epoch(9, 8, 64) == 112


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 112, 112, 3), np.uint8)


class Answers:
    """Stands for the auxiliary answers."""

    def add_to(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**batch, "auxiliary": batch["index"] * 2}


def test_small_images_show_the_same_face() -> None:
    batch = {"images": np.repeat(np.repeat(images()[:, ::16, ::16], 16, 1), 16, 2)}
    finished = BatchTransform(8, 64)({**batch}, 3)
    assert finished["images"].shape == (COUNT, 80, 80, 3)
    assert "auxiliary" not in finished
    # 7 x 7 blocks of 16 pixels: the middle of each keeps its colour
    middles = np.int64((np.arange(7) + 0.5) * 80 / 7)
    np.testing.assert_array_equal(
        finished["images"][:, middles][:, :, middles], batch["images"][:, 8::16, 8::16]
    )


def test_full_size_images_are_left_alone_and_answers_added() -> None:
    batch = {"images": images(), "index": np.arange(COUNT)}
    finished = BatchTransform(8, 64, Answers())({**batch}, 7)
    assert finished["images"] is batch["images"]
    np.testing.assert_array_equal(finished["auxiliary"], 2 * batch["index"])
