"""How far shapes are turned, and how often to draw them."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import MIRROR, head68

from canthus.data.balance import PoseSpace, balanced_weights, coefficient, pose_space
from canthus.geometry.projection import project
from canthus.geometry.rotation import matrix_from_euler


def shapes(angles: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """`head68` under (pitch, yaw, roll) (N,3) in degrees of the aflw set: (N,68,2)."""
    count = len(angles)
    head = np.broadcast_to(head68(), (count, 68, 3))
    rotation = matrix_from_euler(np.deg2rad(angles), "aflw")
    return project(head, rotation, np.full(count, scale), np.ones((count, 2)))[..., :2]


@pytest.fixture(scope="module")
def angles() -> np.ndarray:
    return np.random.default_rng(0).uniform([-40, -60, -20], [40, 60, 20], (400, 3))


@pytest.fixture(scope="module")
def space(angles) -> PoseSpace:
    return pose_space(shapes(angles))


def test_the_mean_is_a_frontal_face_and_the_axis_turns_it(space):
    np.testing.assert_allclose(np.linalg.norm(space.mean), 1, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(space.axis), 1, rtol=1e-9)
    np.testing.assert_allclose(space.mean[MIRROR] * [-1, 1], space.mean, atol=1e-6)
    np.testing.assert_allclose(space.axis[MIRROR] * [-1, 1], -space.axis, atol=1e-9)
    assert space.axis[30, 0] > 0


def test_the_coefficient_follows_the_yaw_whatever_the_pitch(space, angles):
    angles = angles * [1, 1, 0]
    values = coefficient(shapes(angles), space)
    assert np.corrcoef(values, -angles[:, 1])[0, 1] > 0.95  # aflw: negative yaw looks to the image's right
    sure = np.abs(angles[:, 1]) > 10
    assert (np.sign(values) == -np.sign(angles[:, 1]))[sure].all()


def test_nodding_more_than_turning_does_not_take_the_axis_over():
    angles = np.random.default_rng(1).uniform([-60, -15, 0], [60, 15, 0], (300, 3))
    values = coefficient(shapes(angles), pose_space(shapes(angles)))
    assert np.corrcoef(values, -angles[:, 1])[0, 1] > 0.9


def test_roll_size_and_place_do_not_matter_and_a_mirror_image_is_the_opposite(space, angles):
    points = shapes(angles[:20])
    c, s = np.cos(0.5), np.sin(0.5)
    moved = 3.0 * points @ np.array([[c, s], [-s, c]]) + [50, -7]
    np.testing.assert_allclose(coefficient(moved, space), coefficient(points, space), atol=1e-9)
    mirrored = points[:, MIRROR] * [-1, 1]
    np.testing.assert_allclose(coefficient(mirrored, space), -coefficient(points, space), atol=1e-6)


def test_torch_says_the_same(space, angles):
    torch = pytest.importorskip("torch")
    points = shapes(angles[:20])
    said = coefficient(torch.from_numpy(points), PoseSpace(torch.from_numpy(space.mean), torch.from_numpy(space.axis)))
    np.testing.assert_allclose(said.numpy(), coefficient(points, space), atol=1e-12)


def test_every_bin_gets_the_same_share():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20000)
    weights = balanced_weights(values, 9)
    np.testing.assert_allclose(weights.mean(), 1)
    low, high = np.percentile(values, [0.5, 99.5])
    edges = np.linspace(low, high, 10)[1:-1]
    share = np.bincount(np.digitize(values, edges), weights, minlength=9) / weights.sum()
    np.testing.assert_allclose(share, 1 / 9, rtol=0.02)
    plain = np.bincount(np.digitize(values, edges), minlength=9) / len(values)
    assert plain.max() / plain.min() > 10  # without the weights it would be far from even


def test_empty_bins_leave_their_share_to_the_others():
    values = np.array([0.0] * 30 + [1.0] * 10)  # two of the bins hold faces: 20/30 and 20/10
    np.testing.assert_allclose(balanced_weights(values, 9), [2 / 3] * 30 + [2.0] * 10)


def test_oversampling_is_limited():
    values = np.array([0.0] * 980 + [1.0] * 20)  # 25 times as often, without a limit
    weights = balanced_weights(values, 9, most=8)
    np.testing.assert_allclose(weights[-1] / weights[0], 8 / (1000 / 2 / 980))


def test_shapes_that_are_all_alike_are_drawn_alike():
    np.testing.assert_array_equal(balanced_weights(np.zeros(5), 9), np.ones(5))
