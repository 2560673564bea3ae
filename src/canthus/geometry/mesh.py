"""Triangle meshes: vertex normals. Needs SciPy; inference does not import it."""

from __future__ import annotations

import numpy as np
from scipy import sparse


class VertexNormals:
    """Area-weighted vertex normals of one fixed list of triangles (T,3) over `count` vertices."""

    def __init__(self, triangles: np.ndarray, count: int):
        corner = triangles.ravel()
        face = np.repeat(np.arange(len(triangles)), 3)
        self.triangles = triangles
        self.gather = sparse.csr_matrix((np.ones(len(corner), np.float32), (corner, face)), (count, len(triangles)))

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        """Unit normals (V,3) of vertices (V,3); zero where a vertex has no area around it."""
        a, b, c = (vertices[self.triangles[:, k]] for k in range(3))
        normal = self.gather @ np.cross(b - a, c - a)
        return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
