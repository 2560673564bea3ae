"""The visible jaw line: where 2D annotators place points 0 to 16 once the cheek hides the mesh points.

A mesh point of the jaw slides along its own parallel, the line of equal height on the cheek, until it lies on the
outline: "landmark marching", Zhu et al., "High-Fidelity Pose and Expression Normalization", CVPR 2015.
"""

from __future__ import annotations

import numpy as np

from canthus.synth.heads import HeadAssets
from canthus.synth.scene import PerspectiveCamera

SIDES = np.array([*range(8), *range(9, 17)])  # the chin, 8, does not slide
STEPS = 33  # points of a parallel
INNERMOST = 0.3  # of the mesh point's distance to the middle of the face: parallels end beside nose and mouth


class JawContour:
    """The parallels of one mesh, and the visible jaw points of any head made of it."""

    def __init__(self, assets: HeadAssets):
        surface = assets.surfaces["M_Face"]
        triangles = surface.vertex[surface.triangles]
        ids, weights = assets.landmark_ids[:17], assets.landmark_weights[:17]
        points = assets.landmarks(assets.mean)[:17].astype(float)
        paths = [_parallel(assets.mean.astype(float), triangles, points[k]) for k in SIDES]
        self.ids = np.stack([np.vstack([ids[k : k + 1], i]) for k, (i, _) in zip(SIDES, paths)])  # (16,STEPS,3)
        self.weights = np.stack([np.vstack([weights[k : k + 1], w]) for k, (_, w) in zip(SIDES, paths)])

    def __call__(self, camera: PerspectiveCamera, vertices: np.ndarray, xyz: np.ndarray) -> np.ndarray:
        """Visible jaw points (17,3), pixels as of `camera.project`, for mesh points xyz (68,3) of vertices (V,3)."""
        path = (vertices[self.ids] * self.weights[..., None]).sum(2)
        pixels = camera.project(path.reshape(-1, 3)).reshape(*path.shape)
        outwards = camera.rotation[[1, 0], 1]  # across the head's y axis in the picture, to the right of it
        side = np.sign(SIDES - 8)  # points 0 to 7 are the subject's right
        far = ((pixels[..., :2] @ outwards) * side[:, None]).argmax(1)
        out = xyz[:17].copy()
        out[SIDES] = pixels[np.arange(len(SIDES)), far]
        return out


def _parallel(mean: np.ndarray, triangles: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertex ids and weights (STEPS-1,3) of points at the height of `start` on the outside of the cheek, going inwards.

    The height plane is cut by rays from the point of the middle plane that lies level with `start`; the outermost
    hit counts.
    """
    x0, y0, z0 = start
    corners = mean[triangles]
    near = (corners[..., 1].min(1) <= y0) & (corners[..., 1].max(1) >= y0) & (corners[..., 0].mean(1) * x0 > 0)
    ids = triangles[near]
    a, b, c = (mean[ids[:, k]] - [0, y0, z0] for k in range(3))
    normal = np.cross(b - a, c - a)
    out_ids, out_weights = [], []
    for angle in np.radians(np.linspace(90, 0, 400))[1:]:
        ray = np.array([np.sin(angle) * np.sign(x0), 0.0, np.cos(angle)])
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (a * normal).sum(1) / (normal @ ray)
            hit = far[:, None] * ray
            area = (normal**2).sum(1)
            wa = (np.cross(b - hit, c - hit) * normal).sum(1) / area
            wb = (np.cross(c - hit, a - hit) * normal).sum(1) / area
        inside = (wa >= -1e-6) & (wb >= -1e-6) & (wa + wb <= 1 + 1e-6) & (far > 0)
        if not inside.any():
            continue
        best = np.flatnonzero(inside)[far[inside].argmax()]
        if abs(hit[best, 0]) < INNERMOST * abs(x0):
            break
        out_ids.append(ids[best])
        out_weights.append([wa[best], wb[best], 1 - wa[best] - wb[best]])
    chosen = np.linspace(0, len(out_ids) - 1, STEPS - 1).round().astype(int)
    return np.array(out_ids)[chosen], np.array(out_weights, np.float32)[chosen]
