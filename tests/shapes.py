"""Made-up faces for tests: a symmetric 68-point head, and `Faces` of it under known angles."""

from __future__ import annotations

import numpy as np

from canthus.face.faces import Faces
from canthus.face.pose import Pose
from canthus.geometry.rotation import matrix_from_euler

MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]
)

# The points on the subject's right (x < 0) and on the midline (x = 0), in the head frame, roughly
# millimetres.
_HALF: dict[int, tuple[float, float, float]] = {
    0: (-70, 32, -55), 1: (-69, 14, -55), 2: (-67, -5, -52), 3: (-62, -24, -46), 4: (-54, -42, -34),
    5: (-43, -57, -17), 6: (-30, -68, -2), 7: (-15, -76, 9), 8: (0, -79, 13),
    17: (-60, 46, 4), 18: (-50, 55, 16), 19: (-37, 58, 24), 20: (-24, 56, 29), 21: (-12, 51, 32),
    27: (0, 36, 31), 28: (0, 23, 38), 29: (0, 10, 46), 30: (0, -3, 53),
    31: (-14, -11, 31), 32: (-7, -13, 36), 33: (0, -15, 38),
    36: (-47, 33, 9), 37: (-39, 38, 17), 38: (-29, 38, 19), 39: (-20, 32, 16),
    40: (-29, 29, 18), 41: (-38, 28, 16),
    48: (-26, -36, 21), 49: (-17, -31, 32), 50: (-6, -28, 38), 51: (0, -30, 39),
    57: (0, -48, 34), 58: (-8, -47, 33), 59: (-17, -43, 29),
    60: (-22, -36, 24), 61: (-9, -35, 34), 62: (0, -35, 36), 66: (0, -38, 35), 67: (-9, -38, 33),
}  # fmt: skip


def head68() -> np.ndarray:
    """A symmetric face (68,3) in the head frame: x to the subject's left, y up, z to the viewer, mean 0."""
    points = np.zeros((68, 3))
    for index, point in _HALF.items():
        points[MIRROR[index]] = np.multiply(point, (-1, 1, 1))
        points[index] = point
    return points - points.mean(0)


def made_up_faces(
    angles: list[tuple[float, float, float]], image_size: tuple[int, int] = (640, 480), scale: float = 1.0
) -> Faces:
    """`head68` seen under each (pitch, yaw, roll) of the aflw set in degrees, side by side in one image.

    `scale` is pixels per unit of `head68`, so that a frontal face is 140 * scale px wide.
    """
    count = len(angles)
    width, height = image_size
    rotation = matrix_from_euler(np.deg2rad(np.array(angles, dtype=float).reshape(count, 3)), "aflw")
    xyz = scale * head68() @ np.swapaxes(rotation, 1, 2) * [1, -1, 1]
    centres = np.stack([width * (np.arange(count) + 0.5) / max(count, 1), np.full(count, height / 2)], -1)
    xyz[..., :2] += centres[:, None]
    return Faces(
        xyz=xyz,
        detection_scores=np.linspace(0.95, 0.8, count),
        sigma=np.tile(np.linspace(1, 3, 68), (count, 1)) * scale,
        visible=np.tile(np.where(np.arange(68) < 5, 0.2, 0.9), (count, 1)),
        pose=Pose(rotation),
        image_size=image_size,
        weights="made-up 1",
    )
