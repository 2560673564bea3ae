"""Fit of a linear landmark model and a weak-perspective camera to landmarks, all faces of a batch at once.

After Huber et al., "A Multiresolution 3D Morphable Face Model and Fitting Framework", VISAPP 2016: the camera
in closed form and the coefficients by regularised linear least squares take turns. Two things differ.
Expressions are bounded and solved together with the identity, and each shape step lets the camera move along
(to first order), so that a shape does not have to explain what a small turn of the head explains; a few
rounds then do the work of many.

With camera scale s, standard deviation sigma of a landmark coordinate in units of the model, weights w and
standard deviations tau of the coefficients c (1 for identity), the shape step minimises

    sum_i w_i |y_i - P(x_i(c))|^2 / (s sigma)^2  +  sum_j c_j^2 / tau_j^2,

with expressions inside their bounds: the maximum of the posterior for Gaussian landmark noise. A blendshape
has tau = half its upper bound, an expression mode that may be negative tau = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from canthus.geometry.camera import WeakPerspective
from canthus.geometry.projection import fit_weak_perspective

FLIP = np.array([1.0, -1.0, 1.0])  # head frame has y up, image y down
ACTIVE_SET_STEPS = 10  # two or three are enough for nearly every face


class LandmarkBasis(Protocol):
    """Mean (L, 3), identity (K, L, 3) and expression (E, L, 3) of the landmarks of a model."""

    @property
    def mean(self) -> np.ndarray:
        """Mean landmarks (L, 3)."""

    @property
    def identity(self) -> np.ndarray:
        """Identity modes (K, L, 3)."""

    @property
    def expression(self) -> np.ndarray:
        """Expression modes (E, L, 3)."""


@dataclass(frozen=True, eq=False)
class MorphableFit:
    """What a fit found for B faces.

    camera: weak perspective, head frame to image pixels.
    identity: (B, K) standard deviations.
    expression: (B, E) weights inside the bounds of the model.
    residual: (B, L) distance in the image plane between a given landmark and the fitted one, pixels, whatever
        its weight.
    """

    camera: WeakPerspective
    identity: np.ndarray
    expression: np.ndarray
    residual: np.ndarray


def fit_landmarks(
    basis: LandmarkBasis,
    expression_bounds: np.ndarray,
    points: np.ndarray,
    weights: np.ndarray,
    sigma: np.ndarray,
    iterations: int,
) -> MorphableFit:
    """Fit B faces.

    points: (B, L, D) pixels, D = 2 or 3; the offset of z is free.
    weights: (B, L), zero or more.
    sigma: (D,) standard deviation of a landmark coordinate, in units of the model.
    expression_bounds: (E, 2).
    """
    k, dims = len(basis.identity), points.shape[-1]
    faces, landmarks = points.shape[:2]
    rows = dims * landmarks
    mean = np.asarray(basis.mean, dtype=float)
    modes = np.concatenate([basis.identity, basis.expression]).astype(float)  # (n, L, 3)
    flat = modes.reshape(len(modes), -1)
    by_axis = np.ascontiguousarray(modes.T).reshape(3, -1)  # (3, L * n)
    bounds = np.concatenate([np.tile([-np.inf, np.inf], (k, 1)), expression_bounds])
    deviation = np.where(bounds[:, 0] < 0, 1.0, bounds[:, 1] / 2)
    root = np.sqrt(weights[:, None] / sigma[:, None] ** 2).reshape(faces, rows, 1)

    def shape(coefficients: np.ndarray) -> np.ndarray:
        return mean + (coefficients @ flat).reshape(faces, landmarks, 3)

    coefficients = np.zeros((faces, len(modes)))
    now = shape(coefficients)
    rotation, scale, shift = fit_weak_perspective(now, points, weights)
    for _ in range(iterations):
        turned = np.swapaxes(rotation, -1, -2)
        offset = np.zeros((faces, 1, dims))
        offset[..., :2] = shift[:, None]
        observed = (points - offset) / scale[:, None, None] * FLIP[:dims]
        miss = np.swapaxes(observed - (mean @ turned)[..., :dims], -1, -2).reshape(faces, rows, 1)
        lever = (rotation[:, :dims].reshape(-1, 3) @ by_axis).reshape(faces, rows, len(modes))
        system = root * np.concatenate([lever, miss], axis=-1)
        hessian, gradient = _normal_equations(system, root * _camera_lever(now @ turned, dims))
        hessian += np.diag(1 / deviation**2)
        coefficients = bounded_minimum(hessian, gradient, bounds, coefficients)
        now = shape(coefficients)
        rotation, scale, shift = fit_weak_perspective(now, points, weights)

    camera = WeakPerspective(rotation, scale, shift)
    residual = np.linalg.norm(camera.project(shape(coefficients))[..., :2] - points[..., :2], axis=-1)
    return MorphableFit(camera, coefficients[:, :k], coefficients[:, k:], residual)


def _camera_lever(now: np.ndarray, dims: int) -> np.ndarray:
    """Motion (B, D * L, 4 + D) of points (B, L, 3), axis by axis, with the camera: small rotation (3), log scale,
    shift."""
    x, y, z = np.moveaxis(now, -1, 0)
    zero = np.zeros_like(x)
    turn = np.stack([np.stack([zero, z, -y], -1), np.stack([-z, zero, x], -1), np.stack([y, -x, zero], -1)], 1)
    growth = np.swapaxes(now, -1, -2)[:, :dims, :, None]
    shift = np.broadcast_to(np.eye(dims)[:, None], (*growth.shape[:3], dims))
    return np.concatenate([turn[:, :dims], growth, shift], axis=-1).reshape(len(now), dims * now.shape[1], 4 + dims)


def _normal_equations(system: np.ndarray, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hessian (B, n, n) and right-hand side (B, n) of the shape with the camera's motion eliminated.

    system: (B, rows, n + 1), what each coefficient moves and, last, what is to be explained; camera: (B, rows, m);
    both weighted.
    """
    ct = np.swapaxes(camera, -1, -2)
    inner = ct @ camera
    # shape and camera are both free in a flat or tiny set of points; the damping keeps the inverse finite
    inner = inner + 1e-9 * np.trace(inner, axis1=1, axis2=2)[:, None, None] * np.eye(camera.shape[-1])
    system = system - camera @ np.linalg.solve(inner, ct @ system)
    moved = np.swapaxes(system[..., :-1], -1, -2)
    return moved @ system[..., :-1], (moved @ system[..., -1:])[..., 0]


