"""Heads fitted to faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from canthus.face.morphable import MorphableModel
from canthus.geometry.camera import WeakPerspective


@dataclass(frozen=True, eq=False, repr=False)
class FaceMeshes:
    """Heads fitted to N faces, all of one model.

    vertices: (N,V,3), image pixels as `Faces.xyz`; z is zero at the mean of the face's landmarks.
    model: the head model that was fitted; its triangles are counter-clockwise from outside.
    identity: (N,K), standard deviations. expression: (N,E), 0 = neutral, with E expression_names.
    camera: maps the model's head frame, in its `unit`, to image pixels (except for the origin of z).
    image_size: (width, height) of the image.
    """

    vertices: np.ndarray
    model: MorphableModel
    identity: np.ndarray
    expression: np.ndarray
    camera: WeakPerspective
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.vertices)

    def __repr__(self) -> str:
        return f"FaceMeshes({len(self)} of {self.vertices.shape[1]} vertices, {len(self.triangles)} triangles)"

    @property
    def triangles(self) -> np.ndarray:
        """Vertex indices (T,3), counter-clockwise from outside in the head frame."""
        return self.model.triangles

    @property
    def uv(self) -> np.ndarray | None:
        """Texture coordinates (U,2), v up, or None."""
        return self.model.uv

    @property
    def uv_triangles(self) -> np.ndarray | None:
        """Indices (T,3) of texture coordinates at the corners of triangles, or None."""
        return self.model.uv_triangles

    @property
    def expression_names(self) -> tuple[str, ...]:
        """The names of the E expressions."""
        return self.model.expression_names

    @property
    def unit(self) -> str:
        """The unit of length of the model."""
        return self.model.unit
