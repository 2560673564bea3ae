"""The verb `track`: reads videos and writes the faces of every frame, video by video.

A video that cannot be read or written is reported, and the next one follows. Of a damaged video everything readable is
tracked, and the frames that are missing are reported. The summary is written last, so it stands for all files of its
video; it says of which video and by which settings they are, and `resume` skips videos where that is what is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from os.path import exists, isdir  # unlike pathlib's, these say False of a name that cannot be
from pathlib import Path
from typing import Any

from canthus.decode import decoding, read_json
from canthus.errors import CanthusError, VideoError
from canthus.face.faces import TrackedFaces
from canthus.inference.smooth import Smoother
from canthus.inference.tracker import Tracker
from canthus.io.draw import overlay
from canthus.io.inputs import Found, Kind, Source, file_of, find, make_folder_of
from canthus.io.outputs import (
    TrackedFrame,
    atomic_open,
    atomic_write,
    csv_header,
    csv_rows,
    json_line,
    remove_leftovers,
)
from canthus.io.video import (
    FILES,
    RATE,
    Frame,
    Video,
    check_rate,
    check_source,
    frames_of,
    is_frame,
    writable_suffix,
    write_video,
)

OVERLAY = ".overlay"
SUMMARY = ".summary.json"


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

    def files(self) -> list[str]:
        """The endings of the files of a video, the summary's left out."""
        overlay = [OVERLAY + writable_suffix()] if self.overlay else []
        return [".jsonl", *([".csv"] if self.csv else []), *overlay]


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
    """What became of the videos.

    clips: those that were tracked, in order. skipped: videos that `resume` found done. failures: what could not be read
    or written at all, and why. passed_over: how many files are no videos, by suffix.
    """

    clips: list[tuple[Path, ClipSummary]] = field(default_factory=list)
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        """Whether anything could not be read or written: a whole video, or frames of one."""
        return bool(self.failures) or any(clip.problems for _, clip in self.clips)


def find_videos(inputs: Iterable[str | Path]) -> Found:
    """The videos in files, folders (searched in depth) and glob patterns, and their targets, by `inputs.find`.

    In a folder the video files are taken; a folder that holds pictures but no video file is one video of frames.
    Overlays of an earlier run are left out. Raises `VideoError` as `find`, and for what is no path, such as the number
    of a camera.
    """
    given = list(inputs)
    for one in given:
        check_source(one)
    return find(given, KIND)


