"""Verbs that train: synth, train, train-detector, export."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from canthus.cli.options import Out
from canthus.commands.terminal import plain_errors, print_table, progress, say
from canthus.errors import RecipeError
from canthus.threads import MOST_THREADS


def _recipe_names() -> list[str]:
    from canthus.training.packaged import packaged

    return list(packaged())


def synth(
    assets: Annotated[
        Path | None,
        typer.Option("--assets", help="Folder of head assets (see docs/data.md); default: simpler heads."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of pictures, rounded up to whole shards.")] = 256,
    out: Out = Path("out/synth"),
    recipe: Annotated[Path | None, typer.Option("--recipe", help="What to render (see docs/synthetic.md).")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a key of the recipe: --set glasses=0.", metavar="KEY=VALUE"),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Random seed; another seed gives other people.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=MOST_THREADS, help="Number of processes.")] = 2,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", help="Render on the Ray cluster there; auto: on the one of this machine."
        ),
    ] = None,
    layout: Annotated[
        Literal["npz", "tar", "300wlp"] | None,
        typer.Option("--format", help="Layout: npz (default), tar (WebDataset) or 300wlp (jpg, mat and npz)."),
    ] = None,
    quality: Annotated[
        Literal["raster", "path"], typer.Option("--quality", help="Renderer: path is path tracing (Mitsuba), slow.")
    ] = "raster",
    sheet: Annotated[bool, typer.Option("--sheet", help="Also write a contact sheet of the first shard.")] = False,
    sequence: Annotated[
        int,
        typer.Option("--sequence", min=0, help="Render clips of this many frames; --count is the number of clips."),
    ] = 0,
) -> None:
    """Render faces with exact 3D labels for training, or video clips for tracking; run it again to resume."""
    with plain_errors("synth"):
        from canthus.synth.recipe import SynthRecipe
        from canthus.synth.render_jobs import SHARD_SIZE, clips, contact_sheet, render, shards

        changes = SynthRecipe.parse(change or []) | ({} if seed is None else {"seed": seed})
        plan = SynthRecipe.read(recipe, **changes)
        if sequence and layout:
            raise RecipeError(
                "--format is of shards, and clips are folders of pictures: leave --format or --sequence out"
            )
        if sequence:
            wanted, each = clips(out, assets, plan, count, sequence, quality), sequence
        else:
            wanted, each = shards(out, assets, plan, count, layout or "npz", quality), SHARD_SIZE
        if ray is None:
            jobs = render(wanted, workers)
        else:
            from canthus.ray import render as render_there

            jobs = render_there(wanted, ray)
        paths = wanted.paths
        with progress("synth") as update:
            done = sum(os.path.exists(path) for path in paths)
            update(done * each, len(paths) * each)
            for number, _ in enumerate(jobs, done + 1):
                update(number * each, len(paths) * each)
        if sheet:
            contact_sheet(paths[0], out / "sheet.png")
    say(f"{'clips' if sequence else 'shards'} in {out.resolve()}")


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Name of a recipe (see --list), or a file (YAML).", autocompletion=_recipe_names),
    ] = None,
    out: Out = Path("runs/train"),
    faces: Annotated[
        list[str] | None,
        typer.Option("--faces", help="Folders of faces, of shards or of a data set, to use instead of the recipe's."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key of the recipe: --set augment.scale=0.2.",
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the recipes that come with canthus, and end.")] = False,
) -> None:
    """Train a method from a recipe; run it again to resume after a stop."""
    with plain_errors():
        if listed:
            from canthus.training.packaged import packaged, title

            rows = [[name, title(path)] for name, path in packaged().items()]
            print_table("", {"recipe": "left", "what": "left"}, rows)
            return
        from canthus.training.memory import keep_freed_memory
        from canthus.training.recipe import Recipe
        from canthus.training.train import leave_processes
        from canthus.training.train import train as run

        if recipe is None:
            raise RecipeError("got no recipe, want the name of one (`canthus train --list`) or a file")
        plan = Recipe.read(recipe, changes or (), **({"faces": faces} if faces else {}))
        keep_freed_memory()
        with progress("train") as update:
            began, taken = time.monotonic(), 0
            for step in run(plan, out):
                if not taken:  # the speed is measured from the end of this run's first step
                    began = time.monotonic()
                taken += step["faces"]
                rate = (taken - step["faces"]) / max(time.monotonic() - began, 1e-9)
                losses = {k: v for k, v in step.items() if k not in ("step", "stage", "lr", "faces")}
                note = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
                update(step["step"], plan.steps, f"{step['stage']} {rate:.0f} images/s {note}")
        leave_processes()
    say(f"weights in {(out / 'weights').resolve()}")


def train_detector(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file (YAML); default: of the shipped detector.")] = None,
    out: Out = Path("runs/detector"),
    heads: Annotated[
        list[str] | None, typer.Option("--heads", help="Folders of renders with regions (synth --set maps=true).")
    ] = None,
    environments: Annotated[
        str | None, typer.Option("--environments", help="Folder of environment maps (.exr) to stand behind the heads.")
    ] = None,
    photos: Annotated[str | None, typer.Option("--photos", help="Folder of pictures without faces.")] = None,
    objects: Annotated[
        str | None, typer.Option("--objects", help="Folder of small pictures of things with opacity, as clip art.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps of the first network instead of the recipe's.")
    ] = None,
) -> None:
    """Train a face detector on composites of rendered heads; run it again to resume after a stop."""
    with plain_errors():
        from canthus.detection.train import DetectorRecipe, draw
        from canthus.detection.train import train_detector as run
        from canthus.training.memory import keep_freed_memory

        given = {"heads": heads, "environments": environments, "photos": photos, "objects": objects, "steps": steps}
        plan = DetectorRecipe.read(recipe, **{key: value for key, value in given.items() if value is not None})
        with progress("composites") as update:
            for done in draw(plan, out):
                update(done, plan.composites)
        keep_freed_memory()
        with progress("train-detector") as update:
            for step in run(plan, out):
                losses = " ".join(f"{k} {v:.3f}" for k, v in step.items() if k not in ("step", "stage", "lr"))
                update(step["step"], plan.steps + plan.refiner_steps, losses)
    say(f"weights in {(out / 'weights').resolve()}")


def export(
    weights: Annotated[str, typer.Argument(help="Folder of weights that training wrote, or the name of shipped ones.")],
    out: Out = Path("out/export"),
    int8: Annotated[
        Path | None, typer.Option("--int8", help="Also quantise to 8 bits, calibrated on this shard.")
    ] = None,
    with_crop: Annotated[
        bool,
        typer.Option("--with-crop", help="Also write picture.onnx: a picture and a box in, points of the picture out."),
    ] = False,
) -> None:
    """Convert trained weights to ONNX, in a folder that `canthus.load` can run."""
    with plain_errors("train"):
        from canthus.training.export import copy_onnx, export_onnx, quantise
        from canthus.training.picture_graph import export_picture
        from canthus.weights import find

        folder = find(weights)
        (export_onnx if (folder / "model.safetensors").is_file() else copy_onnx)(folder, out)
        if int8:
            quantise(out, int8)
        if with_crop:
            export_picture(out)
    say(f"exported to {out.resolve()}")
