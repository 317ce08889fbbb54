"""The open PDM as it is built from a head model, and as the package has it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPOSITORY
from ict_like import SHAPES, write_ict

from mlx_faceau.core.geometry import project
from mlx_faceau.core.landmarks import MIRROR
from mlx_faceau.core.pdm import OPEN_PDM, OPEN_PDM_NOISE, PDM, fit_pdm, read_pdm
from mlx_faceau.data.labels.open_pdm import (
    ICTFaceKit,
    build_open_pdm,
    read_ict_facekit,
    sample_expressions,
)

ICT = REPOSITORY.parent / "shared" / "open" / "ict_facekit.npz"
MIRRORED = np.array([-1, 1, 1])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ICTFaceKit:
    return read_ict_facekit(write_ict(tmp_path_factory.mktemp("ict") / "ict.npz"))


@pytest.fixture(scope="module")
def built(model: ICTFaceKit) -> PDM:
    return build_open_pdm(model, model.landmarks68)


def explained(pdm: PDM, displacement: np.ndarray) -> float:
    """Share of a displacement's (68, 3) square that the modes can express."""
    amounts = np.einsum("pck,pc->k", pdm.basis, displacement)
    return float((amounts**2).sum() / (displacement**2).sum())


@pytest.mark.parametrize("which", ["built", "shipped"])
def test_modes_are_orthonormal_and_the_mean_is_a_symmetric_face(which: str, built: PDM) -> None:
    pdm = built if which == "built" else read_pdm(OPEN_PDM)
    assert pdm.basis.shape == (68, 3, 34)
    modes = pdm.basis.reshape(-1, 34)
    np.testing.assert_allclose(modes.T @ modes, np.eye(34), atol=1e-5)
    assert (np.diff(pdm.variances) <= 0).all()
    assert pdm.variances[-1] > 0
    np.testing.assert_array_equal(pdm.mean[MIRROR] * MIRRORED, pdm.mean)
    np.testing.assert_allclose(pdm.mean.mean(axis=0), 0, atol=1e-4)
    assert 140 < np.ptp(pdm.mean[:, 0]) < 150  # mm from ear to ear
    assert pdm.mean[8, 1] > pdm.mean[27, 1]  # y points down
    assert pdm.mean[30, 2] == pdm.mean[:, 2].min()  # the nose's tip is nearest to the viewer


def test_expressions_live_in_the_modes(model: ICTFaceKit, built: PDM) -> None:
    for name in ("jawOpen", "mouthPucker"):
        displacement = model.expression[SHAPES.index(name)][model.landmarks68]
        assert explained(built, displacement) > 0.9
    unlike = np.random.default_rng(0).normal(size=(68, 3))
    assert explained(built, unlike) < 0.4


def test_heads_that_are_turned_and_shifted_add_nothing_to_the_modes(
    model: ICTFaceKit, built: PDM
) -> None:
    turned = np.cross((0.03, 0.03, 0.03), model.neutral)  # three degrees
    rigid = np.stack([turned, np.full_like(turned, 5.0)]).astype(np.float32)
    moving = replace(model, identity=np.concatenate([model.identity, rigid]))
    pdm = build_open_pdm(moving, model.landmarks68)
    assert pdm.variances.sum() == pytest.approx(built.variances.sum(), rel=0.05)
    unaligned = (rigid[:, model.landmarks68] ** 2).sum()
    assert unaligned > built.variances.sum()


def test_the_same_seed_builds_the_same_model(model: ICTFaceKit, built: PDM) -> None:
    again, other = (build_open_pdm(model, model.landmarks68, seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.basis, built.basis)
    assert np.abs(other.variances - built.variances).max() > 0.01


def test_sampled_expressions_are_sparse_mostly_symmetric_and_close_only_an_open_jaw() -> None:
    names = ("browDown_L", "browDown_R", "jawOpen", "mouthClose", "mouthSmile_L", "mouthSmile_R")
    amounts = sample_expressions(names, 20_000, np.random.default_rng(0))
    assert amounts.min() == 0
    assert amounts.max() <= 1
    brows, jaw, lips, smiles = amounts[:, :2], amounts[:, 2], amounts[:, 3], amounts[:, 4:]
    for pair, share, mean in ((brows, 0.5, 1 / 2), (smiles, 0.2, 1 / 3)):
        moving = pair[(pair > 0).any(axis=1)]
        assert len(moving) / len(pair) == pytest.approx(share, abs=0.02)
        np.testing.assert_allclose((moving == 0).mean(axis=0), 0.15, atol=0.02)
        both = moving[(moving > 0).all(axis=1)]
        assert both.mean() == pytest.approx(mean, abs=0.02)
        assert np.corrcoef(both.T)[0, 1] > 0.9
    assert (lips <= jaw).all()
    assert 0.02 < (lips > 0).mean() < 0.06


def test_the_shipped_model_is_the_one_that_results_name() -> None:
    content = OPEN_PDM.read_bytes()
    assert len(content) < 150_000
    assert hashlib.sha256(content).hexdigest() == (
        "c76fd1e180307284380640853dc0a63765dd2d868d280c16cdfb389795a300fd"
    )
    notice = (OPEN_PDM.parent / "NOTICE-ICT-FaceKit.txt").read_text()
    assert "MIT License" in notice
    assert "USC Institute for Creative Technologies" in notice


@pytest.mark.skipif(not ICT.is_file(), reason="needs ICT-FaceKit's file")
def test_the_shipped_model_is_what_ict_facekit_gives() -> None:
    built, shipped = build_open_pdm(read_ict_facekit(ICT)), read_pdm(OPEN_PDM)
    np.testing.assert_allclose(built.mean, shipped.mean, atol=1e-3)
    np.testing.assert_allclose(built.variances, shipped.variances, rtol=1e-4)
    np.testing.assert_allclose(built.basis, shipped.basis, atol=1e-4)


def test_the_shipped_model_finds_pose_in_its_own_faces() -> None:
    pdm, generator = read_pdm(OPEN_PDM), np.random.default_rng(0)
    local = generator.normal(size=(200, 34)) * np.sqrt(pdm.variances)
    angles = np.radians(generator.uniform(-40, 40, (200, 3)))
    params = np.concatenate([np.full((200, 1), 0.55), angles, np.full((200, 2), 55.5)], axis=1)
    seen = project(pdm.mean, pdm.basis, params, local)
    fit = fit_pdm(pdm, seen + generator.normal(0, 0.3, seen.shape), OPEN_PDM_NOISE)
    error = np.degrees(np.abs(fit.global_params[:, 1:4] - angles)).mean(axis=0)
    assert (error < 1.5).all(), error


def test_mirrored_faces_have_mirrored_pose_in_the_shipped_model() -> None:
    pdm, generator = read_pdm(OPEN_PDM), np.random.default_rng(1)
    local = generator.normal(size=34) * np.sqrt(pdm.variances)
    seen = project(pdm.mean, pdm.basis, np.array([0.55, 0.1, 0.5, -0.2, 55.5, 55.5]), local)
    fit = fit_pdm(pdm, np.stack([seen, seen[MIRROR] * [-1, 1] + [111, 0]]), OPEN_PDM_NOISE)
    flipped = fit.global_params[0] * [1, 1, -1, -1, -1, 1] + [0, 0, 0, 0, 111, 0]
    np.testing.assert_allclose(fit.global_params[1], flipped, atol=1e-3)
