"""Faces followed through short clips: a thread of its own does one clip after another, beside the photos."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from canthus.errors import VideoError, VideoSizeError, amount
from canthus.inference.predictor import Predictor
from canthus.inference.tracker import Tracker
from canthus.io.columns import ImageFaces
from canthus.io.lines import frame_line, header_line
from canthus.io.video import Video
from canthus.serve.jobs import JobThread


@dataclass(frozen=True)
class ClipLimits:
    """What one clip may ask for, and how many may be under way."""

    bytes: int = 50_000_000
    """Length of a video file."""
    pixels: int = 4_000_000
    """Width times height of a frame."""
    frames: int = 1800
    """Frames of a clip."""
    length: float = 60.0
    """Seconds from its first frame to its last."""
    faces: int = 20
    """Faces in a frame."""
    answer: int = 64_000_000
    """Bytes of an answer, which waits in memory for a client that reads slowly."""
    seconds: float = 120.0
    """From a request's beginning to the end of its answer."""
    queue: int = 4
    """Clips that are sent, wait, are worked on or read, together."""


class Lack(NamedTuple):
    """What a clip that was read to its end lacks, as of a `Video`."""

    missing: int
    problems: list[str]


@dataclass
class Job:
    """A clip under way. `put` is called on the worker's thread with each line, then with a `Lack` and None, or with the
    error that ends it; `gone` is set when the rest is not wanted any more; `late` is the deadline by `time.monotonic`.
    """

    data: bytes
    name: str
    late: float
    put: Callable[[bytes | Lack | Exception | None], object]
    gone: threading.Event = field(default_factory=threading.Event)


class ClipWorker(JobThread[Job]):
    """Follows the faces of clips with one predictor, in the order in which they come; `on_frame` gets the number of
    faces of each frame."""

    def __init__(self, predictor: Predictor, limits: ClipLimits, on_frame: Callable[[int], object]):
        self.predictor, self.limits, self.on_frame = predictor, limits, on_frame
        super().__init__("canthus-clips")

    def submit(self, job: Job) -> None:
        """Follow the faces of a clip when its turn comes. Raises `Closed`."""
        self._put(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            with contextlib.suppress(RuntimeError):  # of an event loop that has ended meanwhile
                try:
                    self._follow(job)
                except Exception as error:
                    job.put(error)
                else:
                    job.put(None)

    def _follow(self, job: Job) -> None:
        limits, card = self.limits, self.predictor.card
        if job.gone.is_set():
            return
        video = Video.of_bytes(job.data, job.name, limits.pixels, self.predictor.threads)
        if (video.count or 0) > limits.frames:
            raise _too_long(amount(video.count or 0, "frame"), f"{limits.frames}")
        job.put(header_line(job.name, [card.title], card.scheme))
        tracker, size = Tracker(self.predictor), 0
        for frame in video:
            if job.gone.is_set():
                return
            if time.monotonic() > job.late:
                raise TimeoutError
            if frame.number >= limits.frames:
                raise _too_long(f"more than {amount(limits.frames, 'frame')}", "so many")
            if frame.time > limits.length:
                raise _too_long(f"more than {limits.length:g} s", "so long")
            tracked = tracker.step(frame.image)
            if len(tracked.faces) > limits.faces:
                raise VideoError(f"got a frame with {amount(len(tracked.faces), 'face')}, want at most {limits.faces}")
            self.on_frame(len(tracked.faces))
            image = ImageFaces(job.name, frame.number, frame.time, tracked.faces, tracked.ids, tracked.followed)
            line = frame_line(image)
            size += len(line)
            if size > limits.answer:
                raise _too_long(f"faces of more than {limits.answer} bytes", "so many")
            job.put(line)
        job.put(Lack(video.missing, video.problems))


def _too_long(got: str, want: str) -> VideoSizeError:
    return VideoSizeError(f"got a clip with {got}, want at most {want}")
