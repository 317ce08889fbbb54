"""Several training files as one data set."""

import numpy as np
import pytest
from training_files import arrays, row_numbers, texts, write

from mlx_faceau.data.format.dataset import ConcatDataset, FaceDataset
from mlx_faceau.data.format.split import split_at, split_dataset
from mlx_faceau.data.loading.batches import Batches
from mlx_faceau.errors import DatasetError

COUNTS = (70, 41)  # neither fills its last chunk of 16


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    return [write(folder / f"{seed}.h5", arrays(count, seed)) for seed, count in enumerate(COUNTS)]


def open_datasets(paths):
    return ConcatDataset([FaceDataset(path) for path in paths])


@pytest.fixture
def joined(paths):
    return open_datasets(paths)


def test_one_file_is_the_data_that_it_is_by_itself(paths):
    assert open_datasets(paths[:1]).hash == FaceDataset(paths[0]).hash


def test_samples_of_all_files_are_read_in_any_order(paths, joined):
    parts = [FaceDataset(path) for path in paths]
    assert len(joined) == sum(COUNTS)
    for name in ("landmarks", "au_intensities"):
        expected = np.concatenate([part.labels[name] for part in parts])
        np.testing.assert_array_equal(joined.labels[name], expected)
    wanted = [110, 3, 70, 69, 3]
    images = joined.read_images(wanted)
    assert row_numbers(images).tolist() == [40, 3, 0, 69, 3]
    np.testing.assert_array_equal(images[2], parts[1].read_images([0])[0])
    np.testing.assert_array_equal(images[3], parts[0].read_images([69])[0])


def test_no_block_holds_samples_of_two_files_or_of_two_chunks(joined):
    rows = np.concatenate([np.arange(count) for count in COUNTS])
    for block in np.unique(joined.blocks):
        members = np.flatnonzero(joined.blocks == block)
        assert len(set(rows[members] // 16)) == 1
        assert (members < COUNTS[0]).all() or (members >= COUNTS[0]).all()
    assert len(np.unique(joined.blocks)) == 5 + 3


def test_an_epoch_mixes_the_files_and_holds_every_sample_once(joined, monkeypatch):
    monkeypatch.setattr("mlx_faceau.data.loading.batches.SHUFFLE_WINDOW", 32)
    monkeypatch.setattr("mlx_faceau.data.loading.batches._BLOCKS_IN_WINDOW", 1)
    batches = Batches(joined, np.arange(111), 37, workers=0)
    seen = list(batches.epoch(0))
    for batch in seen:
        own = batch["index"] - np.where(batch["index"] < 70, 0, 70)
        np.testing.assert_array_equal(row_numbers(batch["images"]), own)
        assert 0 < (batch["index"] < 70).sum() < 37
    assert sorted(np.concatenate([batch["index"] for batch in seen])) == list(range(111))
    np.testing.assert_array_equal(next(batches.epoch(0, 1))["images"], seen[1]["images"])


def test_a_subject_in_two_files_is_on_one_side(joined):
    for seed in range(5):
        split = split_dataset(joined, 0.3, seed)
        assert not set(joined.subjects[split.train]) & set(joined.subjects[split.validation])
        assert len(split.train) + len(split.validation) == 111


def test_a_file_that_names_videos_alone_follows_the_subjects_of_the_same_videos(paths, tmp_path):
    variants = arrays(40, 2)
    del variants["metadata/subjects"]
    joined = open_datasets([paths[0], write(tmp_path / "variants.h5", variants)])
    for seed in range(5):
        split = split_dataset(joined, 0.3, seed)
        assert not set(joined.videos[split.train]) & set(joined.videos[split.validation])
    with pytest.raises(DatasetError, match="share 10 subjects"):
        split_at(joined, 70)


def test_a_file_that_names_nobody_is_refused_for_a_split_but_not_for_validation(paths, tmp_path):
    nameless = arrays(20, 3)
    del nameless["metadata/subjects"], nameless["metadata/video_names"]
    joined = open_datasets([paths[0], write(tmp_path / "nameless.h5", nameless)])
    with pytest.raises(DatasetError, match="20 of 90 samples name neither"):
        split_dataset(joined)
    assert split_at(joined, 70).validation.tolist() == list(range(70, 90))


def test_people_on_both_sides_of_given_files_are_refused_by_name(joined):
    with pytest.raises(DatasetError, match=r"--val-data share 11 subjects \(person0, person1, "):
        split_at(joined, COUNTS[0])


def test_given_files_of_other_people_are_the_two_sides(paths, tmp_path):
    others = arrays(20, 4)
    others["metadata/subjects"] = texts([f"other{i}" for i in range(20)])
    joined = ConcatDataset([FaceDataset(paths[0]), FaceDataset(write(tmp_path / "o.h5", others))])
    split = split_at(joined, 70)
    assert (split.train.tolist(), split.validation.tolist()) == (
        list(range(70)),
        list(range(70, 90)),
    )
    assert split.by == "file"


def test_the_hash_tells_the_files_and_their_order(paths, joined):
    assert joined.hash == open_datasets(paths).hash
    assert joined.hash != open_datasets(paths[::-1]).hash
    assert joined.hash != open_datasets([paths[0], paths[0]]).hash
