"""Memory and time over the number of photos: folders of 1, 10 and 100 thousand small JPEGs, aligned into Parquet.

The photos are 600 different ones of 64 to 96 px, one in eight with a face, under many names. One lane, networks on one
thread, parts of 8192 photos. Time is of the CPU, memory what the process holds (RSS), told after every SAMPLE photos. A
folder is done in processes of at most --seconds, one after the other, each of which goes on after the last whole part;
what was measured is kept in --room, so that the script can be stopped, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import common
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import canthus
from canthus.commands import parts, photos
from canthus.inference.lanes import Lanes
from canthus.io.photo_lists import photos_in
from canthus.io.places import folder

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
COUNTS = (1000, 10_000, 100_000)
DIFFERENT = 600
FOLDER = 1000  # photos of a folder
SAMPLE = 500


def small_photo(number: int) -> Image.Image:
    """One of the photos; one in eight has a face, the others are pieces of background."""
    random = np.random.default_rng(number)
    with Image.open(PHOTO) as photo:
        if number % 8:
            x, y = random.integers(0, 100), random.integers(280, 400)
            piece = photo.crop((x, y, x + 100, y + 100))
        else:
            x, y = random.integers(110, 140), random.integers(20, 50)
            piece = photo.rotate(random.uniform(-15, 15), center=(226, 130)).crop((x, y, x + 190, y + 190))
        side = int(random.integers(64, 97))
        return piece.resize((side, side), Image.Resampling.LANCZOS)


def fill(room: Path, count: int) -> Path:
    """A folder with so many photos, in folders of FOLDER."""
    shots, models = room / f"{count}", room / "models"
    models.mkdir(parents=True, exist_ok=True)
    for number in range(DIFFERENT):
        if not (models / f"{number}.jpg").exists():
            small_photo(number).save(models / f"{number}.jpg", quality=90)
    for first in range(0, count, FOLDER):
        below = shots / f"{first // FOLDER:04}"
        if below.exists() and len(os.listdir(below)) == min(FOLDER, count - first):
            continue
        below.mkdir(parents=True, exist_ok=True)
        for number in range(first, min(first + FOLDER, count)):
            name = below / f"{number:07}.jpg"
            if not name.exists():
                os.link(models / f"{number % DIFFERENT}.jpg", name)
    return shots


def resident() -> float:
    """Megabytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def listing(shots: Path) -> float:
    """Seconds of CPU to go through all photos of a folder."""
    start = time.process_time()
    for _ in photos_in([shots], photos.photo_kind(), Counter()):
        pass
    return time.process_time() - start


def run(shots: Path, out: Path, seconds: float) -> dict[str, Any]:
    """Align what is not done yet, for so many seconds at most."""
    aligner, curve, counts = canthus.load(threads=1), list[list[float]](), Counter[str]()
    start, begin, used = time.perf_counter(), resident(), time.process_time()

    def watch(summary: parts.Summary) -> None:
        done = summary.files + summary.skipped + summary.failed
        if summary.files and (not curve or done - curve[-1][0] >= SAMPLE):
            curve.append([done, round(resident(), 1)])
        counts["photos"], counts["faces"] = summary.files, summary.faces
        if time.perf_counter() - start > seconds:
            raise KeyboardInterrupt

    stream = photos_in([shots], photos.photo_kind(), Counter())
    try:
        done = parts.align(stream, folder(str(out)), Lanes(aligner), parts.Plan(), resume=True, progress=watch)
        curve.append([done.files + done.skipped + done.failed, round(resident(), 1)])
        whole = True
    except KeyboardInterrupt:
        whole = False
    return {"cpu_s": round(time.process_time() - used, 2), "start_mb": round(begin, 1), "curve": curve, "whole": whole,
            **counts}  # fmt: skip


def measured(room: Path, count: int, seconds: float) -> dict[str, Any]:
    """The numbers of one folder, measured as far as they are not in `room`."""
    shots, out, kept = fill(room, count), room / f"out-{count}", room / f"kept-{count}.json"
    runs = json.loads(kept.read_text()) if kept.exists() else []
    while not runs or not runs[-1]["whole"]:
        command = [sys.executable, __file__, "--one", str(shots), str(out), str(seconds)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        kept.write_text(json.dumps(runs))
    done, used = sum(one["photos"] for one in runs), sum(one["cpu_s"] for one in runs)
    return {
        "photos": count, "faces": sum(json.loads(path.read_text())["faces"] for path in out.glob("_part-*.json")),
        "list_us": round(1e6 * listing(shots) / count, 1), "cpu_ms": round(1e3 * used / done, 2),
        "mb": [one["curve"] for one in runs], "start_mb": runs[0]["start_mb"],
        "peak_mb": max(mb for one in runs for _, mb in one["curve"]),
    }  # fmt: skip


def chart(results: dict[str, Any], path: Path) -> None:
    """Memory over photos, a line a folder and process."""
    from matplotlib.figure import Figure

    figure = Figure((7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="photos", ylabel="memory of the process, MB", xscale="log", ylim=(0, None))
    for number, one in enumerate(results["folders"]):
        for k, curve in enumerate(one["mb"]):
            axes.plot(*zip(*curve), color=f"C{number}", label=None if k else f"folder of {one['photos']:,}")
    axes.set_ylim(0, 1.2 * max(one["peak_mb"] for one in results["folders"]))
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--room", type=Path, default=Path("out/many"), help="for photos, results and what is measured")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="photos of each folder")
    parser.add_argument("--seconds", type=float, default=500, help="of a process")
    parser.add_argument("--chart", type=Path, help="draw memory over photos into this file")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "OUT", "SECONDS"), help="do one process and print JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run(Path(given.one[0]), Path(given.one[1]), float(given.one[2]))))
        return
    results = {"folders": [measured(given.room, count, given.seconds) for count in given.counts]}
    table = Table("photos", "faces", "listing, us a photo", "all, ms of CPU a photo", "peak, MB")
    for one in results["folders"]:
        table.add_row(*(str(one[name]) for name in ("photos", "faces", "list_us", "cpu_ms", "peak_mb")))
    Console(width=120).print(table)
    print(common.write("many", results))
    if given.chart:
        chart(results, given.chart)


if __name__ == "__main__":
    main()
