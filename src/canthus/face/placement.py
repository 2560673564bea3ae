"""Where heads are in front of the camera, in millimetres, from the size that they appear in."""

from __future__ import annotations

import numpy as np

from canthus.errors import LandmarkError
from canthus.face.faces import Faces
from canthus.face.morphable import MorphableModel
from canthus.face.morphable_fit import FLIP


def assumed_focal_length(width: int, height: int) -> float:
    """Focal length in pixels of a camera that is not known: 500 px at 640 x 480 px and in proportion, as OpenFace
    assumes; 65 degrees from the left border to the right."""
    return (500 * width / 640 + 500 * height / 480) / 2


def head_scales(faces: Faces) -> np.ndarray:
    """Pixels a millimetre (N,) of the faces, by the mean head of the default model under each face's own rotation."""
    mean = MorphableModel.default().landmarks()[0].astype(np.float64)
    mean = (mean - mean.mean(0)) @ np.swapaxes(faces.pose.matrix, 1, 2) * FLIP
    points = faces.xyz.astype(np.float64)
    points = points - points.mean(1, keepdims=True)
    if not points[..., 2].any():
        mean[..., 2] = 0.0
    return (mean * points).sum((1, 2)) / np.maximum((mean**2).sum((1, 2)), 1e-9)


def head_translations(faces: Faces, focal_length: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Translations t (N,3), millimetres, for which R head + t is in the camera's frame: x right, y up, z towards the
    camera, from the camera's centre, so that z is minus the distance.

    focal_length: (N,) pixels. centre: (N,2), the image point on the camera's axis, pixels. The head's frame is that of
    the default model. A face tells its distance only by its size, so every head counts as large as the mean head; a
    head that is 5 % larger is 5 % farther away than this says. Raises `LandmarkError` for a focal length that is not
    positive.
    """
    focal_length = np.asarray(focal_length, np.float64)
    if not (focal_length > 0).all():
        raise LandmarkError("got a focal length that is not positive, want pixels")
    scales = head_scales(faces)
    mean = MorphableModel.default().landmarks()[0].astype(np.float64).mean(0)
    middle = (faces.xy.astype(np.float64).mean(1) - centre) * [1, -1]  # of the landmarks, from the axis
    with np.errstate(divide="ignore"):
        place = np.concatenate([middle, -focal_length[:, None]], axis=1) / scales[:, None]
    return place - faces.pose.matrix @ mean
