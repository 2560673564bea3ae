"""What the benchmarks share: all weights of the project, the pictures they are measured on, and what is written beside
the numbers: when, where, on what, at which commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import canthus
from canthus.inference.predictor import Predictor
from canthus.io.card import Card
from canthus.io.session import MODEL_FILE
from canthus.io.yaml_config import read_keys
from canthus.weights import find, inside, shipped

RESULTS = Path(__file__).parent / "results"
RELEASED = Path(__file__).parents[1] / "weights"  # weights that the repository holds and the package does not
DEVELOPMENT = "aflw2000-3d-dev"
# of held-out pictures: no training used these seeds
RENDERS_SEED, RENDERS = 9001, 512
EXPRESSIONS = Path(__file__).with_name("held_expressions.yaml")
EXTREMES = Path(__file__).with_name("held_extremes.yaml")
CLIPS_SEED, CLIPS, FRAMES = 9002, 6, 100
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp")


def weights() -> dict[str, Path]:
    """Name -> folder of all weights of the project: those in the package, then those that are only beside it."""
    packaged = {name: find(name) for name in shipped()}
    return packaged | {name: RELEASED / name for name in inside(RELEASED) if name not in packaged}


def load(folder: Path, threads: int | None = None) -> Predictor:
    """The aligner of a weights folder, by ONNX Runtime where it was exported, else by torch."""
    if (folder / MODEL_FILE).exists():
        return canthus.load(folder, threads=threads)
    from canthus.training.aligner import Aligner

    return Aligner.load(folder)


def tracks_for(folder: Path) -> str | None:
    """The name of the weights for which those in `folder` go on from frame to frame: NAME for NAME with -tracking in
    it. None for weights that are told where a face is."""
    return None if Card.read(folder).mean_shape is None else folder.name.replace("-tracking", "")


def development(data: Path | None) -> Path | None:
    """The folder of development images, if it is there."""
    folder = (data or Path("data")) / DEVELOPMENT
    if folder.is_dir():
        return folder
    print(f"no '{folder}': 300 pairs of NAME.jpg and NAME.mat of AFLW2000-3D are wanted there (docs/benchmark.md); "
          "they are left out")  # fmt: skip
    return None


def renders(folder: Path, assets: Path | None) -> Path:
    """A folder of held-out faces, rendered now if it has none; without `assets` plainer heads."""
    return _rendered(folder, assets, dict(seed=RENDERS_SEED, dense=True))


def expressions(folder: Path, assets: Path | None) -> Path:
    """The same with more expressions, closed eyes and hard light: what EXPRESSIONS says."""
    return _rendered(folder, assets, read_keys(EXPRESSIONS))


def extremes(folder: Path, assets: Path | None) -> Path:
    """The same with single expressions up to their ends: what EXTREMES says."""
    return _rendered(folder, assets, read_keys(EXTREMES))


def _rendered(folder: Path, assets: Path | None, recipe: dict[str, Any]) -> Path:
    if not any(folder.glob("shard-*")):
        from canthus.synth.recipe import SynthRecipe
        from canthus.synth.render_jobs import render_shards

        deque(render_shards(folder, assets, SynthRecipe(**recipe), RENDERS, os.cpu_count() or 1), maxlen=0)
    return folder


def clips(folder: Path, assets: Path | None, count: int = CLIPS, frames: int = FRAMES) -> Path:
    """A folder of held-out clips, rendered now if it has none. Unlike in training, the face has room to move and the
    picture is large."""
    if not any(folder.glob("clip-*/truth.npz")):
        from canthus.synth.recipe import SynthRecipe
        from canthus.synth.render_jobs import render_clips

        recipe = SynthRecipe(size=256, face=0.4, yaw=90.0, seed=CLIPS_SEED)
        deque(render_clips(folder, assets, recipe, count, os.cpu_count() or 1, frames), maxlen=0)
    return folder


def versions() -> dict[str, str]:
    """The version of all weights of the project by name."""
    return {name: Card.read(folder).version for name, folder in weights().items()}


def instructions() -> list[str]:
    """The instruction sets of this processor that ONNX Runtime makes use of."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return [name for name in INSTRUCTIONS if f" {name} " in text.replace("\n", " ")]


def machine() -> dict[str, Any]:
    """The machine in words."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        cpu = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), cpu)
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None  # at the end; times of a busy machine
    return {
        "cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version(),
        "load": load, "instructions": instructions(),
    }  # fmt: skip


def write(what: str, results: Any, measured: dict[str, str] | None = None) -> Path:
    """Write results/<version>/<what>.json with machine, commit and time; returns its path.

    measured: name -> version of the weights that the results are of, where these are not the `versions` of now.
    """
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, cwd=RESULTS.parent).strip()
    path = RESULTS / canthus.__version__ / f"{what}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "what": what, "version": canthus.__version__, "commit": commit,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(),
        "weights": versions() if measured is None else measured, "results": results,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def record(what: str) -> dict[str, Any] | None:
    """A file of results, or None if it was not measured."""
    path = RESULTS / canthus.__version__ / f"{what}.json"
    return json.loads(path.read_text()) if path.exists() else None


def milliseconds(
    call: Callable[[], Any], repeats: int = 60, warm_up: int = 3, seconds: float = 5.0
) -> dict[str, float]:
    """Median and quartiles of the time of a call, after a warm-up: so many repeats as fit into `seconds`, or 3."""
    for _ in range(warm_up):
        call()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or (len(times) < repeats and time.perf_counter() - begin < seconds):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    low, middle, high = np.percentile(times, [25, 50, 75])
    return {"median": round(middle, 3), "q25": round(low, 3), "q75": round(high, 3)}
