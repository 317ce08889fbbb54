"""Synthetic people with exact labels, for tests and first trainings.

Everything is drawn by this project from a seed: no photograph, no third-party shape model. An image
shows a person (shape and appearance), an expression (action units, which move points, tint skin and
show in eyes and mouth), a pose and a light. Landmarks are exactly the parameters' projection.

Units mostly occur together, in five expressions: the networks' heads start so small that they learn
one direction of variation after the other, and five of them fit into a few hundred steps.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlx_faceau.core import geometry
from mlx_faceau.core.facs import AU_NAMES, MAX_INTENSITY, NUM_AUS
from mlx_faceau.data.format.columns import checked_block
from mlx_faceau.data.format.row_io import check_new, create_file
from mlx_faceau.errors import UsageError

from .paint import SIZE, paint_face, sample_appearance
from .shape import marks, shape_model

# Units that come together, with their share of the expression's intensity.
_EXPRESSIONS: dict[str, dict[str, float]] = {
    "joy": {"AU06_r": 1.0, "AU12_r": 1.0, "AU25_r": 0.9},
    "surprise": {"AU01_r": 1.0, "AU02_r": 1.0, "AU05_r": 0.9, "AU26_r": 1.0},
    "anger": {"AU04_r": 1.0, "AU07_r": 0.9, "AU23_r": 1.0},
    "disgust": {"AU09_r": 1.0, "AU10_r": 1.0, "AU15_r": 0.9, "AU17_r": 0.9},
    "wince": {"AU14_r": 0.9, "AU20_r": 1.0, "AU45_r": 1.0},
}
_EXCLUSIVE = (("joy", "disgust"), ("surprise", "wince"), ("anger", "wince"))
_EXPRESSION_CHANCE = 0.45  # chance that an expression is shown, exclusion aside
_UNIT_CHANCE = 0.04  # chance that a unit is active by itself
_OPPOSED = (("AU05_r", "AU45_r"), ("AU12_r", "AU15_r"), ("AU20_r", "AU23_r"))
_POSE_DEVIATION = np.radians([5, 14, 4])  # pitch, yaw, roll
_POSE_LIMITS = np.radians([20, 30, 20])
_FRAME = (640, 480)
_IMAGES_EACH = 8  # of a person, unless the number of people is given
_BLOCK = 256  # samples made at a time


def synthesize(count: int, seed: int, people: int | None = None) -> dict[str, np.ndarray]:
    """Images of synthetic people in the standard crop, with exact labels in crop space.

    The same arguments give the same bytes, and another seed >= 0 gives other people. Images of one
    person, 8 by default, are consecutive. It raises UsageError if a number is out of range.

    Returns:
        ``images`` (N, 112, 112, 3) uint8 RGB; ``landmarks`` (N, 68, 2), ``global_params`` (N, 6),
        ``local_params`` (N, 34), ``au_intensities`` (N, 17), ``bboxes`` (N, 4) and
        ``warp_matrices`` (N, 2, 3) float32; ``person`` (N,) int64.
    """
    blocks = list(_blocks(count, seed, people))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def write_synthetic(
    path: str | os.PathLike[str], count: int, seed: int, people: int | None = None
) -> None:
    """Write the images of :func:`synthesize` as a training file, block by block.

    It raises DatasetError if the file exists or cannot be written.
    """
    check_new(Path(path), count)
    with create_file(Path(path)) as file:
        for block in _blocks(count, seed, people):
            names = [f"synthetic-{seed}-{number:05d}" for number in block.pop("person")]
            frames = list(range(file.rows, file.rows + len(names)))
            columns = {"video_names": names, "subjects": names, "frame_indices": frames}
            file.append(checked_block({**block, **columns}))


def _blocks(count: int, seed: int, people: int | None) -> Iterator[dict[str, np.ndarray]]:
    """What :func:`synthesize` returns, at most 256 images at a time."""
    if count < 1 or seed < 0:
        raise UsageError(f"count is {count} and seed {seed}, expected count >= 1 and seed >= 0")
    if people is None:
        people = min(count, max(2, count // _IMAGES_EACH))
    if not 1 <= people <= count:
        raise UsageError(f"people is {people}, expected 1..{count}")
    for start in range(0, count, _BLOCK):
        person = np.arange(start, min(start + _BLOCK, count)) * people // count
        yield _block(person, start, seed)


def _block(person: np.ndarray, start: int, seed: int) -> dict[str, np.ndarray]:
    """Images ``start``, ``start + 1``, ... of the given people."""
    model = shape_model()
    rngs = [np.random.default_rng((seed, 1, start + i)) for i in range(len(person))]
    rng_of = {number: np.random.default_rng((seed, 0, number)) for number in np.unique(person)}
    identity = {number: rng.standard_normal(len(model.identity)) for number, rng in rng_of.items()}
    appearance = {number: sample_appearance(rng) for number, rng in rng_of.items()}
    units = np.stack([_expression(rng) for rng in rngs])
    traits = np.stack([identity[number] for number in person]).clip(-2, 2)
    local = (traits @ model.identity + units @ model.expression).astype(np.float32)
    frame_params = np.empty((len(person), 6))  # in the frame of an imaginary photograph
    for row, rng in zip(frame_params, rngs, strict=True):
        angles = rng.normal(0, _POSE_DEVIATION).clip(-_POSE_LIMITS, _POSE_LIMITS)
        row[:] = rng.uniform(0.8, 2.0), *angles, *(rng.uniform(0.35, 0.65, 2) * _FRAME)
    frame_landmarks = geometry.project(model.mean, model.basis, frame_params, local)
    warp = np.stack([geometry.standard_crop_matrix(points) for points in frame_landmarks])
    params = geometry.transform_global_params(warp, frame_params).astype(np.float32)
    landmarks = geometry.project(model.mean, model.basis, params, local)
    followed = np.einsum("mp,pck->mck", marks().weights, model.basis)
    mark_points = geometry.project(marks().points, followed, params, local)
    low, high = frame_landmarks.min(axis=1), frame_landmarks.max(axis=1)
    images = np.empty((len(person), SIZE, SIZE, 3), np.uint8)
    for i, number in enumerate(person):
        images[i] = paint_face(
            *(landmarks[i], mark_points[i], units[i], appearance[number]),
            *(float(params[i, 0]), rngs[i]),
        )
    return {
        "images": images,
        "landmarks": landmarks.astype(np.float32),
        "global_params": params,
        "local_params": local,
        "au_intensities": units,
        "bboxes": np.concatenate([low, high - low], axis=1).astype(np.float32),
        "warp_matrices": warp.astype(np.float32),
        "person": person,
    }


def _expression(rng: np.random.Generator) -> np.ndarray:
    """(17,) float32 intensities, most of them 0: expressions, and units by themselves.

    Units of an expression differ in strength; opposed ones are never active together.
    """
    units = np.zeros(NUM_AUS)
    shown = [name for name in _EXPRESSIONS if rng.random() < _EXPRESSION_CHANCE]
    for pair in _EXCLUSIVE:
        if set(pair) <= set(shown):
            shown.remove(pair[int(rng.integers(2))])
    for expression in shown:
        strength = rng.uniform(0.8, 4.2)
        for name, share in _EXPRESSIONS[expression].items():
            units[AU_NAMES.index(name)] = strength * share * rng.uniform(0.85, 1.15)
    alone = rng.random(NUM_AUS) < _UNIT_CHANCE
    units[alone] = rng.uniform(0.5, MAX_INTENSITY, NUM_AUS)[alone]
    units = units.clip(0, MAX_INTENSITY)
    for pair in _OPPOSED:
        first, second = (AU_NAMES.index(name) for name in pair)
        if units[first] and units[second]:
            units[first if rng.random() < 0.5 else second] = 0
    return units.astype(np.float32)
