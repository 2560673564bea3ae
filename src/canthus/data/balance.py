"""Pose-balanced training: the pose of a shape as one number, and sampling weights that balance it.

Shapes are aligned by generalised Procrustes analysis and projected on one principal axis, the coefficient on which
follows the yaw; equal parts of every batch are drawn from bins of it (Feng et al., "Wing loss for robust facial
landmark localisation with convolutional neural networks", CVPR 2018, section 5).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from canthus.face.landmarks import mirror
from canthus.face.landmarks import scheme as find_scheme
from canthus.geometry import Array
from canthus.geometry.similarity import apply, fit_similarity

ROUNDS = 5  # of Procrustes analysis; the mean moves by less than 1e-4 in the last


class PoseSpace(NamedTuple):
    """mean (L,2): Procrustes mean of shapes and their mirror images, centred, of norm 1. axis (L,2): unit vector."""

    mean: Array
    axis: Array


def coefficient(shapes: Array, space: PoseSpace) -> Array:
    """The pose coefficient (B,) of shapes (B,L,2): positive where the face looks to the right of the picture.

    It does not depend on position, size and roll, and a mirror image has the opposite sign. NumPy or torch.
    """
    xp: Any = array_namespace(shapes)
    mean = xp.broadcast_to(space.mean, shapes.shape)
    return xp.sum((apply(fit_similarity(shapes, mean), shapes) - mean) * space.axis, axis=(-2, -1))


def pose_space(shapes: np.ndarray, scheme: str = "ibug68") -> PoseSpace:
    """The mean and the pose axis of training shapes (N,L,2) of a scheme, pixels.

    Of the principal axes of the shapes together with their mirror images, each keeps or changes its sign under the
    mirror; the pose axis is the first that changes it, so it follows yaw and not pitch.
    """
    both = np.concatenate([shapes, mirror(shapes, scheme, 1)])
    both = both - both.mean(1, keepdims=True)
    both /= np.linalg.norm(both, axis=(1, 2), keepdims=True)
    mean = both.mean(0)
    for _ in range(ROUNDS):
        mean = mean / np.linalg.norm(mean)
        fitted = apply(fit_similarity(both, np.broadcast_to(mean, both.shape)), both)
        mean = fitted.mean(0)
    mean = mean / np.linalg.norm(mean)
    half = fitted[: len(shapes)]
    turning = (half - fitted[len(shapes) :]).reshape(len(shapes), -1) / 2
    axis = np.linalg.eigh(turning.T @ turning)[1][:, -1].reshape(mean.shape)
    return PoseSpace(mean, axis * np.sign(axis[find_scheme(scheme).points.index("nose tip"), 0]))


def balanced_weights(values: np.ndarray, bins: int, most: float = np.inf) -> np.ndarray:
    """Sampling weights (N,) of mean 1 that give every bin of `values` (N,) that is not empty the same share.

    The `bins` bins are of equal width from the 0.5th to the 99.5th percentile; what lies beyond is in the outer ones.
    No weight is more than `most` before the mean is made 1.
    """
    low, high = np.percentile(values, [0.5, 99.5])
    place = np.clip((values - low) / max(high - low, 1e-12) * bins, 0, bins - 1).astype(int)
    count = np.bincount(place, minlength=bins)
    weights = np.minimum(len(values) / (np.count_nonzero(count) * count[place]), most)
    return weights / weights.mean()
