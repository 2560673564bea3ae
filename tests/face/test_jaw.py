"""The jaw as 2D annotations see it, against the outline of the turned mesh."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.face.jaw import JAW, jaw_lines, march, visible_jaw
from canthus.face.morphable import MorphableModel
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.rotation import matrix_from_euler

MODEL = MorphableModel.default()


def turned(yaw: float, roll: float = 0.0) -> WeakPerspective:
    """One camera, 1 px a millimetre; degrees, aflw: positive yaw moves the nose to the image's left."""
    rotation = matrix_from_euler(np.deg2rad([[0.0, yaw, roll]]), "aflw")
    return WeakPerspective(rotation, np.ones(1), np.zeros((1, 2)))


def both(camera: WeakPerspective) -> tuple[np.ndarray, np.ndarray]:
    """Fixed and visible jaw of the mean head, (17, 2)."""
    none = np.zeros((1, 0))
    fixed = camera.project(MODEL.landmarks()[:, :JAW])[0, :, :2]
    return fixed, visible_jaw(MODEL, none, none, camera)[0, :, :2]


def test_lines_are_level_and_run_from_the_landmark_forward_on_its_own_side():
    lines, jaw = MODEL.mean[jaw_lines(MODEL)], MODEL.landmarks()[0][:JAW]
    assert np.abs(lines[..., 1] - jaw[:, None, 1])[np.arange(JAW) != 8].max() < 7  # mm; edges are some 13 mm long
    side = np.sign(np.arange(JAW) - 8)
    assert (side[:, None] * lines[..., 0] >= 0).all()
    assert (np.diff(lines[[*range(8), *range(9, 17)], :, 2], axis=1) >= 0).all()
    assert (lines[[0, 3, 13, 16], -1, 2] > jaw[[0, 3, 13, 16], 2] + 50).all()  # they reach the front


def test_on_a_frontal_face_the_jaw_hardly_moves():
    fixed, visible = both(turned(0))
    assert np.linalg.norm(visible - fixed, axis=-1).max() < 2  # mm; sigmoid(-3) = 5 % of the way


@pytest.mark.parametrize("yaw", [-45, 45])
def test_on_the_side_turned_away_the_jaw_is_the_outline_of_the_face(yaw):
    camera = turned(yaw)
    fixed, visible = both(camera)
    far = np.arange(9, 17) if yaw < 0 else np.arange(8)  # yaw < 0: the nose points right, the image's right is far
    near = np.setdiff1d(np.arange(JAW), far)
    outward = 1 if yaw < 0 else -1
    # The outline at a landmark's height: the vertex of the face in front of the landmark that lies farthest out.
    points = camera.project(MODEL.mean[None])[0]
    for k in far:
        y, z = MODEL.landmarks()[0][k, 1:]
        level = (np.abs(MODEL.mean[:, 1] - y) < 4) & (MODEL.mean[:, 2] > z)
        outline = (outward * points[level, 0]).max()
        assert abs(outward * visible[k, 0] - outline) < 2.5  # mm
        assert outward * visible[k, 0] >= outward * fixed[k, 0]
    assert (outward * (visible - fixed)[far[2:6], 0] > 8).all()  # without marching it would be far inside
    np.testing.assert_allclose(visible[near], fixed[near], atol=0.1)


def test_the_two_sides_are_mirror_images():
    _, one = both(turned(-50))
    _, other = both(turned(50))
    np.testing.assert_allclose(one[::-1] * [-1, 1], other, atol=1.0)  # mm; the mesh is symmetric, its bands nearly


def test_roll_turns_the_whole_jaw_along():
    _, upright = both(turned(-40))
    camera = turned(-40)
    c, s = np.cos(0.7), np.sin(0.7)
    roll = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    rolled = WeakPerspective(roll @ camera.rotation, np.ones(1), np.zeros((1, 2)))
    _, visible = both(rolled)
    # anticlockwise in axes with y up is (x, y) -> (c x + s y, -s x + c y) with y down
    np.testing.assert_allclose(visible, upright @ np.array([[c, -s], [s, c]]), atol=1e-4)


def test_a_landmark_goes_half_of_the_way_at_15_degrees():
    fixed = np.zeros((1, JAW, 3))
    lines = np.zeros((1, JAW, 2, 3))
    lines[..., 1, 0] = np.where(np.arange(JAW) > 8, 10.0, -10.0)  # 10 px farther out
    moved = march(fixed, lines, turned(-15.0).rotation)[0, :, 0]  # the nose points to the image's right
    np.testing.assert_allclose(moved[9:], 5.0, atol=1e-9)
    np.testing.assert_allclose(moved[:8], -10 / (1 + np.exp(6)), atol=1e-9)  # sigmoid((-15 - 15) / 5)
    assert moved[8] == 0  # the chin stays
