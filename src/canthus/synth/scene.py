"""What is drawn, and what every renderer offers: pieces of a scene, a camera, the `Renderer` protocol.

The frame of a scene is that of the head model: x to the subject's left, y up, z towards the viewer, right-handed,
centimetres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from canthus.synth.light import Light

BEHIND = 60.0  # cm: surfaces further than this behind the camera's target are clipped

Role = Literal["face", "skull", "hair", "brows", "lashes", "thing"]


@dataclass(frozen=True)
class Piece:
    """One drawable surface: its geometry, its material, and its role in the scene."""

    name: str  # for people who debug; nothing depends on it
    vertices: np.ndarray  # (V,3) cm
    normals: np.ndarray  # (V,3)
    uv: np.ndarray  # (V,2)
    colour: np.ndarray  # (V,3) linear; multiplies the texture
    triangles: np.ndarray  # (T,3)
    texture: str | None = None  # key into HeadAssets.textures
    gloss: float = 0.3
    alpha: float = 1.0
    cutout: float = 0.0  # texels with less alpha than this are not drawn; 0: opaque
    shade: np.ndarray | None = None  # (V,1) or (V,3): ambient occlusion that `colour` already contains
    role: Role = "thing"  # face: skin, eyes and mouth; skull: the rest of the head; thing: worn or held

    @property
    def is_head(self) -> bool:
        """Whether it is part of the bare head."""
        return self.role in ("face", "skull")

    @property
    def is_occluder(self) -> bool:
        """Whether it can hide the face: hair and things, but not brows and lashes."""
        return self.role in ("hair", "thing")

    @property
    def casts_shadow(self) -> bool:
        """Whether it casts shadows and hides landmarks; clear lenses and lashes do not."""
        return self.alpha >= 0.6 and self.role != "lashes"


@dataclass(frozen=True)
class PerspectiveCamera:
    """A pinhole camera that looks at a point of the head.

    A head point X lies at q = rotation (X - target) in camera axes (x right, y up, z towards the camera) and at pixel
    x = focal q_x / (distance - q_z) + centre_x, y = -focal q_y / (distance - q_z) + centre_y.
    """

    rotation: np.ndarray  # (3,3)
    target: np.ndarray  # (3,) cm
    distance: float  # cm from the camera to the target
    focal: float  # px
    centre: np.ndarray  # (2,) px

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels of head points (P,3): (P,3), the third is q_z in pixels of the target's plane, nearer = larger."""
        q = (points - self.target) @ self.rotation.T
        ratio = self.focal / (self.distance - q[:, 2])
        scale = self.focal / self.distance
        return np.column_stack([q[:, 0] * ratio + self.centre[0], -q[:, 1] * ratio + self.centre[1], q[:, 2] * scale])

    def resized(self, factor: float) -> PerspectiveCamera:
        """The same view in a picture `factor` times as large."""
        return replace(self, focal=self.focal * factor, centre=(self.centre + 0.5) * factor - 0.5)

    def clip_from_head(self, size: int) -> np.ndarray:
        """The OpenGL matrix (4,4) for a square picture of `size` px."""
        near, far = max(self.distance - 40, 2.0), self.distance + BEHIND
        a, b = 2 * self.focal / size, (far + near) / (far - near)
        camera = np.eye(4)
        camera[:3, :3], camera[:3, 3] = self.rotation, -self.rotation @ self.target
        offset = (self.centre + 0.5) * 2 / size - 1
        clip = np.array([
            [a, 0, -offset[0], offset[0] * self.distance],
            [0, a, offset[1], -offset[1] * self.distance],
            [0, 0, -b, b * self.distance - 2 * far * near / (far - near)],
            [0, 0, -1, self.distance],
        ])  # fmt: skip
        return clip @ camera

    def depth_from_buffer(self, buffer: np.ndarray) -> np.ndarray:
        """q_z in cm from OpenGL depth 0..1."""
        near, far = max(self.distance - 40, 2.0), self.distance + BEHIND
        ndc = 2 * buffer.astype(np.float64) - 1
        return self.distance - 2 * far * near / (far + near - ndc * (far - near))


class Renderer(Protocol):
    """Draws pieces into a square picture. Load a head once, then draw it under any number of cameras and lights.

    Edges are not smoothed: draw larger than needed and downsample.
    """

    size: int

    def texture(self, key: str, image: Image.Image | np.ndarray) -> None:
        """Store a texture, a picture or uint8 (H,W,4), under a key; an existing one is replaced."""

    def load(self, pieces: Sequence[Piece]) -> None:
        """Set the pieces that the next calls of `draw` and `depth_of` show."""

    def draw(self, camera: PerspectiveCamera, light: Light, shadow: float) -> np.ndarray:
        """The picture (S,S,4) uint8, alpha = coverage. shadow: how dark the dominant light's shadows are, 0..1."""
        ...

    def depth_of(self, camera: PerspectiveCamera, wanted: Callable[[Piece], bool], size: int) -> np.ndarray:
        """q_z in cm of the nearest opaque surface of the wanted pieces alone, (size,size); -inf where there is none.

        The camera's pixels are those of a picture of `size` px.
        """
        ...


@dataclass(frozen=True)
class Packed:
    """The pieces of a head in a few arrays, in the form in which they go to another process or device."""

    pieces: tuple[Piece, ...]  # without their arrays
    vertices: np.ndarray  # (V,11) float32: position, normal, colour, texture coordinates
    triangles: np.ndarray  # (T,3) int32
    owner: np.ndarray  # (T,) int16: index of the piece that each triangle belongs to

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Packed:
        """Pack pieces one after the other."""
        none = np.zeros((0, 3), np.float32)
        materials = [replace(p, vertices=none, normals=none, uv=none, colour=none, triangles=none, shade=None)
                     for p in pieces]  # fmt: skip
        starts = np.cumsum([0, *(len(p.vertices) for p in pieces)])
        vertices = np.empty((starts[-1], 11), np.float32)
        for p, start in zip(pieces, starts):
            np.concatenate([p.vertices, p.normals, p.colour, p.uv], 1, out=vertices[start : start + len(p.vertices)],
                           casting="same_kind")  # fmt: skip
        triangles = [np.zeros((0, 3), np.int32), *(p.triangles + np.int32(s) for p, s in zip(pieces, starts))]
        owner = np.repeat(np.arange(len(pieces), dtype=np.int16), [len(p.triangles) for p in pieces])
        return cls(tuple(materials), vertices, np.concatenate(triangles).astype(np.int32, copy=False), owner)


def light_matrix(direction: np.ndarray, target: np.ndarray, radius: float = 17.0) -> np.ndarray:
    """Orthographic view (4,4) of a ball of `radius` cm around the target, seen from a direction in head axes."""
    side = np.cross([0, 1.0, 0] if abs(direction[1]) < 0.9 else [1.0, 0, 0], direction)
    side /= np.linalg.norm(side)
    m = np.eye(4)
    m[:3, :3] = np.stack([side, np.cross(direction, side), -direction]) / np.array([[radius], [radius], [2 * radius]])
    m[:3, 3] = -m[:3, :3] @ (target + np.array([0, 0, -4.0]))
    return m
