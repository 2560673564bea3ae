"""The jaw as 2D annotations see it: on the side turned away, the outline instead of the points fixed on the skin.

Every jaw landmark owns a line of vertices of its own height, from itself forward to the midline. As the head turns
away the landmark marches along its line to the vertex that lies farthest out (landmark marching: Zhu et al.,
"High-fidelity pose and expression normalization for face recognition in the wild", CVPR 2015). How far it follows
depends softly on the yaw, after the soft correspondences in edge topology of Bas et al., "Fitting a 3D morphable
model to edges", ACCV Workshops 2016.
"""

from __future__ import annotations

import functools

import numpy as np

from canthus.face.morphable import MorphableModel
from canthus.geometry.camera import WeakPerspective

JAW = 17
DIRECTIONS = np.linspace(0, np.pi / 2, 13)  # from sideways to forward; a line has one vertex for each
TURN, SOFTNESS = np.deg2rad(15.0), np.deg2rad(5.0)  # yaw of half the march, and its slope
SIDE = np.sign(np.arange(JAW) - JAW // 2)  # -1: subject's right, image left; the chin marches nowhere


@functools.lru_cache(maxsize=4)
def jaw_lines(model: MorphableModel) -> np.ndarray:
    """Vertex ids (17, M) of the line of each jaw landmark, from its side forward.

    Of the vertices within half an edge of the landmark's height on the mean head, in front of it and no farther out,
    those that lie outermost in one of M directions: only they can ever be the outline.
    """
    jaw, mean = model.landmarks()[0][:JAW], model.mean
    lines = np.repeat(model.landmark_ids[:JAW, :1], len(DIRECTIONS), axis=1)
    for k in np.flatnonzero(SIDE):
        near = model.triangles[np.isin(model.triangles, model.landmark_ids[k]).any(1)]
        edge = np.linalg.norm(mean[near] - mean[np.roll(near, 1, axis=1)], axis=-1).mean()
        out, forward = SIDE[k] * mean[:, 0], mean[:, 2] - jaw[k, 2]
        level = (np.abs(mean[:, 1] - jaw[k, 1]) <= edge / 2) & (forward >= 0)
        ids = np.flatnonzero(level & (out >= 0) & (out <= SIDE[k] * jaw[k, 0]))
        if len(ids):  # else a mesh too coarse for a line: the landmark's own vertex stands for it
            reach = np.outer(np.cos(DIRECTIONS), out[ids]) + np.outer(np.sin(DIRECTIONS), forward[ids])
            lines[k] = ids[reach.argmax(1)]
    return lines


def visible_jaw(
    model: MorphableModel, identity: np.ndarray, expression: np.ndarray, camera: WeakPerspective
) -> np.ndarray:
    """Jaw landmarks (B, 17, 3) in image pixels that follow the outline on the side turned away.

    identity (B, K) and expression (B, E) as for `MorphableModel.vertices`.
    """
    fixed = camera.project(model.landmarks(identity, expression)[:, :JAW])
    ids = jaw_lines(model)
    lines = camera.project(model.vertices(identity, expression)[:, ids.ravel()])
    return march(fixed, lines.reshape(len(fixed), *ids.shape, 3), camera.rotation)


def march(fixed: np.ndarray, lines: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Jaw landmarks (B, 17, 3) on their way from `fixed` (B, 17, 3) to the outermost point of their lines.

    lines: (B, 17, M, 3) in the same pixels. rotation: (B, 3, 3) camera-from-head. A landmark goes the share
    1 / (1 + exp(-(yaw - 15 degrees) / 5 degrees)) of the way, where yaw is the angle, roll removed, by which the nose
    points to the landmark's own side: that side is then the one turned away.
    """
    up, nose = rotation[:, :2, 1], rotation[:, :, 2]
    across = np.stack([up[:, 1], -up[:, 0]], -1) / np.linalg.norm(up, axis=-1, keepdims=True)  # camera axes, y up
    yaw = np.arctan2((nose[:, :2] * across).sum(-1), nose[:, 2])
    share = 1 / (1 + np.exp(-(SIDE * yaw[:, None] - TURN) / SOFTNESS)) * (SIDE != 0)
    # The landmark is on its own line: where nothing lies farther out it stays.
    candidates = np.concatenate([fixed[:, :, None], lines], axis=2)
    outward = np.einsum("bkmc,bc->bkm", candidates[..., :2], across * [1, -1]) * SIDE[:, None]
    outermost = np.take_along_axis(candidates, outward.argmax(-1)[..., None, None], axis=2)[:, :, 0]
    return fixed + share[..., None] * (outermost - fixed)
