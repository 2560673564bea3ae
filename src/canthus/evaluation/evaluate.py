"""Measuring a predictor, or any system's predictions, on annotated photos by a protocol of the field."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from canthus.errors import CanthusError, LandmarkError, amount
from canthus.evaluation.collect import Progress, collect, silent
from canthus.evaluation.predictions import Predictions
from canthus.evaluation.protocols import protocol
from canthus.evaluation.report import Report, jpeg, make_report, png
from canthus.evaluation.scores import Scores, score
from canthus.inference.predictor import Predictor
from canthus.io import charts
from canthus.io.outputs import atomic_write, make_folder


def predict(
    name: str,
    folder: str | Path,
    predictor: Predictor,
    boxes: str = "true",
    progress: Progress = silent,
    tracking: Predictor | None = None,
    initial: Predictor | None = None,
) -> Predictions:
    """What `predictor` answers on the faces of a protocol, see `evaluation.collect.collect`. Raises `CanthusError`."""
    rules = protocol(name)
    if boxes == "tracked" and not rules.video:
        raise CanthusError(f"'{name}' is a set of single photos; only frames of videos can be tracked")
    return collect(predictor, rules.faces(folder), boxes, progress, tracking, initial)


def evaluate(name: str, folder: str | Path, predictions: Predictions) -> Scores:
    """The scores of predictions by a protocol on the data in `folder`. Raises `CanthusError`, also where no prediction
    is of a face of the set."""
    rules = protocol(name)
    faces = rules.faces(folder)
    if len(predictions) and not {face.name for face in faces} & set(predictions.names):
        got, wanted = predictions.names[0], faces[0].name
        raise LandmarkError(f"no prediction is of a face in '{folder}': got '{got}', want names such as '{wanted}'")
    if unknown := sorted(set(predictions.names) - {face.name for face in faces}):
        what = f"{amount(len(unknown), 'prediction')} of no face in '%s', such as '%s', left out"
        logging.getLogger(__name__).warning(what, folder, unknown[0])
    return score(rules, faces, predictions)


def write_predictions(out: str | Path, predictions: Predictions, format: str = "npz") -> None:
    """Write `predictions.npz`, or .jsonl or .parquet, into the folder `out`. Raises `OutputError`."""
    predictions.write(make_folder(out) / f"predictions.{format}")


def write_scores(out: str | Path, scores: Scores) -> None:
    """Write `scores.json` into the folder `out`. Raises `OutputError`."""
    atomic_write(make_folder(out) / "scores.json", _json(scores.to_json()))


def write_report(
    out: str | Path, name: str, scores: Scores, predictor: Predictor | None, progress: Progress = silent
) -> Report:
    """Write `report.html`, `report.json`, the charts as PNG and, where the licence of the set allows pictures to be
    shown, the worst cases as `worst.jpg` into the folder `out`.

    With a predictor, and a set that is no video, also sweeps over moved boxes and corrupted photos. Charts need
    matplotlib; without it a warning is logged and the rest is written. Raises `CanthusError`.
    """
    out, rules = make_folder(out), protocol(name)
    if reason := charts.missing():
        logging.getLogger(__name__).warning(reason)
    report = make_report(rules, scores.pairs.samples, scores, predictor, progress)
    atomic_write(out / "report.html", report.to_html().encode())
    atomic_write(out / "report.json", _json(report.to_json()))
    for title, chart in report.charts().items():
        atomic_write(out / f"{title}.png", png(chart))
    if report.worst:
        atomic_write(out / "worst.jpg", jpeg(report.worst))
    return report


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
