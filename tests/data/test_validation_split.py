"""Splits keep a person, else a video, on one side."""

import numpy as np
import pytest

from mlx_faceau.data.format.split import split_dataset
from mlx_faceau.errors import DatasetError


class People:
    """Twenty subjects, two videos each, five samples a video."""

    def __init__(self, subjects=True, videos=True, sizes=(10,) * 20):
        person = np.repeat(np.arange(len(sizes)), sizes)
        half = np.concatenate([np.arange(size) * 2 // size for size in sizes])
        names = np.array([f"p{i}" for i in person], dtype=object)
        clips = np.array([f"p{i}-{j}" for i, j in zip(person, half, strict=True)], dtype=object)
        self.subjects = names if subjects else None
        self.videos = clips if videos else None
        self.count = len(person)

    def __len__(self):
        return self.count


def test_nobody_is_on_both_sides_and_everyone_is_on_one():
    people = People()
    split = split_dataset(people, 0.2, seed=3)
    assert split.by == "subject"
    both = np.concatenate([split.train, split.validation])
    assert sorted(both.tolist()) == list(range(200))
    assert not set(people.subjects[split.train]) & set(people.subjects[split.validation])
    assert len(split.validation) == 40


def test_videos_are_kept_together_where_nobody_is_named():
    people = People(subjects=False)
    split = split_dataset(people, 0.1)
    assert split.by == "video"
    assert not set(people.videos[split.train]) & set(people.videos[split.validation])


def test_unnamed_samples_among_named_ones_go_by_their_video():
    people = People()
    people.subjects[100:] = ""
    split = split_dataset(people, 0.2)
    keys = np.where(people.subjects == "", people.videos, people.subjects)
    assert not set(keys[split.train]) & set(keys[split.validation])


def test_the_split_depends_on_the_seed_alone():
    first, again, other = (split_dataset(People(), 0.2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)


@pytest.mark.parametrize("sizes", [(190, 10), (100, 100), (1, 2, 3, 500), (50, 50, 50, 50)])
def test_both_sides_hold_someone_however_unequal_people_are(sizes):
    for seed in range(5):
        split = split_dataset(People(sizes=sizes), 0.1, seed)
        assert len(split.train) > 0
        assert len(split.validation) > 0


def test_a_single_person_cannot_be_split():
    people = People(subjects=False, sizes=(30,))
    people.videos[:] = "p0-0"
    with pytest.raises(DatasetError, match=r"all 30 samples are of one video \(p0-0\).*add"):
        split_dataset(people)


def test_a_file_that_names_nobody_is_refused():
    with pytest.raises(DatasetError, match="200 of 200 samples name neither subject nor video"):
        split_dataset(People(subjects=False, videos=False))
    unnamed = People()
    unnamed.subjects[5:9] = unnamed.videos[7:9] = ""
    with pytest.raises(DatasetError, match="2 of 200 samples name neither"):
        split_dataset(unnamed)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, np.nan])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="--val-split is"):
        split_dataset(People(), fraction)
