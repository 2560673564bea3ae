"""Rendering in bulk: numbered shards, each written whole or not at all, so that a stopped job goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from canthus.errors import CanthusError
from canthus.synth.generator import VIEWS_PER_HEAD, SynthGenerator, SynthRecipe

GROUPS_PER_SHARD = 64
SHARD_SIZE = GROUPS_PER_SHARD * VIEWS_PER_HEAD

_generator: SynthGenerator | None = None  # one renderer per worker process


def _start_worker(assets: str, recipe: dict) -> None:
    global _generator
    os.environ.setdefault("LP_NUM_THREADS", "1")  # llvmpipe would take every core for one picture
    _generator = SynthGenerator(assets, SynthRecipe(**recipe))


def _render_shard(number: int, path: str) -> str:
    assert _generator is not None
    groups = [_generator.group(number * GROUPS_PER_SHARD + g) for g in range(GROUPS_PER_SHARD)]
    temporary = f"{path}.part"
    with open(temporary, "wb") as f:
        arrays: dict[str, Any] = {k: np.concatenate([g[k] for g in groups]) for k in groups[0]}
        np.savez(f, **arrays)
    os.replace(temporary, path)
    return path


def shard_path(out: str | Path, number: int) -> Path:
    """Where shard `number` lies."""
    return Path(out) / f"shard-{number:05d}.npz"


def render_shards(out: str | Path, assets: str | Path, recipe: SynthRecipe, count: int, workers: int) -> Iterator[Path]:
    """Render at least `count` samples into `out`; yields each shard as it is finished. Finished shards are skipped.

    A worker that dies (software OpenGL drivers do) costs the shards it was at: they are rendered again. Raises
    `CanthusError` when workers die without finishing anything.
    """
    Path(out).mkdir(parents=True, exist_ok=True)
    spawn = get_context("spawn")  # an OpenGL context does not survive a fork
    while numbers := [n for n in range(-(-count // SHARD_SIZE)) if not shard_path(out, n).exists()]:
        told: set[Path] = set()
        try:
            with ProcessPoolExecutor(workers, spawn, _start_worker, (str(assets), asdict(recipe))) as pool:
                jobs = [pool.submit(_render_shard, n, str(shard_path(out, n))) for n in numbers]
                try:
                    for job in as_completed(jobs):
                        told.add(Path(job.result()))
                        yield Path(job.result())
                finally:
                    pool.shutdown(cancel_futures=True)  # a stop waits for the shards under way, not for all
        except BrokenProcessPool as error:
            finished = {path for n in numbers if (path := shard_path(out, n)).exists()}
            if not finished:
                raise CanthusError(f"the renderer died before it finished a shard in '{out}': {error}") from error
            yield from sorted(finished - told)


def contact_sheet(shard: str | Path, path: str | Path, rows: int = 6, columns: int = 10) -> None:
    """A PNG of the first faces of a shard with their landmarks: green where seen, red where hidden."""
    with np.load(shard, allow_pickle=False) as d:
        images, xyz, visible = d["image"][: rows * columns], d["xyz"], d["visible"]
    size = images.shape[1]
    sheet = Image.new("RGB", (columns * size, rows * size))
    for k, image in enumerate(images):
        tile = Image.fromarray(image)
        pen = ImageDraw.Draw(tile)
        for (x, y, _), seen in zip(xyz[k], visible[k]):
            pen.ellipse([x - 1, y - 1, x + 1, y + 1], fill=(40, 220, 60) if seen else (230, 50, 40))
        sheet.paste(tile, (k % columns * size, k // columns * size))
    sheet.save(path)
