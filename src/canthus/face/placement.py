"""Where heads are in front of the camera, in millimetres, from the size that they appear in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from canthus.errors import LandmarkError
from canthus.face.faces import Faces
from canthus.face.morphable import MorphableModel
from canthus.face.morphable_fit import FLIP
from canthus.geometry.rotation import matrix_from_vector


def assumed_focal_length(width: int, height: int) -> float:
    """Focal length in pixels of a camera that is not known: 500 px at 640 x 480 px and in proportion, as OpenFace
    assumes; 65 degrees from the left border to the right."""
    return (500 * width / 640 + 500 * height / 480) / 2


def head_scales(faces: Faces, head: np.ndarray | None = None) -> np.ndarray:
    """Pixels a millimetre (N,) of the faces, by the landmarks (68,3) of a head in mm under each face's own rotation;
    None: the mean head of the default model."""
    mean = _landmarks(head)
    mean = (mean - mean.mean(0)) @ np.swapaxes(faces.pose.matrix, 1, 2) * FLIP
    points = faces.landmarks().astype(np.float64)
    points = points - points.mean(1, keepdims=True)
    if not points[..., 2].any():
        mean[..., 2] = 0.0
    return (mean * points).sum((1, 2)) / np.maximum((mean**2).sum((1, 2)), 1e-9)


class HeadPoses(NamedTuple):
    """Heads in the camera's frame: x right, y up, z towards the camera, from the camera's centre. A head point p, mm,
    is at rotation p + translation. rotation: (N,3,3). translation: (N,3) mm; its z is minus the distance."""

    rotation: np.ndarray
    translation: np.ndarray


def head_poses(faces: Faces, focal_length: np.ndarray, centre: np.ndarray, head: np.ndarray | None = None) -> HeadPoses:
    """Where the heads of faces are.

    focal_length: (N,) pixels. centre: (N,2), the image point on the camera's axis, pixels. The head's frame is that of
    the default model. A face tells its distance only by its size: `head` are the landmarks (68,3) in mm that all of
    them have, None those of the mean head. A head that is 5 % larger is 5 % farther away than this says.

    `Faces.pose` is a head as it is seen along the ray to it, as a crop shows it: a head at the border of the image that
    looks at the camera has pose zero, and is turned in the camera's frame. Perspective inside a face is neglected.
    Raises `LandmarkError` for a focal length that is not positive and finite.
    """
    focal_length = np.asarray(focal_length, np.float64)
    if not ((focal_length > 0) & np.isfinite(focal_length)).all():
        raise LandmarkError("got a focal length that is not positive and finite, want pixels")
    middle = (faces.landmarks()[..., :2].astype(np.float64).mean(1) - centre) * [
        1,
        -1,
    ]  # of the landmarks, from the axis
    ray = np.concatenate([middle, -focal_length[:, None]], axis=1)
    with np.errstate(divide="ignore"):
        place = ray / head_scales(faces, head)[:, None]
    rotation = _towards(ray) @ faces.pose.matrix
    return HeadPoses(rotation, place - rotation @ _landmarks(head).mean(0))


def _towards(rays: np.ndarray) -> np.ndarray:
    """The smallest rotations (N,3,3) that turn the camera's view, (0, 0, -1), to rays (N,3) in front of it."""
    x, y, z = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).T
    angle, sine = np.arccos(np.clip(-z, -1, 1)), np.maximum(np.hypot(x, y), 1e-12)
    return matrix_from_vector(np.stack([y, -x, 0 * x], axis=1) * (angle / sine)[:, None])  # (0, 0, -1) x ray


def _landmarks(head: np.ndarray | None) -> np.ndarray:
    return (MorphableModel.default().landmarks()[0] if head is None else head).astype(np.float64)
