"""What a system costs on one photo, measured in a process of its own that imports nothing else.

    python benchmarks/peers/cost.py ADAPTER PHOTO [--model FILE] [--one]

Prints a line when the first answer is there (whoever started the process times it: the cold start), then a line of
JSON: milliseconds a photo with its own detector, processor time of all threads together (which a busy machine changes
little), peak memory, and the size of the package with all that it needs. `--one`: on one core and, where the system can
be told, one thread. Run by `benchmarks/beside.py`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import resource
import time
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import numpy as np
from PIL import Image

EXTRA = re.compile(r"extra == .cpu.")  # what runs the networks of canthus; no peer has one of that name
REPEATS, SECONDS = 40, 10.0  # as many as fit


def megabytes(module: str) -> float:
    """The size on disk of the package that holds a module and of all that it requires, and of its extra `cpu`."""
    files: set[Path] = set()
    first = next(
        (d.name for d in distributions() if any(str(f) == f"{module}/__init__.py" for f in d.files or ())), module
    )
    seen, wanted = set(), [first]
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # not needed on this machine
            continue
        files |= {Path(str(found.locate_file(f))).resolve() for f in found.files or ()}
        needed = [r for r in found.requires or () if "extra ==" not in r or (name == first and EXTRA.search(r))]
        wanted += [re.split(r"[\s;<>=!~\[(]", r, maxsplit=1)[0] for r in needed]
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or []) if spec else []:  # of one that is installed for editing
        files |= {p.resolve() for p in Path(folder).rglob("*")}
    return sum(f.stat().st_size for f in files if f.is_file() and f.suffix != ".pyc") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--one", action="store_true")
    given = parser.parse_args()
    if given.one and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    adapter = importlib.import_module(given.adapter)
    system, answer = adapter.load(given.model, 1 if given.one else None)
    image = np.array(Image.open(given.photo).convert("RGB"))
    faces = len(answer(image))
    print("ready", flush=True)
    times, begin, used = [], time.perf_counter(), time.process_time()
    while len(times) < 3 or (len(times) < REPEATS and time.perf_counter() - begin < SECONDS):
        start = time.perf_counter()
        answer(image)
        times.append(1e3 * (time.perf_counter() - start))
    used = 1e3 * (time.process_time() - used) / len(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"system": system, "faces": faces, "ms": round(float(np.median(times)), 2), "CPU ms": round(used, 2)}
    print(json.dumps(result | {"peak MB": round(peak), "installed MB": round(megabytes(adapter.MODULE))}))


if __name__ == "__main__":
    main()
