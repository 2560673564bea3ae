"""Weak perspective (scaled orthographic) projection from the head frame to the image frame.

Head: x to the image's right when frontal, y up, z towards the viewer. Image: x right, y down, z nearer =
larger, in the unit of x and y. image = scale * diag(1, -1, 1) @ rotation @ head + (shift_x, shift_y, 0).
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from canthus.geometry import Array
from canthus.geometry.rotation import nearest_rotation
from canthus.geometry.similarity import fit_similarity


def project(points: Array, rotation: Array, scale: Array, shift: Array) -> Array:
    """Head points (..., L, 3) in the image, (..., L, 3).

    rotation (..., 3, 3), scale (...) in pixels per head unit, shift (..., 2) in pixels.
    """
    xp: Any = array_namespace(points)
    image = scale[..., None, None] * _flip_y(points @ xp.matrix_transpose(rotation))
    return image + _with_zero(shift)[..., None, :]


def fit_weak_perspective(model: Array, image: Array, weights: Array | None = None) -> tuple[Array, Array, Array]:
    """The (rotation (..., 3, 3), scale (...), shift (..., 2)) that project `model` (..., L, 3) onto `image`.

    With `image` (..., L, 3) it is the least-squares similarity; the constant in z is arbitrary and is
    dropped. With (..., L, 2) it is the affine least-squares camera, its two rows made a rotation, then the
    best scale and shift for that rotation: exact for exact points, which must be at least four and not in one
    plane. `weights` (..., L) are not negative.
    """
    xp: Any = array_namespace(model, image)
    if image.shape[-1] == 3:
        scale, rotation, shift = fit_similarity(model, _flip_y(image), weights)
        return rotation, scale, xp.stack([shift[..., 0], -shift[..., 1]], axis=-1)
    w = xp.ones_like(image[..., :1]) if weights is None else weights[..., None]
    w = w / xp.sum(w, axis=-2, keepdims=True)
    model_mean = xp.sum(w * model, axis=-2, keepdims=True)
    x = model - model_mean
    y = _flip_y(image - xp.sum(w * image, axis=-2, keepdims=True))
    weighted = xp.matrix_transpose(w * x)
    rows = xp.matrix_transpose(xp.linalg.solve(weighted @ x, weighted @ y))  # (..., 2, 3)
    # A third row across the first two, of their length, leaves their nearest orthonormal pair as it is.
    across = xp.linalg.cross(rows[..., 0, :], rows[..., 1, :])
    length = xp.sqrt(xp.sum(rows * rows, axis=(-2, -1)) / 2)[..., None]
    rotation = nearest_rotation(xp.concat([rows, (across / length)[..., None, :]], axis=-2))
    turned = (x @ xp.matrix_transpose(rotation))[..., :2]
    scale = xp.sum(w * turned * y, axis=(-2, -1)) / xp.sum(w * turned * turned, axis=(-2, -1))
    middle = _flip_y((model_mean @ xp.matrix_transpose(rotation))[..., 0, :2])
    return rotation, scale, xp.sum(w * image, axis=-2) - scale[..., None] * middle


def _flip_y(points: Array) -> Array:
    """The same points (..., 2 or 3) with y reversed."""
    return array_namespace(points).concat([points[..., :1], -points[..., 1:2], points[..., 2:]], axis=-1)


def _with_zero(shift: Array) -> Array:
    xp: Any = array_namespace(shift)
    return xp.concat([shift, xp.zeros_like(shift[..., :1])], axis=-1)
