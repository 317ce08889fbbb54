"""A few faces stand for many."""

from types import SimpleNamespace

import numpy as np

from mlx_faceau.data.format.identity import FINGERPRINT_SIZE, fingerprint, shares_faces

COUNT = 4000


def some_faces(count: int = COUNT, seed: int = 0) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    shapes = {"landmarks": (68, 2), "local_params": (34,), "au_intensities": (17,)}
    columns = {n: rng.normal(size=(count, *s)).astype(np.float32) for n, s in shapes.items()}
    return SimpleNamespace(labels=columns)


def part(faces: SimpleNamespace, rows: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(labels={name: of[rows] for name, of in faces.labels.items()})


def test_a_twentieth_of_the_faces_is_known_again_in_any_order() -> None:
    faces = some_faces()
    taken = fingerprint(faces, np.arange(COUNT))
    assert len(set(taken)) == FINGERPRINT_SIZE
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert shares_faces(part(faces, rng.permutation(COUNT)[: COUNT // 20]), taken)
    assert not shares_faces(some_faces(seed=9), taken)


def test_faces_that_were_left_out_are_not_known() -> None:
    faces = some_faces()
    taken = fingerprint(faces, np.arange(0, COUNT, 2))
    assert shares_faces(part(faces, np.arange(0, COUNT, 2)), taken)
    assert not shares_faces(part(faces, np.arange(1, COUNT, 2)), taken)
    assert taken == fingerprint(part(faces, np.arange(0, COUNT, 2)[::-1]), np.arange(COUNT // 2))


def test_few_faces_are_all_kept() -> None:
    few = some_faces(5)
    assert len(fingerprint(few, np.arange(5))) == 5
    assert shares_faces(part(few, np.array([3])), fingerprint(few, np.arange(5)))
    assert not shares_faces(few, [])
