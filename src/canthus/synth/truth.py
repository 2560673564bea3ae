"""What is known of a rendered face: points, visibility, cameras, regions. Pixels of the stored picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from canthus.geometry.camera import WeakPerspective
from canthus.synth.heads import EYE_PARTS, MOUTH_PARTS, Piece
from canthus.synth.renderer import PerspectiveCamera, Renderer
from canthus.synth.sampling import NO_COVER, OWN_PIECES

SELF_SLACK, COVER_SLACK = 0.6, 0.05  # cm that something must be in front of a point to hide it
AROUND = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
REGIONS = ("backdrop", "face", "head", "hair", "things")


def is_own(piece: Piece) -> bool:
    """Whether a piece is the head itself."""
    return piece.name in OWN_PIECES


def is_cover(piece: Piece) -> bool:
    """Whether a piece can hide the face: all but the head, brows, lashes and what one can look through."""
    return piece.name not in (*OWN_PIECES, *NO_COVER)


class Probes(NamedTuple):
    """Where to look whether the landmarks are hidden, in a picture of `size` px."""

    pixels: np.ndarray  # (68,9): row * size + column of the 3x3 pixels around each
    z: np.ndarray  # (68,) q_z in cm

    @classmethod
    def of(cls, camera: PerspectiveCamera, points: np.ndarray, size: int) -> Probes:
        """Of landmarks (68,3) under a camera of a picture of `size` px."""
        xy = np.rint(camera.project(points)[:, :2]).astype(int)
        near = np.clip(xy[:, None] + AROUND, 0, size - 1)
        z = ((points - camera.target) @ camera.rotation.T)[:, 2]
        return cls(near[..., 1] * size + near[..., 0], z)


def hidden(own: np.ndarray, cover: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What hides landmarks at depths z (...,68): 0 nothing, 1 the head itself, 2 something else; uint8 (...,68).

    own, cover: (...,68,9) depths of the head and of what is on it and before it, at the probes. A point is hidden by
    the head when all of the 3x3 pixels around it show head more than SELF_SLACK nearer, so that points on an outline
    count as seen; by something else when most of these pixels show it nearer than the point.
    """
    by_head = (own >= z[..., None] + SELF_SLACK).all(-1)
    by_other = (cover > z[..., None] + COVER_SLACK).sum(-1) > len(AROUND) // 2
    return np.where(by_head, 1, np.where(by_other, 2, 0)).astype(np.uint8)


def occlusion(renderer: Renderer, camera: PerspectiveCamera, points: np.ndarray) -> np.ndarray:
    """What hides each landmark (68,3) of the loaded head, as of `hidden`."""
    size = renderer.size
    probes = Probes.of(camera, points, size)
    own, cover = (renderer.depth_of(camera, wanted, size).ravel()[probes.pixels] for wanted in (is_own, is_cover))
    return hidden(own, cover, probes.z)


def weak_camera(head: np.ndarray, xyz: np.ndarray) -> dict[str, np.ndarray]:
    """The weak-perspective camera that best explains xyz (68,3), in x and y, of head points (68,3) in cm.

    `weak_rotation` (3,3), `weak_scale` () px/cm, `weak_shift` (2,) px; `weak_residual` () px: root mean
    square of the distances.
    """
    camera = WeakPerspective.fit(head[None], xyz[None, :, :2])
    apart = camera.project(head[None])[0, :, :2] - xyz[:, :2]
    return {
        "weak_rotation": camera.rotation[0].astype(np.float32),
        "weak_scale": np.float32(camera.scale[0]),
        "weak_shift": camera.shift[0].astype(np.float32),
        "weak_residual": np.float32(np.sqrt((apart**2).sum(1).mean())),
    }


def maps(renderer: Renderer, camera: PerspectiveCamera, size: int, origin: float) -> dict[str, np.ndarray]:
    """`region` (S,S) uint8, index into REGIONS of what each pixel's centre shows, and `depth` (S,S) float16 of it:
    z in pixels less `origin`, NaN where the backdrop is seen."""
    layers = [
        lambda p: p.name in ("M_Face", *EYE_PARTS, *MOUTH_PARTS),
        lambda p: p.name == "M_BackHead",
        lambda p: p.name == "hair",
        lambda p: is_cover(p) and p.name != "hair",
    ]
    depths = np.stack([renderer.depth_of(camera, layer, size) for layer in layers])
    nearest = depths.max(0)
    seen = nearest > -np.inf
    z = nearest * camera.focal / camera.distance - origin
    return {
        "region": np.where(seen, depths.argmax(0) + 1, 0).astype(np.uint8),
        "depth": np.where(seen, z, np.nan).astype(np.float16),
    }
