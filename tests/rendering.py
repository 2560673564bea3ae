"""What tests of rendered pictures share: the head assets, one renderer, and slow twins of what it does.

The environment variable CANTHUS_ASSETS says where the assets lie.
"""

from __future__ import annotations

import copy
import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ASSETS = Path(os.environ.get("CANTHUS_ASSETS", Path(__file__).parents[2] / "shared/assets/head"))
SIZE = 128


def need_assets() -> None:
    """Skip where the head assets are missing."""
    if not (ASSETS / "ict").is_dir():
        pytest.skip(f"no head assets at '{ASSETS}'; CANTHUS_ASSETS says where they are.")


def make_generator() -> Any:
    """One generator for all tests; skips where assets or OpenGL are missing."""
    moderngl = pytest.importorskip("moderngl")
    pytest.importorskip("scipy")
    pytest.importorskip("OpenEXR")
    need_assets()
    try:
        moderngl.create_context(standalone=True, backend="egl").release()
    except Exception as error:  # a driver may raise anything
        pytest.skip(f"OpenGL without a window does not work here: {error}.")
    return _generator()


@functools.cache
def _generator() -> Any:
    from canthus.synth.generator import SynthGenerator
    from canthus.synth.recipe import SynthRecipe

    return SynthGenerator(ASSETS, SynthRecipe(size=SIZE, seed=3))


def with_recipe(generator: Any, **changes: Any) -> Any:
    """A generator of another recipe on the same renderer; use one at a time."""
    from canthus.synth.dense import DenseHead

    twin = copy.copy(generator)
    twin.recipe = replace(generator.recipe, **changes)
    twin.dense = DenseHead(generator.assets) if twin.recipe.dense else None
    twin._loaded = None
    return twin


def camera_of(points: np.ndarray, yaw: float, pitch: float = 0.0, roll: float = 0.0, distance: float = 90.0) -> Any:
    """A camera that sees points (68,3) in the middle of a picture of SIZE px."""
    from canthus.synth.generator import head_rotation
    from canthus.synth.scene import PerspectiveCamera

    focal = 0.5 * SIZE * distance / 14  # a face is some 14 cm high
    middle = np.full(2, (SIZE - 1) / 2)
    return PerspectiveCamera(head_rotation(yaw, pitch, roll), points.mean(0), distance, focal, middle)


def depth_by_rays(camera: Any, corners: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """q_z (P,) in cm of the nearest of the triangles (T,3,3) that the rays through pixels (P,2) meet, else -inf."""
    q = (corners - camera.target) @ camera.rotation.T
    a, ab, ac = q[:, 0], q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]
    eye, out = np.array([0, 0, camera.distance]), []
    for x, y in pixels:
        ray = np.array([(x - camera.centre[0]) / camera.focal, -(y - camera.centre[1]) / camera.focal, -1.0])
        # Moeller and Trumbore: eye + t ray = a + u ab + v ac
        p = np.cross(ray, ac)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / (ab * p).sum(1)
            u = ((eye - a) * p).sum(1) * inverse
            w = np.cross(eye - a, ab)
            v = (w @ ray) * inverse
            t = (ac * w).sum(1) * inverse
        hit = (u >= 0) & (v >= 0) & (u + v <= 1)
        out.append(camera.distance - t[hit].min() if hit.any() else -np.inf)
    return np.array(out)


def distance_to_surface(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distance (P,) of points to the triangles (T,3,3), of which the 12 with the nearest middles are looked at."""
    from scipy.spatial import cKDTree

    near = corners[cKDTree(corners.mean(1)).query(points, 12)[1]]
    a, b, c, p = near[..., 0, :], near[..., 1, :], near[..., 2, :], points[:, None]
    normal = np.cross(b - a, c - a)
    area = (normal**2).sum(-1) + 1e-20
    u = (np.cross(p - a, c - a) * normal).sum(-1) / area
    v = (np.cross(b - a, p - a) * normal).sum(-1) / area
    flat = np.abs(((p - a) * normal).sum(-1)) / np.sqrt(area)
    best = np.where((u >= 0) & (v >= 0) & (u + v <= 1), flat, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        along = np.clip(((p - start) * (end - start)).sum(-1) / (((end - start) ** 2).sum(-1) + 1e-20), 0, 1)
        best = np.minimum(best, np.linalg.norm(p - start - along[..., None] * (end - start), axis=-1))
    return best.min(1)
