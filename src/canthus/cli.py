"""The command line: each verb reads its options, calls one function and says what came of it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import canthus
from canthus.errors import CanthusError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="3D face landmarks, head pose and face shape.",
)
# names of files may hold what Rich takes for markup
console = Console(markup=False, highlight=False)
errors = Console(stderr=True, markup=False, highlight=False)

Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Weights = Annotated[str, typer.Option("--weights", help="Shipped weights by name (see `canthus models`), or a folder.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of the network.")]


@contextmanager
def _plain_errors():
    """A user's mistake is one sentence and exit code 2, not a traceback."""
    try:
        yield
    except CanthusError as error:
        errors.print(f"canthus: {error}", style="red")
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        extras = {"moderngl": "synth", "OpenEXR": "synth", "scipy": "formats", "tensorboard": "tensorboard"}
        needed = extras.get(error.name or "", "train")
        errors.print(f"canthus: this verb needs '{error.name}': pip install 'canthus[{needed}]'", style="red")
        raise typer.Exit(2) from error


def _bar(what: str) -> Progress:
    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=errors,
    )


@app.command()
def align(
    inputs: Annotated[
        list[str], typer.Argument(help="Photos, folders or glob patterns.", metavar="PHOTO|FOLDER|GLOB...")
    ],
    out: Out = Path("out"),
    weights: Weights = "swift",
    overlay: Annotated[bool, typer.Option(help="Draw points and pose over the photo (PNG).")] = True,
    pts: Annotated[bool, typer.Option("--pts", help="Also write .pts (1-based, as menpo).")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Also write .csv with OpenFace's column names.")] = False,
    mesh: Annotated[str | None, typer.Option("--mesh", help="Also write the head mesh: obj, ply or glb.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip photos whose JSON is there.")] = False,
    threads: Threads = None,
) -> None:
    """Landmarks, pose and mesh of every face in photos, as JSON and overlay pictures."""
    from canthus.commands.photos import Outputs, Summary, find_images
    from canthus.commands.photos import align as run

    if mesh not in (None, "obj", "ply", "glb"):
        raise typer.BadParameter(f"'{mesh}' is none of obj, ply, glb", param_hint="--mesh")
    with _plain_errors():
        photos = find_images(inputs)
        aligner = canthus.load(weights, threads=threads)
        with _bar("align") as bar:
            task = bar.add_task("", total=len(photos), note="")

            def show(s: Summary) -> None:
                bar.update(task, completed=s.files + s.skipped + len(s.failures), note=f"{s.faces} faces")

            summary = run(photos, out, aligner, Outputs(overlay, pts, csv, mesh), resume, show)
    for photo, reason in summary.failures:
        errors.print(f"failed: {photo}: {reason}", style="yellow")
    rate = summary.faces / summary.seconds if summary.seconds else 0.0
    skipped = f", {summary.skipped} skipped" if resume else ""
    console.print(
        f"{summary.files} files, {summary.faces} faces, {len(summary.failures)} failures{skipped}, {rate:.1f} faces/s "
        f"in {summary.seconds:.1f} s\nresults in {out.resolve()}",
        soft_wrap=True,
    )  # fmt: skip
    if summary.failed:
        raise typer.Exit(1)


@app.command()
def track(
    inputs: Annotated[
        list[str], typer.Argument(help="Videos, folders of frames or of videos, globs.", metavar="VIDEO|FOLDER...")
    ],
    out: Out = Path("out"),
    weights: Weights = "swift",
    tracking: Annotated[
        str | None, typer.Option("--tracking", help="Weights that go on from the frame before; else the same.")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write the video with the faces drawn in.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Also write .csv with OpenFace's column names.")] = False,
    smooth: Annotated[bool, typer.Option("--smooth", help="Smooth landmarks and poses in time (1 euro).")] = False,
    detect_every: Annotated[int, typer.Option(min=0, help="Frames between looks for newcomers; 0: never.")] = 12,
    rate: Annotated[float, typer.Option(min=0.01, help="Frames a second of folders of frames.")] = 25.0,
    resume: Annotated[bool, typer.Option("--resume", help="Skip videos whose summary is there.")] = False,
    threads: Threads = None,
) -> None:
    """Follow every face through videos: a line of JSON a frame, each face under a number of its own."""
    from canthus.commands.videos import Outputs, find_videos
    from canthus.commands.videos import track as run
    from canthus.inference.tracker import Tracker

    with _plain_errors():
        videos = find_videos(inputs)
        second = None if tracking is None else canthus.load(tracking, threads=threads)
        tracker = Tracker(canthus.load(weights, threads=threads), second, detect_every=detect_every)
        with _bar("track") as bar:
            task = bar.add_task("", total=None, note="")

            def show(video: Path, frame: int, count: int | None) -> None:
                bar.update(task, completed=frame, total=count, note=video.name)

            summary = run(videos, out, tracker, Outputs(overlay, csv, smooth, rate), resume, show)
    for video, reason in summary.failures:
        errors.print(f"failed: {video}: {reason}", style="yellow")
    for video, clip in summary.clips:
        console.print(
            f"{video.name}: {clip.frames} frames, {clip.faces_per_frame:.2f} faces a frame, {clip.people} people, "
            f"{clip.reinitialisations} re-initialisations, {clip.losses} losses, "
            f"{clip.without_face} frames without a face, {clip.fps:.1f} fps",
            soft_wrap=True,
        )
    skipped = f", {summary.skipped} skipped" if resume else ""
    console.print(
        f"{len(summary.clips)} videos, {len(summary.failures)} failures{skipped}\nresults in {out.resolve()}",
        soft_wrap=True,
    )
    if summary.failed:
        raise typer.Exit(1)


@app.command()
def models(
    folder: Annotated[Path | None, typer.Argument(help="A folder of weights folders; without, those shipped.")] = None,
) -> None:
    """Weights: licence, training data, size, and what was measured of accuracy and speed."""
    from canthus.weights import DEFAULT, ROOT, inside, shipped

    with _plain_errors():
        cards = inside(folder) if folder else shipped()
    for name, card in cards.items():
        default = " (default)" if name == DEFAULT and not folder else ""
        use = "commercial use allowed" if card.commercial_use else "no commercial use"
        sizes = [f"{file} {((folder or ROOT) / name / file).stat().st_size / 1e6:.1f} MB" for file in card.files]
        console.print(f"{name}{default}: {card.version}, {card.licence}, {use}; {', '.join(sizes)}", soft_wrap=True)
        console.print(f"    trained on {card.training_data}", soft_wrap=True)
        for row in card.measured:
            console.print("    " + ", ".join(f"{k} {v}" for k, v in row.items()), soft_wrap=True)


@app.command()
def evaluate(
    protocol: Annotated[str, typer.Argument(help="aflw2000, 300w, renders, ... (docs/benchmark.md lists them).")],
    data: Annotated[Path, typer.Argument(help="The data set's folder, as its authors lay it out.")],
    weights: Weights = "swift",
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Score this file (.npz, .jsonl), of any system, instead.")
    ] = None,
    boxes: Annotated[
        str, typer.Option("--boxes", help="Where faces are said to be: true, detected, jittered, tracked.")
    ] = "true",
    tracking: Annotated[
        str | None, typer.Option("--tracking", help="With tracked: weights that go on from the frame before.")
    ] = None,
    out: Out = Path("out/evaluate"),
    report: Annotated[bool, typer.Option("--report", help="Also write report.html with curves and sweeps.")] = False,
    threads: Threads = None,
) -> None:
    """Measure by a protocol of the field; writes predictions.npz and scores.json."""
    from canthus.evaluation.collect import BOXES

    if boxes not in BOXES:
        raise typer.BadParameter(f"'{boxes}' is none of {', '.join(BOXES)}", param_hint="--boxes")
    with _plain_errors():
        from canthus.evaluation import evaluate as measure
        from canthus.evaluation.predictions import Predictions

        with _bar("evaluate") as bar:
            task = bar.add_task("", total=None, note="")

            def show(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            predictor = None if predictions else canthus.load(weights, threads=threads)
            if predictor is None:
                answers = Predictions.read(str(predictions))
            else:
                second = None if tracking is None else canthus.load(tracking, threads=threads)
                answers = measure.predict(protocol, data, predictor, boxes, show, second)
            scores = measure.evaluate(protocol, data, answers)
            measure.write_scores(out, scores, answers)
            if report:
                measure.write_report(out, protocol, scores, predictor, show)
    for table in scores.tables:
        _print_table(table.title, table.columns, table.rows)
    console.print(f"results in {out.resolve()}", soft_wrap=True)


def _print_table(title: str, columns: tuple[str, ...], rows: dict[str, list[float]]) -> None:
    shown = Table(title, *columns)
    for name, values in rows.items():
        shown.add_row(
            name, *("" if v != v else f"{v:.0f}" if name in ("faces", "lost") else f"{v:.2f}" for v in values)
        )
    console.print(shown)


@app.command()
def synth(
    assets: Annotated[
        Path | None, typer.Option("--assets", help="Folder of head assets (docs/data.md); plainer heads without.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many pictures, rounded up to whole shards.")] = 256,
    out: Out = Path("out/synth"),
    recipe: Annotated[Path | None, typer.Option("--recipe", help="What to draw (YAML, docs/synthetic.md).")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="One key of the recipe: --set glasses=0", metavar="KEY=VALUE")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed gives other people.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1)] = 2,
    layout: Annotated[str, typer.Option("--format", help="npz, tar (WebDataset) or 300wlp (jpg, mat, npz).")] = "npz",
    quality: Annotated[str, typer.Option("--quality", help="raster; path: traced light (Mitsuba), slow.")] = "raster",
    sheet: Annotated[bool, typer.Option("--sheet", help="Also write a contact sheet of the first shard.")] = False,
    sequence: Annotated[
        int, typer.Option("--sequence", min=0, help="Render clips of so many frames; --count is that of the clips.")
    ] = 0,
) -> None:
    """Render faces with exact 3D truth as shards for training, or clips for tracking; run it again to go on."""
    if layout not in ("npz", "tar", "300wlp"):
        raise typer.BadParameter(f"'{layout}' is none of npz, tar, 300wlp", param_hint="--format")
    if quality not in ("raster", "path"):
        raise typer.BadParameter(f"'{quality}' is none of raster, path", param_hint="--quality")
    with _plain_errors():
        from canthus.synth.recipe import SynthRecipe
        from canthus.synth.render_jobs import (
            SHARD_SIZE,
            clip_path,
            contact_sheet,
            render_clips,
            render_shards,
            shard_path,
        )

        changes = SynthRecipe.parse(change or []) | ({} if seed is None else {"seed": seed})
        plan = SynthRecipe.read(recipe, **changes)
        if sequence:
            jobs = render_clips(out, assets, plan, count, workers, sequence, quality)
            paths, each = [clip_path(out, n) for n in range(count)], sequence
        else:
            jobs = render_shards(out, assets, plan, count, workers, layout, quality)
            paths, each = [shard_path(out, n, layout) for n in range(-(-count // SHARD_SIZE))], SHARD_SIZE
        with _bar("synth") as bar:
            done = sum(path.exists() for path in paths)
            task = bar.add_task("", total=len(paths) * each, completed=done * each, note="")
            for _ in jobs:
                bar.advance(task, each)
        if sheet:
            contact_sheet(paths[0], out / "sheet.png")
    console.print(f"{'clips' if sequence else 'shards'} in {out.resolve()}", soft_wrap=True)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    out: Out = Path("runs/train"),
    faces: Annotated[
        list[str] | None, typer.Option("--faces", help="Folders of faces, instead of the recipe's.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key: rate=1e-3, augment.zoom=0.2."),
    ] = None,
) -> None:
    """Train a method from a recipe; run it again to go on after a stop."""
    with _plain_errors():
        from canthus.training.recipe import Recipe
        from canthus.training.train import train as run

        plan = Recipe.read(recipe, changes or (), **({"faces": faces} if faces else {}))
        with _bar("train") as bar:
            task = bar.add_task("", total=plan.steps, note="")
            began, taken = time.monotonic(), 0
            for step in run(plan, out):
                if not taken:  # a run that goes on: what was done before says nothing about how long the rest takes
                    bar.reset(task, completed=step["step"])
                    began = time.monotonic()
                taken += step["faces"]
                rate = (taken - step["faces"]) / max(time.monotonic() - began, 1e-9)  # from the first step's end
                losses = {k: v for k, v in step.items() if k not in ("step", "stage", "rate", "faces")}
                note = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
                bar.update(task, completed=step["step"], note=f"{step['stage']} {rate:.0f} images/s {note}")
    console.print(f"weights in {(out / 'weights').resolve()}", soft_wrap=True)


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="A folder that training wrote.")],
    out: Out = Path("out/export"),
    int8: Annotated[Path | None, typer.Option("--int8", help="Quantise to 8 bits, calibrated on this shard.")] = None,
) -> None:
    """Turn trained weights into a folder that `canthus.load` runs (ONNX)."""
    with _plain_errors():
        from canthus.training.export import export_onnx, quantise

        export_onnx(weights, out)
        if int8:
            quantise(out, int8)
    console.print(f"exported to {out.resolve()}", soft_wrap=True)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(canthus.__version__)
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass
