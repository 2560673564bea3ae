"""Charts drawn with Pillow: lines over axes, numbers on a face, faces side by side. No other plotting code is here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canthus.face.landmarks import scheme

COLOURS = ((31, 96, 196), (214, 92, 42), (42, 142, 82), (142, 68, 173), (190, 60, 90), (110, 110, 110))
INK, FAINT, PAPER = (40, 44, 52), (222, 225, 230), (255, 255, 255)
FINE = 2  # drawn so many times as large and shrunk, for smooth lines
MARGIN = (62, 50, 18, 46)  # left, top, right, bottom of the axes, px

Points = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Chart:
    """What lines are drawn over: titles, the ranges of both axes (None: of the data, y from 0), width and height, and
    whether the names of the lines stand at the lower right instead of the upper left."""

    title: str
    x: str
    y: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    size: tuple[int, int] = (520, 330)
    names_low: bool = False


def lines(
    chart: Chart, series: Mapping[str, Points], dots: bool = True, ticks: Mapping[float, str] | None = None
) -> Image.Image:
    """Lines by name: x and y of their points, NaN where there is a gap. `ticks`: marks of x and what stands there."""
    xs = np.concatenate([np.asarray(x, float) for x, _ in series.values()])
    ys = np.concatenate([np.asarray(y, float) for _, y in series.values()])
    known = np.isfinite(ys)
    low, high = chart.x_range or (float(xs.min()), float(xs.max()))
    bottom, top = chart.y_range or (
        0.0,
        (1.1 if len(series) == 1 else 1.3) * float(ys[known].max()) if known.any() and ys[known].max() > 0 else 1.0,
    )
    pen = _Pen(chart, (low, high if high > low else low + 1), (bottom, top))
    pen.axes(ticks if ticks is not None else {x: f"{x:g}" for x in _nice(low, high)})
    for k, (name, (x, y)) in enumerate(series.items()):
        pen.line(x, y, COLOURS[k % len(COLOURS)], dots)
        if len(series) > 1:
            pen.legend(k, len(series), name, COLOURS[k % len(COLOURS)])
    return pen.finished()


def face_map(
    title: str, xy: np.ndarray, values: np.ndarray, name: str, size: tuple[int, int] = (520, 520)
) -> Image.Image:
    """Values (L,) as discs on a face: points (L,2) of the scheme `name`, y down.

    Areas grow with the value, colours go from blue over yellow to red; every third point's number is written beside it.
    """
    canvas, draw, spots = _on_a_face(title, xy, name, size)
    known = np.isfinite(values)
    most = float(values[known].max()) if known.any() else 1.0
    for k in np.flatnonzero(known):
        share = float(values[k]) / max(most, 1e-9)
        radius = FINE * (2 + 10 * np.sqrt(share))
        x, y = (float(v) for v in spots[k])
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_heat(share))
        if k % 3 == 0:
            draw.text((x + radius + FINE, y), f"{values[k]:.1f}", INK, _font(10), anchor="lm")
    return canvas.reduce(FINE)


def part_map(
    title: str, xy: np.ndarray, values: Mapping[str, float], name: str, size: tuple[int, int] = (520, 520)
) -> Image.Image:
    """Values by part of the face, as lines of its colour with the number at its middle: points (L,2) of the scheme
    `name`, y down; NaN where a part was not measured."""
    canvas, draw, spots = _on_a_face(title, xy, name, size)
    known = {part: value for part, value in values.items() if np.isfinite(value)}
    most = max([*known.values(), 1e-9])
    for part, value in known.items():
        own, colour = scheme(name).parts[part].tolist(), _heat(value / most)
        for a, b in scheme(name).edges:
            if a in own and b in own:
                draw.line([*spots[a], *spots[b]], fill=colour, width=5 * FINE)
        for k in own:
            x, y = (float(v) for v in spots[k])
            draw.ellipse([x - 3 * FINE, y - 3 * FINE, x + 3 * FINE, y + 3 * FINE], fill=colour)
    for part, value in known.items():
        own = spots[scheme(name).parts[part]]
        (x, y), (width, height), below = own.mean(0), np.ptp(own, axis=0), own[:, 1].max() + 11 * FINE
        place, anchor = ((x, y) if part.startswith("inner") else (x, below)), "mm"  # inside of the outer one
        if height > 2 * width:
            place, anchor = (own[:, 0].max() + 8 * FINE, y), "lm"
        draw.text(place, f"{part.replace('_', ' ')} {value:.1f}", INK, _font(10), anchor=anchor,
                  stroke_width=2 * FINE, stroke_fill=PAPER)  # fmt: skip
    return canvas.reduce(FINE)


def contact_sheet(faces: Iterable[tuple[str, Image.Image, np.ndarray, np.ndarray]], columns: int = 4) -> Image.Image:
    """Faces side by side, each with a line of text: (text, picture, true points, predicted points), the points (L,2) in
    its pixels. Green is true, red is predicted."""
    tiles = []
    for text, picture, truth, prediction in faces:
        tile = Image.new("RGB", (picture.width, picture.height + 18), PAPER)
        tile.paste(picture, (0, 18))
        draw = ImageDraw.Draw(tile)
        draw.text((3, 9), text, INK, ImageFont.load_default(11), anchor="lm")
        for points, colour in ((truth, (60, 220, 90)), (prediction, (235, 60, 50))):
            for x, y in points[np.isfinite(points).all(axis=1)] + [0, 18]:
                if y > 18:
                    draw.ellipse([x - 1, y - 1, x + 1, y + 1], fill=colour)
        tiles.append(tile)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), PAPER)
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % columns * width, k // columns * height))
    return sheet


def _on_a_face(
    title: str, xy: np.ndarray, name: str, size: tuple[int, int]
) -> tuple[Image.Image, ImageDraw.ImageDraw, np.ndarray]:
    """A large canvas with a title and the faint lines of a face, what draws on it, and where the points are."""
    canvas = Image.new("RGB", (size[0] * FINE, size[1] * FINE), PAPER)
    draw = ImageDraw.Draw(canvas)
    extent = np.ptp(xy, axis=0)
    zoom = FINE * min((size[0] - 90) / extent[0], (size[1] - 120) / extent[1])
    spots = (xy - (xy.max(0) + xy.min(0)) / 2) * zoom + [canvas.width / 2, canvas.height / 2 + 18 * FINE]
    for a, b in scheme(name).edges:
        draw.line([*spots[a], *spots[b]], fill=FAINT, width=2 * FINE)
    draw.text((canvas.width / 2, 18 * FINE), title, INK, _font(13), anchor="mm")
    return canvas, draw, spots


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in one row."""
    row = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), PAPER)
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


