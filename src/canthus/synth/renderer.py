"""What the renderers share: the camera, what throws a shadow, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

from canthus.errors import CanthusError
from canthus.synth.heads import Piece
from canthus.synth.lighting import Light

QUALITIES = ("raster", "path")
BEHIND = 60.0  # cm: what lies this far behind the camera's target is not drawn


class Renderer(Protocol):
    """Draws pieces into a square picture. Load a head once, then draw it under any number of cameras and lights.

    Edges are not smoothed: draw larger than needed and reduce.
    """

    size: int

    def texture(self, key: str, image: Image.Image | np.ndarray) -> None:
        """Hand in a texture, a picture or uint8 (H,W,4), under a key; a key handed in again is replaced."""

    def load(self, pieces: Sequence[Piece]) -> None:
        """Make these the pieces that the next draws show."""

    def draw(self, camera: PerspectiveCamera, light: Light, shadow: float) -> np.ndarray:
        """The picture (S,S,4) uint8, alpha = coverage. shadow: how dark the dominant light's shadows are, 0..1."""
        ...

    def depth_of(self, camera: PerspectiveCamera, wanted: Callable[[Piece], bool], size: int) -> np.ndarray:
        """q_z in cm of the nearest opaque surface of the wanted pieces alone, (size,size); -inf where there is none.

        The camera's pixels are those of a picture of `size` px.
        """
        ...


def renderer_of(quality: str, size: int) -> Renderer:
    """The renderer of one of QUALITIES. Raises `CanthusError` where what it needs is not installed."""
    if quality not in QUALITIES:
        raise CanthusError(f"the quality '{quality}' is none of {', '.join(QUALITIES)}")
    if quality == "path":
        from canthus.synth.renderers.path import PathRenderer

        return PathRenderer(size)
    return best_renderer(size)


def best_renderer(size: int) -> Renderer:
    """OpenGL where it works without a window, else the torch rasteriser, on a GPU where there is one."""
    try:
        from canthus.synth.renderers.opengl import OpenGLRenderer

        return OpenGLRenderer(size)
    except Exception:  # no moderngl, no library, no driver: each fails in its own way
        from canthus.synth.renderers.torch import TorchRenderer

        return TorchRenderer(size)


@dataclass(frozen=True)
class Packed:
    """The pieces of a head in a few arrays, as they go to another process or device."""

    looks: tuple[Piece, ...]  # the pieces without their arrays
    vertices: np.ndarray  # (V,11) float32: position, normal, colour, texture coordinates
    triangles: np.ndarray  # (T,3) int32
    owner: np.ndarray  # (T,) int16: which piece each is of

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Packed:
        """Pieces, one after the other."""
        none = np.zeros((0, 3), np.float32)
        looks = [replace(p, vertices=none, normals=none, uv=none, colour=none, triangles=none, shade=None)
                 for p in pieces]  # fmt: skip
        starts = np.cumsum([0, *(len(p.vertices) for p in pieces)])
        vertices = np.empty((starts[-1], 11), np.float32)
        for p, start in zip(pieces, starts):
            np.concatenate([p.vertices, p.normals, p.colour, p.uv], 1, out=vertices[start : start + len(p.vertices)],
                           casting="same_kind")  # fmt: skip
        triangles = [np.zeros((0, 3), np.int32), *(p.triangles + np.int32(s) for p, s in zip(pieces, starts))]
        owner = np.repeat(np.arange(len(pieces), dtype=np.int16), [len(p.triangles) for p in pieces])
        return cls(tuple(looks), vertices, np.concatenate(triangles).astype(np.int32, copy=False), owner)


def casts_shadow(piece: Piece) -> bool:
    """Whether a piece throws a shadow and hides landmarks: clear lenses and lashes do not."""
    return piece.alpha >= 0.6 and piece.name != "lash"


def light_matrix(direction: np.ndarray, target: np.ndarray, reach: float = 17.0) -> np.ndarray:
    """Orthographic view (4,4) of a ball of `reach` cm around target, seen from a direction in head axes."""
    side = np.cross([0, 1.0, 0] if abs(direction[1]) < 0.9 else [1.0, 0, 0], direction)
    side /= np.linalg.norm(side)
    m = np.eye(4)
    m[:3, :3] = np.stack([side, np.cross(direction, side), -direction]) / np.array([[reach], [reach], [2 * reach]])
    m[:3, 3] = -m[:3, :3] @ (target + np.array([0, 0, -4.0]))
    return m


@dataclass(frozen=True)
class PerspectiveCamera:
    """A pinhole that looks at a point of the head.

    A head point X lies at q = rotation (X - target) in camera axes (x right, y up, z to the camera) and at pixel
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
