"""Regressions recovered from clipped labels, where the true scores are known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

pytest.importorskip("h5py")

from mlx_faceau.data.labels import openface_au_models as models
from mlx_faceau.data.labels.openface_au_models import NUM_TARGETS, OpenFaceAUModels, implied_pdm
from mlx_faceau.data.synthetic.people import synthesize

COUNT = 320


@dataclass(frozen=True)
class Pictures:
    """Synthetic faces as a data set shows them."""

    labels: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    images: np.ndarray

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        return self.images[indices]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    faces = synthesize(COUNT, seed=5)
    return Pictures(faces, {"global_mask": np.ones(COUNT, np.float32)}, faces["images"])


@pytest.fixture(scope="module")
def features(pictures: Pictures) -> np.ndarray:
    names = ("landmarks", "global_params", "local_params")
    pdm = implied_pdm(*(pictures.labels[name] for name in names))
    alignment = models.alignment_of(pdm, *(pictures.labels[name] for name in names[:2]))
    return np.concatenate(list(models.features_of(pictures, np.arange(COUNT), pdm, alignment)))


@pytest.fixture(scope="module")
def said(features: np.ndarray) -> np.ndarray:
    """(N, 17) scores of a linear model, unclipped."""
    centred = features - features.mean(axis=0)
    main = np.linalg.svd(centred, full_matrices=False)[0][:, :20]
    mixing = np.random.default_rng(2).normal(size=(20, 17))
    scores = main @ mixing
    return scores / scores.std(axis=0) + 0.3


@pytest.fixture(scope="module")
def labelled(pictures: Pictures, said: np.ndarray) -> Pictures:
    """The faces with those scores clipped, as a file holds them."""
    intensities = np.float32(np.clip(said, 0, 5))
    return replace(pictures, labels={**pictures.labels, "au_intensities": intensities})


@pytest.fixture(scope="module")
def fitted(labelled: Pictures) -> OpenFaceAUModels:
    return OpenFaceAUModels.fit(labelled, np.arange(COUNT))


@pytest.fixture(scope="module")
def targets(fitted: OpenFaceAUModels, labelled: Pictures) -> np.ndarray:
    return fitted.targets(labelled, np.arange(COUNT))


def test_what_was_cut_off_is_found_again(
    fitted: OpenFaceAUModels, targets: np.ndarray, said: np.ndarray
) -> None:
    scores = targets[:, :17] * fitted.deviations[:17] + fitted.means[:17]
    inside = (said > 0) & (said < 5)
    np.testing.assert_allclose(scores[inside], said[inside], atol=1e-4)
    assert (scores[said < 0] <= 1e-6).all()
    for unit in range(17):
        cut = said[:, unit] < 0
        assert cut.sum() > 50
        assert np.corrcoef(scores[cut, unit], said[cut, unit])[0, 1] > 0.8


def test_targets_are_standardised_on_the_faces_it_was_fitted_to(targets: np.ndarray) -> None:
    assert targets.shape == (COUNT, NUM_TARGETS)
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(targets.std(axis=0)[:100], 1, atol=0.02)


def test_components_are_the_principal_components_of_the_gradients(
    fitted: OpenFaceAUModels, features: np.ndarray
) -> None:
    gradients = features[:, :4464] - features[:, :4464].mean(axis=0)
    spread = np.linalg.svd(gradients, compute_uv=False) / np.sqrt(COUNT)
    np.testing.assert_allclose(fitted.deviations[17:217], spread[:200], rtol=5e-3)
    directions = fitted.weights[:4464, 17:]
    np.testing.assert_allclose(directions.T @ directions, np.eye(256), atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_direction_has_the_sign_that_makes_its_largest_weight_positive(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(7)
    axes = np.linalg.qr(rng.normal(size=(300, 300)))[0][:, :5]
    features = np.float32(rng.normal(size=(400, 5)) * [9, 7, 5, 3, 2] @ axes.T)
    start = np.random.default_rng(seed)
    monkeypatch.setattr(np.random, "default_rng", lambda _: start)
    found = models._principal_components(features)[:, :5]
    expected = np.linalg.svd(features, full_matrices=False)[2][:5].T
    expected *= np.sign(expected[np.abs(expected).argmax(axis=0), range(5)])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_shape_parameter_that_never_varies_tells_nothing_and_spoils_nothing(
    labelled: Pictures,
) -> None:
    constant = labelled.labels["local_params"].copy()
    constant[:, 33] = 0  # as of a shape model with a mode less
    models_ = OpenFaceAUModels.fit(
        replace(labelled, labels={**labelled.labels, "local_params": constant}), np.arange(COUNT)
    )
    assert all(np.isfinite(array).all() for array in models_.arrays().values())
    np.testing.assert_array_equal(models_.weights[-1], 0)


@pytest.mark.parametrize("count", [30, 90], ids=["fewer faces", "more faces than features"])
def test_ridge_regression_solves_its_equations(count: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 60)).astype(np.float32)
    wanted = rng.normal(size=(count, 17)).astype(np.float32)
    normal = features.T.astype(float) @ features + models._SHRINKAGE * np.eye(60)
    expected = np.linalg.solve(normal, features.T.astype(float) @ wanted)
    np.testing.assert_allclose(models._ridge(features)(wanted), expected, atol=1e-5)


def test_faces_without_pose_have_no_targets(fitted: OpenFaceAUModels, labelled: Pictures) -> None:
    mask = np.ones(COUNT, np.float32)
    mask[[1, 3]] = 0
    some = replace(labelled, masks={"global_mask": mask})
    targets = fitted.targets(some, np.arange(5))
    assert np.isnan(targets[[1, 3]]).all()
    np.testing.assert_array_equal(targets[[0, 2, 4]], fitted.targets(some, np.r_[0, 2, 4]))


def test_saved_arrays_give_the_same_targets(fitted: OpenFaceAUModels, labelled: Pictures) -> None:
    again = OpenFaceAUModels.from_arrays(
        {name: array.copy() for name, array in fitted.arrays().items()}
    )
    rows = np.arange(20)
    np.testing.assert_array_equal(again.targets(labelled, rows), fitted.targets(labelled, rows))