def _is_video(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in FILES and not path.stem.endswith(OVERLAY)


def _holds_frames(names: list[str]) -> bool:
    return any(map(is_frame, names)) and not any(map(_is_video, names))


def shortened(texts: Sequence[str], separator: str = ", ", most: int = 3) -> str:
    """The first few of the texts, and how many more there are."""
    return separator.join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


KIND = Kind("video", VideoError, _is_video, _holds_frames)


def track(
    found: Found,
    out: Path,
    tracker: Tracker,
    outputs: Outputs = Outputs(),
    resume: bool = False,
    progress: Callable[[Path, int, int | None], None] = lambda video, frame, count: None,
) -> Summary:
    """Track faces in the videos that `find_videos` found and write the results below `out`.

    `progress` is called after each frame with the video, the number of frames done and how many there are, if known.
    `resume` skips a video if its summary says that the same weights and settings wrote all that is asked for, of the
    same file.
    """
    summary, folders = Summary(failures=list(found.failures), passed_over=found.passed_over), set[Path]()
    for path, name in found.files:
        target = out / name
        earlier = _Results.read(target)
        if resume and earlier and earlier.is_done(path, _settings(tracker, outputs), outputs.files()):
            summary.skipped += 1
            continue
        try:
            video = Video(path, outputs.rate, tracker.aligner.threads)
            if target.parent not in folders:
                make_folder_of(target)
                remove_leftovers(target.parent)
                folders.add(target.parent)
            clip = _track(video, target, tracker, outputs, progress)
        except CanthusError as error:
            summary.failures.append((path, str(error)))
            if earlier and exists(path) and not earlier.is_of(path):  # it speaks of another file
                earlier.remove()
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
    with ExitStack() as files:
        lines = files.enter_context(atomic_open(file_of(target, ".jsonl")))
        table = files.enter_context(atomic_open(file_of(target, ".csv"))) if outputs.csv else None
        put = None
        if outputs.overlay:
            put = files.enter_context(
                write_video(file_of(target, OVERLAY + writable_suffix()), tracker.aligner.threads)
            )
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
        source, settings = _source(video.path), _settings(tracker, outputs)
        written = [target.name + ending for ending in outputs.files()]
        if earlier := _Results.read(target):  # until all new files are there no summary stands for them
            earlier.files = [name for name in earlier.files if name not in written]
            if earlier.settings == settings and earlier.source | {"path": source.path} == source._asdict():
                written, earlier.files = written + earlier.files, []  # such as the table of a run with --csv
            earlier.remove()
    clip.missing, clip.problems = video.missing, video.problems
    clip.reinitialisations = tracker.reinitialisations
    clip.seconds = time.perf_counter() - start
    text = {
        **asdict(clip),
        "faces_per_frame": round(clip.faces_per_frame, 3),
        "fps": round(clip.fps, 1),
        "source": source._asdict(),
        "settings": settings,
        "files": written,
    }
    atomic_write(file_of(target, SUMMARY), json.dumps(text, indent=2).encode() + b"\n")
    return clip


def _frames(video: Video, tracker: Tracker, smooth: bool) -> Iterator[tuple[Frame, TrackedFaces]]:
    tracker.reset()
    smoother = Smoother()
    for frame in video:
        tracked = tracker.step(frame.image)
        yield frame, smoother(tracked, frame.time) if smooth else tracked


def _settings(tracker: Tracker, outputs: Outputs) -> dict[str, Any]:
    """What decides about the numbers in the results."""
    return {
        "weights": tracker.aligner.card.title,
        "tracking": tracker.tracking.card.title,
        "detect_every": tracker.detect_every,
        "min_score": tracker.min_score,
        "memory": tracker.memory,
        "smooth": outputs.smooth,
        "rate": outputs.rate,
    }


def _source(path: Path) -> Source:
    """What tells a video from others; of a folder, its frames together. Raises `VideoError`."""
    try:
        if not isdir(path):
            return Source.of(path)
        digest, length = hashlib.sha256(), 0
        for frame in frames_of(path):
            one = Source.of(frame) if frame.exists() else Source("", 0, "")
            digest.update(f"{frame.name}\0{one.sha256}\0".encode("utf-8", "surrogateescape"))
            length += one.bytes
        return Source(os.fspath(path), length, digest.hexdigest())
    except OSError as error:
        raise VideoError(f"got {path}, which cannot be read ({error.strerror}), want it intact") from error


@dataclass
class _Results:
    """What the summary of an earlier run says: which video it speaks of, how it was tracked, and what was written."""

    summary: Path
    source: dict[str, Any]
    settings: dict[str, Any]
    files: list[str]

    @classmethod
    def read(cls, target: Path) -> _Results | None:
        """The results of a target; None without a summary, and for one that is broken or not ours."""
        path = file_of(target, SUMMARY)
        with suppress(VideoError), decoding(VideoError, f"'{path}' cannot be read"):
            text = read_json(path)
            names = [name for name in text["files"] if Path(name).name == name and name.startswith(f"{target.name}.")]
            return cls(path, dict(text["source"]), dict(text["settings"]), names)
        return None

    def is_done(self, video: Path, settings: dict[str, Any], wanted: Sequence[str]) -> bool:
        """Whether all wanted files (their endings) are there, by these settings and of the video as it is now."""
        paths = [file_of(self.summary.with_name(self.summary.name.removesuffix(SUMMARY)), ending) for ending in wanted]
        there = all(path.name in self.files and exists(path) for path in paths)
        return there and self.settings == settings and self.is_of(video)

    def is_of(self, video: Path) -> bool:
        """Whether the video as it is now is the one that was tracked."""
        try:
            now = _source(video)
        except VideoError:
            return False
        return (now.bytes, now.sha256) == (self.source.get("bytes"), self.source.get("sha256"))

    def remove(self) -> None:
        """Remove the summary, and then the files that it names."""
        for path in (self.summary, *map(self.summary.with_name, self.files)):
            with suppress(OSError):
                path.unlink()
