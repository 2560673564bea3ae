"""Triangles to pixels in NumPy: as the exact rasteriser in torch has them."""

from __future__ import annotations

import numpy as np
import pytest

from canthus.geometry import coverage
from canthus.geometry.coverage import fragments, nearest


def test_a_triangle_covers_the_pixel_centres_inside_it() -> None:
    # right angle at (1, 1), legs of 4 px: centres with x, y >= 1 and x + y <= 6, in a picture of 5 x 6
    points, triangles = np.array([[1.0, 1], [5, 1], [1, 5]]), np.array([[0, 1, 2]])
    (found,) = fragments(points, triangles, (6, 5))
    wanted = [y * 5 + x for y in range(6) for x in range(5) if x >= 1 and y >= 1 and x + y <= 6]
    assert found.pixel.tolist() == wanted and not found.owner.any()
    row, column = np.divmod(found.pixel, 5)
    np.testing.assert_allclose(found.weights @ points, np.stack([column, row], 1), atol=1e-9)
    np.testing.assert_allclose(found.weights.sum(1), 1)


@pytest.mark.parametrize("chunk", [64, 1 << 18])
def test_depth_is_that_of_the_exact_rasteriser(monkeypatch, chunk: int) -> None:
    torch = pytest.importorskip("torch")
    from canthus.geometry.raster import rasterise

    monkeypatch.setattr(coverage, "CHUNK", chunk)
    rng, size = np.random.default_rng(0), 40
    points = rng.uniform(-10, 50, (60, 3))  # on its grid, so that its rounding changes nothing
    points[:, :2] = np.round(points[:, :2] * 1024) / 1024
    triangles = rng.permuted(np.tile(np.arange(60), (30, 1)), axis=1)[:, :3]
    depth = nearest(points, triangles, (size, size))
    ids, weights = rasterise(torch.from_numpy(points)[None], torch.from_numpy(triangles), size)
    ids, weights = ids[0].numpy(), weights[0].numpy()
    there = ids >= 0
    assert 0.3 < there.mean() <= 1 and (np.isfinite(depth) == there).mean() > 0.999  # but for centres on edges
    both = there & np.isfinite(depth)
    wanted = (weights[both] * points[triangles[ids[both]], 2]).sum(1)
    assert (np.abs(depth[both] - wanted) < 1e-3).mean() > 0.999


def test_triangles_beside_the_picture_and_without_area_cover_nothing() -> None:
    points = np.array([[-9.0, -9], [-5, -9], [-9, -5], [1, 1], [2, 2], [3, 3]])
    triangles = np.array([[0, 1, 2], [3, 4, 5], [3, 3, 4]])
    assert sum(len(found.owner) for found in fragments(points, triangles, (8, 8))) == 0
