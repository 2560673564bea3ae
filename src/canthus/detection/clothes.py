"""Clothes under the heads of composites, with what a network may take for a face: collars, buttons, pockets, badges,
letters, ties and straps."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from canthus.detection.patterns import Colours, blossom, letters, palette, pick, relief

BADGES = 4  # at most


class Torso:
    """Where clothes are. neck: (2,) px, the middle of their upper edge. across, down: (2,) half the width of the
    shoulders and the length of the torso, px."""

    def __init__(self, neck: np.ndarray, across: np.ndarray, down: np.ndarray):
        self.neck, self.across, self.down = neck, across, down

    @property
    def wide(self) -> float:
        """Half the width of the shoulders, px."""
        return float(np.hypot(*self.across))

    def at(self, *places: tuple[float, float]) -> list[tuple[float, float]]:
        """Px of places x, y: x in half widths to the right of the middle, y the same below the neck."""
        along = self.down / np.hypot(*self.down) * self.wide
        points = [self.neck + x * self.across + y * along for x, y in places]
        return [(float(x), float(y)) for x, y in points]

    def outline(self) -> list[tuple[float, float]]:
        """Its corners, px."""
        long = float(np.hypot(*self.down)) / self.wide
        right = [(0.25, 0.0), (0.8, 0.15 * long), (1.0, 0.4 * long), (1.0, long)]
        return self.at(*right, *((-x, y) for x, y in right[::-1]))


def clothes(rng: np.random.Generator, side: int, torso: Torso) -> Image.Image:
    """A picture (side, side) RGB whose part within the torso shows clothes."""
    colours = palette(rng)
    kind = rng.random()
    if kind < 0.45:
        image = relief(rng, side)
    elif kind < 0.75:
        image = Image.new("RGB", (side, side), pick(rng, colours))
    else:
        image = _woven(rng, side, colours)
    for detail, share in _DETAILS:
        if rng.random() < share:
            detail(rng, image, torso, colours)
    return image


def _woven(rng: np.random.Generator, side: int, colours: Colours) -> Image.Image:
    """Stripes in one direction, or in two that cross."""
    y, x = np.mgrid[:side, :side] - side / 2
    turn, period = rng.uniform(0, np.pi), side * math.exp(rng.uniform(math.log(0.015), math.log(0.2)))
    pixels = np.array(pick(rng, colours), float)[None, None]
    for angle in (turn, turn + np.pi / 2)[: int(rng.integers(1, 3))]:
        wave = (np.cos(angle) * x + np.sin(angle) * y) / period % 1 < rng.uniform(0.15, 0.6)
        pixels = pixels + wave[..., None] * (np.array(pick(rng, colours)) - pixels) * rng.uniform(0.4, 1)
    return Image.fromarray(pixels.astype(np.uint8))


def _collar(rng: np.random.Generator, image: Image.Image, torso: Torso, colours: Colours) -> None:
    """An opening at the neck with what is worn below, and mostly two flaps beside it."""
    depth, width, draw = rng.uniform(0.15, 0.9), rng.uniform(0.15, 0.4), ImageDraw.Draw(image)
    draw.polygon(torso.at((-width, 0), (width, 0), (0, depth)), pick(rng, colours))
    if rng.random() < 0.7:
        flap, low, out = pick(rng, colours), depth * rng.uniform(0.5, 1.1), width * rng.uniform(1.1, 2.2)
        edge = pick(rng, colours)
        for x in (-1, 1):
            corners = torso.at((x * width, 0), (0, depth), (x * 0.6 * width, low), (x * out, 0.5 * low))
            draw.polygon(corners, flap, edge)


def _buttons(rng: np.random.Generator, image: Image.Image, torso: Torso, colours: Colours) -> None:
    """One or two rows of buttons, mostly along an edge."""
    draw, radius, step = ImageDraw.Draw(image), rng.uniform(0.02, 0.07), rng.uniform(0.15, 0.5)
    colour, rim, top = pick(rng, colours), pick(rng, colours), rng.uniform(0.1, 0.5)
    columns = (0.0,) if rng.random() < 0.7 else (-0.17, 0.17)
    if rng.random() < 0.7:
        draw.line(torso.at((0.06, 0), (0.06, 4)), rim, max(round(0.02 * torso.wide), 1))
    for x in columns:
        for x_px, y_px in torso.at(*((x, y) for y in np.arange(top, 3, step))):
            r = radius * torso.wide
            draw.ellipse((x_px - r, y_px - r, x_px + r, y_px + r), colour, rim)


def _pockets(rng: np.random.Generator, image: Image.Image, torso: Torso, colours: Colours) -> None:
    """Two pockets on the breast, with flaps."""
    draw, half, tall = ImageDraw.Draw(image), rng.uniform(0.12, 0.25), rng.uniform(0.2, 0.5)
    fill = pick(rng, colours) if rng.random() < 0.4 else None
    edge, width, y = pick(rng, colours), max(round(0.02 * torso.wide), 1), rng.uniform(0.45, 1.2)
    for x in (-0.45, 0.45):
        low = y + tall
        draw.polygon(torso.at((x - half, y), (x + half, y), (x + half, low), (x - half, low)), fill, edge, width)
        draw.line(torso.at((x - half, y + 0.25 * tall), (x, y + 0.4 * tall), (x + half, y + 0.25 * tall)), edge, width)


def _badges(rng: np.random.Generator, image: Image.Image, torso: Torso, colours: Colours) -> None:
    """Round and other signs anywhere, with letters on some."""
    for _ in range(int(rng.integers(1, BADGES + 1))):
        place = np.array(torso.at((rng.uniform(-0.9, 0.9), rng.uniform(0.2, 1.8)))[0])
        radius = torso.wide * math.exp(rng.uniform(math.log(0.07), math.log(0.4)))
        own = palette(rng)
        blossom(rng, image, place, radius, own)
        if rng.random() < 0.5:
            letters(rng, image, place, 0.6 * radius, own)


def _print(rng: np.random.Generator, image: Image.Image, torso: Torso, colours: Colours) -> None:
    """Large letters over the breast, in one or two lines."""
    for line in range(int(rng.integers(1, 3))):
        place = np.array(torso.at((rng.uniform(-0.2, 0.2), rng.uniform(0.5, 0.9) + 0.4 * line))[0])
        letters(rng, image, place, torso.wide * rng.uniform(0.15, 0.5), colours)


def _tie(rng: np.random.Generator, image: Image.Image, torso: Torso, colours: Colours) -> None:
    """A tie, or the ends of a scarf."""
    half, long = rng.uniform(0.05, 0.15), rng.uniform(0.8, 2)
    corners = torso.at((-half, 0), (half, 0), (0.5 * half, 0.2), (1.2 * half, long), (0, long + 0.2))
    corners += torso.at((-1.2 * half, long), (-0.5 * half, 0.2))
    ImageDraw.Draw(image).polygon(corners, pick(rng, colours), pick(rng, colours))


def _straps(rng: np.random.Generator, image: Image.Image, torso: Torso, colours: Colours) -> None:
    """Straps over one shoulder or both, some with a buckle."""
    draw, width = ImageDraw.Draw(image), max(round(torso.wide * rng.uniform(0.04, 0.2)), 1)
    colour, lean = pick(rng, colours), rng.uniform(-1.2, 1.2)
    for x in (-0.5, 0.5)[: int(rng.integers(1, 3))]:
        draw.line(torso.at((x, 0), (x + lean, 2.5)), colour, width)
        if rng.random() < 0.5:
            y, half = rng.uniform(0.3, 1.5), 0.7 * width / torso.wide
            middle = x + lean * y / 2.5
            corners = ((middle - half, y - half), (middle + half, y - half), (middle + half, y + half))
            draw.polygon(torso.at(*corners, (middle - half, y + half)), None, pick(rng, colours), max(width // 5, 1))


_DETAILS = (
    (_pockets, 0.3), (_buttons, 0.35), (_print, 0.15), (_badges, 0.45), (_tie, 0.12), (_collar, 0.6), (_straps, 0.25),
)  # fmt: skip
