"""A few faces stand for many."""

from types import SimpleNamespace

import numpy as np

from mlx_faceau.data.format.identity import (
    FINGERPRINT_SIZE,
    face_digests,
    fingerprint,
    shares_faces,
)

COUNT = 4000


def some_faces(count: int = COUNT, seed: int = 0) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    shapes = {"landmarks": (68, 2), "local_params": (34,), "au_intensities": (17,)}
    columns = {n: rng.normal(size=(count, *s)).astype(np.float32) for n, s in shapes.items()}
    return faces_of(columns, rng.integers(0, 256, (count, 4, 4, 3), np.uint8))


def faces_of(labels: dict[str, np.ndarray], images: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(labels=labels, images=images, read_images=images.__getitem__)


def part(faces: SimpleNamespace, rows: np.ndarray) -> SimpleNamespace:
    return faces_of({name: of[rows] for name, of in faces.labels.items()}, faces.images[rows])


def taken_of(faces: SimpleNamespace, rows: np.ndarray) -> list[str]:
    return fingerprint(face_digests(faces)[rows])


def test_a_twentieth_of_the_faces_is_known_again_in_any_order() -> None:
    faces = some_faces()
    taken = taken_of(faces, np.arange(COUNT))
    assert len(set(taken)) == 2 * FINGERPRINT_SIZE  # of images and of labels
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert shares_faces(part(faces, rng.permutation(COUNT)[: COUNT // 20]), taken)
    assert not shares_faces(some_faces(seed=9), taken)


def test_faces_that_were_left_out_are_not_known() -> None:
    faces = some_faces()
    taken = taken_of(faces, np.arange(0, COUNT, 2))
    assert shares_faces(part(faces, np.arange(0, COUNT, 2)), taken)
    assert not shares_faces(part(faces, np.arange(1, COUNT, 2)), taken)
    assert taken == taken_of(part(faces, np.arange(0, COUNT, 2)[::-1]), np.arange(COUNT // 2))


def test_few_faces_are_all_kept() -> None:
    few = some_faces(5)
    assert len(taken_of(few, np.arange(5))) == 2 * 5
    assert shares_faces(part(few, np.array([3])), taken_of(few, np.arange(5)))
    assert not shares_faces(few, [])


def test_faces_with_other_labels_or_other_pixels_are_known_again() -> None:
    faces, other = some_faces(20), some_faces(20, seed=1)
    taken = taken_of(faces, np.arange(20))
    assert shares_faces(faces_of(other.labels, faces.images), taken)
    assert shares_faces(faces_of(faces.labels, other.images), taken)
    assert not shares_faces(other, taken)
