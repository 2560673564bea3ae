"""swift: what its own functions promise; what all methods promise is in test_methods."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs `pip install canthus[train]`")

from canthus.methods.swift import Swift, SwiftConfig  # noqa: E402


def test_sigma_is_scaled_and_nothing_else():
    torch.manual_seed(0)
    aligner = Swift(SwiftConfig(size=32, widths=(4, 4), depths=(1, 1), features=8, places=2)).eval()
    crops = torch.rand(3, 3, 32, 32)
    before = aligner(crops)
    aligner.scale_sigma(1.5, 1.2)
    after = aligner(crops)
    torch.testing.assert_close(after.sigma / 32, 1.5 * (before.sigma / 32) ** 1.2)
    for name in ("xyz", "visible", "rotation"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=0, atol=0)
