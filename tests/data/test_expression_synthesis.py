"""Made expressions: exact landmarks, unchanged faces unchanged, eyes and mouths filled."""

import cv2
import numpy as np
import pytest
from drawn_mesh import drawn_model, photograph

from mlx_faceau.core.facs import AU_NAMES
from mlx_faceau.core.geometry import standard_crop_matrix
from mlx_faceau.data.labels.facs_reading import align
from mlx_faceau.data.labels.mediapipe import IBUG
from mlx_faceau.data.synthetic.expression_render import head_turn, make_face, move_mesh
from mlx_faceau.data.synthetic.expression_synthesis import sample_expression
from mlx_faceau.data.synthetic.mesh_points import EYES, LOWER_LIP, MOUTH, UPPER_LIP


@pytest.fixture(scope="module")
def model():
    return drawn_model()


def intensities(**units):
    return np.array([units.get(name[:4], 0.0) for name in AU_NAMES])


def filled(polygon):
    mask = np.zeros((112, 112), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return mask > 0


def test_without_a_change_the_face_is_its_plain_crop(model):
    picture, mesh = photograph()
    made = make_face(picture, mesh, model, np.zeros(len(model.names)))
    matrix = standard_crop_matrix(mesh[IBUG, :2])
    plain = cv2.warpAffine(
        picture, matrix, (112, 112), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    eyes = np.any([filled(made.mesh[eye.ring, :2]) for eye in EYES], axis=0)
    around = cv2.dilate(eyes.astype(np.uint8), np.ones((5, 5))) > 0  # edges of eyes are painted
    difference = np.abs(made.image.astype(float) - plain)[~around]
    assert difference.mean() < 0.6
    assert difference.max() <= 6


@pytest.mark.parametrize(
    ("units", "turn"),
    [
        ({"AU26": 4.0}, None),
        ({"AU01": 5.0, "AU02": 4.0, "AU12": 3.0}, None),
        ({"AU12": 3.0, "AU25": 2.0}, (0.3, -0.15)),
        ({}, (-0.25, 0.2)),
    ],
)
def test_spots_painted_on_the_photograph_are_found_at_the_landmarks(model, units, turn):
    picture, mesh = photograph()
    grey = np.full_like(picture, 120)
    spots = [2, 9, 13, 18, 24, 33]  # clear of the eyes, and of where the tone of teeth is taken
    turned = None if turn is None else head_turn(*turn)
    for spot in spots:
        marked = grey.astype(np.float32)
        rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
        x, y = mesh[IBUG[spot], :2]
        marked += 130 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.6**2))[..., None]
        made, without = (
            make_face(image, mesh, model, model.amounts(intensities(**units)), turned)
            for image in (np.clip(marked, 0, 255).astype(np.uint8), grey)
        )
        bright = np.abs(made.image.astype(float) - without.image).sum(axis=2)
        bright[bright < 30] = 0
        rows, columns = np.mgrid[:112, :112]
        found = np.array([(columns * bright).sum(), (rows * bright).sum()]) / bright.sum()
        np.testing.assert_allclose(found, made.landmarks[spot], atol=1.0, err_msg=str(spot))


def test_landmarks_fill_the_standard_crop(model):
    picture, mesh = photograph()
    amounts = model.amounts(intensities(AU26=5.0, AU02=3.0))
    made = make_face(picture, mesh, model, amounts, head_turn(0.3, 0.1))
    low, high = made.landmarks.min(axis=0), made.landmarks.max(axis=0)
    np.testing.assert_allclose((low + high) / 2, 55.5, atol=1e-9)
    np.testing.assert_allclose((high - low).max(), 80, atol=1e-9)
    np.testing.assert_array_equal(made.landmarks, made.mesh[IBUG, :2])


def test_a_mouth_is_filled_only_where_it_opens(model):
    picture, mesh = photograph()
    bright = np.full_like(picture, 230)
    closed = make_face(bright, mesh, model, np.zeros(len(model.names)))
    opened = make_face(bright, mesh, model, model.amounts(intensities(AU26=5.0)))
    eyes = np.any([filled(opened.mesh[eye.ring, :2]) for eye in EYES], axis=0)
    inside = filled(opened.mesh[MOUTH, :2])
    dark = opened.image.mean(axis=2) < 120
    assert inside.sum() > 120
    assert dark[inside].mean() > 0.5
    apart = cv2.dilate((inside | eyes).astype(np.uint8), np.ones((5, 5))) == 0
    assert not dark[apart].any()
    assert closed.image[58:, 20:90].min() > 200


def test_an_open_mouth_keeps_what_the_photograph_shows(model):
    picture, mesh = photograph()
    mesh = move_mesh(model, mesh, model.amounts(intensities(AU26=4.0))).mesh
    green = picture.copy()
    cv2.fillPoly(green, [np.round(mesh[MOUTH, :2]).astype(np.int32)], (20, 240, 20))
    made = make_face(green, mesh, model, model.amounts(intensities(AU12=2.0)))
    inside = cv2.erode(filled(made.mesh[MOUTH, :2]).astype(np.uint8), np.ones((5, 5))) > 0
    assert (made.image[inside][:, 1] > 180).mean() > 0.9


