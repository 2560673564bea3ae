"""The report of one measurement: tables and charts in one HTML file, the same charts as PNG, the numbers as JSON."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canthus.data.formats import FaceSample
from canthus.errors import LandmarkError
from canthus.evaluation import boxes as box_rules
from canthus.evaluation import metrics
from canthus.evaluation.collect import Progress, collect_from, picture_of, silent
from canthus.evaluation.corruptions import CORRUPTIONS, corrupt
from canthus.evaluation.pairs import Pairs, pair
from canthus.evaluation.poses import by_pose, has_poses
from canthus.evaluation.predictions import Predictions
from canthus.evaluation.protocols import Protocol
from canthus.evaluation.scores import Scores, Table, by_steps_of_yaw, compared, yaws
from canthus.face.landmarks import convert
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import Crop
from canthus.inference.predictor import Predictor
from canthus.io.charts import Chart, Points, face_map, lines, missing, part_map, rendered
from canthus.io.images import crop_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SWEPT = 100  # faces of a sweep, evenly spaced in the set: 39 runs over each, 7 minutes for a method of 0.1 s a face
SIZE_UNIT = "% of the face's size"
WORST, TILE = 12, 160  # faces of the sheet of worst cases; side of one, px
CLIPS = 6  # videos in the chart of errors by frame: as many as there are colours

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#282c34}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #dee1e6}
th:first-child,td:first-child{text-align:left}
figure{display:inline-block;margin:.3rem;vertical-align:top}
figcaption{color:#6a7280}img{border:1px solid #dee1e6;max-width:100%}"""


@dataclass
class Report:
    """What a report shows. sweeps: name -> (what the strength is, strengths, mean first error in percent).
    plain: that error with nothing changed, over the same `swept` faces. worst: the faces with the largest first errors,
    where everybody may see the set's pictures."""

    scores: Scores
    sweeps: dict[str, tuple[str, list[float], list[float]]] = field(default_factory=dict)
    plain: float = float("nan")
    swept: int = 0
    worst: Image.Image | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        sweeps = {
            name: {"strength": what, "strengths": list(x), "error": [round(v, 4) for v in y]}
            for name, (what, x, y) in self.sweeps.items()
        }
        swept = {"sweeps": sweeps, "swept faces": self.swept, "unchanged": round(self.plain, 4)}
        frames = {
            video: [None if np.isnan(v) else round(100 * float(v), 3) for v in errors]
            for video, errors in _by_video(self.scores).items()
        }
        more = {f"{self.scores.main} by frame": frames} if frames else {}
        return self.scores.to_json() | more | (swept if sweeps else {})

    def charts(self) -> dict[str, Image.Image]:
        """Pictures by name, the most telling first; none where matplotlib is missing."""
        return {} if missing() else {name: rendered(figure) for name, figure in self.figures().items()}

    def figures(self) -> dict[str, Figure]:
        """The charts by name, as matplotlib figures."""
        found: dict[str, Figure] = {}
        if self.scores.errors:
            found |= {"ced": _ced(self.scores), "landmarks": _landmarks(self.scores), "parts": _parts(self.scores)}
            found |= {f"yaw-{k}": chart for k, chart in enumerate(_yaw(self.scores))}
            if "GTE z" in self.scores.errors:
                found["ced-axes"] = _ced_axes(self.scores)
            if not found.keys() & {"yaw-0"} and has_poses(self.scores.pairs):
                found["pose"] = _poses(self.scores)
            if _by_video(self.scores):
                found["frames"] = _frames(self.scores)
        if self.scores.calibration:
            found["calibration"] = _calibration(self.scores)
        for name, (what, x, y) in self.sweeps.items():
            places = [float(k) for k in range(len(x))]  # strengths grow by factors: evenly spaced reads better
            ticks = {place: f"{strength:g}" for place, strength in zip(places, x)}
            chart = Chart(name, f"strength: {what}", f"mean {self.scores.main}, %", size=(346, 280))
            series: dict[str, Points] = {name: (places, y), "unchanged": (places, [self.plain] * len(x))}
            found[f"sweep-{name.replace(' ', '-')}"] = lines(chart, series, ticks=ticks)
        return found

    def to_html(self) -> str:
        """One page with everything inside."""
        s = self.scores
        title = f"{s.title}: {s.pairs.predictions.system or 'predictions'}"
        pictures = {n: ("png", png(c)) for n, c in self.charts().items()}
        if self.worst:
            pictures["worst cases: true points green, predicted red"] = ("jpeg", jpeg(self.worst))
        figures = "".join(
            f'<figure><img alt="{html.escape(n)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
            + (f"<figcaption>{html.escape(n)}</figcaption>" if kind == "jpeg" else "")
            + "</figure>"
            for n, (kind, data) in pictures.items()
        )
        notes = [
            f"Compared: {compared(s.pairs)}. Errors are in percent.",
            f"Sweeps are means over the same {self.swept} faces, evenly spaced in the set, with true boxes."
            if self.sweeps else "",
            missing().capitalize(),
        ]  # fmt: skip
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>"
            f"<p><strong>{html.escape(s.headline())}</strong></p>"
            + "".join(f"<p>{html.escape(note)}</p>" for note in notes if note)
            + figures + "<h2>All tables</h2>" + "".join(_html_table(t) for t in s.tables) + "</html>\n"
        )  # fmt: skip


