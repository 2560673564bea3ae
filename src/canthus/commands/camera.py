"""The verb `track` on a camera or a stream: each newest frame is tracked, written and sent at once."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from canthus.errors import amount
from canthus.inference.smooth import Smoother
from canthus.inference.tracker import Tracker
from canthus.io.columns import ImageFaces
from canthus.io.lines import frame_line, header_line
from canthus.io.outputs import make_folder, unwritten
from canthus.io.send import Sender
from canthus.io.streams import Live

DELAYS = 100_000  # an hour of frames; a stream may run for weeks


@dataclass
class LiveSummary:
    """What became of a stream. path: the file of its lines. frames: that were tracked. passed_over: that came while
    another one was worked on. delays: seconds from the arrival of a frame until its faces were written and sent, of the
    last `DELAYS` frames."""

    path: Path
    frames: int = 0
    passed_over: int = 0
    delays: deque[float] = field(default_factory=lambda: deque(maxlen=DELAYS))

    def __str__(self) -> str:
        if not self.frames:
            return "no frame arrived"
        median, most = (1000 * float(np.quantile(self.delays, q)) for q in (0.5, 0.95))
        return (
            f"{amount(self.frames, 'frame')}, {self.passed_over} passed over, {median:.0f} ms from arrival to result "
            f"in the median, {most:.0f} ms at most in 95 of 100 frames\nlines in {self.path}"
        )


def follow(
    live: Live, out: Path, tracker: Tracker, summary: LiveSummary, smooth: bool = False, send: Sender | None = None,
    progress: Callable[[int], None] = lambda frame: None,
) -> None:  # fmt: skip
    """Track the faces of a stream until it ends; `summary` is kept up to date, as whoever stops it wants it too.

    Lines of JSON go to `summary.path` as they come. smooth: written and sent are smoothed faces. Raises `VideoError`
    where the stream breaks off, and `OutputError`, with all lines so far in the file.
    """
    tracker.reset()
    smoother = Smoother()
    make_folder(out)
    with ExitStack() as files:
        try:
            lines = files.enter_context(open(summary.path, "xb", buffering=0))
        except OSError as error:
            raise unwritten(summary.path, error) from error

        def write(line: bytes) -> None:
            try:
                _append(lines, line)
            except OSError as error:
                raise unwritten(summary.path, error) from error

        cards = tracker.aligner.card, tracker.tracking.card
        write(header_line(live.source, [card.title for card in cards], cards[0].scheme))
        for frame in files.enter_context(live):
            tracked = tracker.step(frame.image)
            if smooth:
                tracked = smoother(tracked, frame.time)
            image = ImageFaces(live.source, frame.number, frame.time, tracked.faces, tracked.ids, tracked.followed)
            if send:
                send(image)
            write(frame_line(image))
            summary.delays.append(time.perf_counter() - frame.arrived)
            summary.frames, summary.passed_over = summary.frames + 1, live.passed_over
            progress(frame.number)


def _append(file: BinaryIO, line: bytes) -> None:
    """Write the whole line at once; none of it is left where that fails."""
    end = file.tell()
    try:
        while line:
            line = line[file.write(line) :]
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


def lines_path(out: Path, source: str) -> Path:
    """Where the lines of a stream that is opened now are written: a name with the second, as there may be many."""
    name = f"camera{source}" if source.isdecimal() else re.sub(r"[^A-Za-z0-9]+", "-", source.split("@")[-1]).strip("-")
    return out / f"{name[:80]}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
