"""Verbs that find faces: align, track, serve; models."""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from collections import Counter
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import canthus
from canthus.cli.options import Accuracy, Out, Place, Provider, Threads, Weights
from canthus.commands.terminal import console, fail, log, plain_errors, print_table, progress, say
from canthus.errors import CanthusError, OutputError, VideoError, amount
from canthus.io.inputs import check_folder, counted, is_address
from canthus.threads import MOST_THREADS, cores

if TYPE_CHECKING:
    from canthus.inference.tracker import Tracker


def align(
    inputs: Annotated[
        list[str], typer.Argument(help="Photos, folders or glob patterns; for tables also lists, tar and addresses.")
    ],
    out: Place = "out",
    weights: Weights = "swift",
    accuracy: Accuracy = "normal",
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
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", help="Landmark scheme of JSON, .pts and overlay: wflw98, lapa106, mediapipe478, ..."),
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
    part: Annotated[
        int | None, typer.Option("--part", min=1, help="Photos of each part of the tables; default: 8192.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Write every N-th part only, from part I on.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", help="Align on the Ray cluster there; auto: on the one of this machine."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=MOST_THREADS, help="Number of processes; 1: threads instead.")
    ] = 1,
    memory: Annotated[
        int | None, typer.Option("--memory", min=1, help="Megabytes that pictures and networks may take.")
    ] = None,
    threads: Threads = None,
    provider: Provider = "cpu",
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
    from canthus.io.card import Card
    from canthus.io.photo_lists import photos_in
    from canthus.io.places import folder
    from canthus.weights import find as find_weights

    if format != "json" and (overlay or pts or csv or mesh or expressions or scheme):
        raise typer.BadParameter(
            "--overlay, --pts, --csv, --mesh, --scheme and --expressions go with --format json only"
        )
    if format == "json" and (part or shard is not None or ray is not None):
        raise typer.BadParameter("--part, --shard and --ray go with --format csv or parquet only")
    if ray is not None and provider != "cpu":
        raise typer.BadParameter("--provider goes without --ray: on a cluster networks run on the CPU")
    if ray is not None and (workers != 1 or threads is not None or memory is not None):
        raise typer.BadParameter("--workers, --threads and --memory go without --ray: there each CPU does a part")
    most, kind, bound = threads or cores(), photos.photo_kind(), None if memory is None else memory * 10**6

    def lanes(count: int) -> Lanes:  # for so many photos
        number = max(1, min(most if workers == 1 else workers, -(-count // CHUNK)))
        each = max(1, most // number)
        aligner = canthus.load(weights, accuracy=accuracy, threads=each, min_face=min_face, provider=provider)
        size = f"{amount(number, 'lane')} of {amount(each, 'thread')}"
        log.info("weights %s on %s: %s", aligner.card.title, provider, size)
        return Lanes(aligner, number, workers > 1, bound)

    with plain_errors("scale"), warnings.catch_warnings(), progress("align") as update:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
        if format == "json":
            if is_address(out):
                raise OutputError(f"got the address '{out}' for the results, want --format parquet or csv with it")
            place = check_folder(out)
            found = photos.find_images(inputs)
            total = len(found.files) + len(found.failures)
            update(0, total)
            wanted = photos.Outputs(overlay is not False, pts, csv, mesh, expressions, scheme)
            if scheme is not None:
                photos.check_scheme(scheme, Card.read(find_weights(weights)))
            show = lambda s: update(s.files + s.skipped + s.failed, total, amount(s.faces, "face"))
            with lanes(len(found.files)) as run:
                summary = photos.align(found, place, run, wanted, resume, show)
            where = str(place.resolve()) if summary.files + summary.skipped else ""
        else:
            passed, target = Counter[str](), folder(out)
            stream = photos_in(inputs, kind, passed)
            first = list(islice(stream, CHUNK * max(most, workers)))  # so that a wrong input is told at once
            show = lambda s: update(s.files + s.skipped + s.failed, None, amount(s.faces, "face"))
            plan = parts.Plan(format, part or parts.PART, *parts.read_shard(shard or "0/1"))
            if ray is None:
                with lanes(len(first)) as run:
                    summary = parts.align(chain(first, stream), target, run, plan, resume, show)
            else:
                from canthus.ray import align_parts

                stream = chain(first, stream)
                summary = align_parts(stream, out, ray, plan, weights, min_face, resume, show, accuracy)
            summary.passed_over, where = passed, target.place
    for photo, reason in summary.failures:
        fail(f"failed: {photo}: {reason}")
    rate = summary.faces / summary.seconds if summary.seconds else 0.0
    skipped = f", {summary.skipped} skipped" if resume else ""
    passed_over = f"\npassed over: {counted(summary.passed_over, kind.hints)}" if summary.passed_over else ""
    done = f"{amount(summary.files, 'file')}, {amount(summary.faces, 'face')}, {amount(summary.failed, 'failure')}"
    results = f"\nresults in {where}" if where else ""
    say(f"{done}{skipped}, {rate:.1f} faces/s in {summary.seconds:.1f} s{passed_over}{results}")
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
    accuracy: Accuracy = "normal",
    tracking: Annotated[
        str | None,
        typer.Option("--tracking", help="Weights for the frames after the first; default: the same weights."),
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option("--initial", help="Weights whose points align the first crop of a face; default: a box does."),
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
            "--focal",
            min=1e-3,
            max=1e9,
            help="Focal length of the camera in pixels; default: assumed, 500 px at 640 x 480 and in proportion.",
        ),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw a chart of each video, and a page over all.")] = False,
    smooth: Annotated[bool, typer.Option("--smooth", help="Also write results smoothed over time.")] = False,
    animation: Annotated[
        Literal["glb", "livelink", "obj"] | None,
        typer.Option(
            "--animation",
            help="Also write moving heads: one GLB, a CSV of Live Link Face for each face, or an OBJ a frame and face.",
        ),
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
        int,
        typer.Option(
            "--workers", min=1, max=MOST_THREADS, help="Number of processes, each of which tracks a video at a time."
        ),
    ] = 1,
    threads: Threads = None,
    provider: Provider = "cpu",
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

    if columns != "canthus" and table is None:
        raise typer.BadParameter("--columns goes with --table only")
    with plain_errors():
        if any(map(is_live, inputs)):
            if len(inputs) > 1 or overlay or table or plot or animation or resume or workers > 1:
                raise CanthusError("got a camera or stream with other inputs, or options for files, want it alone")
        elif send:
            raise CanthusError("got --send with files, want it with a camera or stream")
        found = None if any(map(is_live, inputs)) else find_videos(inputs)
        workers = min(workers, len(found.files) or 1) if found else 1
        threads = threads if workers == 1 else max(1, (threads or cores()) // workers)
        load = partial(canthus.load, accuracy=accuracy, threads=threads, provider=provider)
        second, first = (None if name is None else load(name) for name in (tracking, initial))
        tracker = Tracker(load(weights), second, initial=first, detect_every=detect_every)
        log.info("weights %s on %s", tracker.aligner.card.title, provider)
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
    damaged = summary.damaged + [(video, clip.damage) for video, clip in summary.clips if clip.damage]
    for video, damage in damaged:
        fail(f"damaged: {video}: {damage}")
    for video, clip in summary.clips:
        missing = f" ({clip.missing} missing)" if clip.missing else ""
        say(
            f"{video.name}: {amount(clip.frames, 'frame')}{missing}, {clip.faces_per_frame:.2f} faces per frame, "
            f"{amount(clip.people, 'person', 'people')}, {amount(clip.reinitialisations, 're-initialisation')}, "
            f"{amount(clip.losses, 'loss', 'losses')}, {amount(clip.without_face, 'frame')} without a face, "
            + (f"{clip.fps:.1f} fps" if clip.tracked else "done before")
            + ("" if clip.people or animation is None else "; no face to animate")
        )
    skipped = f", {summary.skipped} skipped" if resume else ""
    passed = f"\npassed over: {counted(summary.passed_over, found.hints)}" if summary.passed_over else ""
    done, failed = amount(len(summary.clips), "video"), amount(len(summary.failures), "failure")
    results = f"\nresults in {out.resolve()}" if plot or summary.clips or summary.skipped else ""
    say(f"{done}, {failed}{f', {len(damaged)} damaged' if damaged else ''}{skipped}{passed}{results}")
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
        except VideoError as error:
            if not summary.frames:
                raise
            fail(str(error))
            raise typer.Exit(1) from error
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


def _limit(name: str, least: float, what: str) -> Any:
    """An option of a number from `least` on that ends somewhere."""

    def finite(value: float) -> float:
        if not math.isfinite(value):
            raise typer.BadParameter(f"{value} is no limit, a finite number is wanted")
        return value

    return typer.Option(name, min=least, callback=finite, help=what)


def serve(
    weights: Weights = "swift",
    accuracy: Accuracy = "normal",
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    megabytes: Annotated[float, _limit("--max-megabytes", 0.001, "Largest image file.")] = 20.0,
    megapixels: Annotated[float, _limit("--max-megapixels", 0.001, "Largest image.")] = 40.0,
    faces: Annotated[int, typer.Option("--max-faces", min=1, help="Most faces in an image.")] = 100,
    timeout: Annotated[float, _limit("--timeout", 0.1, "Seconds that a request may take.")] = 30.0,
    waiting: Annotated[int, typer.Option("--queue", min=1, help="Most images that wait.")] = 64,
    clip_megabytes: Annotated[float, _limit("--max-clip-megabytes", 0.001, "Largest video file.")] = 50.0,
    clip_megapixels: Annotated[float, _limit("--max-clip-megapixels", 0.001, "Largest frame.")] = 4.0,
    clip_frames: Annotated[int, typer.Option("--max-clip-frames", min=1, help="Most frames of a clip.")] = 1800,
    clip_length: Annotated[float, _limit("--max-clip-seconds", 0.0, "Longest clip.")] = 60.0,
    clip_timeout: Annotated[float, _limit("--clip-timeout", 0.1, "Seconds that a clip may take.")] = 120.0,
    clips: Annotated[int, typer.Option("--clips", min=1, help="Most clips under way.")] = 4,
    threads: Threads = None,
    provider: Provider = "cpu",
) -> None:
    """Answer HTTP requests: POST /align takes a photo and gives its faces as JSON, POST /track a short clip;
    / is a page to try it.

    If the environment variable CANTHUS_API_KEY is set, requests need its value in the header X-API-Key. SIGTERM and
    Ctrl-C end the server after the requests under way.
    """
    from PIL import Image

    with plain_errors("serve"):
        from canthus.serve.app import Limits, create_app
        from canthus.serve.clips import ClipLimits
        from canthus.serve.run import serve as run

        key = os.environ.get("CANTHUS_API_KEY")
        if key is not None and not (key and key.isascii() and key.isprintable()):
            raise CanthusError("got a CANTHUS_API_KEY that no header holds, want letters, digits and signs of ASCII")
        clip = ClipLimits(
            int(clip_megabytes * 1e6), int(clip_megapixels * 1e6), clip_frames, clip_length,
            seconds=clip_timeout, queue=clips,
        )  # fmt: skip
        limits = Limits(int(megabytes * 1e6), int(megapixels * 1e6), faces, timeout, waiting, clip)
        aligner = canthus.load(weights, accuracy=accuracy, threads=threads, provider=provider)
        app = create_app(aligner, limits, key)

        def started(address: str) -> None:
            say(f"{address} (API: {address}/docs, {'with' if key else 'without'} API key)")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
            verbose = log.isEnabledFor(logging.DEBUG)
            run(app, host, port, limit_concurrency=2 * waiting + 64, verbose=verbose, started=started)
