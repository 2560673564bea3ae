"""What the standard deviation of a landmark's error says: scores and mean distances."""

from __future__ import annotations

import numpy as np

SCORE_RADIUS = 0.05
"""Radius of `Faces.scores`, as a fraction of the face size sqrt(width * height)."""

MEAN_RADIUS = 2 / np.sqrt(3)
"""Mean distance from the truth in sigmas, by the density of `scores_of`."""


def scores_of(sigma: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Probabilities (N,L) that points with `sigma` (N,L) lie within 5 % of the face sizes (N,) of the truth, pixels.

    1 - (1 + a) exp(-a) with a = sqrt(3) r / sigma and r = 0.05 * size: the mass within r of the radial Laplace
    density 3 / (2 pi sigma^2) exp(-sqrt(3) r / sigma) (Kumar et al., "LUVLi face alignment", CVPR 2020), which fits
    the long tails of landmark errors better than a Gaussian.
    """
    a = np.sqrt(3) * SCORE_RADIUS * sizes[:, None] / np.maximum(sigma, 1e-6)
    return 1 - (1 + a) * np.exp(-a)
