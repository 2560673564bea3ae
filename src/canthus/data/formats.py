"""Readers of data sets as their authors lay them out. Everything is converted here, at the door, to the house's
conventions: 0-based pixels, y down, z nearer = larger with mean zero, rotation matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canthus.errors import LandmarkError
from canthus.geometry.rotation import matrix_from_euler


@dataclass(frozen=True, eq=False)
class FaceSample:
    """One annotated face.

    image: path of the picture. xyz: (68,3) pixels. rotation: (3,3) camera-from-head.
    """

    image: Path
    xyz: np.ndarray
    rotation: np.ndarray


def read_300wlp(folder: str | Path) -> Iterator[FaceSample]:
    """The faces of a folder in the layout of 300W-LP and AFLW2000-3D: NAME.jpg beside NAME.mat, in the order of names.

    `pt3d_68` (3,68) are 1-based pixels with z towards the viewer; `Pose_Para` begins with pitch, yaw, roll in radians,
    R = Rx Ry Rz. Raises `LandmarkError` naming the file for a pair that is incomplete or holds other shapes or NaN.
    """
    from scipy.io import loadmat  # optional dependency of the formats extra

    paths = sorted(Path(folder).glob("*.mat"))
    if not paths:
        raise LandmarkError(f"no .mat files in '{folder}': a folder of NAME.jpg and NAME.mat pairs is wanted")
    for path in paths:
        image = path.with_suffix(".jpg")
        if not image.is_file():
            raise LandmarkError(f"'{path}' has no picture '{image.name}' beside it")
        try:
            mat = loadmat(path)
        except Exception as error:  # SciPy raises many unrelated classes for a damaged file
            raise LandmarkError(f"'{path}' cannot be read: {error}") from error
        missing = [k for k in ("pt3d_68", "Pose_Para") if k not in mat]
        if missing:
            raise LandmarkError(f"'{path}' lacks {missing}; the layout of AFLW2000-3D is wanted")
        points = np.asarray(mat["pt3d_68"], np.float64).T
        if points.shape != (68, 3) or not np.isfinite(points).all():
            raise LandmarkError(f"'{path}' has landmarks of shape {points.T.shape} or NaN; finite (3, 68) is wanted")
        points = points - [1, 1, points[:, 2].mean()]
        angles = np.asarray(mat["Pose_Para"], np.float64).ravel()[:3]
        if len(angles) < 3 or not np.isfinite(angles).all():
            raise LandmarkError(f"'{path}' has the pose {angles.tolist()}; finite pitch, yaw and roll are wanted")
        yield FaceSample(image, points, matrix_from_euler(angles, "aflw"))
