"""Ground truth of a rendered face: visibility, cameras, regions, depth. Pixels of the stored picture."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from canthus.geometry.camera import WeakPerspective
from canthus.geometry.crop import within
from canthus.synth.scene import PerspectiveCamera, Piece, Renderer, Role

HEAD_MARGIN, OCCLUDER_MARGIN = 0.6, 0.05  # cm that a surface must be in front of a point to hide it
NEIGHBOURS = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
REGIONS = ("backdrop", "face", "head", "hair", "things")
REGION_ROLES: tuple[Role, ...] = ("face", "skull", "hair", "thing")  # of the regions but the first


class Probes(NamedTuple):
    """Where the depth is compared to find out whether landmarks are hidden, in a picture of `size` px."""

    pixels: np.ndarray  # (68,9): row * size + column of the 3x3 pixels around each
    z: np.ndarray  # (68,) q_z in cm

    @classmethod
    def of(cls, camera: PerspectiveCamera, points: np.ndarray, size: int) -> Probes:
        """Of landmarks (68,3) under a camera of a picture of `size` px."""
        xy = np.rint(camera.project(points)[:, :2]).astype(int)
        near = np.clip(xy[:, None] + NEIGHBOURS, 0, size - 1)
        z = ((points - camera.target) @ camera.rotation.T)[:, 2]
        return cls(near[..., 1] * size + near[..., 0], z)


def hidden_by(head: np.ndarray, occluders: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What hides landmarks at depths z (...,68): 0 nothing, 1 the head itself, 2 something else; uint8 (...,68).

    head, occluders: depths (...,68,9) of the head and of hair and things, at the probes. A point is hidden by the head
    when all of the 3x3 pixels around it show head more than HEAD_MARGIN nearer, so points on an outline count as
    visible; by something else when most of these pixels show it nearer than the point.
    """
    by_head = (head >= z[..., None] + HEAD_MARGIN).all(-1)
    by_other = (occluders > z[..., None] + OCCLUDER_MARGIN).sum(-1) > len(NEIGHBOURS) // 2
    return np.where(by_head, 1, np.where(by_other, 2, 0)).astype(np.uint8)


def occlusion(renderer: Renderer, camera: PerspectiveCamera, points: np.ndarray) -> np.ndarray:
    """What hides each landmark (68,3) of the loaded head (68,), see `hidden_by`."""
    size = renderer.size
    probes = Probes.of(camera, points, size)
    head = renderer.depth_of(camera, lambda p: p.is_head, size).ravel()[probes.pixels]
    occluders = renderer.depth_of(camera, lambda p: p.is_occluder, size).ravel()[probes.pixels]
    return hidden_by(head, occluders, probes.z)


def is_visible(hidden: np.ndarray, xyz: np.ndarray, size: int) -> np.ndarray:
    """Whether points (...,68,3) of a picture of `size` px that `hidden_by` tells of lie open, and inside it."""
    return (hidden == 0) & within(xyz, (size, size))


def weak_camera(head: np.ndarray, xyz: np.ndarray) -> dict[str, np.ndarray]:
    """A weak-perspective camera, fitted to map head points (68,3), cm, to x and y of xyz (68,3).

    `weak_rotation` (3,3), `weak_scale` () px/cm, `weak_shift` (2,) px; `weak_residual` () px: root mean
    square of the distances.
    """
    camera = WeakPerspective.fit(head[None], xyz[None, :, :2])
    error = camera.project(head[None])[0, :, :2] - xyz[:, :2]
    return {
        "weak_rotation": camera.rotation[0].astype(np.float32),
        "weak_scale": np.float32(camera.scale[0]),
        "weak_shift": camera.shift[0].astype(np.float32),
        "weak_residual": np.float32(np.sqrt((error**2).sum(1).mean())),
    }


def maps(renderer: Renderer, camera: PerspectiveCamera, size: int, origin: float) -> dict[str, np.ndarray]:
    """`region` (S,S) uint8, index into REGIONS of what each pixel's centre shows, and `depth` (S,S) float16 of it:
    z in pixels less `origin`, NaN where the backdrop is seen."""
    depths = np.stack([renderer.depth_of(camera, partial(_has_role, role), size) for role in REGION_ROLES])
    nearest = depths.max(0)
    seen = nearest > -np.inf
    z = nearest * camera.focal / camera.distance - origin
    return {
        "region": np.where(seen, depths.argmax(0) + 1, 0).astype(np.uint8),
        "depth": np.where(seen, z, np.nan).astype(np.float16),
    }


def _has_role(role: Role, piece: Piece) -> bool:
    return piece.role == role
