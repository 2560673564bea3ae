"""Smoothing of tracks, for viewing. It delays quick motion and hides noise, so nothing is measured on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from canthus.face.blinks import LONGEST_GAP
from canthus.face.faces import Faces, TrackedFaces
from canthus.face.morphable_fit import FLIP
from canthus.face.pose import Pose
from canthus.face.series import TrackedFrame, gaps
from canthus.geometry.rotation import nearest_rotation


class OneEuro:
    """The 1 euro filter of one signal, an array: the faster it moves, the less it is smoothed.

    Casiez et al., "1 euro filter: a simple speed-based low-pass filter for noisy input in interactive systems", CHI
    2012. cutoff: Hz, of a signal at rest. beta: Hz more for each unit a second. speed_cutoff: Hz, of the speed.
    """

    def __init__(self, cutoff: float = 1.0, beta: float = 1.0, speed_cutoff: float = 1.0):
        self.cutoff, self.beta, self.speed_cutoff = cutoff, beta, speed_cutoff
        self.time: float | None = None
        self._count = 0
        self.value: np.ndarray
        self.speed: np.ndarray

    @property
    def fresh(self) -> bool:
        """Whether it has had no more than one value, which it gives back as it is."""
        return self._count < 2

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
        self._count += 1
        return self.value


def _weight(cutoff: float | np.ndarray, step: float) -> np.ndarray:
    """What a first-order low pass of `cutoff` Hz gives to a new value after `step` seconds."""
    rate = 2 * np.pi * np.asarray(cutoff) * step
    return rate / (1 + rate)


class _Parts(NamedTuple):
    """The parts of a face: rotation of the head (3,3), place and log size (3,), landmarks in the head's own frame
    (68,3), and expressions (52,). Lengths are in sizes of the face."""

    rotation: np.ndarray
    place: np.ndarray
    shape: np.ndarray
    expression: np.ndarray


class _Filter(NamedTuple):
    """Settings of a `OneEuro`."""

    cutoff: float
    beta: float
    speed_cutoff: float


# A head moves in tenths of a second, lids and lips faster: their cutoffs react sooner.
_FILTERS = _Parts(_Filter(1.0, 5.0, 1.0), _Filter(1.5, 8.0, 1.0), _Filter(1.0, 10.0, 4.0), _Filter(1.0, 4.0, 6.0))  # type: ignore[arg-type]


class _Track(NamedTuple):
    """A face that is smoothed: its size where it began, px, its filters, one for each of `_Parts`, and when it was last
    seen, seconds."""

    unit: float
    filters: list[OneEuro]
    last: float


class Smoother:
    """Tracked faces smoothed one frame after the other, by `OneEuro`: later frames are not known yet, so quick
    motion is delayed a little. For video files there is `smoothed`.

    The turn of the head, its place and size, the landmarks in the head's own frame and the expressions are smoothed
    separately. So a head that turns does not smear the face, and noise in its pose does not move the lids.
    """

    def __init__(self) -> None:
        self._tracks: dict[int, _Track] = {}

    def __call__(self, tracked: TrackedFaces, time: float) -> TrackedFaces:
        """The faces of the frame at `time` seconds, smoothed. A face that was not followed starts again, and so does
        one that comes back after more than `LONGEST_GAP` seconds."""
        smooth = []
        for k, face in enumerate(tracked.faces):
            number = int(tracked.ids[k])
            track = self._tracks.get(number)
            if not tracked.followed[k] or track is None:
                track = _Track(float(face.sizes[0]), [OneEuro(*settings) for settings in _FILTERS], time)
            unit, filters, _ = track
            self._tracks[number] = track._replace(last=time)
            parts = _Parts(*(f(part, time) for f, part in zip(filters, _split(face, unit))))
            smooth.append(face if filters[0].fresh else _join(face, parts, unit))
        here = set(tracked.ids.tolist())
        self._tracks = {n: t for n, t in self._tracks.items() if n in here or time - t.last <= LONGEST_GAP}
        return replace(tracked, faces=Faces.concat(smooth, tracked.faces.image_size)) if smooth else tracked


def smoothed(frames: Iterable[TrackedFrame]) -> Iterator[TrackedFrame]:
    """The frames of a whole video with their faces smoothed without delay.

    The filter of `Smoother` goes over the track of each face forwards, and over the same track backwards; the mean of
    both moves nothing in time, and is the same for a video that is played backwards. Where a face was gone for longer
    than `series.LONGEST_GAP` it starts again. All frames are held in memory, about 18 kB a face and frame.
    """
    kept = list(frames)
    tracks: dict[int, list[tuple[int, int]]] = {}  # of each face: places in `kept` and among the faces there
    for n, frame in enumerate(kept):
        for k, number in enumerate(frame.tracked.ids.tolist()):
            tracks.setdefault(number, []).append((n, k))
    answers: list[list[Faces]] = [list(frame.tracked.faces) for frame in kept]
    for places in tracks.values():
        times = np.array([kept[n].time for n, _ in places])
        numbers = np.array([kept[n].number for n, _ in places])
        for part in np.split(np.arange(len(places)), gaps(numbers, times)):
            faces = [answers[places[i][0]][places[i][1]] for i in part]
            for i, face in zip(part, _smooth_track(faces, times[part])):
                answers[places[i][0]][places[i][1]] = face
    for frame, faces in zip(kept, answers):
        tracked = frame.tracked
        size = tracked.faces.image_size
        yield frame._replace(tracked=replace(tracked, faces=Faces.concat(faces, size)) if faces else tracked)


def _smooth_track(faces: list[Faces], times: np.ndarray) -> list[Faces]:
    unit = float(np.median([face.sizes[0] for face in faces]))
    parts = [_split(face, unit) for face in faces]
    columns = []
    for settings, values in zip(_FILTERS, zip(*parts)):
        forwards, backwards = OneEuro(*settings), OneEuro(*settings)
        ahead = [forwards(value, time) for value, time in zip(values, times)]
        behind = [backwards(value, -time) for value, time in zip(reversed(values), times[::-1])][::-1]
        columns.append([(a + b) / 2 for a, b in zip(ahead, behind)])
    return [_join(face, _Parts(*parts), unit) for face, parts in zip(faces, zip(*columns))]


def _split(face: Faces, unit: float) -> _Parts:
    """The parts of one face; `unit` is the face size, px, in which its place is given."""
    points = face.xyz[0].astype(np.float64)
    rotation = face.pose.matrix[0]
    centre = points.mean(0)
    radius = np.sqrt(((points - centre) ** 2).sum(1).mean())
    shape = (points - centre) * FLIP @ rotation / radius
    place = np.array([centre[0] / unit, centre[1] / unit, np.log(radius)])
    return _Parts(rotation, place, shape, face.expression[0].astype(np.float64))


def _join(face: Faces, parts: _Parts, unit: float) -> Faces:
    """The face with these parts instead of its own; what is not among them stays."""
    rotation = nearest_rotation(parts.rotation)
    points = np.exp(parts.place[2]) * parts.shape @ rotation.T * FLIP
    points = points - points.mean(0) + [*(parts.place[:2] * unit), 0]
    expression = np.clip(parts.expression, 0, 1)[None]
    # a fitted head is of this frame alone
    return replace(face, xyz=points[None], pose=Pose(rotation[None]), expression=expression, own_head=None)
