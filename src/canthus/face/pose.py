"""Rotations of heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from canthus.errors import LandmarkError, WeightsError, first_few
from canthus.face.morphable import MorphableModel
from canthus.geometry.projection import fit_weak_perspective
from canthus.geometry.rotation import euler_from_matrix, nearest_rotation, quaternion_from_matrix

MAX_ROTATION_ERROR = 0.05
"""By how much an entry of a network's rotation matrix may differ from that of the nearest rotation."""


@dataclass(frozen=True, eq=False, repr=False)
class Pose:
    """Head rotations: `matrix` (N,3,3), camera-from-head in right-handed axes.

    Head axes: x to the subject's left, y up, z out of the face. Camera axes: x right, y up, z to the camera.
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", np.asarray(self.matrix, np.float64))
        if self.matrix.ndim != 3 or self.matrix.shape[1:] != (3, 3) or not np.isfinite(self.matrix).all():
            raise LandmarkError(f"got a pose of shape {self.matrix.shape}, want finite matrices (N, 3, 3)")
        off = self.matrix @ self.matrix.transpose(0, 2, 1) - np.eye(3)
        if (np.abs(off) > 2 * MAX_ROTATION_ERROR).any() or (np.linalg.det(self.matrix) < 0).any():
            raise LandmarkError("got a pose with matrices that are no rotations, want rotations (N, 3, 3)")

    def __len__(self) -> int:
        return len(self.matrix)

    def __repr__(self) -> str:
        angles = (f"pitch {p} yaw {y} roll {r}" for p, y, r in np.rint(self.euler()).astype(int))
        return f"Pose({first_few(angles, 5)})"

    @property
    def quaternion(self) -> np.ndarray:
        """Unit quaternions (N,4) = (w, x, y, z), w >= 0."""
        return quaternion_from_matrix(self.matrix)

    def euler(self, convention: str = "aflw") -> np.ndarray:
        """Angles (N,3) = (pitch, yaw, roll) in degrees, by a convention of `geometry.rotation`.

        Raises `CanthusError` for an unknown convention.
        """
        return np.rad2deg(euler_from_matrix(self.matrix, convention))


def head_rotation(xyz: np.ndarray) -> np.ndarray:
    """Rotations (B,3,3) that best fit the mean head to landmarks (B,68,3), in the image plane where all z are 0.

    Raises `LandmarkError` for another shape.
    """
    if xyz.shape[1:] != (68, 3):
        raise LandmarkError(f"got landmarks of shape {xyz.shape}, want (B, 68, 3)")
    mean = np.broadcast_to(MorphableModel.default().landmarks()[0], xyz.shape)
    seen = xyz if xyz[..., 2].any() else xyz[..., :2]
    return fit_weak_perspective(mean.astype(np.float64), seen.astype(np.float64))[0]


def as_rotations(matrices: np.ndarray) -> np.ndarray:
    """The rotations (B,3,3) nearest to a network's, which low precision may have moved a little.

    Raises `WeightsError` for NaN, infinity, or a matrix farther than MAX_ROTATION_ERROR from a rotation.
    """
    if not np.isfinite(matrices).all():
        raise WeightsError("got weights that give rotations with NaN or infinity, want rotation matrices")
    rotations = nearest_rotation(matrices)
    error = np.abs(rotations - matrices).max(initial=0)
    if error > MAX_ROTATION_ERROR:
        raise WeightsError(f"got weights that give matrices {error:.2g} off a rotation, want rotation matrices")
    return rotations
