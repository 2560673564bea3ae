"""Weak perspective: the image frame's signs, fits, and Jacobians against differences."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.geometry import projection, rotation


def random_pose(xp, count, seed=0):
    rng = np.random.default_rng(seed)
    R = np.asarray(rotation.matrix_from_quaternion(rng.normal(size=(count, 4))))
    return xp(R), xp(rng.uniform(0.5, 200, count)), xp(rng.normal(size=(count, 2)) * 100)


def random_points(count, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 12, 3))


def test_project_by_hand(xp):
    # Frontal: x stays, y turns down, z stays nearer = larger; all times 2, moved by (100, 50).
    image = projection.project(xp([[1, 2, 3]]), xp(np.eye(3)), xp(2), xp([100, 50]))
    np.testing.assert_allclose(image, [[102, 46, 6]])


def test_positive_aflw_yaw_moves_the_nose_to_image_left(xp):
    R = rotation.matrix_from_euler(xp([0, 0.3, 0]), "aflw")
    image = projection.project(xp([[0, 0, 1]]), R, xp(1), xp([0, 0]))
    np.testing.assert_allclose(image, [[-np.sin(0.3), 0, np.cos(0.3)]], atol=1e-15)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_fit_recovers_the_pose(xp, dimensions):
    pose, points = random_pose(xp, 6), xp(random_points(6))
    weights = xp(np.random.default_rng(2).uniform(0.1, 1, (6, 12)))
    image = projection.project(points, *pose)[..., :dimensions]
    if dimensions == 3:
        image = image + xp([0, 0, 40])  # the constant in z is arbitrary
    for w in (None, weights):
        for got, want in zip(projection.fit_weak_perspective(points, image, w), pose, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-9)


def test_fit_to_2d_ignores_points_of_weight_zero(xp):
    pose, points = random_pose(xp, 1), xp(random_points(1))
    image = np.asarray(projection.project(points, *pose)[..., :2]).copy()
    image[:, 5] = 1e4
    weights = np.ones((1, 12))
    weights[:, 5] = 0
    for got, want in zip(projection.fit_weak_perspective(points, xp(image), xp(weights)), pose, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9)


def test_fit_to_noisy_2d_points_is_close_and_has_the_best_scale_and_shift(xp):
    pose, points = random_pose(xp, 1, 3), xp(random_points(1))
    noise = np.random.default_rng(4).normal(size=(1, 12, 2)) * 0.01 * float(pose[1][0])
    image = projection.project(points, *pose)[..., :2] + xp(noise)
    R, scale, shift = projection.fit_weak_perspective(points, image)
    assert float(rotation.geodesic(R, pose[0])[0]) < 0.02
    # At the optimum the residual is orthogonal to what scale and shift can change.
    residual = projection.project(points, R, scale, shift)[..., :2] - image
    centred = projection.project(points, R, scale, 0 * shift)[..., :2]
    np.testing.assert_allclose((residual * centred).sum(), 0, atol=1e-6)
    np.testing.assert_allclose(residual.sum(-2), 0 * shift, atol=1e-9)


def test_gradients():
    torch = pytest.importorskip("torch")
    pose = random_pose(torch.as_tensor, 2)
    points = torch.as_tensor(random_points(2)).requires_grad_()
    pose = tuple(field.requires_grad_() for field in pose)
    assert torch.autograd.gradcheck(projection.project, (points, *pose))
    image = projection.project(points, *pose).detach() / pose[1].detach()[:, None, None]
    for dimensions in (2, 3):  # at an exact fit and away from it
        for noise in (0.0, 0.3):
            target = image[..., :dimensions] + noise * torch.sin(torch.arange(12.0))[:, None]
            assert torch.autograd.gradcheck(projection.fit_weak_perspective, (points, target.requires_grad_()))
