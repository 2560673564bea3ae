"""What a system costs on each frame of a video, measured in a process of its own.

    python benchmarks/peers/frames.py ADAPTER CLIP [--frames 300] [--one]

The adapter's `follow(threads)` gives the system's title and a function from the next frame (RGB) to the number of faces
there. Frames are decoded before anything is timed. Prints a line of JSON: processor time and time of a frame, mean over
all frames but the first, the median of three times through the clip. `--one`: on one core and, where the system can be
told, one thread. Run by `benchmarks/video.py`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from itertools import islice
from pathlib import Path

import av


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--one", action="store_true")
    given = parser.parse_args()
    if given.one and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with av.open(str(given.clip)) as container:
        images = [f.to_ndarray(format="rgb24") for f in islice(container.decode(video=0), given.frames)]
    system, answer = importlib.import_module(given.adapter).follow(1 if given.one else None)
    answer(images[0])
    used, took = [], []
    for _ in range(3):
        start, cpu = time.perf_counter(), time.process_time()
        faces = sum(answer(image) for image in images[1:])
        used.append(1e3 * (time.process_time() - cpu) / (len(images) - 1))
        took.append(1e3 * (time.perf_counter() - start) / (len(images) - 1))
    result = {"system": system, "frames": len(images), "faces a frame": round(faces / (len(images) - 1), 3)}
    print(json.dumps(result | {"CPU ms": round(statistics.median(used), 2), "ms": round(statistics.median(took), 2)}))


if __name__ == "__main__":
    main()
