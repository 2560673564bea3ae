"""The verb `track`: reads videos and writes the faces of every frame, video by video.

A video that cannot be read or written is reported, and the next one follows. Of a damaged video everything readable is
tracked, and the frames that are missing are reported. The summary is written last, so it stands for all files of its
video: `resume` skips videos that have one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from os.path import exists  # unlike pathlib's, these say False of a name that cannot be
from pathlib import Path

from canthus.errors import CanthusError, VideoError
from canthus.face.faces import TrackedFaces
from canthus.inference.smooth import Smoother
from canthus.inference.tracker import Tracker
from canthus.io.draw import overlay
from canthus.io.inputs import Kind, counted, file_of, find, make_folder_of
from canthus.io.outputs import TrackedFrame, atomic_open, atomic_write, csv_header, csv_rows, json_line
from canthus.io.video import (
    FILES,
    FRAMES,
    RATE,
    Frame,
    Video,
    check_rate,
    check_source,
    writable_suffix,
    write_video,
)

OVERLAY = ".overlay"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """What is written for each video, beside the lines of JSON and the summary; and whether the faces are smoothed
    in all of it. rate: frames a second of folders of frames. Raises `VideoError` for a rate that is none."""

    overlay: bool = False
    csv: bool = False
    smooth: bool = False
    rate: float = RATE

    def __post_init__(self) -> None:
        check_rate(self.rate)


@dataclass
class ClipSummary:
    """What became of one video.

    frames: that were read. missing: frames that the file should hold and that could not be read, as far as it tells.
    problems: why they are missing, one sentence each. faces: in all frames together. people: numbers that were given.
    without_face: frames. reinitialisations: how often a known face was aligned anew from a detection. losses: how often
    a face of one frame is not in the next.
    """

    frames: int = 0
    missing: int = 0
    problems: list[str] = field(default_factory=list)
    faces: int = 0
    people: int = 0
    without_face: int = 0
    reinitialisations: int = 0
    losses: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames a second, reading and writing included."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def faces_per_frame(self) -> float:
        """Mean number of faces of a frame."""
        return self.faces / self.frames if self.frames else 0.0

    @property
    def damage(self) -> str:
        """How many frames are missing and why, as a sentence; empty where the video is whole."""
        if not self.problems:
            return ""
        return f"{self.missing} of {self.frames + self.missing} frames are missing: {shortened(self.problems, '; ')}"


@dataclass
class Summary:
    """What became of the videos: those that worked, in order; how many were skipped; what failed and why."""

    clips: list[tuple[Path, ClipSummary]] = field(default_factory=list)
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything could not be read or written: a whole video, or frames of one."""
        return bool(self.failures) or any(clip.problems for _, clip in self.clips)


def find_videos(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """(video or folder of frames, its target below the output folder) for files, folders and glob patterns.

    A folder is searched in depth: the video files in it are taken, and every folder that holds pictures but no video
    file is one video of frames. A video named twice is taken once; overlays of an earlier run are left out. Raises
    `VideoError` for an input that gives no video, or that is no file or folder at all, such as a camera.
    """
    given = list(inputs)
    for one in given:
        check_source(one)
    found = find(given, KIND)
    for folder, why in found.failures:
        if not found.files:
            raise VideoError(f"got the folder '{folder}', but {why}")
        log.warning("%s is left out: %s", folder, why)
    if found.passed_over:
        log.warning("passed over: %s", counted(found.passed_over, found.hints))
    return found.files


def _is_video(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in FILES and not path.stem.endswith(OVERLAY)


def _holds_frames(names: list[str]) -> bool:
    return any(Path(name).suffix.lower() in FRAMES for name in names) and not any(map(_is_video, names))


def shortened(texts: Sequence[str], separator: str = ", ", most: int = 3) -> str:
    """The first few of the texts, and how many more there are."""
    return separator.join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


KIND = Kind("video", VideoError, _is_video, _holds_frames)


def track(
    videos: Sequence[tuple[Path, Path]],
    out: Path,
    tracker: Tracker,
    outputs: Outputs = Outputs(),
    resume: bool = False,
    progress: Callable[[Path, int, int | None], None] = lambda video, frame, count: None,
) -> Summary:
    """Track faces in `videos` (as `find_videos` gives them) and write the results below `out`.

    `progress` is called after each frame with the video, the number of frames done and how many there are, if known.
    """
    summary = Summary()
    for path, name in videos:
        target = out / name
        if resume and exists(file_of(target, ".summary.json")):
            summary.skipped += 1
            continue
        try:
            clip = _track(Video(path, outputs.rate), target, tracker, outputs, progress)
        except CanthusError as error:
            summary.failures.append((path, str(error)))
        else:
            summary.clips.append((path, clip))
    return summary


def _track(
    video: Video,
    target: Path,
    tracker: Tracker,
    outputs: Outputs,
    progress: Callable[[Path, int, int | None], None],
) -> ClipSummary:
    clip, start, known = ClipSummary(), time.perf_counter(), set[int]()
    make_folder_of(target)
    with ExitStack() as files:
        lines = files.enter_context(atomic_open(file_of(target, ".jsonl")))
        table = files.enter_context(atomic_open(file_of(target, ".csv"))) if outputs.csv else None
        put = None
        if outputs.overlay:
            put = files.enter_context(write_video(file_of(target, OVERLAY + writable_suffix())))
        if table:
            table.write(csv_header())
        for frame, tracked in _frames(video, tracker, outputs.smooth):
            lines.write(json_line(TrackedFrame(frame.number, frame.time, tracked), video.path.name))
            if table:
                table.write(csv_rows(frame.number + 1, tracked.faces, frame.time, tracked.ids))
            if put:
                put(overlay(frame.image, tracked.faces, names=[str(i) for i in tracked.ids]), frame.time)
            now = set(tracked.ids.tolist())
            clip.losses += len(known - now)
            known = now
            clip.frames += 1
            clip.faces += len(now)
            clip.people = max([clip.people, *(i + 1 for i in now)])
            clip.without_face += not now
            progress(video.path, clip.frames, video.count)
    clip.missing, clip.problems = video.missing, video.problems
    clip.reinitialisations = tracker.reinitialisations
    clip.seconds = time.perf_counter() - start
    text = {**asdict(clip), "faces_per_frame": round(clip.faces_per_frame, 3), "fps": round(clip.fps, 1)}
    atomic_write(file_of(target, ".summary.json"), json.dumps(text, indent=2).encode() + b"\n")
    return clip


def _frames(video: Video, tracker: Tracker, smooth: bool) -> Iterator[tuple[Frame, TrackedFaces]]:
    tracker.reset()
    smoother = Smoother()
    for frame in video:
        tracked = tracker.step(frame.image)
        yield frame, smoother(tracked, frame.time) if smooth else tracked
