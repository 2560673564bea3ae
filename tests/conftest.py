"""Fixtures that several tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture(params=["numpy", "torch"])
def xp(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """A function that makes a float64 array of either kind: the same test runs on NumPy and on torch."""
    if request.param == "numpy":
        return lambda values: np.asarray(values, dtype=np.float64)
    torch = pytest.importorskip("torch")
    return lambda values: torch.as_tensor(np.asarray(values, dtype=np.float64))
