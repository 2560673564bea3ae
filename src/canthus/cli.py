"""The command line: each verb reads its options, calls one function and reports the result."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections import Counter
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import canthus
from canthus.commands.terminal import (
    console,
    fail,
    log,
    plain_errors,
    print_table,
    progress,
    register,
    say,
)
from canthus.errors import CanthusError, RecipeError
from canthus.io.inputs import check_folder, counted

if TYPE_CHECKING:
    from canthus.inference.tracker import Tracker

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    help="Find 3D face landmarks, head pose and face shape in photos and videos, and train and measure such methods.",
)


def _weights_names() -> list[str]:
    from canthus.weights import shipped

    return list(shipped())


def _recipe_names() -> list[str]:
    from canthus.training.recipe import packaged  # needs the train extra

    return list(packaged())


def _folder(given: str | Path) -> Path:
    """The value of --out, before `Path` makes s3://a into s3:/a and nothing into the current folder."""
    try:
        return check_folder(str(given))
    except CanthusError as error:
        raise typer.BadParameter(str(error)) from error


Out = Annotated[Path, typer.Option("--out", parser=_folder, metavar="FOLDER", help="Folder for the results.")]
Weights = Annotated[
    str,
    typer.Option(
        "--weights", autocompletion=_weights_names, help="Name of shipped weights (see `canthus models`), or a folder."
    ),
]
Place = Annotated[
    str, typer.Option("--out", metavar="FOLDER", help="Folder for the results; of tables also an address, s3://...")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Number of CPU threads; default: all cores.")]


def align(
    inputs: Annotated[
        list[str], typer.Argument(help="Photos, folders or glob patterns; for tables also lists, tar and addresses.")
    ],
    out: Place = "out",
    weights: Weights = "swift",
    format: Annotated[
        Literal["json", "csv", "parquet"],
        typer.Option("--format", help="A JSON file a photo, or tables of all photos, one row a face."),
    ] = "json",
    overlay: Annotated[
        bool | None,
        typer.Option(
            "--overlay/--no-overlay", help="Draw points and pose over the photo (PNG); with JSON the default."
        ),
    ] = None,
    pts: Annotated[bool, typer.Option("--pts", help="Also write .pts files (1-based, as menpo does).")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Also write .csv with OpenFace's column names.")] = False,
    mesh: Annotated[
        Literal["obj", "ply", "glb"] | None, typer.Option("--mesh", help="Also write the head mesh in this format.")
    ] = None,
    expressions: Annotated[
        bool,
        typer.Option(
            "--expressions",
            help="Also fit a head model; write its identity and, if the weights give none, its expression to JSON.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip photos whose results are there and complete, by the same weights.")
    ] = False,
    allow_failures: Annotated[
        bool, typer.Option("--allow-failures", help="Exit with 0 if any photo worked; default: only if all did.")
    ] = False,
    min_face: Annotated[
        float | None,
        typer.Option("--min-face", help="Smallest face to look for, in pixels; a large number saves time."),
    ] = None,
    part: Annotated[int, typer.Option("--part", min=1, help="Photos of each part of the tables.")] = 8192,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Write every N-th part only, from part I on.")
    ] = "0/1",
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", help="Align on the Ray cluster there; auto: on the one of this machine."
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of processes; 1: threads instead.")] = 1,
    memory: Annotated[
        int | None, typer.Option("--memory", min=1, help="Megabytes that pictures and networks may take.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Find the landmarks and pose of every face in photos; write JSON files and overlay pictures, or tables.

    The results of photo.jpg are photo.json and so on. Those of a photo in a given folder, or of a pattern, keep the
    folder's name and the path below it: holiday/day1/photo.json of the folder holiday. Photos of one folder that differ
    only in their suffix keep it: photo.png.json. With --format csv or parquet the faces of all photos are tables in
    parts, part-00000.parquet and so on (docs/guide/many.md).

    Exit codes: 0: all went well; 1: photos or folders failed; 2: nothing was done.
    """
    from PIL import Image

    from canthus.commands import parts, photos
    from canthus.inference.lanes import CHUNK, Lanes
    from canthus.io.photo_lists import photos_in
    from canthus.io.places import folder
    from canthus.threads import cores

    if format != "json" and (overlay or pts or csv or mesh or expressions):
        raise typer.BadParameter("--overlay, --pts, --csv, --mesh and --expressions go with --format json only")
    if ray is not None and format == "json":
        raise typer.BadParameter("--ray goes with --format csv or parquet only")
    most, kind, bound = threads or cores(), photos.photo_kind(), None if memory is None else memory * 10**6

    def lanes(count: int) -> Lanes:  # for so many photos
        number = max(1, min(most if workers == 1 else workers, -(-count // CHUNK)))
        aligner = canthus.load(weights, threads=max(1, most // number), min_face=min_face)
        return Lanes(aligner, number, workers > 1, bound)

    with plain_errors("scale"), warnings.catch_warnings(), progress("align") as update:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
        if format == "json":
            place = check_folder(out)
            found = photos.find_images(inputs)
            total = len(found.files) + len(found.failures)
            update(0, total)
            wanted = photos.Outputs(overlay is not False, pts, csv, mesh, expressions)
            show = lambda s: update(s.files + s.skipped + s.failed, total, f"{s.faces} faces")
            with lanes(len(found.files)) as run:
                summary = photos.align(found, place, run, wanted, resume, show)
            where = str(place.resolve())
        else:
            passed, target = Counter[str](), folder(out)
            stream = photos_in(inputs, kind, passed)
            first = list(islice(stream, CHUNK * max(most, workers)))  # so that a wrong input is told at once
            show = lambda s: update(s.files + s.skipped + s.failed, None, f"{s.faces} faces")
            plan = parts.Plan(format, part, *parts.read_shard(shard))
            if ray is None:
                with lanes(len(first)) as run:
                    summary = parts.align(chain(first, stream), target, run, plan, resume, show)
            else:
                from canthus.ray import align_parts

                stream = chain(first, stream)
                summary = align_parts(stream, out, ray, plan, weights, min_face, resume, show)
            summary.passed_over, where = passed, target.place
    for photo, reason in summary.failures:
        fail(f"failed: {photo}: {reason}")
    rate = summary.faces / summary.seconds if summary.seconds else 0.0
    skipped = f", {summary.skipped} skipped" if resume else ""
    passed_over = f"\npassed over: {counted(summary.passed_over, kind.hints)}" if summary.passed_over else ""
    say(
        f"{summary.files} files, {summary.faces} faces, {summary.failed} failures{skipped}, {rate:.1f} faces/s "
        f"in {summary.seconds:.1f} s{passed_over}\nresults in {where}"
    )
    if summary.failed and not (allow_failures and summary.files + summary.skipped):
        raise typer.Exit(1)


def track(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Videos, folders of videos or of frames, or glob patterns; or the number of one camera or the address "
            "of one stream."
        ),
    ],
    out: Out = Path("out"),
    weights: Weights = "swift",
    tracking: Annotated[
        str | None,
        typer.Option("--tracking", help="Weights for the frames after the first; default: the same weights."),
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write a video with the faces drawn on it.")] = False,
    table: Annotated[
        Literal["csv", "parquet"] | None,
        typer.Option("--table", help="Also write a table, one row a frame and face, in this format."),
    ] = None,
    columns: Annotated[
        Literal["canthus", "openface"], typer.Option("--columns", help="Names and units of the table's columns.")
    ] = "canthus",
    euler: Annotated[
        Literal["aflw", "openface", "opencv", "arkit"],
        typer.Option("--euler", help="Set of the table's three angles (see docs/conventions.md)."),
    ] = "aflw",
    focal: Annotated[
        float | None,
        typer.Option(
            "--focal", min=1e-3, help="Focal length of the camera in pixels; default: assumed, 65 degrees wide."
        ),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw a chart of each video, and a page over all.")] = False,
    smooth: Annotated[bool, typer.Option("--smooth", help="Also write results smoothed over time.")] = False,
    animation: Annotated[
        Literal["glb", "livelink"] | None,
        typer.Option("--animation", help="Also write moving heads: one GLB, or a CSV of Live Link Face for each face."),
    ] = None,
    send: Annotated[
        str | None,
        typer.Option("--send", help="Of a camera or stream: also send faces to udp://HOST:PORT or vmc://HOST:PORT."),
    ] = None,
    detect_every: Annotated[int, typer.Option(min=0, help="Frames between searches for new faces; 0: none.")] = 12,
    rate: Annotated[float, typer.Option(help="Frame rate of folders of frames, in frames per second.")] = 25.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip videos whose results are there and complete, by the same settings.")
    ] = False,
    allow_failures: Annotated[
        bool, typer.Option("--allow-failures", help="Exit with 0 if any video worked; default: only if all did.")
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Number of processes, each of which tracks a video at a time.")
    ] = 1,
    threads: Threads = None,
) -> None:
    """Follow every face through videos; write one line of JSON per frame, each face under a lasting number.

    A folder that holds pictures but no videos is a video of frames, in the order of the numbers in their names. Of a
    camera or stream always the newest frame is tracked, until it ends or Ctrl-C stops it.

    Exit codes: 0: all went well; 1: videos or folders failed, or frames are missing; 2: nothing was done.
    """
    from canthus.commands.clip import Outputs
    from canthus.commands.page import write_page
    from canthus.commands.videos import find_videos
    from canthus.commands.videos import track as run
    from canthus.inference.tracker import Tracker
    from canthus.io.columns import Camera
    from canthus.io.streams import is_live
    from canthus.threads import cores

    with plain_errors():
        if any(map(is_live, inputs)):
            if len(inputs) > 1 or overlay or table or plot or animation or resume or workers > 1:
                raise CanthusError("got a camera or stream with other inputs, or options for files, want it alone")
        elif send:
            raise CanthusError("got --send with files, want it with a camera or stream")
        found = None if any(map(is_live, inputs)) else find_videos(inputs)
        workers = min(workers, len(found.files) or 1) if found else 1
        threads = threads if workers == 1 else max(1, (threads or cores()) // workers)
        second = None if tracking is None else canthus.load(tracking, threads=threads)
        tracker = Tracker(canthus.load(weights, threads=threads), second, detect_every=detect_every)
        if found is None:
            _follow(inputs[0], out, tracker, smooth, send)
            return
        with progress("track") as update:
            begun: dict[Path, tuple[int, int | None]] = {}

            def show(video: Path, frame: int, count: int | None) -> None:
                if workers == 1:
                    begun.clear()
                begun[video] = frame, count
                counts = [c for _, c in begun.values() if c is not None]
                total = sum(counts) if len(counts) == len(begun) else None
                update(sum(done for done, _ in begun.values()), total, video.name)

            outputs = Outputs(overlay, table, columns, plot, smooth, animation, Camera(focal, euler), rate)
            summary = run(found, out, tracker, outputs, resume, show, workers)
            if plot:
                write_page(found, out)
    for video, reason in summary.failures:
        fail(f"failed: {video}: {reason}")
    for video, clip in summary.clips:
        missing = f" ({clip.missing} missing)" if clip.missing else ""
        if clip.damage:
            fail(f"damaged: {video}: {clip.damage}")
        say(
            f"{video.name}: {clip.frames} frames{missing}, {clip.faces_per_frame:.2f} faces per frame, "
            f"{clip.people} people, {clip.reinitialisations} re-initialisations, {clip.losses} losses, "
            f"{clip.without_face} frames without a face, {clip.fps:.1f} fps"
        )
    skipped = f", {summary.skipped} skipped" if resume else ""
    passed = f"\npassed over: {counted(summary.passed_over, found.hints)}" if summary.passed_over else ""
    say(f"{len(summary.clips)} videos, {len(summary.failures)} failures{skipped}{passed}\nresults in {out.resolve()}")
    if summary.failed and not (allow_failures and (summary.clips or summary.skipped)):
        raise typer.Exit(1)


def _follow(source: str, out: Path, tracker: Tracker, smooth: bool, send: str | None) -> None:
    """Track a camera or stream until it ends or is stopped, and say what became of it."""
    from canthus.commands.camera import LiveSummary, follow, lines_path
    from canthus.io.send import Sender
    from canthus.io.streams import Live

    summary = LiveSummary(lines_path(out, source))
    with ExitStack() as open_ones:
        sender = open_ones.enter_context(Sender(send)) if send else None
        live = Live(source)
        update = open_ones.enter_context(progress("track"))
        try:
            follow(live, out, tracker, summary, smooth, sender, lambda frame: update(frame + 1, None, source))
        finally:
            say(str(summary))


def models(
    weights: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of shipped weights, folders of weights, or folders that hold several; default: all shipped.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything on the cards as JSON.")] = False,
) -> None:
    """List weights with their licence, size, accuracy and speed."""
    from canthus.commands import models as listing

    with plain_errors():
        found = listing.find_models(weights or ())
        if as_json:
            text = json.dumps([model.to_json() for model in found], indent=2, ensure_ascii=False)
            console.print(text, soft_wrap=True)
            return
        print_table("", listing.COLUMNS, [model.row() for model in found])
        console.print(listing.NOTE, soft_wrap=True)


def evaluate(
    protocol: Annotated[str, typer.Argument(help="Protocol: aflw2000, 300w, renders, ... (see docs/benchmark.md).")],
    data: Annotated[Path, typer.Argument(help="Folder of the data set, laid out as its authors distribute it.")],
    weights: Weights = "swift",
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Score the predictions in this file (.npz or .jsonl) instead.",
        ),
    ] = None,
    boxes: Annotated[
        Literal["true", "detected", "jittered", "aligned", "tracked"],
        typer.Option("--boxes", help="Where the face boxes come from."),
    ] = "true",
    tracking: Annotated[
        str | None, typer.Option("--tracking", help="Weights for the frames after the first, with --boxes tracked.")
    ] = None,
    out: Out = Path("out/evaluate"),
    report: Annotated[bool, typer.Option("--report", help="Also write report.html with curves and sweeps.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Print every table, not only the headline.")] = False,
    threads: Threads = None,
) -> None:
    """Measure accuracy on an annotated data set; write predictions.npz and scores.json."""
    with plain_errors("formats"):
        from canthus.evaluation import evaluate as measure
        from canthus.evaluation.predictions import Predictions

        with progress("evaluate") as show:
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
    console.print(scores.headline(), soft_wrap=True)
    for table in scores.tables if everything else ():
        rows = [
            [name, *("" if v != v else f"{v:.0f}" if name in ("faces", "lost") else f"{v:.2f}" for v in values)]
            for name, values in table.rows.items()
        ]
        print_table(table.title, {"": "left", **dict.fromkeys(table.columns, "right")}, rows)
    say(f"results in {out.resolve()}" + ("" if everything else "; --all prints every table"))


def reproduce(
    paper: Annotated[
        str, typer.Argument(help="Paper: local_global, part_heatmap, pose_aware, jvcr or cprfa (see docs/papers.md).")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="PROTOCOL=FOLDER", help="Folder of a data set, as `evaluate` reads it."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="[ROW=]FOLDER",
            help="Weights that training wrote; without ROW, their config tells which row of the paper they are.",
        ),
    ] = None,
    only: Annotated[
        Path | None,
        typer.Option(
            "--only", help="File with names of videos or faces, one a line: the others of a set do not count."
        ),
    ] = None,
    out: Out = Path("out/reproduce"),
) -> None:
    """Run the tables and figures of a paper and write a page with its printed numbers and ours."""
    with plain_errors("train"):
        from canthus.papers.inputs import read_data, read_names
        from canthus.papers.page import write_page
        from canthus.papers.published import published
        from canthus.papers.run import Reproduction
        from canthus.papers.weights import open_weights

        found = published(paper)
        with progress("reproduce") as update:
            names = None if only is None else read_names(only)
            run = Reproduction(found, open_weights(found, weights or []), read_data(data or []), names)
            run.progress = lambda what, done, total: update(done, total, what)
            write_page(out, run)
    say(f"{len(run.runs)} runs; the page is {(out / 'index.html').resolve()}")


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
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of processes.")] = 2,
    layout: Annotated[
        Literal["npz", "tar", "300wlp"],
        typer.Option("--format", help="Layout: tar is WebDataset, 300wlp is jpg, mat and npz."),
    ] = "npz",
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
        from canthus.training.recipe import Recipe, packaged, title
        from canthus.training.train import leave_processes
        from canthus.training.train import train as run

        if listed:
            rows = [[name, title(path)] for name, path in packaged().items()]
            print_table("", {"recipe": "left", "what": "left"}, rows)
            return
        if recipe is None:
            raise RecipeError("got no recipe, want the name of one (`canthus train --list`) or a file")
        plan = Recipe.read(recipe, changes or (), **({"faces": faces} if faces else {}))
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
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps to take instead of the recipe's.")] = None,
) -> None:
    """Train a face detector on composites of rendered heads; run it again to resume after a stop."""
    with plain_errors():
        from canthus.detection.train import DetectorRecipe, draw
        from canthus.detection.train import train_detector as run

        given = {"heads": heads, "environments": environments, "photos": photos, "steps": steps}
        plan = DetectorRecipe.read(recipe, **{key: value for key, value in given.items() if value is not None})
        with progress("composites") as update:
            for done in draw(plan, out):
                update(done, plan.composites)
        with progress("train-detector") as update:
            for step in run(plan, out):
                losses = " ".join(f"{k} {v:.3f}" for k, v in step.items() if k not in ("step", "stage", "lr"))
                update(step["step"], plan.steps, losses)
    say(f"weights in {(out / 'weights').resolve()}")


def export(
    weights: Annotated[Path, typer.Argument(help="Folder of weights that training wrote.")],
    out: Out = Path("out/export"),
    int8: Annotated[
        Path | None, typer.Option("--int8", help="Also quantise to 8 bits, calibrated on this shard.")
    ] = None,
) -> None:
    """Convert trained weights to ONNX, in a folder that `canthus.load` can run."""
    with plain_errors():
        from canthus.training.export import export_onnx, quantise

        export_onnx(weights, out)
        if int8:
            quantise(out, int8)
    say(f"exported to {out.resolve()}")


def serve(
    weights: Weights = "swift",
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    megabytes: Annotated[float, typer.Option("--max-megabytes", min=0.001, help="Largest image file.")] = 20.0,
    megapixels: Annotated[float, typer.Option("--max-megapixels", min=0.001, help="Largest image.")] = 40.0,
    faces: Annotated[int, typer.Option("--max-faces", min=1, help="Most faces in an image.")] = 100,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that a request may take.")] = 30.0,
    waiting: Annotated[int, typer.Option("--queue", min=1, help="Most images that wait.")] = 64,
    threads: Threads = None,
) -> None:
    """Answer HTTP requests: POST /align takes a photo and gives its faces as JSON; / is a page to try it.

    If the environment variable CANTHUS_API_KEY is set, requests need its value in the header X-API-Key. SIGTERM and
    Ctrl-C end the server after the requests under way.
    """
    from PIL import Image

    with plain_errors("serve"):
        from canthus.serve.app import Limits, create_app
        from canthus.serve.run import serve as run

        key = os.environ.get("CANTHUS_API_KEY")
        if key == "":
            raise CanthusError("got an empty CANTHUS_API_KEY, want a key or no such variable")
        limits = Limits(int(megabytes * 1e6), int(megapixels * 1e6), faces, timeout, waiting)
        app = create_app(canthus.load(weights, threads=threads), limits, key)

        def started(address: str) -> None:
            say(f"{address} (API: {address}/docs, {'with' if key else 'without'} API key)")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
            verbose = log.isEnabledFor(logging.DEBUG)
            run(app, host, port, limit_concurrency=2 * waiting + 64, verbose=verbose, started=started)


data = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look into annotated data sets: `canthus data check FOLDER`."
)
app.add_typer(data, name="data")


def check(
    folder: Annotated[Path, typer.Argument(help="Folder of the data set, laid out as its authors distribute it.")],
    out: Out = Path("out/data"),
    head_model: Annotated[
        str, typer.Option("--head-model", help="Folder of the head model of 300W-LP's labels, for their depth.")
    ] = "",
) -> None:
    """Name the layout of a data set, count its faces for training, list what is wrong, and draw a sheet of them.

    Exit codes: 0: all faces are sound; 1: some are not; 2: the folder is in no layout that is known.
    """
    with plain_errors("formats"):
        from canthus.data.check import check as run

        with progress("check") as show:
            found = run(folder, out, head_model, show)
    for fault in found.faults:
        fail(f"wrong: {fault}")
    say(f"{found.summary()}\nsheet in {(out / 'sheet.png').resolve()}" if found.faces else found.summary())
    if found.faults:
        raise typer.Exit(1)


register(data, check)
for _verb in (align, track, models, evaluate, reproduce, synth, train, train_detector, export, serve):
    register(app, _verb)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(canthus.__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
