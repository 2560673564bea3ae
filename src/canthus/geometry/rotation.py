"""Rotations: matrices, quaternions, the 6D form, and Euler angles by the name of their convention.

Matrices are camera-from-head in right-handed axes: x to the right, y up, z towards the camera. Angles are in
radians.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from canthus.errors import CanthusError
from canthus.geometry import Array

EULER_CONVENTIONS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "aflw": ((0, 1, 2), (-1, -1, -1)),  # 300W-LP, AFLW2000-3D: transposed elementary matrices
    "openface": ((0, 1, 2), (1, -1, -1)),  # Rx Ry Rz in axes y down, z forward
    "opencv": ((2, 1, 0), (1, -1, -1)),  # cv2.RQDecomp3x3: Rz Ry Rx in axes y down, z forward
    "arkit": ((1, 0, 2), (1, 1, 1)),  # Ry Rx Rz in our own axes
}
"""Name -> (axes of the three factors from left to right, sense of pitch, yaw and roll about +x, +y and +z).

Every convention is a product of three right-handed elementary rotations in our axes: turning to axes with y
down and z forward (diag(1, -1, -1), a half turn about x) keeps the sense of pitch and reverses yaw and roll.
"""


def matrix_from_euler(angles: Array, convention: str) -> Array:
    """Rotation matrices (..., 3, 3) from `angles` (..., 3), always (pitch, yaw, roll) in radians.

    `convention` is a key of `EULER_CONVENTIONS`; in "aflw" a positive yaw moves the nose to the image's left.
    Raises `CanthusError` for an unknown convention.
    """
    order, signs = _convention(convention)
    first, second, third = (_elementary(axis, signs[axis] * angles[..., axis]) for axis in order)
    return first @ second @ third


def euler_from_matrix(R: Array, convention: str) -> Array:
    """Angles (..., 3) = (pitch, yaw, roll) in radians from rotation matrices `R` (..., 3, 3).

    The angle of the middle factor (yaw, but pitch in "arkit") lies in [-pi/2, pi/2], the others in [-pi, pi].
    At the ends of that range only a sum or a difference of the other two is defined (gimbal lock): how it is
    shared between them is then arbitrary, but the three still give back `R`. Raises `CanthusError` for an
    unknown convention.
    """
    xp: Any = array_namespace(R)
    (i, j, k), signs = _convention(convention)
    parity = 1 if (j - i) % 3 == 1 else -1
    left = xp.atan2(-parity * R[..., j, k], R[..., k, k])
    # Undo the left factor; the other two angles stay exact even where the left one is only rounding noise.
    c, s = xp.cos(left)[..., None], parity * xp.sin(left)[..., None]
    row_j = c * R[..., j, :] + s * R[..., k, :]
    row_k = c * R[..., k, :] - s * R[..., j, :]
    middle = xp.atan2(parity * R[..., i, k], row_k[..., k])
    right = xp.atan2(parity * row_j[..., i], row_j[..., j])
    found = {i: left, j: middle, k: right}
    return xp.stack([signs[axis] * found[axis] for axis in range(3)], axis=-1)


def quaternion_from_matrix(R: Array) -> Array:
    """Unit quaternions (..., 4) = (w, x, y, z) with w >= 0, from rotation matrices `R` (..., 3, 3)."""
    xp: Any = array_namespace(R)
    m = [[R[..., i, j] for j in range(3)] for i in range(3)]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    diagonal = xp.stack([
        1 + m[0][0] + m[1][1] + m[2][2],
        1 + m[0][0] - m[1][1] - m[2][2],
        1 - m[0][0] + m[1][1] - m[2][2],
        1 - m[0][0] - m[1][1] + m[2][2],
    ], axis=-1)  # fmt: skip
    ww, xx, yy, zz = (diagonal[..., n] for n in range(4))
    rows = [[ww, wx, wy, wz], [wx, xx, xy, xz], [wy, xy, yy, yz], [wz, xz, yz, zz]]
    outer = xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)  # 4 q q^T
    # Any row is proportional to q; the one with the largest diagonal is the best conditioned (Shepperd 1978).
    best = xp.argmax(diagonal, axis=-1)[..., None]
    q = xp.zeros_like(diagonal)
    for n in range(4):
        q = xp.where(best == n, outer[..., n, :], q)
    q = q / xp.sqrt(xp.sum(q * q, axis=-1, keepdims=True))
    return xp.where(q[..., :1] < 0, -q, q)


def matrix_from_quaternion(q: Array) -> Array:
    """Rotation matrices (..., 3, 3) from quaternions `q` (..., 4) = (w, x, y, z) of any length but 0."""
    xp: Any = array_namespace(q)
    q = q / xp.sqrt(xp.sum(q * q, axis=-1, keepdims=True))
    w, x, y, z = (q[..., n] for n in range(4))
    return _matrix(xp, [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def matrix_from_6d(columns: Array) -> Array:
    """Rotation matrices (..., 3, 3) from (..., 6): the first two columns, orthonormalised in that order.

    Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, eq. 14-15. The
    two columns must be neither zero nor parallel.
    """
    xp: Any = array_namespace(columns)
    a, b = columns[..., :3], columns[..., 3:]
    a = a / xp.sqrt(xp.sum(a * a, axis=-1, keepdims=True))
    b = b - xp.sum(a * b, axis=-1, keepdims=True) * a
    b = b / xp.sqrt(xp.sum(b * b, axis=-1, keepdims=True))
    return xp.stack([a, b, xp.linalg.cross(a, b)], axis=-1)


def matrix_from_vector(vector: Array) -> Array:
    """Rotation matrices (..., 3, 3) from rotation vectors (..., 3): the axis times the angle (Rodrigues)."""
    xp: Any = array_namespace(vector)
    angle2 = xp.sum(vector * vector, axis=-1)[..., None, None]
    small = angle2 < xp.finfo(vector.dtype).eps
    angle = xp.sqrt(xp.where(small, xp.ones_like(angle2), angle2))
    sine = xp.where(small, 1 - angle2 / 6, xp.sin(angle) / angle)
    versine = xp.where(small, 0.5 - angle2 / 24, 2 * (xp.sin(angle / 2) / angle) ** 2)
    K = skew(vector)
    identity = xp.eye(3, dtype=vector.dtype, device=device(vector))
    return identity + sine * K + versine * (K @ K)


def skew(vector: Array) -> Array:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3): skew(v) @ p = v x p."""
    x, y, z = (vector[..., n] for n in range(3))
    zero = 0 * x
    return _matrix(array_namespace(vector), [[zero, -z, y], [z, zero, -x], [-y, x, zero]])


