"""Frames of a video: canthus beside other systems' modes for videos, in one run on the same frames.

    python benchmarks/video.py CLIP [--frames 300] --peer PYTHON:ADAPTER

A peer is an adapter of `benchmarks/peers` that has `follow`, and the interpreter of its environment, which needs PyAV
too. Each system runs in a process of its own (`peers/frames.py`), on one core, and then as it is by default; decoding
is not counted. Our share is `Tracker.step`; `canthus track` also decodes and writes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import common
from track import show

PEERS = Path(__file__).parent / "peers"


def measure(python: str, adapter: str, clip: Path, frames: int, one: bool) -> dict[str, float]:
    """What `peers/frames.py` says."""
    command = [python, str(PEERS / "frames.py"), adapter, str(clip), "--frames", str(frames), *["--one"] * one]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--peer", action="append", default=[], metavar="PYTHON:ADAPTER")
    given = parser.parse_args()
    systems = [(sys.executable, "ours"), *(peer.rsplit(":", 1) for peer in given.peer)]
    results = {}
    for title, one in (("one core", True), ("default", False)):
        rows = [measure(python, adapter, given.clip, given.frames, one) for python, adapter in systems]
        results[title] = rows
        show(f"{given.clip.name}, {title}", {str(row.pop("system")): row for row in map(dict, rows)})
    print(common.write("video", {"clip": given.clip.name, **results}))


if __name__ == "__main__":
    main()
