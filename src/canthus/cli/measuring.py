"""Verbs that measure: evaluate, reproduce, data check."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

import canthus
from canthus.cli.options import Accuracy, Out, Provider, Threads, Weights
from canthus.commands.terminal import console, fail, plain_errors, print_table, progress, say
from canthus.errors import amount


def evaluate(
    protocol: Annotated[str, typer.Argument(help="Protocol: aflw2000, 300w, renders, ... (see docs/benchmark.md).")],
    data: Annotated[Path, typer.Argument(help="Folder of the data set, laid out as its authors distribute it.")],
    weights: Weights = "swift",
    accuracy: Accuracy = "normal",
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Score the predictions in this file (.npz, .jsonl or .parquet) instead.",
        ),
    ] = None,
    format: Annotated[
        Literal["npz", "jsonl", "parquet"], typer.Option("--format", help="Of the file with the predictions.")
    ] = "npz",
    boxes: Annotated[
        Literal["true", "own", "detected", "jittered", "aligned", "tracked"],
        typer.Option("--boxes", help="Where the face boxes come from."),
    ] = "true",
    tracking: Annotated[
        str | None, typer.Option("--tracking", help="Weights for the frames after the first, with --boxes tracked.")
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option("--initial", help="Weights whose points align the first crop of a face, with --boxes tracked."),
    ] = None,
    out: Out = Path("out/evaluate"),
    report: Annotated[bool, typer.Option("--report", help="Also write report.html with curves and sweeps.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Print every table, not only the headline.")] = False,
    threads: Threads = None,
    provider: Provider = "cpu",
) -> None:
    """Measure accuracy on an annotated data set; write predictions.npz, or another --format, and scores.json."""
    if not data.exists():
        raise typer.BadParameter(f"there is no '{data}'", param_hint="data")
    with plain_errors("formats"):
        from canthus.evaluation import evaluate as measure
        from canthus.evaluation.predictions import Predictions

        if format == "parquet":
            import_module("pyarrow")  # missed now rather than when all is done
        with progress("evaluate") as show:
            load = partial(canthus.load, accuracy=accuracy, threads=threads, provider=provider)
            predictor = None if predictions else load(weights)
            if predictor is None:
                answers = Predictions.read(str(predictions))
            else:
                second, first = (None if name is None else load(name) for name in (tracking, initial))
                answers = measure.predict(protocol, data, predictor, boxes, show, second, first)
            measure.write_predictions(out, answers, format)
            scores = measure.evaluate(protocol, data, answers)
            measure.write_scores(out, scores)
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
    if not run.runs:
        given = run.weights and run.data
        why = "the page says why" if given else f"give --weights, and --data of {', '.join(found.protocols)}"
        say(f"no number of ours: {why}")
    say(f"{amount(len(run.runs), 'run')}; the page is {(out / 'index.html').resolve()}")


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
