"""What every benchmark writes beside its numbers: when, where, on what, at which commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import canthus

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The machine in words."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        cpu = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}


def write(what: str, results: Any) -> Path:
    """Write results/<version>/<what>.json with machine, commit and time; returns its path."""
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, cwd=RESULTS.parent).strip()
    path = RESULTS / canthus.__version__ / f"{what}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "what": what, "version": canthus.__version__, "commit": commit,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(), "results": results,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def milliseconds(call: Callable[[], Any], repeats: int = 60, warm_up: int = 10) -> dict[str, float]:
    """Median and quartiles of the time of a call, after a warm-up."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    low, middle, high = np.percentile(times, [25, 50, 75])
    return {"median": round(middle, 3), "q25": round(low, 3), "q75": round(high, 3)}
