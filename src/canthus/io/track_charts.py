"""The chart of a tracked video: pictures, and what is measured on its faces over time (extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from canthus.face.blinks import Blink
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.face.series import Series, gaps
from canthus.io.charts import COLOURS, FAINT, empty_figure
from canthus.io.draw import overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 1400  # px
PANEL, PICTURES, LANE = 130, 190, 16  # px: heights of a panel, of the pictures, of a face in the panel of numbers
MOST_FACES = 3  # that get panels of their own; the others are in the panels of confidence and numbers
MOST_EXPRESSIONS = 5
MOST_PICTURES = 8


def track_chart(
    title: str,
    series: Sequence[Series],
    blinks: Mapping[int, Sequence[Blink]],
    pictures: Sequence[tuple[float, np.ndarray]],
    length: float,
) -> Figure:
    """What became of a video of `length` seconds.

    series: of all faces; those seen for longest have panels of pose, openings and expressions. blinks: by the number of
    the face; their frames are shaded. pictures: seconds and pictures (H,W,3) uint8, with the faces on them.
    """
    shown = sorted(series, key=lambda one: -len(one.frames))[:MOST_FACES]
    heights = [PICTURES] * bool(pictures) + [PANEL] * (3 * len(shown) + 1) + [60 + LANE * max(len(series), 1)]
    figure = empty_figure((WIDTH, sum(heights) + 40))
    figure.suptitle(title, fontsize="medium")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    places = iter(grid)
    if pictures:
        _draw_pictures(figure, next(places), pictures)
    first = None
    for one in sorted(shown, key=lambda one: one.id):
        for draw in (_pose, _openings, _expressions):
            axes = figure.add_subplot(next(places), sharex=first)
            first = first or axes
            draw(axes, one, blinks.get(one.id, ()))
            _finish(axes, f"face {one.id}: {draw.__doc__}")
    axes = figure.add_subplot(next(places), sharex=first)
    first = first or axes
    for one in series:
        axes.plot(*_broken(one, one.confidence), color=_colour(one.id), linewidth=1, label=f"face {one.id}")
    axes.set_ylim(0, 1.05)
    _finish(axes, "confidence", legend=1 < len(series) <= len(COLOURS))
    axes = figure.add_subplot(next(places), sharex=first)
    for row, one in enumerate(series):
        for start, end in _spans(one):
            axes.barh(row, max(end - start, length / WIDTH), left=start, height=0.7, color=_colour(one.id))
    axes.set_yticks(range(len(series)), [str(one.id) for one in series], fontsize="small")
    axes.set_ylim(max(len(series), 1) - 0.4, -0.6)
    axes.set_xlim(0, max(length, 1e-3))
    axes.set_xlabel("seconds")
    more = len(series) - len(shown)
    note = f"; panels above are of the {len(shown)} faces seen for longest" if more else ""
    _finish(axes, f"numbers of the faces ({len(series)}){note}", legend=False)
    return figure


def chosen(numbers: Sequence[int], most: int = MOST_PICTURES) -> list[int]:
    """At most `most` of the numbers, evenly spread, the first and the last among them."""
    places = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int))
    return [numbers[k] for k in places]


def drawn_on(picture: np.ndarray, faces: Faces, ids: Sequence[int]) -> np.ndarray:
    """A small copy (h,w,3) of an image with its faces, whose pixels are the image's, drawn on it."""
    height, width = picture.shape[:2]
    scale = width / faces.image_size[0]
    small = faces.scaled(scale, ((scale - 1) / 2, (scale - 1) / 2), (width, height))
    return overlay(picture, small, box=False, axes=False, names=[str(number) for number in ids])


def _draw_pictures(figure: Figure, place: Any, pictures: Sequence[tuple[float, np.ndarray]]) -> None:
    row = place.subgridspec(1, MOST_PICTURES, wspace=0.02)
    for k, (second, picture) in enumerate(pictures):
        axes = figure.add_subplot(row[k])
        axes.imshow(picture)
        axes.set_title(f"{second:.1f} s", fontsize="small")
        axes.set_axis_off()


def _pose(axes: Any, one: Series, blinks: Sequence[Blink]) -> None:
    """head pose, degrees"""
    for k, name in enumerate(("pitch", "yaw", "roll")):
        axes.plot(*_broken(one, one.euler[:, k]), color=COLOURS[k], linewidth=1, label=name)
    axes.axhline(0, color=FAINT, linewidth=1, zorder=0)


def _openings(axes: Any, one: Series, blinks: Sequence[Blink]) -> None:
    """eye aspect ratios, mouth opening, blinks"""
    for k, side in enumerate(("right", "left")):
        axes.plot(*_broken(one, one.eyes[:, k]), color=COLOURS[k], linewidth=1, label=f"{side} eye")
    axes.plot(*_broken(one, one.mouth), color=COLOURS[2], linewidth=1, label="mouth")
    axes.set_ylim(0, max(0.5, 1.05 * float(max(one.eyes.max(), one.mouth.max()))))
    half = np.median(np.diff(one.times)) / 2 if len(one.times) > 1 else 0.02
    for blink in blinks:
        start, end = one.times[blink.start] - half, one.times[blink.end] + half
        axes.axvspan(start, end, color=COLOURS[("right", "left").index(blink.eye)], alpha=0.25, linewidth=0)


def _expressions(axes: Any, one: Series, blinks: Sequence[Blink]) -> None:
    """expressions that move most"""
    known = np.isfinite(one.expression).all(0)
    moves = np.where(known, np.ptp(np.nan_to_num(one.expression), axis=0), -1.0)
    for k, e in enumerate(np.argsort(-moves)[:MOST_EXPRESSIONS].tolist()):
        if moves[e] >= 0:
            axes.plot(*_broken(one, one.expression[:, e]), color=COLOURS[k], linewidth=1, label=EXPRESSIONS[e])
    axes.set_ylim(0, 1.05)


def _finish(axes: Any, title: str, legend: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize="small")
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="small")
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.05))


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _broken(one: Series, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times and values (T,) of a face with NaN where it was gone, so that no line is drawn there."""
    at = gaps(one.frames, one.times)
    return np.insert(one.times, at, np.nan), np.insert(values.astype(np.float64), at, np.nan)


def _spans(one: Series) -> list[tuple[float, float]]:
    """Starts and ends of the stretches in which a face is there."""
    times = one.times
    breaks = [0, *gaps(one.frames, times).tolist(), len(times)]
    return [(float(times[a]), float(times[b - 1])) for a, b in zip(breaks, breaks[1:])]
