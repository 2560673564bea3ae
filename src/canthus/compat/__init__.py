"""Bridges for programs written for other packages: the same names and shapes, answered by canthus."""

from __future__ import annotations

import numpy as np


def without_opacity(image: np.ndarray) -> np.ndarray:
    """An image's channels but for its opacity, which these packages do not look at."""
    return image[..., :3] if image.ndim == 3 and image.shape[2] == 4 else image