@pytest.mark.parametrize("blink", [2.5, 5.0])
def test_a_blink_closes_an_eye_by_its_share(model, blink):
    _, mesh = photograph()
    moved = move_mesh(model, mesh, model.amounts(intensities(AU45=blink))).mesh
    for eye in EYES:
        before = mesh[eye.lower, 1] - mesh[eye.upper, 1]
        after = moved[eye.lower, 1] - moved[eye.upper, 1]
        np.testing.assert_allclose(after, (1 - blink / 5) * before, atol=0.1)


def test_lips_and_lids_never_cross(model):
    _, mesh = photograph()
    amounts = -model.amounts(intensities(AU26=5.0, AU10=5.0))
    amounts[[model.names.index(f"eyeBlink_{side}") for side in "LR"]] = 1.2
    moved = move_mesh(model, mesh, amounts).mesh
    assert (moved[LOWER_LIP, 1] - moved[UPPER_LIP, 1]).min() >= -1e-9
    assert min((moved[eye.lower, 1] - moved[eye.upper, 1]).min() for eye in EYES) > 0


def test_closed_lips_stay_closed_and_their_skin_follows(model):
    _, mesh = photograph()
    amounts = model.amounts(intensities(AU10=5.0))
    apart, together = (
        move_mesh(model, mesh, amounts, None, closed).mesh for closed in (False, True)
    )
    rest = mesh[LOWER_LIP, 1] - mesh[UPPER_LIP, 1]
    np.testing.assert_allclose(together[LOWER_LIP, 1] - together[UPPER_LIP, 1], rest, atol=1e-6)
    assert (apart[LOWER_LIP, 1] - apart[UPPER_LIP, 1] - rest).max() > 3
    assert together[LOWER_LIP[4], 1] < mesh[LOWER_LIP[4], 1] - 1
    np.testing.assert_allclose(together[152], apart[152], atol=0.05)  # not the chin


def test_a_turn_is_a_rotation_of_the_whole_mesh(model):
    _, mesh = photograph()
    turn = head_turn(0.35, -0.2)
    moved = move_mesh(model, mesh, np.zeros(len(model.names)), turn).mesh
    centred = mesh - mesh.mean(axis=0)
    np.testing.assert_allclose(moved - moved.mean(axis=0), centred @ turn.T, atol=0.15)
    before, after = align(np.stack([mesh, moved]), model.neutral)[1]
    np.testing.assert_allclose(after @ before.T, turn, atol=1e-6)
    assert (turn @ [0, 0, -1])[0] < 0 < (head_turn(0.0, 0.2) @ [0, 0, -1])[1]


def test_expressions_are_added_in_the_heads_own_frame(model):
    _, mesh = photograph()
    turn = head_turn(-0.4, 0.25)
    amounts = model.amounts(intensities(AU02=4.0, AU12=3.0), left=0.5)
    upright = move_mesh(model, mesh, amounts).mesh - mesh
    turned = mesh @ turn.T
    np.testing.assert_allclose(
        move_mesh(model, turned, amounts).mesh - turned, upright @ turn.T, atol=1e-6
    )


def test_amounts_are_taken_by_side(model):
    amounts = dict(
        zip(model.names, model.amounts(intensities(AU12=4.0, AU26=5.0), 1.0, 0.25), strict=True)
    )
    assert amounts["mouthSmile_R"] == pytest.approx(0.25 * amounts["mouthSmile_L"]) != 0
    assert amounts["jawOpen"] == pytest.approx(0.75)
    assert amounts["browDown_L"] == 0


def test_drawn_expressions_show_every_unit_often_enough():
    rng = np.random.default_rng(3)
    drawn = [sample_expression(rng, smiling=index % 2 == 0) for index in range(4000)]
    strong = np.mean([expression.mean_intensities > 2 for expression in drawn], axis=0)
    assert strong.min() > 0.08, dict(zip(AU_NAMES, strong.round(3), strict=True))
    everything = np.stack([expression.au_intensities for expression in drawn])
    assert everything.min() >= 0
    assert everything.max() <= 5


def test_drawn_heads_stay_within_their_pose_limits():
    rng = np.random.default_rng(4)
    turned = [sample_expression(rng, yaw=0.5) for _ in range(2000)]
    assert max(abs(0.5 + expression.yaw) for expression in turned) <= 0.6 + 1e-9
    assert max(abs(expression.pitch) for expression in turned) <= np.radians(17)
    assert 0.25 < np.mean([expression.pitch != 0 for expression in turned]) < 0.45


def test_the_same_seed_draws_the_same_expressions():
    first, second = (
        [sample_expression(rng) for rng in [np.random.default_rng(9)] for _ in range(20)]
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.au_intensities, other.au_intensities)
        assert (one.kind, one.sides, one.yaw) == (other.kind, other.sides, other.yaw)
