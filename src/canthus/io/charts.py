"""Charts of measurements and of training, drawn with matplotlib (extra `plots`).

Figures are drawn without pyplot, so no global state of matplotlib is read or changed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from canthus.errors import pip_install
from canthus.face.landmarks import scheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# told apart by people who do not see all colours (Okabe and Ito)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d31", "#000000")
INK, FAINT = "#282c34", "#d4d8de"
DPI = 100  # so that sizes can be given in pixels

Points = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Chart:
    """What lines are drawn over: title, names of both axes, their ranges (None: of the data, y from 0), size in pixels.

    log: a logarithmic y axis, whose default range is that of the data.
    """

    title: str
    x: str
    y: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    size: tuple[int, int] = (520, 360)
    log: bool = False


def missing() -> str:
    """Why no chart can be drawn, as a sentence; empty if matplotlib is installed."""
    if find_spec("matplotlib"):
        return ""
    return f"charts are left out, as 'matplotlib' is not installed; to get them, run: {pip_install('plots')}"


def lines(
    chart: Chart,
    series: Mapping[str, Points],
    dots: bool = True,
    ticks: Mapping[float, str] | None = None,
    marks: Mapping[float, str] | None = None,
) -> Figure:
    """Lines by name: x and y of their points, NaN where there is a gap.

    ticks: positions on the x axis and their labels. marks: positions of vertical lines and their labels.
    """
    figure = empty_figure(chart.size)
    axes = figure.add_subplot(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    for k, (name, (x, y)) in enumerate(series.items()):
        axes.plot(x, y, color=COLOURS[k % len(COLOURS)], marker="o" if dots else None, markersize=4, label=name)
    for place, text in (marks or {}).items():
        axes.axvline(place, color=FAINT, linewidth=1)
        axes.annotate(text, (place, 1), (3, -10), xycoords=("data", "axes fraction"), textcoords="offset points",
                      fontsize="small", color="gray")  # fmt: skip
    if chart.log:
        axes.set_yscale("log")
    elif axes.dataLim.ymin >= 0:
        axes.set_ylim(0, 1.1 * axes.dataLim.ymax or 1)
    if chart.x_range:
        axes.set_xlim(chart.x_range)
    if chart.y_range:
        axes.set_ylim(chart.y_range)
    if ticks is not None:
        axes.set_xticks(list(ticks), list(ticks.values()))
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize="small")
    return figure


def face_map(
    title: str, xy: np.ndarray, values: np.ndarray, name: str, unit: str, size: tuple[int, int] = (520, 440)
) -> Figure:
    """Values (L,) as discs on a face by colour: points (L,2) of the scheme `name`, y down; NaN are left out."""
    figure, axes = _face(title, xy, name, size)
    known = np.isfinite(values)
    discs = axes.scatter(*xy[known].T, c=values[known], cmap="YlOrRd", s=70, edgecolors="gray", linewidths=0.5, vmin=0)
    figure.colorbar(discs, ax=axes, shrink=0.7, label=unit)
    return figure


def part_map(
    title: str, xy: np.ndarray, values: Mapping[str, float], name: str, unit: str, size: tuple[int, int] = (520, 440)
) -> Figure:
    """Values by part of the face, as the part's lines coloured by value with the number beside them: points (L,2) of
    the scheme `name`, y down; NaN are left out."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = _face(title, xy, name, size)
    known = {part: value for part, value in values.items() if np.isfinite(value)}
    colours = ScalarMappable(Normalize(0, max([*known.values(), 1e-9])), colormaps["YlOrRd"])
    for part, value in known.items():
        own = scheme(name).parts[part].tolist()
        for a, b in scheme(name).edges:
            if a in own and b in own:
                axes.plot(*xy[[a, b]].T, color=colours.to_rgba(np.asarray(value)), linewidth=4, solid_capstyle="round")
    height = np.ptp(xy[:, 1])
    for part, value in known.items():
        own = xy[scheme(name).parts[part]]
        x, y = own.mean(0) if part.startswith("inner") else (own[:, 0].mean(), own[:, 1].max() + 0.03 * height)
        axes.annotate(f"{part.replace('_', ' ')} {value:.1f}", (x, y), ha="center", va="center", fontsize="small",
                      color=INK, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1})  # fmt: skip
    figure.colorbar(colours, ax=axes, shrink=0.7, label=unit)
    return figure


def rendered(figure: Figure) -> Image.Image:
    """A figure as an RGB picture."""
    return Image.open(io.BytesIO(as_png(figure))).convert("RGB")


def as_png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in one row."""
    row = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


def empty_figure(size: tuple[int, int]) -> Figure:
    """A figure of a size in pixels, with nothing on it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, layout="constrained")


def _face(title: str, xy: np.ndarray, name: str, size: tuple[int, int]) -> tuple[Figure, Any]:
    """A figure with the faint lines of a face, and its axes in the coordinates of the points."""
    figure = empty_figure(size)
    axes = figure.add_subplot(title=title)
    for a, b in scheme(name).edges:
        axes.plot(*xy[[a, b]].T, color=FAINT, linewidth=1, zorder=0)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
    return figure, axes