def bounded_minimum(hessian: np.ndarray, gradient: np.ndarray, bounds: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Minimum (B, n) of x'Hx/2 - g'x inside bounds (n, 2), for B positive definite problems at once.

    Primal-dual active set (Hintermueller, Ito and Kunisch, SIAM J. Optim. 13, 2002): solve for the free
    coordinates, fix those that left their bounds, free those whose multiplier points inwards. Warm-started
    from `start`; the answer is clipped, so that the bounds hold to the bit even where the set has not
    settled.
    """
    free = np.isinf(bounds).all(1)  # these need no active set: they are eliminated first
    bounded = np.flatnonzero(~free)
    free = np.flatnonzero(free)
    across = hessian[:, free[:, None], bounded]
    eliminated = np.linalg.solve(
        hessian[:, free[:, None], free], np.concatenate([across, gradient[:, free, None]], axis=-1)
    )
    rest = np.swapaxes(across, -1, -2) @ eliminated
    reduced = hessian[:, bounded[:, None], bounded] - rest[..., :-1]
    x = np.empty_like(gradient)
    x[:, bounded] = _active_set(reduced, gradient[:, bounded] - rest[..., -1], bounds[bounded], start[:, bounded])
    x[:, free] = eliminated[..., -1] - (eliminated[..., :-1] @ x[:, bounded, None])[..., 0]
    return x


def _active_set(hessian: np.ndarray, gradient: np.ndarray, bounds: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`bounded_minimum` of coordinates that are all bounded."""
    low, high = bounds[:, 0], bounds[:, 1]
    n = hessian.shape[-1]
    curvature = np.diagonal(hessian, axis1=1, axis2=2)
    x, side = start, None
    for _ in range(ACTIVE_SET_STEPS):
        trial = x + (gradient - (hessian @ x[..., None])[..., 0]) / curvature
        before, side = side, (trial >= high).astype(int) - (trial <= low)
        if before is not None and np.array_equal(before, side):
            break
        held = side != 0
        fixed = np.where(side < 0, low, np.where(side > 0, high, 0.0))
        free = ~held[..., None] & ~held[:, None]
        matrix = np.where(free, hessian, np.eye(n))
        rest = gradient - (hessian @ fixed[..., None])[..., 0]
        x = np.where(held, fixed, np.linalg.solve(matrix, np.where(held, 0.0, rest)[..., None])[..., 0])
    return np.clip(x, low, high)
