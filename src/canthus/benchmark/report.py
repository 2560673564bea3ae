"""The report of one measurement: tables and charts in one HTML file, the same charts as PNG, the numbers as JSON."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from canthus import metrics
from canthus.benchmark import boxes as box_rules
from canthus.benchmark.charts import Chart, Points, face_map, lines
from canthus.benchmark.collect import Progress, collect_from, silent
from canthus.benchmark.pairs import pair
from canthus.benchmark.predictions import Predictions
from canthus.benchmark.protocols import Protocol
from canthus.benchmark.scores import Scores, Table, by_steps_of_yaw, compared, yaws
from canthus.benchmark.spoil import SPOILS, spoil
from canthus.data.formats import FaceSample
from canthus.errors import LandmarkError
from canthus.inference import Predictor
from canthus.landmarks import convert
from canthus.morphable import MorphableModel

SWEPT = 200  # faces of a sweep, evenly spaced in the set: 39 runs over each

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#282c34}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #dee1e6}
th:first-child,td:first-child{text-align:left}
figure{display:inline-block;margin:.3rem}img{border:1px solid #dee1e6;max-width:100%}"""


@dataclass
class Report:
    """What a report shows. sweeps: name -> (what the strength is, strengths, mean first error in percent).
    plain: that error with nothing changed, over the same `swept` faces."""

    scores: Scores
    sweeps: dict[str, tuple[str, list[float], list[float]]] = field(default_factory=dict)
    plain: float = float("nan")
    swept: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        sweeps = {
            name: {"strength": what, "strengths": list(x), "error": [round(v, 4) for v in y]}
            for name, (what, x, y) in self.sweeps.items()
        }
        swept = {"sweeps": sweeps, "swept faces": self.swept, "unchanged": round(self.plain, 4)}
        return self.scores.to_json() | (swept if sweeps else {})

    def charts(self) -> dict[str, Image.Image]:
        """Pictures by name."""
        found: dict[str, Image.Image] = {}
        if self.scores.errors:
            found |= {"ced": _ced(self.scores), "landmarks": _landmarks(self.scores)}
            found |= {f"yaw-{k}": chart for k, chart in enumerate(_yaw(self.scores))}
        if self.scores.calibration:
            found["calibration"] = _calibration(self.scores)
        for name, (what, x, y) in self.sweeps.items():
            places = [float(k) for k in range(len(x))]  # strengths grow by factors: evenly spaced reads better
            ticks = {place: f"{strength:g}" for place, strength in zip(places, x)}
            chart = Chart(name, what, f"{self.scores.main}, %", size=(380, 280))
            series: dict[str, Points] = {name: (places, y), "unchanged": (places, [self.plain] * len(x))}
            found[f"sweep-{name.replace(' ', '-')}"] = lines(chart, series, ticks=ticks)
        return found

    def to_html(self) -> str:
        """One page with everything inside."""
        s = self.scores
        title = f"{s.title}: {s.pairs.predictions.system or 'predictions'}"
        facts = f"{len(s.pairs.found)} faces, {int((~s.pairs.found).sum())} lost. Compared: {compared(s.pairs)}."
        data = {n: base64.b64encode(png(c)).decode() for n, c in self.charts().items()}
        figures = "".join(
            f'<figure><img alt="{html.escape(n)}" src="data:image/png;base64,{d}"></figure>' for n, d in data.items()
        )
        swept = f"<p>Sweeps: means over {self.swept} faces of the set, true boxes.</p>" if self.sweeps else ""
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
            f"<h1>{html.escape(title)}</h1><p>{html.escape(facts)} Errors in percent.</p>"
            + "".join(_html_table(t) for t in s.tables) + swept + figures + "</html>\n"
        )  # fmt: skip