def geodesic(Ra: Array, Rb: Array) -> Array:
    """Angle (...) in radians, 0 to pi, of the rotation between `Ra` and `Rb` (..., 3, 3).

    By atan2 of sine and cosine, which stays accurate near 0 and pi, where the arc cosine of the trace does
    not.
    """
    xp: Any = array_namespace(Ra, Rb)
    M = xp.matrix_transpose(Ra) @ Rb
    twice_sine = [M[..., 2, 1] - M[..., 1, 2], M[..., 0, 2] - M[..., 2, 0], M[..., 1, 0] - M[..., 0, 1]]
    square = twice_sine[0] ** 2 + twice_sine[1] ** 2 + twice_sine[2] ** 2
    still = square == 0  # the square root has no gradient here
    sine = xp.where(still, xp.zeros_like(square), xp.sqrt(xp.where(still, xp.ones_like(square), square)))
    return xp.atan2(sine, M[..., 0, 0] + M[..., 1, 1] + M[..., 2, 2] - 1)


def nearest_rotation(M: Array) -> Array:
    """The rotation matrices (..., D, D), det +1, nearest to `M` (..., D, D) in the Frobenius norm.

    U diag(1, ..., det(U V^T)) V^T of the singular value decomposition M = U S V^T (Umeyama, PAMI 1991, eq.
    43). The gradient is that of the polar factor itself and so exists also where singular values coincide, as
    they do when `M` is a rotation; directions in which the nearest rotation is ambiguous get no gradient.
    For D = 2 there is a closed form, which also exported networks can compute.
    """
    xp: Any = array_namespace(M)
    if M.shape[-1] == 2:
        return _nearest_rotation_2d(xp, M)
    U, singular, Vt = xp.linalg.svd(_constant(M))
    V = xp.matrix_transpose(Vt)
    mirrored = xp.linalg.det(U) * xp.linalg.det(V) < 0
    last = xp.where(mirrored, -xp.ones_like(singular[..., 0]), xp.ones_like(singular[..., 0]))
    signs = xp.concat([xp.ones_like(singular[..., 1:]), last[..., None]], axis=-1)
    U = U * signs[..., None, :]
    stretch = singular * signs
    # One Newton step of "R^T M is symmetric": zero in value, exact in gradient.
    P = xp.matrix_transpose(U) @ M @ V
    sums = stretch[..., :, None] + stretch[..., None, :]
    defined = sums > xp.finfo(M.dtype).eps ** 0.5 * singular[..., :1, None]
    gain = xp.where(defined, 1 / xp.where(defined, sums, xp.ones_like(sums)), xp.zeros_like(sums))
    step = gain * (P - xp.matrix_transpose(P))
    return (U + U @ step) @ Vt


def _nearest_rotation_2d(xp: Any, M: Array) -> Array:
    """The angle whose cosine and sine are as the trace of `M` to its skew part; no turn where both are zero."""
    along, across = M[..., 0, 0] + M[..., 1, 1], M[..., 1, 0] - M[..., 0, 1]
    square = along * along + across * across
    ambiguous = square == 0
    length = xp.sqrt(xp.where(ambiguous, xp.ones_like(square), square))
    c, s = xp.where(ambiguous, xp.ones_like(along), along / length), across / length
    return _matrix(xp, [[c, -s], [s, c]])


def _convention(name: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    if name not in EULER_CONVENTIONS:
        raise CanthusError(f"got Euler convention {name!r}, want one of {', '.join(EULER_CONVENTIONS)}")
    return EULER_CONVENTIONS[name]


def _elementary(axis: int, angle: Array) -> Array:
    xp: Any = array_namespace(angle)
    c, s, zero = xp.cos(angle), xp.sin(angle), xp.zeros_like(angle)
    rows = [[zero] * 3 for _ in range(3)]
    j, k = (axis + 1) % 3, (axis + 2) % 3
    rows[axis][axis] = xp.ones_like(angle)
    rows[j][j], rows[j][k], rows[k][j], rows[k][k] = c, -s, s, c
    return _matrix(xp, rows)


def _matrix(xp: Any, rows: list[list[Array]]) -> Array:
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def _constant(array: Array) -> Array:
    """The same values, cut from the gradient."""
    return array.detach() if hasattr(array, "detach") else array
