"""Faces of a video over time: `TrackedFrame`, and for each face the `Series` of what is measured on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from canthus.face.blinks import LONGEST_GAP, Blink, find_blinks
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces, TrackedFaces
from canthus.face.measures import eye_aspect_ratio, mouth_opening

CHUNK = 256  # frames whose faces are measured together


class TrackedFrame(NamedTuple):
    """One frame of a video: its number from 0, seconds from the start of the video, and the faces in it."""

    number: int
    time: float
    tracked: TrackedFaces


@dataclass(frozen=True, eq=False)
class Series:
    """What is measured on one face of a video in the T frames in which it is.

    id: its number. frames: (T,) numbers of frames, rising. times: (T,) seconds. confidence: (T,) mean of
    `Faces.scores`. euler: (T,3) pitch, yaw, roll, degrees. eyes: (T,2) eye aspect ratio, right and left. mouth: (T,)
    opening. expression: (T,52), NaN where unknown.
    """

    id: int
    frames: np.ndarray
    times: np.ndarray
    confidence: np.ndarray
    euler: np.ndarray
    eyes: np.ndarray
    mouth: np.ndarray
    expression: np.ndarray

    def blinks(self) -> list[Blink]:
        """Its blinks, from eye aspect ratio and eyeBlink; indices are into this series."""
        lids = [EXPRESSIONS.index(name) for name in ("eyeBlinkRight", "eyeBlinkLeft")]
        return find_blinks(self.times, self.eyes, self.expression[:, lids])

    def blinking(self, blinks: Iterable[Blink]) -> np.ndarray:
        """Whether the right and left eye are in one of the blinks, (T,2) bool."""
        flags = np.zeros((len(self.frames), 2), bool)
        for blink in blinks:
            flags[blink.start : blink.end + 1, ("right", "left").index(blink.eye)] = True
        return flags


def gaps(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Indices before which a face was gone for longer than `LONGEST_GAP`, in the rising numbers (T,) and times (T,),
    seconds, of the frames that it is in. Frames that are far apart are no gap if none between them lacks the face."""
    return np.flatnonzero((np.diff(times) > LONGEST_GAP) & (np.diff(frames) > 1)) + 1


def series_of(frames: Iterable[TrackedFrame], euler: str = "aflw") -> list[Series]:
    """The series of all faces in order of their numbers; `euler` is a set of `geometry.rotation`.

    Raises `CanthusError` for an unknown set.
    """
    parts: dict[int, list[dict[str, np.ndarray]]] = {}
    waiting: list[TrackedFrame] = []

    def measure() -> None:
        faces = Faces.concat([frame.tracked.faces for frame in waiting], (1, 1))
        counts = [len(frame.tracked) for frame in waiting]
        columns: dict[str, Any] = {
            "frames": np.repeat([frame.number for frame in waiting], counts),
            "times": np.repeat([frame.time for frame in waiting], counts),
            "confidence": faces.scores.mean(1),
            "euler": faces.pose.euler(euler),
            "eyes": eye_aspect_ratio(faces.xyz, faces.scheme),
            "mouth": mouth_opening(faces.xyz, faces.scheme),
            "expression": faces.expression,
        }
        ids = np.concatenate([frame.tracked.ids for frame in waiting])
        for number in np.unique(ids).tolist():
            parts.setdefault(number, []).append({name: values[ids == number] for name, values in columns.items()})
        waiting.clear()

    for frame in frames:
        waiting.append(frame)
        if len(waiting) == CHUNK:
            measure()
    if waiting:
        measure()
    joined = ((number, {name: np.concatenate([part[name] for part in parts[number]]) for name in parts[number][0]})
              for number in sorted(parts))  # fmt: skip
    return [Series(number, **columns) for number, columns in joined]
