"""Memory of `canthus track` over a long video: what the process holds while it follows faces, and while it writes.

    python benchmarks/memory.py [--frames 90000] [--tracked 2000] [--out out/memory]

A video of one moving face, 160 x 160 px, 25 frames a second. Its first `tracked` frames are tracked; what was recorded
of these is then repeated up to `frames`, as for a video of that length (`--tracked 90000`: nothing is repeated, an hour
of work). From the recording, each kind of output is written in a process of its own. Megabytes are of resident memory,
by /proc, so on Linux only: at every 500th frame that is tracked, and every 50 ms while files are written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import common
import numpy as np
from PIL import Image

import canthus
from canthus.commands.clip import Outputs
from canthus.commands.videos import find_videos, track
from canthus.inference.tracker import Tracker
from canthus.io.recording import Recording
from canthus.io.video import RATE
from canthus.io.video_writer import write_video

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
SIDE, EVERY = 160, 500
KINDS = {
    "JSON lines": Outputs(), "CSV": Outputs(table="csv"), "Parquet": Outputs(table="parquet"),
    "plot": Outputs(plot=True), "smooth": Outputs(smooth=True),
}  # fmt: skip


def resident() -> float:
    """Megabytes of resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def film(path: Path, frames: int) -> None:
    """A face that moves about a little."""
    photo = Image.fromarray(canthus.read_image(PHOTO))
    views = [np.asarray(photo.crop((110 + k, 20, 330 + k, 240)).resize((SIDE, SIDE))) for k in range(16)]
    with write_video(path, 1) as put:
        for k in range(frames):
            put(views[abs(k % 30 - 15)], k / RATE)


def lengthen(folder: Path, frames: int) -> None:
    """Repeat the parts of a recording up to so many frames."""
    parts = sorted(folder.glob("0*.npz"))
    arrays = [dict(np.load(path)) for path in parts]
    first, number = sum(len(a["time"]) for a in arrays), len(parts)
    while first < frames:
        part = dict(arrays[number % len(parts)])
        shift = first - int(part["first"])
        pictures = {name: part.pop(name) for name in list(part) if name.startswith("picture_")}
        part |= {f"picture_{int(name[8:]) + shift}": picture for name, picture in pictures.items()}
        part |= {"first": np.array(first), "number": part["number"] + shift, "time": part["time"] + shift / RATE}
        np.savez(folder / f"{number:06d}.npz", **part)
        first, number = first + len(part["time"]), number + 1


def write(kind: str, video: Path, out: Path) -> None:
    """Track or go on, and write one kind of output; prints a line of JSON."""
    Recording.remove = lambda self: None  # type: ignore[method-assign]  # the next kind is written from it, too
    (out / "film.summary.json").unlink(missing_ok=True)  # else it is done
    curve, writing, done = {}, [], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            writing.append(resident())

    def progress(path: Path, frame: int, count: int | None) -> None:
        if frame % EVERY == 0:
            curve[frame] = round(resident(), 1)
        writing.clear()  # until the last frame

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    start, begin = resident(), time.process_time()
    (_, clip), *_ = track(
        find_videos([video]), out, Tracker(canthus.load(threads=1)), KINDS[kind], True, progress
    ).clips
    done.set()
    thread.join()
    told = {"frames": clip.frames, "at start": round(start, 1), "highest while writing": round(max(writing), 1)}
    print(json.dumps(told | {"CPU s": round(time.process_time() - begin, 1), "while tracking": curve}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=90_000)
    parser.add_argument("--tracked", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=Path("out/memory"))
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    video = given.out / "film.mp4"
    if given.kind:
        write(given.kind, video, given.out / "faces")
        return
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    film(video, given.tracked)

    def run(kind: str) -> dict:
        command = [sys.executable, __file__, "--kind", kind, "--out", str(given.out)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    results = {f"{given.tracked} frames, tracked": run("JSON lines")}
    for frames in (given.frames // 4, given.frames):
        lengthen(given.out / "faces" / ".film.parts", frames)
        results[f"{frames} frames"] = {kind: run(kind) for kind in KINDS}
    for what, told in results.items():
        print(what, json.dumps(told))
    print(common.write("memory", results))


if __name__ == "__main__":
    main()
