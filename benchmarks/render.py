"""Views per second of both renderers at 256 px, and pictures per second of the whole `canthus synth`.

    python benchmarks/render.py [--assets HEAD_ASSETS]
    python benchmarks/render.py --device cuda [--batch 256] [--size 256] [--assets HEAD_ASSETS]

With --device only faces for a training that are drawn on that device: what preparing a person costs a core, what
drawing costs the device, and both together, a worker a core but one.

Otherwise the renderers draw a dressed head that needs no assets, alone and in batches. The whole job runs as users run
it, with a worker a core and its files written; with assets, the second time, when their pack is in the cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from canthus.synth.batch_renderer import BatchRenderer, render_live
from canthus.synth.generator import VIEWS_PER_HEAD, SynthGenerator
from canthus.synth.heads import Head
from canthus.synth.light import procedural_environments
from canthus.synth.person import lash_texture, pose_head, sample_expression, sample_person
from canthus.synth.preparation import VIEWS_PER_PERSON, HeadPreparer
from canthus.synth.recipe import RandomStreams, SynthRecipe
from canthus.synth.render_jobs import SHARD_SIZE, render_shards
from canthus.synth.renderers.torch import Scene, TorchRenderer
from canthus.synth.scene import PerspectiveCamera
from canthus.synth.shipped import ShippedHead

SIZE, VIEWS = 256, 8


def renderers() -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        from canthus.synth.renderers.opengl import OpenGLRenderer

        gl = OpenGLRenderer(SIZE)
        found[f"OpenGL ({gl.context.info['GL_RENDERER']})"] = gl
    except Exception as error:
        print(f"OpenGL does not work here: {error}")
    found[f"torch (CPU, {torch.get_num_threads()} threads)"] = TorchRenderer(SIZE, "cpu")
    if torch.cuda.is_available():
        found[f"torch ({torch.cuda.get_device_name()})"] = TorchRenderer(SIZE, "cuda")
    return found


def pace(draw: Callable[[], Any], views: int, repeats: int = 8) -> dict[str, float]:
    """Views a second by the clock, and milliseconds of processor time a view, which other programs disturb less."""
    draw()
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        draw()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    count = views * repeats
    return {"views_per_second": round(count / clock, 1), "cpu_ms_a_view": round(1e3 * processor / count, 1)}


def sample_head(number: int, source: ShippedHead) -> tuple[Head, dict[str, np.ndarray]]:
    """A random person with an expression, and the textures that they bring along."""
    streams, recipe = RandomStreams(0, number), SynthRecipe()
    person = sample_person(streams, source, recipe)
    head, _ = pose_head(source, person, sample_expression(streams, source.expression_names, recipe))
    return head, {"lash": lash_texture(), **person.textures}


def whole(assets: Path | None, shards: int) -> dict[str, float]:
    """Pictures a second of a `canthus synth` of so many shards, the start of its workers included."""
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for _ in render_shards(folder, assets, SynthRecipe(size=SIZE), shards * SHARD_SIZE, workers):
            pass
        took = time.perf_counter() - start
    return {"workers": workers, "pictures": shards * SHARD_SIZE, "seconds": round(took, 1),
            "pictures_per_second": round(shards * SHARD_SIZE / took, 2)}  # fmt: skip


def on_device(device: str, assets: Path | None, batch: int, size: int, seconds: float = 20.0) -> dict[str, float]:
    """Faces for a training drawn on a device: its parts alone, and all of it as a training takes it."""
    recipe, people = SynthRecipe(size=size), max(batch // VIEWS_PER_PERSON, 1)
    prepare = HeadPreparer(assets, recipe)
    prepare.group(0)
    start = time.process_time()
    heads = [head for k in range(people) for head in prepare.group(k)]
    prepared = (time.process_time() - start) / people
    renderer = BatchRenderer(prepare.planner, device)

    def draw() -> None:
        renderer(heads)["image"].sum().item()  # waits for the device

    draw()
    start = time.perf_counter()
    draw()
    drawn = time.perf_counter() - start
    faces, step = render_live(device, None if assets is None else str(assets), recipe), people * VIEWS_PER_PERSON
    try:
        faces.take(0, step)  # starts the workers
        start, taken = time.perf_counter(), 0
        while time.perf_counter() - start < seconds or taken < step:
            taken += step
            faces.take(taken, taken + step)["image"].sum().item()
        took = time.perf_counter() - start
    finally:
        faces.close()
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.device(device).type == "cuda" else 0.0
    return {
        "batch": step, "size": size, "core_ms_a_person": round(1e3 * prepared, 1),
        "core_ms_a_picture": round(1e3 * prepared / VIEWS_PER_PERSON, 2),
        "device_ms_a_picture": round(1e3 * drawn / step, 2), "device_pictures_per_second": round(step / drawn, 1),
        "cores": os.cpu_count() or 1, "pictures_per_second": round(taken / took, 1), "memory_gib": round(memory, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--device", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=SIZE)
    options = parser.parse_args()
    assets = options.assets
    if options.device:
        found = on_device(options.device, assets, options.batch, options.size)
        for key, value in found.items():
            print(f"{key}: {value}")
        name = "CPU" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
        print(common.write("render-device", {"device": name, **found}))
        return
    source = ShippedHead()
    head, textures = next(
        (h, t)
        for h, t in (sample_head(k, source) for k in range(100))
        if {"hair", "brows", "lashes"} <= {p.role for p in h.pieces}
    )
    cameras = []
    for turn in np.linspace(-1, 1, VIEWS):
        c, s = np.cos(turn), np.sin(turn)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        middle = np.full(2, (SIZE - 1) / 2)
        cameras.append(PerspectiveCamera(rotation, head.landmarks.mean(0), 80.0, 0.5 * SIZE * 80 / 14, middle))
    light = procedural_environments(1)[0].light(0.0, 0.5)
    results: dict[str, dict[str, float]] = {}
    for name, renderer in renderers().items():
        for key in {p.texture for p in head.pieces} - {None}:
            renderer.texture(key, textures.get(key, source.textures.get(key)))
        renderer.load(head.pieces)
        results[name] = pace(partial(renderer.draw, cameras[0], light, 0.7), 1)
        if isinstance(renderer, TorchRenderer):
            scenes = [Scene(renderer.loaded, c, light, 0.7) for c in cameras]
            together = partial(renderer.draw_scenes, scenes)
            results[f"{name}, {VIEWS} views at once"] = pace(lambda f=together: f().cpu(), VIEWS, 4)
    generator = SynthGenerator(None, SynthRecipe(size=176))
    name = type(generator.renderer).__name__
    results[f"whole samples at 176 px, {name}"] = pace(lambda: generator.group(0), VIEWS_PER_HEAD, 4)

    jobs = {"shipped head": whole(None, 2 * (os.cpu_count() or 1))}
    if assets:
        whole(assets, 1)  # fills the cache
        jobs["head assets"] = whole(assets, 2 * (os.cpu_count() or 1))

    table = Table(f"at {SIZE} px", "views a second", "CPU ms a view")
    for name, row in results.items():
        table.add_row(name, *map(str, row.values()))
    Console().print(table)
    for name, job in jobs.items():
        Console().print(f"canthus synth, {name}: {job['pictures_per_second']} pictures a second")
    triangles = sum(len(p.triangles) for p in head.pieces)
    print(
        common.write(
            "render", {"size": SIZE, "triangles": triangles, "load": os.getloadavg()[0], "pace": results, "synth": jobs}
        )
    )


if __name__ == "__main__":
    main()
