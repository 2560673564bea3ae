"""Photos a second of `canthus align` by its steps and by its ways to share the work, bytes a face, and memory.

Times are also given in time of CPU, which other work on the machine changes less. "before" is one lane whose networks
run on all cores, which is how photos were aligned one chunk after the other. Each way runs in a process of its own.

With --cores, instead, the speed-up over cores: photos a second by the clock of 1, 2, 4, ... lanes and workers, up to
the number of cores, in turn, so that what else the machine does meets all alike; medians of ROUNDS. It wants a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import canthus
from canthus.commands import parts, photos
from canthus.inference.lanes import CHUNK, Lanes
from canthus.io.columns import ImageFaces
from canthus.io.images import read_picture
from canthus.io.outputs import write_json
from canthus.io.photo_lists import photos_in
from canthus.io.places import folder
from canthus.io.tables import write_table
from canthus.threads import cores

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
SIZES = {"512 x 512": (512, 512), "1600 x 1200": (1600, 1200), "4000 x 3000": (4000, 3000)}  # width, height
FACES = 1000  # of the files that tell bytes a face
ROUNDS = 7


def picture(size: tuple[int, int]) -> Image.Image:
    """The photo's face, enlarged over a picture of that size."""
    with Image.open(PHOTO) as photo:
        side = min(size)
        whole = Image.new("RGB", size, (110, 110, 110))
        whole.paste(photo.resize((side, side), Image.Resampling.LANCZOS), ((size[0] - side) // 2, 0))
    return whole


def cpu() -> float:
    """Seconds of CPU of this process and the ended ones that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured(call: Callable[[], Any], count: int) -> dict[str, float]:
    """What `count` photos take of the clock and of CPUs, in milliseconds a photo."""
    start, used = time.perf_counter(), cpu()
    call()
    wall, used = time.perf_counter() - start, cpu() - used
    return {"ms": round(1e3 * wall / count, 2), "cpu_ms": round(1e3 * used / count, 2)}


def steps(file: Path, room: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Each step on one thread."""
    aligner = canthus.load(threads=1)
    pixels = read_picture(file, photos.PHOTO_PIXELS).pixels
    found = aligner.detector(pixels)
    (faces,) = aligner.predict_many([pixels])
    images = [ImageFaces(file.name, 0, 0.0, faces, np.arange(len(faces)))] * FACES
    repeated = lambda call: measured(lambda: [call() for _ in range(rounds)], rounds)
    return {
        "read and decode": repeated(lambda: read_picture(file, photos.PHOTO_PIXELS)),
        "detect": repeated(lambda: aligner.detector(pixels)),
        "landmarks, 8 photos a batch": measured(
            lambda: [aligner.align_detected([pixels] * CHUNK, [found] * CHUNK) for _ in range(-(-rounds // CHUNK))],
            CHUNK * -(-rounds // CHUNK),
        ),
        "rows of a Parquet file": measured(lambda: write_table(room / "t.parquet", images), FACES),
        "rows of a CSV file": measured(lambda: write_table(room / "t.csv", images), FACES),
        "a JSON file": repeated(lambda: write_json(room / "t.json", faces, image=file.name)),
    }


def sizes(room: Path) -> dict[str, int]:
    """Bytes a face, of FACES faces that differ as those of different photos do."""
    aligner, random = canthus.load(threads=1), np.random.default_rng(0)
    (faces,) = aligner.predict_many([canthus.read_image(PHOTO)])
    images = []
    for number in range(FACES):
        noise = random.normal(0, 1, (1, 68, 3))
        values = {
            name: np.clip(getattr(faces, name) * random.uniform(0.8, 1.2, getattr(faces, name).shape), 0, 1)
            for name in ("visible", "expression", "expression_sigma", "detection_scores")
        }
        one = canthus.Faces(
            **values, xyz=faces.xyz + noise, sigma=faces.sigma * random.uniform(0.8, 1.2, faces.sigma.shape),
            pose=faces.pose, image_size=faces.image_size, weights=faces.weights,
        )  # fmt: skip
        images.append(ImageFaces(f"folder/{number:08d}.jpg", 0, 0.0, one, np.arange(1)))
    found = {}
    for kind in ("parquet", "csv"):
        write_table(room / f"s.{kind}", images)
        found[kind] = (room / f"s.{kind}").stat().st_size // FACES
    write_json(room / "s.json", images[0].faces, image="a.jpg")
    return found | {"json": (room / "s.json").stat().st_size}


def run(way: str, shots: Path, room: Path) -> dict[str, Any]:
    """Align a folder one way, in this process; the clock starts after the networks are loaded."""
    name, form = way.split(", ")
    count, processes, threads = {
        "before": (1, False, None),
        "one core": (1, False, 1),
        "lanes": (cores(), False, 1),
        "workers": (cores(), True, 1),
    }.get(name) or (int(name.split()[0]), name.endswith("workers"), 1)  # such as 4 workers
    total = sum(1 for _ in shots.iterdir())
    with Lanes(canthus.load(threads=threads), count, processes) as lanes:
        list(
            lanes.map(warm_up, range(CHUNK * count), print)
        )  # processes and networks are there before the clock starts
        if form == "json":
            found = photos.find_images([shots])
            call = lambda: photos.align(found, room / "out", lanes, photos.Outputs(overlay=False))
        else:
            stream = photos_in([shots], photos.photo_kind(), Counter())
            call = lambda: parts.align(stream, folder(str(room / "out")), lanes, parts.Plan())
        start = time.perf_counter()
        used = cpu()
        call()
        wall, used = time.perf_counter() - start, cpu() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if processes else 0
    return {
        "photos": total, "photos_a_second": round(total / wall, 2),
        "cpu_ms": None if processes else round(1e3 * used / total, 2),  # of processes it would hold their start
        "peak_mb": round((memory + workers * count) / 1e3),
    }  # fmt: skip


def speed_up(room: Path, count: int) -> dict[str, Any]:
    """Photos a second of each number of lanes and workers, by round, and the medians of their ratios to one lane."""
    shots = filled(room / "shots", (512, 512), count)
    numbers = [2**k for k in range(1, cores().bit_length()) if 2**k <= cores()]
    ways = ["one core", *(f"{number} {kind}" for number in numbers for kind in ("lanes", "workers"))]
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            rates[way].append(apart(f"{way}, parquet", shots)["photos_a_second"])
    ratios = {way: np.divide(rates[way], rates["one core"]) for way in ways[1:]}
    return {
        "photos": count, "photos_a_second": rates,
        "speed_up": {way: {"median": round(float(np.median(r)), 2), "least": round(float(r.min()), 2),
                           "most": round(float(r.max()), 2)} for way, r in ratios.items()},
    }  # fmt: skip


def filled(shots: Path, size: tuple[int, int], count: int) -> Path:
    """A folder with so many photos of that size."""
    shots.mkdir()
    picture(size).save(shots / "0000.jpg", quality=90)
    for number in range(1, count):
        os.link(shots / "0000.jpg", shots / f"{number:04}.jpg")
    return shots


def apart(way: str, shots: Path) -> dict[str, Any]:
    """`run` in a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--one", way, str(shots), out]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def warm_up(aligner: Any, chunk: Any) -> None:
    """A lane's networks are loaded when they first run."""
    aligner.predict_many([canthus.read_image(PHOTO)])


WAYS = ("before, parquet", "one core, parquet", "lanes, parquet", "workers, parquet", "lanes, json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=128, help="photos of the smallest size; fewer of larger ones")
    parser.add_argument("--cores", action="store_true", help="measure the speed-up over cores instead")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FOLDER", "OUT"), help="measure one way and print JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run(given.one[0], Path(given.one[1]), Path(given.one[2]))))
        return
    if given.cores:
        with tempfile.TemporaryDirectory() as temporary:
            found = speed_up(Path(temporary), given.count)
        print(found["speed_up"], common.write("cores", found), sep="\n")
        return
    results: dict[str, Any] = {"cores": cores(), "steps": {}, "ways": {}}
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)
        results["bytes_a_face"] = sizes(room)
        for title, size in SIZES.items():
            count = max(CHUNK * cores(), round(given.count * 512 * 512 / (size[0] * size[1])))
            shots = filled(room / title.replace(" ", ""), size, count)
            results["steps"][title] = steps(shots / "0000.jpg", room, CHUNK)
            results["ways"][title] = {way: apart(way, shots) for way in WAYS}
    for title in SIZES:
        table = Table(f"step, ms a photo on one thread, {title}", "clock", "CPU")
        for name, row in results["steps"][title].items():
            table.add_row(name, *(f"{v:.2f}" for v in row.values()))
        Console(width=120).print(table)
        table = Table(f"way, {title}", *next(iter(results["ways"][title].values())))
        for name, row in results["ways"][title].items():
            table.add_row(name, *map(str, row.values()))
        Console(width=120).print(table)
    print("bytes a face:", results["bytes_a_face"])
    print(common.write("throughput", results))


if __name__ == "__main__":
    main()
