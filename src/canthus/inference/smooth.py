"""Smoothing of tracks for the eye. It delays what is quick and hides what is noise, so nothing is measured on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from canthus.face.faces import Pose, TrackedFaces
from canthus.geometry.rotation import nearest_rotation


class OneEuro:
    """The 1 euro filter of one signal, an array: the faster it moves, the less it is smoothed.

    Casiez et al., "1 euro filter: a simple speed-based low-pass filter for noisy input in interactive systems", CHI
    2012. cutoff: Hz, of a signal at rest. beta: Hz more for each unit a second. speed_cutoff: Hz, of the speed.
    """

    def __init__(self, cutoff: float = 1.0, beta: float = 1.0, speed_cutoff: float = 1.0):
        self.cutoff, self.beta, self.speed_cutoff = cutoff, beta, speed_cutoff
        self.time: float | None = None
        self.value: np.ndarray
        self.speed: np.ndarray

    def __call__(self, value: np.ndarray, time: float) -> np.ndarray:
        """The smoothed value at `time` in seconds; times rise from call to call."""
        if self.time is None:
            self.value, self.speed = np.asarray(value, np.float64), np.zeros(np.shape(value))
        else:
            step = max(time - self.time, 1e-6)
            self.speed = self.speed + _weight(self.speed_cutoff, step) * ((value - self.value) / step - self.speed)
            cutoff = self.cutoff + self.beta * np.abs(self.speed)
            self.value = self.value + _weight(cutoff, step) * (value - self.value)
        self.time = time
        return self.value


def _weight(cutoff: float | np.ndarray, step: float) -> np.ndarray:
    """What a first-order low pass of `cutoff` Hz gives to a new value after `step` seconds."""
    rate = 2 * np.pi * np.asarray(cutoff) * step
    return rate / (1 + rate)


class Smoother:
    """Landmarks and poses of tracked faces by one `OneEuro` each; lengths count in sizes of the face."""

    def __init__(self, cutoff: float = 1.5, beta: float = 8.0):
        self.cutoff, self.beta = cutoff, beta
        self._points: dict[int, OneEuro] = {}
        self._poses: dict[int, OneEuro] = {}

    def __call__(self, tracked: TrackedFaces, time: float) -> TrackedFaces:
        """The faces of the frame at `time` seconds, smoothed. A face that was not followed starts anew."""
        faces = tracked.faces
        xyz, rotation = faces.xyz.astype(np.float64), faces.pose.matrix.copy()
        for k, (number, size) in enumerate(zip(tracked.ids.tolist(), faces.sizes)):
            if not tracked.followed[k] or number not in self._points:
                self._points[number] = OneEuro(self.cutoff, self.beta / float(size))
                self._poses[number] = OneEuro(self.cutoff, self.beta)
            xyz[k] = self._points[number](xyz[k], time)
            rotation[k] = nearest_rotation(self._poses[number](rotation[k], time))
        return replace(tracked, faces=replace(faces, xyz=xyz, pose=Pose(rotation)))
