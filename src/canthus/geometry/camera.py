"""The weak-perspective camera as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from canthus.errors import LandmarkError
from canthus.geometry import Array
from canthus.geometry.crop import Crop
from canthus.geometry.projection import fit_weak_perspective, project
from canthus.geometry.rotation import euler_from_matrix, matrix_from_vector


@dataclass(frozen=True, eq=False)
class WeakPerspective:
    """A batch of B cameras: image = scale * diag(1, -1, 1) @ rotation @ head + (shift, 0). NumPy or torch.

    rotation: (B, 3, 3) camera-from-head, right-handed, y up, z towards the camera. scale: (B,) pixels per
    head unit. shift: (B, 2) pixels, where the head frame's origin falls in the image (or in a crop).
    """

    rotation: Array
    scale: Array
    shift: Array

    @classmethod
    def fit(cls, model_points: Array, image_points: Array, weights: Array | None = None) -> WeakPerspective:
        """The cameras that project `model_points` (B, L, 3) onto `image_points` (B, L, 2 or 3), least
        squares.

        `weights` (B, L) are not negative. With 2D points at least four of them must not lie in one plane.
        Raises `LandmarkError` where the shapes do not match.
        """
        got = f"model points {tuple(model_points.shape)} and image points {tuple(image_points.shape)}"
        if model_points.ndim != 3 or model_points.shape[-1] != 3:
            raise LandmarkError(f"got {got}, want model points (B, L, 3)")
        if image_points.shape[:-1] != model_points.shape[:-1] or image_points.shape[-1] not in (2, 3):
            raise LandmarkError(f"got {got}, want as many image points (B, L, 2 or 3) as model points")
        if weights is not None and weights.shape != model_points.shape[:-1]:
            raise LandmarkError(f"got weights {tuple(weights.shape)} for {got}, want one a point (B, L)")
        return cls(*fit_weak_perspective(model_points, image_points, weights))

    def project(self, points: Array) -> Array:
        """Head points (B, L, 3) in the image frame, (B, L, 3): x right, y down, z nearer = larger, pixels."""
        return project(points, self.rotation, self.scale, self.shift)

    def euler(self, convention: str) -> Array:
        """(pitch, yaw, roll) in radians, (B, 3); `convention` as in `geometry.rotation.EULER_CONVENTIONS`."""
        return euler_from_matrix(self.rotation, convention)

    def to_image(self, crop: Crop) -> WeakPerspective:
        """The same cameras in image pixels, where these are in the pixels of `crop`."""
        xp: Any = array_namespace(self.rotation)
        zero = xp.zeros_like(crop.angle)
        # The crop's angle turns x towards y, which is down: in y-up axes that is a turn by -angle about z.
        turn = matrix_from_vector(xp.stack([zero, zero, -crop.angle], axis=-1))
        shift = crop.image_from_crop(self.shift[:, None, :])[:, 0, :]
        return WeakPerspective(turn @ self.rotation, self.scale / crop.zoom, shift)
