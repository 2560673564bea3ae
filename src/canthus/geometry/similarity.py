"""Similarity transforms in 2D and 3D: y = scale * rotation @ x + shift, never a reflection."""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from canthus.geometry import Array
from canthus.geometry.rotation import nearest_rotation


class Similarity(NamedTuple):
    """scale (...), rotation (..., D, D) with determinant +1, shift (..., D)."""

    scale: Array
    rotation: Array
    shift: Array


def fit_similarity(source: Array, target: Array, weights: Array | None = None) -> Similarity:
    """The similarity that takes `source` (..., L, D) to `target` (..., L, D) with the least (weighted)
    squared error.

    D is 2 or 3; `weights` (..., L) are not negative. Umeyama, "Least-Squares Estimation of Transformation
    Parameters Between Two Point Patterns", PAMI 1991, eq. 40-42. Needs at least D points of weight > 0 that
    are not all the same.
    """
    xp: Any = array_namespace(source, target)
    w = xp.ones_like(source[..., :1]) if weights is None else weights[..., None]
    w = w / xp.sum(w, axis=-2, keepdims=True)
    source_mean = xp.sum(w * source, axis=-2, keepdims=True)
    target_mean = xp.sum(w * target, axis=-2, keepdims=True)
    x, y = source - source_mean, target - target_mean
    covariance = xp.matrix_transpose(y) @ (w * x)
    rotation = nearest_rotation(covariance)
    scale = xp.sum(rotation * covariance, axis=(-2, -1)) / xp.sum(w * x * x, axis=(-2, -1))
    shift = target_mean - scale[..., None, None] * source_mean @ xp.matrix_transpose(rotation)
    return Similarity(scale, rotation, shift[..., 0, :])


def apply(similarity: Similarity, points: Array) -> Array:
    """The images (..., L, D) of `points` (..., L, D)."""
    scale, rotation, shift = similarity
    turned = points @ array_namespace(points).matrix_transpose(rotation)
    return scale[..., None, None] * turned + shift[..., None, :]


def invert(similarity: Similarity) -> Similarity:
    """The similarity that takes `apply(similarity, points)` back to `points`."""
    scale, rotation, shift = similarity
    back = array_namespace(rotation).matrix_transpose(rotation)
    return Similarity(1 / scale, back, -(back @ shift[..., None])[..., 0] / scale[..., None])


def compose(outer: Similarity, inner: Similarity) -> Similarity:
    """The similarity that applies `inner` first and then `outer`."""
    shift = apply(outer, inner.shift[..., None, :])[..., 0, :]
    return Similarity(outer.scale * inner.scale, outer.rotation @ inner.rotation, shift)
