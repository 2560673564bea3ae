"""The verb `track`: reads videos and writes the faces of every frame, video by video, or several in processes.

A video that cannot be read or written is reported, and the next one follows. Of a damaged video everything readable is
tracked, and the frames that are missing are reported. The summary is written last, so it stands for all files of its
video; it says of which video and by which settings they are, and `resume` skips videos where that is what is asked for.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from os.path import exists, isdir  # unlike pathlib's, these say False of a name that cannot be
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

from canthus.commands.clip import (
    LINES_ONLY,
    OVERLAY,
    SUMMARY,
    Clip,
    ClipSummary,
    Outputs,
    Progress,
    settings_of,
    source_of,
)
from canthus.decode import decoding, read_json
from canthus.errors import CanthusError, VideoError
from canthus.inference.tracker import Tracker
from canthus.io.inputs import Found, Kind, file_of, find, is_apple_double, make_folder_of
from canthus.io.outputs import remove_leftovers
from canthus.io.video import FILES, check_source, is_frame
from canthus.workers import Workers

log = logging.getLogger(__name__)

LOST = "the process that tracked it was ended, by a fault in a decoder or for lack of memory"
STOPPED = "the process that tracked it was told to stop"
GRACE = 10.0  # seconds that a process has to remove its unfinished files
LOOK_EVERY = 0.2  # seconds between two looks at how far the processes are


class _Done(NamedTuple):
    """A video that an earlier run tracked, and what of it could not be read, as `ClipSummary.damage`."""

    damage: str


Outcome = ClipSummary | str | _Done  # of a video that was tracked, of one that failed, and of one that was done already


@dataclass
class Summary:
    """What became of the videos.

    clips: those that were tracked, in order. skipped: videos that `resume` found done. damaged: those of them that lack
    frames, and why. failures: what could not be read or written at all, and why. passed_over: how many files are no
    videos, by suffix.
    """

    clips: list[tuple[Path, ClipSummary]] = field(default_factory=list)
    skipped: int = 0
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        """Whether anything could not be read or written: a whole video, or frames of one."""
        return bool(self.failures or self.damaged) or any(clip.problems for _, clip in self.clips)


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
    return path.suffix.lower() in FILES and not path.stem.endswith(OVERLAY) and not is_apple_double(name)


def _holds_frames(names: list[str]) -> bool:
    return any(map(is_frame, names)) and not any(map(_is_video, names))


KIND = Kind(
    "video", VideoError, _is_video, _holds_frames, dict.fromkeys((".webp", ".png"), "videos only where they are named")
)


def track(
    found: Found,
    out: Path,
    tracker: Tracker,
    outputs: Outputs = LINES_ONLY,
    resume: bool = False,
    progress: Progress = lambda video, frame, count: None,
    workers: int = 1,
) -> Summary:
    """Track faces in the videos that `find_videos` found and write the results below `out`.

    `progress` is called after each frame with the video, the number of frames done and how many there are, if known.
    `resume` skips a video if its summary says that the same weights and settings wrote all that is asked for, of the
    same file. workers: how many processes work on a video each, which changes nothing in the results of videos without
    damage; a video whose process dies is a failure, and the others go on. 1: this process, one video after the other.
    """
    work = _Work([(path, out / name) for path, name in found.files], tracker, outputs, resume)
    if workers == 1:
        outcomes = [work.do(number, progress) for number in range(len(work.videos))]
    else:
        outcomes = _in_processes(work, workers, progress)
    summary = Summary(failures=list(found.failures), passed_over=found.passed_over)
    for (path, _), outcome in zip(work.videos, outcomes):
        if isinstance(outcome, _Done):
            summary.skipped += 1
            summary.damaged += [(path, outcome.damage)] * bool(outcome.damage)
        elif isinstance(outcome, str):
            summary.failures.append((path, outcome))
        else:
            summary.clips.append((path, outcome))
    return summary


@dataclass(frozen=True)
class _Work:
    """What is to be done with videos, given with their targets."""

    videos: list[tuple[Path, Path]]
    tracker: Tracker
    outputs: Outputs
    resume: bool

    def do(self, number: int, progress: Progress) -> Outcome:
        """Track one of them."""
        path, target = self.videos[number]
        earlier = _Results.read(target)
        settings = settings_of(self.tracker, self.outputs)
        if self.resume and earlier and earlier.is_done(path, settings, self.outputs.files(earlier.people)):
            log.info("%s: done before", path)
            return _Done(earlier.damage)
        log.info("%s: frame by frame, into %s", path, target.parent)
        try:
            clip = Clip(path, target, self.tracker, self.outputs)
            make_folder_of(target)
            remove_leftovers(target.parent)
            return clip.run(self.resume, partial(_give_way, clip), progress)
        except CanthusError as error:
            if earlier and exists(path) and not earlier.is_of(path):  # it speaks of another file
                earlier.remove()
            return str(error)


def _in_processes(work: _Work, workers: int, progress: Progress) -> list[Outcome]:
    """What becomes of all videos. Each process is a pool of its own, so that it is known which video ends one."""
    outcomes: list[Outcome] = [LOST] * len(work.videos)
    # frames done and their number; shared without a lock, which a process that is killed would keep
    board = get_context("spawn").RawArray("q", 2 * len(work.videos))
    new = partial(Workers, 1, partial(_begin, work, board), GRACE)
    pools = [new() for _ in range(min(workers, len(work.videos)))]
    idle, waiting, shown = [*range(len(pools))], deque(range(len(work.videos))), [0] * len(work.videos)
    running: dict[Future[Outcome], tuple[int, int]] = {}  # -> pool and video
    try:
        while waiting or running:
            while waiting and idle:
                pool, video = idle.pop(), waiting.popleft()
                try:
                    future = pools[pool].submit(_do, video)
                except BrokenProcessPool:  # it died while it had nothing to do
                    pools[pool] = new()
                    future = pools[pool].submit(_do, video)
                running[future] = pool, video
            for future in wait(running, LOOK_EVERY, FIRST_COMPLETED).done:
                pool, video = running.pop(future)
                try:
                    outcomes[video] = future.result()
                except BrokenProcessPool:
                    outcomes[video] = LOST
                    pools[pool] = new()
                idle.append(pool)
            for video, (path, _) in enumerate(work.videos):
                frames, count = board[2 * video : 2 * video + 2]
                if frames != shown[video]:
                    shown[video] = frames
                    progress(path, frames, count or None)
    except BaseException:
        for one in pools:
            one.stop()
        raise
    for one in pools:
        one.shutdown()
    return outcomes


_held: tuple[_Work, Any]  # of a process: the work and the board


def _begin(work: _Work, board: Any) -> None:
    global _held
    _held = work, board


def _do(video: int) -> Outcome:
    """Track a video in a process."""
    work, board = _held

    def show(path: Path, frame: int, count: int | None) -> None:
        board[2 * video : 2 * video + 2] = frame, count or 0

    try:
        return work.do(video, show)
    except SystemExit:
        return STOPPED


def _give_way(clip: Clip) -> list[str]:
    """Remove the older results of a video, as until all new files are there no summary stands for them; gives the names
    of those that stay, such as the table of an earlier run that asked for one."""
    earlier = _Results.read(clip.target)
    if not earlier:
        return []
    earlier.files = [name for name in earlier.files if name not in clip.names()]
    kept: list[str] = []
    of_the_same = earlier.source | {"path": clip.source.path} == clip.source._asdict()
    if of_the_same and earlier.settings == json.loads(json.dumps(settings_of(clip.tracker, clip.outputs))):
        kept, earlier.files = earlier.files, []
    earlier.remove()
    return kept


@dataclass
class _Results:
    """What the summary of an earlier run says: which video it speaks of, how it was tracked, what was written, how
    many faces there are, and what could not be read."""

    summary: Path
    source: dict[str, Any]
    settings: dict[str, Any]
    files: list[str]
    people: int
    damage: str

    @classmethod
    def read(cls, target: Path) -> _Results | None:
        """The results of a target; None without a summary, and for one that is broken or not ours."""
        path = file_of(target, SUMMARY)
        with suppress(VideoError), decoding(VideoError, f"'{path}' cannot be read"):
            text = read_json(path)
            names = [name for name in text["files"] if Path(name).name == name and name.startswith(f"{target.name}.")]
            clip = ClipSummary(int(text["frames"]), int(text["missing"]), [str(one) for one in text["problems"]])
            return cls(path, dict(text["source"]), dict(text["settings"]), names, int(text["people"]), clip.damage)
        return None

    def is_done(self, video: Path, settings: dict[str, Any], wanted: Sequence[str]) -> bool:
        """Whether all wanted files (their endings) are there, by these settings and of the video as it is now."""
        paths = [file_of(self.summary.with_name(self.summary.name.removesuffix(SUMMARY)), ending) for ending in wanted]
        complete = all(path.name in self.files and exists(path) for path in paths)
        return complete and self.settings == json.loads(json.dumps(settings)) and self.is_of(video)

    def is_of(self, video: Path) -> bool:
        """Whether the video as it is now is the one that was tracked."""
        try:
            now = source_of(video)
        except VideoError:
            return False
        return (now.bytes, now.sha256) == (self.source.get("bytes"), self.source.get("sha256"))

    def remove(self) -> None:
        """Remove the summary, and then the files that it names."""
        for path in (self.summary, *map(self.summary.with_name, self.files)):
            with suppress(OSError):
                rmtree(path) if isdir(path) else path.unlink()