def make_report(
    protocol: Protocol,
    samples: Sequence[FaceSample],
    scores: Scores,
    predictor: Predictor | None,
    progress: Progress = silent,
) -> Report:
    """The report of scores; with the predictor at hand, sweeps over boxes and corrupted photos too, but of videos,
    which are not told where faces are."""
    report = Report(scores)
    if protocol.free and scores.errors and scores.pairs.found.any():
        report.worst = _worst(scores)
    if predictor is None or not scores.errors or protocol.video:
        return report
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(SWEPT, len(samples))).round().astype(int))
    part = [samples[k] for k in chosen]
    boxes = scores.pairs.boxes[chosen]
    report.swept = len(part)
    done, total = 0, 1 + len(box_rules.SHIFTS) + len(box_rules.SCALES) + sum(len(x) for _, x in CORRUPTIONS.values())

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
    for what, (unit, strengths) in CORRUPTIONS.items():
        values = [
            error(collect_from(predictor, part, boxes, change=partial(corrupt, what, strength)))
            for strength in strengths
        ]
        report.sweeps[what] = (unit, list(strengths), values)
    return report


def png(image: Image.Image) -> bytes:
    """A chart as the bytes of a PNG file of 64 colours."""
    stream = io.BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def jpeg(image: Image.Image) -> bytes:
    """A picture as the bytes of a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _ced(scores: Scores) -> Figure:
    limit = max(scores.limits)
    x = np.linspace(0, limit, 101)
    first = list(scores.errors)[:4]
    series = {
        f"{n} (AUC {100 * metrics.auc(e, limit):.1f}, FR {100 * metrics.failure_rate(e, limit):.1f} %)":
        ((100 * x).tolist(), (100 * metrics.ced(np.where(np.isnan(e), np.inf, e), x)).tolist())
        for n, e in ((n, scores.errors[n]) for n in first)
    }  # fmt: skip
    chart = Chart(
        "Cumulative error distribution", "error, %", "faces with at most this error, %", (0, 100 * limit), (0, 100),
        (520, 440),
    )  # fmt: skip
    return lines(chart, series, dots=False)


def _ced_axes(scores: Scores) -> Figure:
    """GTE by axes, as Figure 3 of "Two-Stage Convolutional Part Heatmap Regression" (ECCV Workshops 2016)."""
    x = np.linspace(0, 0.15, 101)
    series: dict[str, Points] = {
        name.removeprefix("GTE ").replace("GTE", "xyz"):
        ((100 * x).tolist(), (100 * metrics.ced(np.where(np.isnan(e), np.inf, e), x)).tolist())
        for name, e in scores.errors.items() if name.startswith("GTE")
    }  # fmt: skip
    chart = Chart("Cumulative GTE by axes", "GTE, %", "faces with at most this error, %", (0, 15), (0, 100), (520, 440))
    return lines(chart, series, dots=False)


def _poses(scores: Scores) -> Figure:
    """Errors over the pose of labels without yaw, see `poses.by_pose`."""
    series: dict[str, Points] = {}
    for name in list(scores.errors)[:4]:
        numbers, means, _ = by_pose(scores.pairs, scores.errors[name])
        series[name] = numbers, [100 * v for v in means]
    chart = Chart("Error by pose", "bin of the pose coefficient, frontal to profile", "mean error, %", size=(520, 380))
    return lines(chart, series)


def _calibration(scores: Scores) -> Figure:
    predicted, measured = ([100 * v for v in column] for column in zip(*scores.calibration))
    chart = Chart(
        "Calibration of scores, by deciles",
        "mean predicted score, %",
        "points within 5 % of the face's size, %",
        (0, 100),
        (0, 100),
        (520, 380),
    )
    return lines(chart, {"measured": (predicted, measured), "ideal": ([0, 100], [0, 100])})


def _yaw(scores: Scores) -> list[Figure]:
    """The mean error by steps of 10 degrees of |yaw|."""
    charts = []
    for title, yaw in yaws(scores.pairs.samples).items():
        series = {name: by_steps_of_yaw(yaw, 100 * scores.errors[name]) for name in list(scores.errors)[:4]}
        chart = Chart(f"Error by |{title}|", f"|{title}|, degrees", "mean error, %", (0, 90), size=(520, 380))
        charts.append(lines(chart, series))
    return charts


def _landmarks(scores: Scores) -> Figure:
    """The mean distance of each point on the mean head."""
    pairs = scores.pairs
    distance = 100 * pairs.distance[pairs.found]
    known = np.isfinite(distance)
    means = np.where(known, distance, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
    return face_map("Mean error of each landmark", _mean_face(pairs), means, pairs.scheme, SIZE_UNIT)


def _parts(scores: Scores) -> Figure:
    """The mean distance of each part of the face."""
    table = scores.table("by part of the face")
    values = {part: row[0] for part, row in table.rows.items()}
    pairs = scores.pairs
    return part_map("Mean error of each part", _mean_face(pairs), values, pairs.scheme, SIZE_UNIT)


def _by_video(scores: Scores) -> dict[str, np.ndarray]:
    """The first error of each frame, by video; empty for photos."""
    if all(t.title != "video" for t in scores.tables):
        return {}
    videos = np.array([s.name.rpartition("/")[0] for s in scores.pairs.samples])
    return {v: scores.errors[scores.main][videos == v] for v in dict.fromkeys(videos.tolist())}


def _frames(scores: Scores) -> Figure:
    """The first error of each frame of the first videos; gaps where the face was lost."""
    videos = list(_by_video(scores).items())[:CLIPS]
    series: dict[str, Points] = {v: (list(range(len(e))), (100 * e).tolist()) for v, e in videos}
    return lines(Chart("Error by frame", "frame", f"{scores.main}, %", size=(520, 380)), series, dots=False)


def _worst(scores: Scores) -> Image.Image:
    """The found faces with the largest first errors, worst first; of a video one frame, since its worst are alike."""
    errors, pairs = np.nan_to_num(scores.errors[scores.main], nan=-1), scores.pairs
    order = np.argsort(-errors, kind="stable")[: int(pairs.found.sum())]
    if _by_video(scores):
        videos = [pairs.samples[k].name.rpartition("/")[0] for k in order]
        order = order[[videos.index(v) for v in dict.fromkeys(videos)]]
    order = order[:WORST]
    crop = Crop.around_boxes(pairs.boxes[order], 1.7, TILE)
    truth, guess = (crop.crop_from_image(points[order, :, :2]) for points in (pairs.truth, pairs.prediction))
    tiles = []
    for row, k in enumerate(order):
        one = Crop(crop.center[[row]], crop.side[[row]], crop.angle[[row]], TILE)
        cut = Image.fromarray(crop_image(picture_of(pairs.samples[k]), one)[0])
        name = pairs.samples[k].name.replace("shard-", "").replace("frame-", "")
        tiles.append((f"{name}: {100 * errors[k]:.1f} %", cut, truth[row], guess[row]))
    return _contact_sheet(tiles)


def _contact_sheet(faces: Iterable[tuple[str, Image.Image, np.ndarray, np.ndarray]], columns: int = 4) -> Image.Image:
    """Faces side by side, each with a line of text: (text, picture, true points, predicted points), the points (L,2) in
    its pixels. Green is true, red is predicted."""
    tiles = []
    for text, picture, truth, prediction in faces:
        tile = Image.new("RGB", (picture.width, picture.height + 18), "white")
        tile.paste(picture, (0, 18))
        draw = ImageDraw.Draw(tile)
        draw.text((3, 9), text, "#282c34", ImageFont.load_default(11), anchor="lm")
        for points, colour in ((truth, (60, 220, 90)), (prediction, (235, 60, 50))):
            for x, y in points[np.isfinite(points).all(axis=1)] + [0, 18]:
                if y > 18:
                    draw.ellipse([x - 1, y - 1, x + 1, y + 1], fill=colour)
        tiles.append(tile)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % columns * width, k // columns * height))
    return sheet


def _mean_face(pairs: Pairs) -> np.ndarray:
    """Where the points (L,2) are drawn: on the mean head from the front, y down."""
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
    return xy


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ("", *table.columns))
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{_cell(v)}</td>" for v in row) + "</tr>"
        for name, row in table.rows.items()
    )
    return f"<h3>{html.escape(table.title)}</h3><table><tr>{head}</tr>{body}</table>"


def _cell(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.0f}" if value == round(value) else f"{value:.2f}"
