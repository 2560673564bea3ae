"""The verb `track`: videos in, the faces of every frame out, video by video.

A video that cannot be read or written is reported and the next one is taken. A video's summary is written last, so it
stands for everything of that video: `resume` skips videos that have it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from os.path import exists  # unlike pathlib's, it says False of a name that cannot be
from pathlib import Path

from canthus.errors import CanthusError, VideoError
from canthus.inference.smooth import Smoother
from canthus.inference.tracker import Tracker
from canthus.io.draw import overlay
from canthus.io.inputs import file_of, find, make_folder_of
from canthus.io.outputs import TrackedFaces, atomic_open, atomic_write, csv_header, csv_rows, json_line
from canthus.io.video import FILES, RATE, Frame, Video, frames_of, writable_suffix, write_video

OVERLAY = ".overlay"


@dataclass(frozen=True)
class Outputs:
    """What is written for each video, beside the lines of JSON and the summary; and whether the faces are smoothed
    in all of it. rate: frames a second of folders of frames."""

    overlay: bool = False
    csv: bool = False
    smooth: bool = False
    rate: float = RATE


@dataclass
class ClipSummary:
    """What became of one video.

    faces: of all frames together. people: numbers that were given. without_face: frames. reinitialisations: how often
    a known face was placed anew by the detector. losses: how often a face of one frame is not in the next.
    """

    frames: int = 0
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


@dataclass
class Summary:
    """What became of the videos: those that worked, in order; how many were skipped; what failed and why."""

    clips: list[tuple[Path, ClipSummary]] = field(default_factory=list)
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether there was work to do and none of it worked."""
        return not self.clips and bool(self.failures)


def find_videos(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """(video or folder of frames, its target below the output folder) of files, folders and glob patterns.

    A folder with pictures right inside it is one video; other folders are searched in depth. A video named twice is
    taken once; overlays of an earlier run are no videos. Raises `VideoError` for an input that gives none.
    """

    def missing(given: str) -> VideoError:
        return VideoError(f"got '{given}' without a video, want frames or files in {', '.join(sorted(FILES))}")

    return find(inputs, _is_video, _below, missing)


def _below(folder: Path) -> Iterator[Path]:
    if frames_of(folder):
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _below(path)
        elif _is_video(path):
            yield path


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in FILES and not path.stem.endswith(OVERLAY)


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
            lines.write(json_line(tracked, video.path.name))
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
    clip.reinitialisations = tracker.reinitialisations
    clip.seconds = time.perf_counter() - start
    text = {**asdict(clip), "faces_per_frame": round(clip.faces_per_frame, 3), "fps": round(clip.fps, 1)}
    atomic_write(file_of(target, ".summary.json"), json.dumps(text, indent=2).encode() + b"\n")
    return clip


def _frames(video: Video, tracker: Tracker, smooth: bool) -> Iterator[tuple[Frame, TrackedFaces]]:
    tracker.reset()
    smoother = Smoother()
    for frame in video:
        faces = tracker.step(frame.image)
        ids, followed = tracker.ids, tracker.followed
        if smooth:
            faces = smoother(faces, ids, followed, frame.time)
        yield frame, TrackedFaces(frame.number, frame.time, ids, followed, faces)
