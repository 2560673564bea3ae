"""CPU time of the overlay video of `canthus track --overlay`: drawing a frame, and writing it.

    python benchmarks/overlay.py VIDEO [--frames 150] [--rounds 7]

The frames of VIDEO at 720 x 576 px, tracked beforehand, are drawn on and written as an .mp4, each for itself. Time is
that of the process on all its threads (one, for encoder and conversion of colours); the median of the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

import canthus
from canthus.io.video_writer import write_video

SIZE = 720, 576


def main() -> None:
    """Print both times, in ms a frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    frames = [
        np.asarray(Image.fromarray(frame.image).resize(SIZE))
        for frame in islice(canthus.Video(given.video), given.frames)
    ]
    tracker = canthus.Tracker(canthus.load(threads=1))
    tracked = [tracker.step(frame) for frame in frames]

    def draw() -> list[np.ndarray]:
        return [canthus.overlay(f, t.faces, names=[str(i) for i in t.ids]) for f, t in zip(frames, tracked)]

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder, write_video(Path(folder) / "a.mp4", 1) as put:
            for number, frame in enumerate(drawn):
                put(frame, number / 25)

    def cpu(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return 1000 * (time.process_time() - start) / len(frames)

    drawn = draw()
    times = np.median([(cpu(draw), cpu(write)) for _ in range(given.rounds)], axis=0)
    faces = np.mean([len(t) for t in tracked])
    print(f"{faces:.2f} faces a frame: drawing {times[0]:.2f} ms, writing {times[1]:.2f} ms, both {times.sum():.2f} ms")


if __name__ == "__main__":
    main()
