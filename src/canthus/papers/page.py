"""One page of a reproduction: each printed number with ours beside it, charts, and what was run with what."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Set
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import canthus
from canthus.evaluation import metrics
from canthus.evaluation.poses import by_pose
from canthus.evaluation.report import STYLE, jpeg, png
from canthus.io.charts import Chart, Points, lines, missing, rendered
from canthus.io.outputs import atomic_write, make_folder
from canthus.papers.pictures import drawn
from canthus.papers.published import PaperFigure, PaperTable
from canthus.papers.run import Missing, Reproduction
from canthus.papers.weights import departures

RENDERED = {"renders", "clips"}  # protocols that stand in for others: no paper has such data


def write_page(out: str | Path, reproduction: Reproduction) -> None:
    """Run what is not run yet and write `index.html`, `results.json` and the figures as pictures into the folder `out`.

    Charts need matplotlib; without it the page says so. Raises `CanthusError`, `OutputError`.
    """
    out = make_folder(out)
    paper = reproduction.paper
    tables = [(t, [reproduction.numbers(t, row) for row in t.rows]) for t in paper.tables]
    figures = [(f, _figure(f, reproduction)) for f in paper.figures]
    for figure, picture in figures:
        if picture:
            atomic_write(out / _file(figure), _bytes(figure, picture))
    used = {name for run in reproduction.runs for name in (run.weights, run.tracking)}
    used |= {f.curves[0].weights for f, picture in figures if f.kind == "pictures" and picture}
    document = _json(reproduction, tables, used)
    atomic_write(out / "results.json", (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    body = [
        f"<h1>{html.escape(paper.title)}</h1><p>{html.escape(paper.venue)}. Printed numbers are the paper's own; "
        "numbers in bold are ours, measured as the last section says.</p>",
        *(_html_table(t, numbers, reproduction) for t, numbers in tables),
        *(_html_figure(f, picture, reproduction) for f, picture in figures),
        _html_runs(reproduction, document),
    ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(paper.title)}</title>'
    atomic_write(out / "index.html", f"{head}<style>{STYLE}</style>{''.join(body)}</html>\n".encode())


def _figure(figure: PaperFigure, reproduction: Reproduction) -> Image.Image | None:
    """The figure; None where nothing of it can be drawn."""
    if figure.kind == "pictures":
        (curve,) = figure.curves
        try:
            return drawn(reproduction.given(curve.weights).predictor, reproduction.shown_samples(curve))
        except Missing:
            return None
    series: dict[str, Points] = {}
    for curve in figure.curves:
        try:
            scores, errors = reproduction.errors(figure, curve)
        except Missing:
            continue
        if figure.kind == "pose":
            numbers, means, _ = by_pose(scores.pairs, errors)
            series[curve.name] = numbers, [100 * v for v in means]
        else:
            x = np.linspace(0, figure.limit / 100, 201)
            shares = metrics.ced(np.where(np.isnan(errors), np.inf, errors), x)
            series[curve.name] = (100 * x).tolist(), (100 * shares).tolist()
    if not series or missing():
        return None
    if figure.kind == "pose":
        x_axis, y_axis = "bin of the pose coefficient, frontal to profile", f"mean error ({figure.curves[0].error}), %"
        return rendered(lines(Chart(figure.name, x_axis, y_axis), series))
    chart = Chart(figure.name, "error, %", "faces with at most this error, %", (0, figure.limit), (0, 100))
    return rendered(lines(chart, series, dots=False))


def _json(
    reproduction: Reproduction, tables: list[tuple[PaperTable, list[list[float]]]], used: Set[str]
) -> dict[str, Any]:
    """Everything as data; of the weights those that were `used`."""
    paper = reproduction.paper
    return {
        "paper": paper.title,
        "canthus": canthus.__version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "weights": {
            name: {
                "from": given.source, "card": given.predictor.card.title, "recipe": given.predictor.card.recipe,
                "training data": given.predictor.card.training_data, "config": asdict(given.predictor.config),
            }
            for name, given in reproduction.weights.items()
            if name in used
        },
        "runs": [
            {
                **run._asdict(), "data": str(reproduction.data[run.protocol]), "faces": len(found.scores.pairs.found),
                "lost": int((~found.scores.pairs.found).sum()), "seconds per face": round(found.seconds, 4),
            }
            for run, found in reproduction.runs.items()
        ],
        "tables": [
            {
                "name": table.name, "columns": [c.name for c in table.columns], "missing": reproduction.missing(table),
                "rows": [
                    {"name": row.name, "printed": _plain(row.printed), "ours": _plain(ours)}
                    for row, ours in zip(table.rows, numbers)
                ],
            }
            for table, numbers in tables
        ],
        "figures": [{"name": f.name, "missing": reproduction.missing(f)} for f in paper.figures],
    }  # fmt: skip


def _html_table(table: PaperTable, numbers: list[list[float]], reproduction: Reproduction) -> str:
    digits = 4 if table.scale < 1 else 2
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ("", *(c.name for c in table.columns)))
    body = ""
    for row, ours in zip(table.rows, numbers):
        if np.isfinite(row.printed).any():
            body += _row(row.name, row.printed, digits)
        if np.isfinite(ours).any():
            body += _row(f"{row.name}, ours", ours, digits, "strong")
    return (
        f"<h2>{html.escape(table.name)}</h2><p>{html.escape(table.caption)}</p><table><tr>{head}</tr>{body}</table>"
        + _notes(reproduction.missing(table), _remarks(table, reproduction) if np.isfinite(numbers).any() else [])
    )  # fmt: skip


def _html_figure(figure: PaperFigure, picture: Image.Image | None, reproduction: Reproduction) -> str:
    shown = ""
    if picture:
        kind = "jpeg" if figure.kind == "pictures" else "png"
        data = base64.b64encode(_bytes(figure, picture)).decode()
        shown = f'<figure><img alt="{html.escape(figure.name)}" src="data:image/{kind};base64,{data}"></figure>'
    reasons = reproduction.missing(figure)
    if not picture and not reasons:
        reasons = [missing().capitalize()]
    notes = _notes(reasons, _remarks(figure, reproduction) if picture else [])
    return f"<h2>{html.escape(figure.name)}</h2><p>{html.escape(figure.caption)}</p>{shown}{notes}"


def _html_runs(reproduction: Reproduction, document: dict[str, Any]) -> str:
    weights = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(w['from'])}</td><td>{html.escape(w['card'])}</td>"
        f"<td>{html.escape(json.dumps(w['config']))}</td><td>{html.escape(w['recipe'])}</td>"
        f"<td>{html.escape(w['training data'])}</td></tr>"
        for name, w in document["weights"].items()
    )
    runs = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in run.values()) + "</tr>"
        for run in document["runs"]
    )
    only = f" Only faces of {', '.join(sorted(reproduction.only))}." if reproduction.only else ""
    columns = ("weights", "model 2", "protocol", "boxes", "data", "faces", "not found", "seconds per face")
    return (
        f"<h2>What was run</h2><p>canthus {document['canthus']}, {document['time']}. Nothing here is random; "
        f"the seed of a training is in its recipe.{html.escape(only)}</p>"
        f"<table><tr>{''.join(f'<th>{c}</th>' for c in columns)}</tr>{runs}</table>"
        "<table><tr><th>weights</th><th>from</th><th>card</th><th>config</th><th>recipe</th><th>learnt from</th></tr>"
        f"{weights}</table>"
    )  # fmt: skip


def _remarks(part: PaperTable | PaperFigure, reproduction: Reproduction) -> list[str]:
    """Where other data than the paper's were taken, and in what the weights differ from the paper's recipe."""
    lines_ = part.columns if isinstance(part, PaperTable) else part.curves
    taken = {next((p for p in line.protocols if p in reproduction.data), "") for line in lines_}
    own = {line.protocols[0] for line in lines_ if line.protocols} - RENDERED
    others = sorted(taken - own - {""})
    remarks = []
    if others:
        remarks.append(f"Ours are measured on {', '.join(others)}, not on the paper's data: not to be compared.")
    rows = part.rows if isinstance(part, PaperTable) else part.curves
    ran = {run.weights for run in reproduction.runs}
    for name in dict.fromkeys(row.weights for row in rows if row.weights in ran):
        if changed := departures(reproduction.weights[name].predictor, reproduction.paper.weights[name]):
            remarks.append(f"The weights '{name}' differ from the paper's recipe: {', '.join(changed)}.")
    return remarks


def _notes(missing_: list[str], others: list[str]) -> str:
    parts = [f"<p><em>{html.escape(text)}</em></p>" for text in others]
    if missing_:
        parts.append("<p>Not run:</p><ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in missing_) + "</ul>")
    return "".join(parts)


def _row(name: str, values: Any, digits: int, tag: str = "span") -> str:
    cells = "".join(f"<td><{tag}>{v:.{digits}f}</{tag}></td>" if np.isfinite(v) else "<td></td>" for v in values)
    return f"<tr><td>{html.escape(name)}</td>{cells}</tr>"


def _plain(values: Any) -> list[float | None]:
    return [round(float(v), 6) if np.isfinite(v) else None for v in values]


def _file(figure: PaperFigure) -> str:
    words = "".join(c if c.isalnum() else " " for c in figure.name.lower()).split()
    return f"{'-'.join(words)}.{'jpg' if figure.kind == 'pictures' else 'png'}"


def _bytes(figure: PaperFigure, picture: Image.Image) -> bytes:
    return jpeg(picture) if figure.kind == "pictures" else png(picture)
