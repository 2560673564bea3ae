"""Rotations: each form against its definition, and there and back."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.errors import CanthusError
from canthus.geometry import rotation

D = np.diag([1.0, -1.0, -1.0])  # to axes with y down and z forward


def x_axis(a):
    return np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])


def y_axis(a):
    return np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])


def z_axis(a):
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


DEFINITIONS = {
    "aflw": lambda p, y, r: x_axis(p).T @ y_axis(y).T @ z_axis(r).T,
    "openface": lambda p, y, r: D @ (x_axis(p) @ y_axis(y) @ z_axis(r)) @ D,
    "opencv": lambda p, y, r: D @ (z_axis(r) @ y_axis(y) @ x_axis(p)) @ D,
    "arkit": lambda p, y, r: y_axis(y) @ x_axis(p) @ z_axis(r),
}


def random_rotations(count, seed=0):
    q = np.random.default_rng(seed).normal(size=(count, 4))
    return rotation.matrix_from_quaternion(q)


@pytest.mark.parametrize("convention", rotation.EULER_CONVENTIONS)
def test_euler_follows_its_definition(xp, convention):
    angles = np.random.default_rng(1).uniform(-np.pi, np.pi, (20, 3))
    expected = np.stack([DEFINITIONS[convention](*a) for a in angles])
    np.testing.assert_allclose(rotation.matrix_from_euler(xp(angles), convention), expected, atol=1e-14)


@pytest.mark.parametrize("convention", rotation.EULER_CONVENTIONS)
def test_euler_there_and_back(xp, convention):
    # The middle angle only covers a half turn; 1.5 rad keeps all three inside the unique range.
    limits = np.array([1.5, 3.1, 3.1]) if convention == "arkit" else np.array([3.1, 1.5, 3.1])
    angles = np.random.default_rng(2).uniform(-1, 1, (2, 50, 3)) * limits
    back = rotation.euler_from_matrix(rotation.matrix_from_euler(xp(angles), convention), convention)
    np.testing.assert_allclose(back, angles, atol=1e-12)


@pytest.mark.parametrize("convention", rotation.EULER_CONVENTIONS)
def test_euler_gives_back_the_matrix_in_gimbal_lock(xp, convention):
    noise = np.random.default_rng(3).normal(size=(40, 3, 3)) * 1e-13
    middle = 0 if convention == "arkit" else 1
    angles = np.random.default_rng(4).uniform(-3, 3, (40, 3))
    angles[:, middle] = np.pi / 2 * np.where(np.arange(40) % 2, 1, -1)
    R = rotation.matrix_from_euler(angles, convention) + noise
    back = rotation.matrix_from_euler(rotation.euler_from_matrix(xp(R), convention), convention)
    np.testing.assert_allclose(back, R, atol=1e-11)


def test_angles_of_one_set_are_angles_of_another(xp):
    """What 300W-LP stores, as Rz Ry Rx and back."""
    angles = xp(np.random.default_rng(0).uniform([-1.5, -1.5, -3.1], [1.5, 1.5, 3.1], (50, 3)))
    matrix = rotation.matrix_from_euler(angles, "aflw")
    again = rotation.matrix_from_euler(rotation.euler_from_matrix(matrix, "opencv"), "opencv")
    np.testing.assert_allclose(again, matrix, atol=1e-12)


def test_one_turn_about_each_axis_in_each_convention():
    # A head that turns its nose to image left: R maps +z towards -x, a turn about +y by a negative angle.
    # aflw and openface/opencv count that as positive yaw, arkit as negative.
    R = y_axis(-0.5)
    for convention, sign in {"aflw": 1, "openface": 1, "opencv": 1, "arkit": -1}.items():
        np.testing.assert_allclose(rotation.euler_from_matrix(R, convention), [0, sign * 0.5, 0], atol=1e-15)
    assert (R @ [0, 0, 1])[0] < 0
    # Nose down: +z goes to -y, Rx by +0.5. Roll: the head's top (+y) goes to image right (+x), Rz by -0.5.
    for convention, (pitch, roll) in {"aflw": (-1, 1), "openface": (1, 1), "arkit": (1, -1)}.items():
        np.testing.assert_allclose(rotation.euler_from_matrix(x_axis(0.5), convention), [pitch * 0.5, 0, 0])
        np.testing.assert_allclose(rotation.euler_from_matrix(z_axis(-0.5), convention), [0, 0, roll * 0.5])
    assert (x_axis(0.5) @ [0, 0, 1])[1] < 0 and (z_axis(-0.5) @ [0, 1, 0])[0] > 0


def test_unknown_convention_names_the_known_ones():
    with pytest.raises(CanthusError, match="'yxz'.*aflw, openface, opencv, arkit"):
        rotation.euler_from_matrix(np.eye(3), "yxz")


def test_quaternion_against_scipy_order():
    # A quarter turn about z: (cos 45, 0, 0, sin 45).
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        rotation.matrix_from_quaternion(np.array([half, 0, 0, half])), z_axis(np.pi / 2), atol=1e-15
    )


def test_quaternion_there_and_back(xp):
    half_turns = np.stack([np.eye(3), np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1])])
    R = np.concatenate([random_rotations(50), half_turns]).reshape(2, 27, 3, 3)
    q = rotation.quaternion_from_matrix(xp(R))
    assert bool((q[..., 0] >= 0).all())
    np.testing.assert_allclose((q * q).sum(-1), 1, atol=1e-14)
    np.testing.assert_allclose(rotation.matrix_from_quaternion(q), R, atol=1e-14)


def test_6d_is_gram_schmidt_on_the_first_two_columns(xp):
    R = random_rotations(10)
    np.testing.assert_allclose(rotation.matrix_from_6d(xp(np.concatenate([R[..., 0], R[..., 1]], -1))), R, atol=1e-14)
    # (0,0,2) -> z; (3,0,1) loses its z part -> x; third column z cross x = y.
    made = rotation.matrix_from_6d(xp([0, 0, 2, 3, 0, 1]))
    np.testing.assert_allclose(made, np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), atol=1e-15)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, np.pi - 1e-7, np.pi])
def test_geodesic_is_the_angle_of_the_rotation_vector(xp, angle):
    R = random_rotations(5)
    axis = np.array([2.0, -1.0, 2.0]) / 3
    turned = R @ rotation.matrix_from_vector(angle * axis)
    np.testing.assert_allclose(rotation.geodesic(xp(R), xp(turned)), np.full(5, angle), atol=1e-14)


def test_rotation_vector_is_the_matrix_exponential(xp):
    vectors = np.random.default_rng(5).normal(size=(6, 3))
    vectors[0] *= 1e-10
    for vector in vectors:
        K, term, series = rotation.skew(vector), np.eye(3), np.eye(3)
        for n in range(1, 60):
            term = term @ K / n
            series = series + term
        np.testing.assert_allclose(rotation.matrix_from_vector(xp(vector)), series, atol=1e-13)


def test_skew_is_the_cross_product(xp):
    v, p = np.array([1.0, 2, 3]), np.array([-2.0, 0.5, 4])
    np.testing.assert_allclose(rotation.skew(xp(v)) @ xp(p), np.cross(v, p))


def test_nearest_rotation_is_best_among_many(xp):
    M = np.random.default_rng(6).normal(size=(8, 3, 3))  # some of them with a negative determinant
    assert (np.linalg.det(M) < 0).any()
    R = np.asarray(rotation.nearest_rotation(xp(M)))
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=1e-12)
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), M.shape), atol=1e-12)
    ours = ((R - M) ** 2).sum((1, 2))
    others = ((random_rotations(3000)[:, None] - M) ** 2).sum((2, 3)).min(0)
    nearby = R @ rotation.matrix_from_vector(np.random.default_rng(7).normal(size=(200, 1, 3)) * 1e-3)
    assert (ours <= others).all() and (ours <= ((nearby - M) ** 2).sum((2, 3)).min(0) + 1e-12).all()


@pytest.mark.parametrize("M", [np.zeros((3, 3)), np.ones((3, 3)), -np.eye(3), np.diag([1.0, 1, 0])])
def test_nearest_rotation_of_degenerate_matrices_is_still_a_rotation(xp, M):
    R = np.asarray(rotation.nearest_rotation(xp(M)))
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)


def test_gradients():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    check = torch.autograd.gradcheck
    R = torch.as_tensor(random_rotations(4))
    for convention in rotation.EULER_CONVENTIONS:
        assert check(lambda a, c=convention: rotation.matrix_from_euler(a, c), normal(4, 3))
        assert check(
            lambda v, c=convention: rotation.euler_from_matrix(rotation.matrix_from_vector(v) @ R, c),
            normal(4, 3),
        )
    assert check(rotation.matrix_from_quaternion, normal(4, 4))
    assert check(rotation.matrix_from_6d, normal(4, 6))
    assert check(rotation.matrix_from_vector, normal(4, 3))
    assert check(rotation.matrix_from_vector, torch.zeros(3, dtype=torch.float64, requires_grad=True))
    assert check(rotation.nearest_rotation, normal(4, 3, 3))
    # Coinciding singular values, where the gradient of the plain decomposition is not a number.
    assert check(rotation.nearest_rotation, (2 * R).clone().requires_grad_())
    assert check(lambda v: rotation.quaternion_from_matrix(rotation.matrix_from_vector(v) @ R), normal(4, 3))
    assert check(lambda v: rotation.geodesic(rotation.matrix_from_vector(v) @ R, R), normal(4, 3))
    still = R.clone().requires_grad_()
    rotation.geodesic(still, R).sum().backward()
    assert torch.isfinite(still.grad).all()
