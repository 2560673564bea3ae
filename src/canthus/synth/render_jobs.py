"""Rendering in bulk: numbered shards, each written whole or not at all, so that a stopped job can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from canthus.decode import decoding, read_json
from canthus.errors import CanthusError, RecipeError
from canthus.io.images import as_png
from canthus.io.outputs import atomic_write
from canthus.io.shards import Samples, read_shard, shard_path, write_shard
from canthus.synth.generator import VIEWS_PER_HEAD, SynthGenerator, stack
from canthus.synth.recipe import SynthRecipe
from canthus.synth.renderer import check_quality
from canthus.synth.sequences import frames, write_clip

GROUPS_PER_SHARD = 64
ATTEMPTS = 3  # of workers in a row that die before they finish anything
SHARD_SIZE = GROUPS_PER_SHARD * VIEWS_PER_HEAD
JOB = "recipe.json"
DOTS = ((40, 220, 60), (230, 50, 40), (70, 110, 255))  # seen, behind the head, behind something else

_generator: SynthGenerator | None = None  # one renderer per worker process


def _start_worker(assets: str | None, recipe: dict, quality: str) -> None:
    global _generator
    os.environ.setdefault("LP_NUM_THREADS", "1")  # llvmpipe would take every core for one picture
    _generator = SynthGenerator(assets, SynthRecipe(**recipe), quality)


def _render_shard(layout: str, number: int, path: str) -> str:
    assert _generator is not None
    first = number * SHARD_SIZE
    samples = stack([_generator.sample(first + k) for k in range(SHARD_SIZE)])
    write_shard(Path(path), samples, first, layout)
    return path


def _render_clip(length: int, number: int, path: str) -> str:
    assert _generator is not None
    write_clip(Path(path), frames(_generator, number, length))
    return path


def render_shards(
    out: str | Path,
    assets: str | Path | None,
    recipe: SynthRecipe,
    count: int,
    workers: int,
    layout: str = "npz",
    quality: str = "raster",
) -> Iterator[Path]:
    """Render at least `count` samples into `out`; yields each shard as it is finished. Finished shards are skipped.

    layout: npz, tar or 300wlp (`layouts`). quality: raster or path. A worker that dies (software OpenGL
    drivers do) costs the shards it was at: they are rendered again. Raises `CanthusError` when they die three times and
    finish nothing, and `RecipeError` where `out` holds shards of another recipe, layout or quality.
    """
    _claim(Path(out), {"recipe": asdict(recipe), "layout": layout, "quality": quality})
    paths = [shard_path(out, n, layout) for n in range(-(-count // SHARD_SIZE))]
    yield from _render_all(partial(_render_shard, layout), paths, assets, recipe, workers, quality)


def render_clips(
    out: str | Path,
    assets: str | Path | None,
    recipe: SynthRecipe,
    count: int,
    workers: int,
    length: int,
    quality: str = "raster",
) -> Iterator[Path]:
    """Render `count` clips of `length` frames into folders `out/clip-NNNNN`; otherwise as `render_shards`."""
    _claim(Path(out), {"recipe": asdict(recipe), "frames": length, "quality": quality})
    paths = [clip_path(out, n) for n in range(count)]
    yield from _render_all(partial(_render_clip, length), paths, assets, recipe, workers, quality)


def clip_path(out: str | Path, number: int) -> Path:
    """Where clip `number` lies."""
    return Path(out) / f"clip-{number:05d}"


def _claim(out: Path, job: dict) -> None:
    """Write down what `out` holds, or see that it is the same."""
    check_quality(job["quality"])
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(job, indent=2)
    if not (out / JOB).exists():
        atomic_write(out / JOB, text.encode())
        return
    with decoding(RecipeError, f"'{out / JOB}', which says what '{out}' holds, cannot be read"):
        was = {"quality": "raster", "recipe": {}, **read_json(out / JOB)}
        if not isinstance(was["recipe"], dict):
            raise ValueError("it holds no recipe")
    if was != json.loads(text):
        old, new = ({**j.get("recipe", {}), **{k: v for k, v in j.items() if k != "recipe"}} for j in (was, job))
        keys = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
        raise RecipeError(f"'{out}' holds pictures of another recipe ({', '.join(keys)} differ); name another folder")


def _render_all(
    render: Callable[[int, str], str],
    paths: list[Path],
    assets: str | Path | None,
    recipe: SynthRecipe,
    workers: int,
    quality: str,
) -> Iterator[Path]:
    out = paths[0].parent
    spawn = get_context("spawn")  # an OpenGL context does not survive a fork
    deaths = 0
    while wanted := [n for n, path in enumerate(paths) if not path.exists()]:
        told: set[Path] = set()
        try:
            start = partial(_start_worker, None if assets is None else str(assets), asdict(recipe), quality)
            with ProcessPoolExecutor(workers, spawn, start) as pool:
                jobs = [pool.submit(render, n, str(paths[n])) for n in wanted]
                try:
                    for job in as_completed(jobs):
                        told.add(Path(job.result()))
                        yield Path(job.result())
                finally:
                    pool.shutdown(cancel_futures=True)  # a stop waits for the shards under way, not for all
        except BrokenProcessPool as error:
            finished = {paths[n] for n in wanted if paths[n].exists()}
            deaths = 0 if finished else deaths + 1
            if deaths == ATTEMPTS:
                raise CanthusError(f"the renderer died {deaths} times and finished nothing in '{out}'") from error
            yield from sorted(finished - told)


def contact_sheet(shard: str | Path, path: str | Path, rows: int = 8, columns: int = 8) -> None:
    """A PNG of the first faces of a shard with their landmarks: green where seen, red behind the head itself, blue
    behind something else; the jaw line as seen in yellow."""
    samples: Samples = {key: values[: rows * columns] for key, values in read_shard(Path(shard)).items()}
    size = samples["image"].shape[1]
    sheet = Image.new("RGB", (columns * size, rows * size))
    hidden = samples["occlusion"] if "occlusion" in samples else (~samples["visible"]).astype(np.uint8)
    for k, image in enumerate(samples["image"]):
        tile = Image.fromarray(image)
        pen = ImageDraw.Draw(tile)
        if "contour" in samples:
            pen.line([tuple(p) for p in samples["contour"][k, :, :2].tolist()], fill=(250, 220, 60))
        for (x, y, _), why in zip(samples["xyz"][k], hidden[k]):
            pen.ellipse([x - 1, y - 1, x + 1, y + 1], fill=DOTS[why])
        sheet.paste(tile, (k % columns * size, k // columns * size))
    atomic_write(path, as_png(sheet))
