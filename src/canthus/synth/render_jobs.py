"""Rendering in bulk: numbered shards, each written whole or not at all, so that a stopped job can be resumed."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from canthus.decode import decoding, read_json
from canthus.errors import CanthusError, RecipeError
from canthus.io.card import sha256
from canthus.io.images import as_png
from canthus.io.outputs import atomic_write, make_folder, remove_leftovers
from canthus.io.shards import Samples, read_shard, shard_path, write_shard
from canthus.synth.generator import VIEWS_PER_HEAD, SynthGenerator, stack
from canthus.synth.heads import model_file
from canthus.synth.recipe import SynthRecipe
from canthus.synth.renderer import check_quality
from canthus.synth.sequences import frames, write_clip
from canthus.workers import Workers

GROUPS_PER_SHARD = 64
ATTEMPTS = 3  # number of pools in a row that may die before they finish anything
SHARD_SIZE = GROUPS_PER_SHARD * VIEWS_PER_HEAD
JOB = "recipe.json"
_Job = tuple[str | None, SynthRecipe, str]  # assets, recipe, quality

DOTS = ((40, 220, 60), (230, 50, 40), (70, 110, 255))  # visible, behind the head, behind something else


@functools.cache
def _generator(assets: str | None, recipe: SynthRecipe, quality: str) -> SynthGenerator:
    """The generator of a worker process."""
    os.environ.setdefault("LP_NUM_THREADS", "1")  # llvmpipe would use every core for one picture
    return SynthGenerator(assets, recipe, quality)


def _render_shard(job: _Job, layout: str, number: int, path: Path) -> None:
    generator, first = _generator(*job), number * SHARD_SIZE
    samples = stack([generator.sample(first + k) for k in range(SHARD_SIZE)])
    write_shard(path, samples, first, layout)


def _render_clip(job: _Job, length: int, number: int, path: Path) -> None:
    write_clip(path, frames(_generator(*job), number, length))


class Rendering(NamedTuple):
    """What is to be rendered: a function that writes a file or folder, whole or not at all, given its number and path,
    and the paths in the order of their numbers."""

    render: Callable[[int, Path], None]
    paths: list[Path]


def shards(
    out: str | Path,
    assets: str | Path | None,
    recipe: SynthRecipe,
    count: int,
    layout: str = "npz",
    quality: str = "raster",
) -> Rendering:
    """Shards in `out` with at least `count` samples.

    layout: npz, tar or 300wlp (`io.shards`). quality: raster or path. Raises `RecipeError` where `out` holds shards of
    another recipe, layout or quality or of other heads, `ModelError` where `assets` holds none, and `OutputError` where
    `out` cannot be written.
    """
    _claim(Path(out), {"recipe": asdict(recipe), "layout": layout, "quality": quality, "heads": _heads(assets)})
    paths = [shard_path(out, n, layout) for n in range(-(-count // SHARD_SIZE))]
    job = (None if assets is None else str(assets), recipe, quality)
    return Rendering(functools.partial(_render_shard, job, layout), paths)


def clips(
    out: str | Path, assets: str | Path | None, recipe: SynthRecipe, count: int, length: int, quality: str = "raster"
) -> Rendering:
    """So many clips of `length` frames in folders `out/clip-NNNNN`; otherwise as `shards`."""
    _claim(Path(out), {"recipe": asdict(recipe), "frames": length, "quality": quality, "heads": _heads(assets)})
    paths = [clip_path(out, n) for n in range(count)]
    job = (None if assets is None else str(assets), recipe, quality)
    return Rendering(functools.partial(_render_clip, job, length), paths)


def render_shards(
    out: str | Path,
    assets: str | Path | None,
    recipe: SynthRecipe,
    count: int,
    workers: int,
    layout: str = "npz",
    quality: str = "raster",
) -> Iterator[Path]:
    """`render` of `shards`."""
    yield from render(shards(out, assets, recipe, count, layout, quality), workers)


def render_clips(
    out: str | Path,
    assets: str | Path | None,
    recipe: SynthRecipe,
    count: int,
    workers: int,
    length: int,
    quality: str = "raster",
) -> Iterator[Path]:
    """`render` of `clips`."""
    yield from render(clips(out, assets, recipe, count, length, quality), workers)


def clip_path(out: str | Path, number: int) -> Path:
    """Where clip `number` lies."""
    return Path(out) / f"clip-{number:05d}"


def _heads(assets: str | Path | None) -> str:
    """What tells the heads of a folder of assets from others: the digest of their model. Raises `ModelError`."""
    return "simple" if assets is None else sha256(model_file(assets))


def _claim(out: Path, job: dict) -> None:
    """Write down what `out` holds, or check that it is the same."""
    check_quality(job["quality"])
    make_folder(out)
    text = json.dumps(job, indent=2)
    if not os.path.exists(out / JOB):
        atomic_write(out / JOB, text.encode())
        return
    with decoding(RecipeError, f"'{out / JOB}', which says what '{out}' holds, cannot be read"):
        was = {"quality": "raster", "recipe": {}, "heads": job["heads"], **read_json(out / JOB)}
        if not isinstance(was["recipe"], dict):
            raise ValueError("it holds no recipe")
    if was != json.loads(text):
        old, new = ({**j.get("recipe", {}), **{k: v for k, v in j.items() if k != "recipe"}} for j in (was, job))
        keys = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
        raise RecipeError(f"'{out}' holds pictures of another recipe ({', '.join(keys)} differ); name another folder")


def render(wanted: Rendering, workers: int) -> Iterator[Path]:
    """Render in several processes; yields each path when it is done. What is there already is passed over.

    If a worker dies, as software OpenGL drivers do, its shards are rendered again. When the iteration is stopped,
    workers end at once and unfinished shards are removed. Raises `CanthusError` when workers die three times and finish
    nothing, and `OutputError` where a shard cannot be written.
    """
    paths = wanted.paths
    out = paths[0].parent
    deaths = 0
    while missing := [n for n, path in enumerate(paths) if not os.path.exists(path)]:
        reported: set[Path] = set()
        remove_leftovers(out)
        pool = Workers(min(workers, len(missing)))
        try:
            jobs = {pool.submit(wanted.render, n, paths[n]): paths[n] for n in missing}
            for job in as_completed(jobs):
                job.result()
                reported.add(jobs[job])
                yield jobs[job]
        except BrokenProcessPool as error:
            finished = {paths[n] for n in missing if os.path.exists(paths[n])}
            deaths = 0 if finished else deaths + 1
            if deaths == ATTEMPTS:
                raise CanthusError(f"the renderer died {deaths} times and finished nothing in '{out}'") from error
            yield from sorted(finished - reported)
        finally:
            pool.stop()
            remove_leftovers(out)


def contact_sheet(shard: str | Path, path: str | Path, rows: int = 8, columns: int = 8) -> None:
    """A PNG of the first faces of a shard with their landmarks: green where visible, red behind the head itself,
    blue behind something else; the visible jaw line in yellow. Raises `RecipeError` for a damaged shard."""
    with decoding(RecipeError, f"the shard '{shard}' cannot be read; remove it, and it is rendered again"):
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
