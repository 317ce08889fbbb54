"""Noise of a known share is found again, from pairs and from a file of nearly equal images."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

from conftest import REPOSITORY

from mlx_faceau.data.format.dataset import FaceDataset
from mlx_faceau.data.format.writer import TrainingDataWriter
from mlx_faceau.data.synthetic.people import synthesize

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import label_noise


def test_active_faces_noise_counts_as_often_as_faces_are_active() -> None:
    """One pair in ten is active, half of the faces are; noise is 0.1 at rest and 0.5 in action."""
    rng = np.random.default_rng(0)
    active = rng.random(4000) < 0.1
    middle = np.where(active, 4.0, 0.0)[:, None, None]
    spread = np.sqrt(np.where(active, 0.5, 0.1))[:, None, None]
    noisy = middle + rng.normal(0, 1, (4000, 2, 17)) * spread
    faces = np.repeat([[0.0], [4.0]], 500, axis=0) * np.ones(17)  # variance 4
    rows = label_noise.figures(np.arange(4000), noisy, faces)
    active_share, near_share = (
        np.mean([float(row[f"{kind}_share"]) for row in rows]) for kind in ("active", "near")
    )
    assert near_share == pytest.approx((0.9 * 0.1 + 0.1 * 0.5) / 4, rel=0.05)
    assert active_share == pytest.approx((0.5 * 0.1 + 0.5 * 0.5) / 4, rel=0.05)
    ends = np.array([[float(row[f"active_share{e}"]) for e in ("_low", "_high")] for row in rows])
    assert ((ends[:, 0] < 0.075) & (ends[:, 1] > 0.075)).sum() >= 14  # of 17, 0.95 each
    ceiling = [float(row["active_ceiling"]) for row in rows]
    shares = np.array([float(row["active_share"]) for row in rows])
    np.testing.assert_allclose(ceiling, np.sqrt(1 - shares), atol=1e-3)


def test_a_unit_that_few_pairs_or_one_person_show_has_no_figure_of_its_own() -> None:
    noise, active, share = np.ones((40, 17)), np.zeros((40, 17), bool), np.ones(17)
    active[:10, 0], active[:9, 1], active[:10, 2] = True, True, True
    people = np.r_[np.zeros(5), np.ones(35)].astype(int)
    found = label_noise.balanced_means(noise, active, people, share)
    assert np.isfinite(found[0, [0, 2]]).all()
    assert np.isnan(found[0, 1])
    assert np.isnan(label_noise.balanced_means(noise, active, np.ones(40), share)[0]).all()
    assert label_noise.share_columns("active", found[:, 1])["active_ceiling"] == "-"


def test_all_people_have_equal_weight() -> None:
    noise = np.repeat([[2.0], [0.0]], [4, 1], axis=0)  # one person's four pairs; another's pair
    assert label_noise.person_means(noise, np.array([0, 0, 0, 0, 1]))[0] == pytest.approx(1.0)


def written(path: Path, copies: int) -> FaceDataset:
    """Six people, each of whose one image is there so many times with labels of its own."""
    faces = synthesize(6, seed=3)
    rows = np.repeat(np.arange(6), copies)
    fields = {name: values[rows] for name, values in faces.items() if name != "person"}
    fields["au_intensities"] = np.random.default_rng(1).uniform(0, 5, (len(rows), 17))
    fields["au_intensities"] = fields["au_intensities"].astype(np.float32)
    people = [f"person{row}" for row in rows]
    with TrainingDataWriter(path) as writer:
        frames = list(range(len(rows)))
        writer.add_batch(**fields, video_names=people, subjects=people, frame_indices=frames)
    return FaceDataset(path)


def test_pairs_are_one_persons_nearly_equal_images(tmp_path: Path) -> None:
    people, pairs = label_noise.find_pairs(written(tmp_path / "faces.h5", copies=3))
    assert sorted(np.unique(people, return_counts=True)[1].tolist()) == [3] * 6
    assert pairs.shape == (18, 2, 17)


def test_a_file_without_such_pairs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "faces.h5", copies=1)
    monkeypatch.setattr(sys, "argv", ["label_noise.py", str(tmp_path / "faces.h5")])
    with pytest.raises(SystemExit, match=r"faces\.h5: no person has two crops"):
        label_noise.main()