class _Pen:
    """Draws in the coordinates of the data."""

    def __init__(self, chart: Chart, x_range: tuple[float, float], y_range: tuple[float, float]):
        self.chart, self.x_range, self.y_range = chart, x_range, y_range
        self.canvas = Image.new("RGB", (chart.size[0] * FINE, chart.size[1] * FINE), PAPER)
        self.draw = ImageDraw.Draw(self.canvas)
        left, top, right, bottom = (m * FINE for m in MARGIN)
        self.frame = (left, top, self.canvas.width - right, self.canvas.height - bottom)

    def place(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.frame
        across = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        up = (y - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def axes(self, ticks: Mapping[float, str]) -> None:
        left, top, right, bottom = self.frame
        for y in _nice(*self.y_range):
            height = self.place(self.x_range[0], y)[1]
            self.draw.line([left, height, right, height], fill=FAINT, width=FINE)
            self.draw.text((left - 6 * FINE, height), f"{y:g}", INK, _font(11), anchor="rm")
        for x, word in ticks.items():
            across = self.place(x, self.y_range[0])[0]
            self.draw.line([across, bottom, across, bottom + 4 * FINE], fill=INK, width=FINE)
            self.draw.text((across, bottom + 6 * FINE), word, INK, _font(11), anchor="mt")
        self.draw.line([left, top, left, bottom, right, bottom], fill=INK, width=FINE)
        self.draw.text((self.canvas.width / 2, 16 * FINE), self.chart.title, INK, _font(14), anchor="mm")
        self.draw.text(((left + right) / 2, self.canvas.height - 12 * FINE), self.chart.x, INK, _font(12), anchor="mm")
        self.draw.text((8 * FINE, 34 * FINE), self.chart.y, INK, _font(12), anchor="lm")

    def line(self, x: Sequence[float], y: Sequence[float], colour: tuple[int, int, int], dots: bool) -> None:
        spots = [self.place(a, b) if np.isfinite(b) else None for a, b in zip(x, y)]
        for one, other in zip(spots, spots[1:]):
            if one and other:
                self.draw.line([*one, *other], fill=colour, width=2 * FINE)
        for spot in spots if dots else []:
            if spot:
                r = 3 * FINE
                self.draw.ellipse([spot[0] - r, spot[1] - r, spot[0] + r, spot[1] + r], fill=colour)

    def legend(self, number: int, count: int, name: str, colour: tuple[int, int, int]) -> None:
        left, top, right, bottom = self.frame
        x, y = left + 14 * FINE, top + (10 + 16 * number) * FINE
        if self.chart.names_low:
            x, y = right - 250 * FINE, bottom - (10 + 16 * (count - number)) * FINE
        self.draw.line([x, y, x + 18 * FINE, y], fill=colour, width=3 * FINE)
        self.draw.text((x + 24 * FINE, y), name, INK, _font(12), anchor="lm")

    def finished(self) -> Image.Image:
        return self.canvas.reduce(FINE)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * FINE)


def _nice(low: float, high: float) -> list[float]:
    """Four to nine round numbers in the range."""
    step = 10 ** np.floor(np.log10(max(high - low, 1e-9)))
    for share in (1, 0.5, 0.2):
        if (high - low) / (step * share) >= 4:
            break
    step *= share
    return [
        float(round(k * step, 10))
        for k in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)
    ]


def _heat(share: float) -> tuple[int, int, int]:
    stops = np.array([(49, 96, 190), (120, 180, 200), (246, 206, 92), (206, 48, 44)], float)
    r, g, b = (int(np.interp(share, np.linspace(0, 1, 4), channel)) for channel in stops.T)
    return r, g, b