def make_report(
    protocol: Protocol,
    samples: Sequence[FaceSample],
    scores: Scores,
    predictor: Predictor | None,
    progress: Progress = silent,
) -> Report:
    """The report of scores; with the predictor itself at hand, sweeps over boxes and spoiled photos too."""
    report = Report(scores)
    if predictor is None or not scores.errors:
        return report
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(SWEPT, len(samples))).round().astype(int))
    part = [samples[k] for k in chosen]
    boxes = scores.pairs.boxes[chosen]
    report.swept = len(part)
    done, total = 0, 1 + len(box_rules.SHIFTS) + len(box_rules.SCALES) + sum(len(x) for _, x in SPOILS.values())

    def error(predictions: Predictions) -> float:
        nonlocal done
        done += 1
        progress(done, total)
        pairs = pair(part, predictions)
        return 100 * float(np.mean(protocol.errors[scores.main](pairs.part(pairs.found))))

    report.plain = plain = error(collect_from(predictor, part, boxes))
    shifted = [error(collect_from(predictor, part, box_rules.moved(boxes, s, 1, 0))) for s in box_rules.SHIFTS]
    scaled = [error(collect_from(predictor, part, box_rules.moved(boxes, 0, s, 0))) for s in box_rules.SCALES]
    report.sweeps["box shift"] = ("% of the box", [0, *(100 * s for s in box_rules.SHIFTS)], [plain, *shifted])
    around = dict(sorted([(1.0, plain), *zip(box_rules.SCALES, scaled)]))
    report.sweeps["box scale"] = ("times the box", list(around), list(around.values()))
    for what, (unit, strengths) in SPOILS.items():
        values = [
            error(collect_from(predictor, part, boxes, change=partial(spoil, what, strength))) for strength in strengths
        ]
        report.sweeps[what] = (unit, list(strengths), values)
    return report


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _ced(scores: Scores) -> Image.Image:
    limit = max(scores.limits)
    x = np.linspace(0, limit, 101)
    first = list(scores.errors)[:4]
    series = {
        f"{n} (AUC {100 * metrics.auc(e, limit):.1f}, FR {100 * metrics.failure_rate(e, limit):.1f} %)":
        ((100 * x).tolist(), (100 * metrics.ced(np.where(np.isnan(e), np.inf, e), x)).tolist())
        for n, e in ((n, scores.errors[n]) for n in first)
    }  # fmt: skip
    chart = Chart("cumulative errors", "error, %", "faces, %", (0, 100 * limit), (0, 100), (640, 400))
    return lines(chart, series, dots=False)


def _calibration(scores: Scores) -> Image.Image:
    said, measured = ([100 * v for v in column] for column in zip(*scores.calibration))
    chart = Chart(
        "scores, by tenths of the points", "predicted, %", "within 5 % of the face, %", (0, 100), (0, 100), (400, 400)
    )
    return lines(chart, {"measured": (said, measured), "ideal": ([0, 100], [0, 100])})


def _yaw(scores: Scores) -> list[Image.Image]:
    """The mean error by steps of 10 degrees of |yaw|."""
    charts = []
    for title, yaw in yaws(scores.pairs.samples).items():
        series = {name: by_steps_of_yaw(yaw, 100 * scores.errors[name]) for name in list(scores.errors)[:4]}
        chart = Chart(f"by |{title}|", "degrees, steps of 10", "mean error, %", (0, 90), size=(640, 360))
        charts.append(lines(chart, series))
    return charts


def _landmarks(scores: Scores) -> Image.Image:
    """The mean distance of each point on the mean head."""
    pairs = scores.pairs
    distance = 100 * pairs.distance[pairs.found]
    known = np.isfinite(distance)
    means = np.where(known, distance, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
    head = MorphableModel.default().landmarks()[0].astype(np.float64)[:, :2] * [1, -1]
    try:
        xy = convert(head, "ibug68", pairs.scheme)[0]
    except LandmarkError:  # no map from the mean head's points: the mean of the labels, each in its own box
        xy = np.full((1, 2), np.nan)
    if not np.isfinite(xy).all():
        middle = (pairs.boxes[:, None, :2] + pairs.boxes[:, None, 2:]) / 2
        size = (pairs.boxes[:, 2:] - pairs.boxes[:, :2]).max(1)[:, None, None]
        inside = (pairs.truth[..., :2] - middle) / size
        labelled = np.isfinite(inside)
        xy = np.where(labelled, inside, 0).sum(0) / np.maximum(labelled.sum(0), 1)
    return face_map("mean error of each point, % of the face's size", xy, means, pairs.scheme)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ("", *table.columns))
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{_cell(v)}</td>" for v in row) + "</tr>"
        for name, row in table.rows.items()
    )
    return f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>{body}</table>"


def _cell(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.0f}" if value == round(value) else f"{value:.2f}"
