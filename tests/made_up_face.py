"""A symmetric face of 68 points in the order of iBUG, drawn from ellipses; no person's and no model's."""

import numpy as np


def face() -> np.ndarray:
    """(68, 3) in pixels: x right, y down, z to the camera with zero mean; the box is 150 wide, 132 high."""
    t = np.linspace(0, np.pi, 17)
    jaw = np.stack([-75 * np.cos(t), -5 + 85 * np.sin(t), -60 * np.cos(t) ** 2], axis=1)
    s = np.linspace(0, np.pi, 5)
    brow = np.stack([-38 - 22 * np.cos(s), -42 - 10 * np.sin(s), 20 - 5 * np.cos(s) ** 2], axis=1)
    bridge = np.stack([np.zeros(4), [-25, -12, 0, 12], [22, 30, 40, 50]], axis=1)
    base = np.stack([[-14, -7, 0, 7, 14], [22, 24, 26, 24, 22], [26, 32, 36, 32, 26]], axis=1)
    a = np.pi - np.arange(6) * np.pi / 3
    eye = np.stack([-33 + 13 * np.cos(a), -25 - 5 * np.sin(a), 14 - 2 * np.cos(a) ** 2], axis=1)
    other_eye = eye[[3, 2, 1, 0, 5, 4]] * [-1, 1, 1]
    b, c = np.pi - np.arange(12) * np.pi / 6, np.pi - np.arange(8) * np.pi / 4
    lips = np.stack([27 * np.cos(b), 48 - 12 * np.sin(b), 30 - 14 * np.cos(b) ** 2], axis=1)
    inner = np.stack([21 * np.cos(c), 48 - 4 * np.sin(c), 27 - 10 * np.cos(c) ** 2], axis=1)
    points = np.concatenate([jaw, brow, brow[::-1] * [-1, 1, 1], bridge, base, eye, other_eye, lips, inner])
    points[:, 2] -= points[:, 2].mean()
    return points


def turn(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points turned by `yaw` radians about the vertical axis."""
    c, s = np.cos(yaw), np.sin(yaw)
    return points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
