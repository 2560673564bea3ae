"""Pictures that nobody could take for a face but a network that has seen few others: heaps of balls, blossoms, stars,
strokes and letters in the colours of one scene, often those of skin; cloth, rock and skin as lit surfaces; pictures of
things.

Pictures of random shapes share much with photos: Baradad et al., "Learning to see by looking at noise", NeurIPS 2021.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from canthus.decode import decoding
from canthus.errors import RecipeError

_BALL = 64  # side of the shading of a ball, px
SKIN = 0.4  # share of pictures in the colours of skin


def pattern(rng: np.random.Generator, side: int) -> Image.Image:
    """One picture (side, side) RGB."""
    colours = _palette(rng)
    image = _gradient(rng, side, colours)
    largest = side * math.exp(rng.uniform(math.log(0.06), math.log(0.45)))
    for _ in range(int(math.exp(rng.uniform(math.log(4), math.log(90))))):
        radius = largest * rng.uniform(0.25, 1) ** 2
        place = rng.uniform(0, side, 2)
        _SHAPES[int(rng.integers(len(_SHAPES)))](rng, image, place, radius, colours)
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(math.exp(rng.uniform(math.log(0.4), math.log(0.03 * side)))))
    return image


def relief(rng: np.random.Generator, side: int) -> Image.Image:
    """A lit surface (side, side) RGB with folds or bumps, as of cloth, bark, rock or skin, of one or two colours."""
    wide = round(1.45 * side)  # as much as a square turned by any angle wants
    coarse, stretch = rng.uniform(1.5, 9), math.exp(rng.uniform(0, math.log(6)))
    fading = rng.uniform(0.2, 0.6)
    height = sum(fading**k * _waves(rng, wide, coarse * 2**k, coarse * 2**k * stretch) for k in range(5))
    down, across = np.gradient(height * side * rng.uniform(0.02, 0.12))
    light = rng.normal(0, 1, 2)
    light = light / np.hypot(*light) * rng.uniform(0.3, 1.2)
    shade = np.clip((1 + light[0] * across + light[1] * down) / np.sqrt(1 + across**2 + down**2), 0.05, 2)
    one, other = (np.array(_pick(rng, _palette(rng)), float) for _ in range(2))
    share = np.clip(4 * _waves(rng, wide, 3, 3) + rng.uniform(-2, 1), 0, 1)[..., None]
    pixels = (one + share * (other - one)) * shade[..., None] * rng.uniform(0.6, 1.1)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).rotate(
        rng.uniform(0, 360), Image.Resampling.BILINEAR
    )
    edge = (wide - side) // 2
    return image.crop((edge, edge, edge + side, edge + side))


def _waves(rng: np.random.Generator, side: int, rows: float, columns: float) -> np.ndarray:
    """Smooth noise (side, side) about 0 with so many hills along each axis."""
    cells = min(round(rows) + 1, side), min(round(columns) + 1, side)
    small = Image.fromarray(rng.normal(0, 0.5, cells).astype(np.float32))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def scatter(rng: np.random.Generator, image: Image.Image, objects: Sequence[Path]) -> None:
    """Strew pictures with opacity over a picture: alone or in heaps, in their colours or as signs of one colour."""
    sign = _pick(rng, _palette(rng)) if rng.random() < 0.3 else None
    turned = rng.random() < 0.4
    largest = image.width * math.exp(rng.uniform(math.log(0.05), math.log(0.7)))
    for _ in range(int(math.exp(rng.uniform(0, math.log(40))))):
        path = objects[int(rng.integers(len(objects)))]
        with decoding(RecipeError, f"the object '{path}' cannot be read"):
            thing = Image.open(path).convert("RGBA")
        ratio = largest * rng.uniform(0.4, 1) / max(thing.size)
        thing = thing.resize((max(round(thing.width * ratio), 1), max(round(thing.height * ratio), 1)), reducing_gap=2)
        if turned:
            thing = thing.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR, expand=True)
        cover = thing.getchannel("A")
        if sign is not None:
            thing = Image.new("RGB", thing.size, sign)
        x, y = (round(v) for v in rng.uniform(0, image.width, 2) - np.array(thing.size) / 2)
        image.paste(thing, (x, y), cover)


def _palette(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Three to seven colours of one scene."""
    skin = rng.random() < SKIN
    hue, width = (rng.uniform(0.01, 0.1), 0.02) if skin else (rng.random(), rng.uniform(0.02, 0.3))
    saturation = rng.uniform(0.2, 0.65) if skin else rng.random()
    colours = []
    for _ in range(int(rng.integers(3, 8))):
        shade = np.clip([saturation + rng.normal(0, 0.1), rng.uniform(0.05, 1)], 0, 1)
        red, green, blue = colorsys.hsv_to_rgb((hue + rng.normal(0, width)) % 1, float(shade[0]), float(shade[1]))
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


def _pick(rng: np.random.Generator, colours: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    return colours[int(rng.integers(len(colours)))]


def _gradient(rng: np.random.Generator, side: int, colours: list[tuple[int, int, int]]) -> Image.Image:
    across = rng.uniform(-1, 1, 2)
    y, x = np.mgrid[:side, :side] / side
    share = np.clip(across[0] * x + across[1] * y + rng.uniform(0, 1), 0, 1)[..., None]
    one, other = (np.array(_pick(rng, colours)) for _ in range(2))
    return Image.fromarray((one + share * (other - one)).astype(np.uint8))


def _ball(
    rng: np.random.Generator, image: Image.Image, place: np.ndarray, radius: float, colours: list[tuple[int, int, int]]
) -> None:
    """A shaded ellipsoid, or a spot of light without an edge."""
    size = max(round(2 * radius * rng.uniform(0.6, 1)), 2), max(round(2 * radius), 2)
    y, x = (np.mgrid[:_BALL, :_BALL] + 0.5) / _BALL * 2 - 1
    away = np.hypot(x, y)
    light = rng.uniform(-0.6, 0.6, 2)
    shade = np.clip(1.1 - 0.7 * np.hypot(x - light[0], y - light[1]), 0.15, 1)[..., None]
    pixels = Image.fromarray((np.array(_pick(rng, colours)) * shade).astype(np.uint8)).resize(size)
    cover = np.clip(1 - away, 0, 1) if rng.random() < 0.3 else away < 1
    mask = Image.fromarray((255 * cover).astype(np.uint8)).resize(size)
    image.paste(pixels, (round(place[0] - size[0] / 2), round(place[1] - size[1] / 2)), mask)


def _blossom(
    rng: np.random.Generator, image: Image.Image, place: np.ndarray, radius: float, colours: list[tuple[int, int, int]]
) -> None:
    """Outlines within each other: a polygon, a star or a leaf, up to four times."""
    corners, lobes, depth = int(rng.integers(3, 48)), int(rng.integers(1, 9)), rng.uniform(0, 0.7)
    angle = (
        np.sort(rng.uniform(0, 2 * np.pi, corners)) if rng.random() < 0.5 else np.arange(corners) / corners * 2 * np.pi
    )
    narrow, turn = rng.uniform(0.4, 1), rng.uniform(0, np.pi)
    c, s = math.cos(turn), math.sin(turn)
    for share in np.sort(rng.uniform(0.2, 1, int(rng.integers(1, 5))))[::-1]:
        away = share * radius * (1 - depth * (0.5 + 0.5 * np.cos(lobes * angle)))
        points = np.column_stack([away * np.cos(angle), narrow * away * np.sin(angle)]) @ np.array([[c, s], [-s, c]])
        ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in points + place], _pick(rng, colours))


def _stroke(
    rng: np.random.Generator, image: Image.Image, place: np.ndarray, radius: float, colours: list[tuple[int, int, int]]
) -> None:
    """A bundle of curves, as of hair or grass."""
    bend, first = rng.normal(0, 1, 2), rng.uniform(0, 2 * np.pi)
    width = max(round(radius * rng.uniform(0.02, 0.2)), 1)
    for _ in range(int(rng.integers(1, 14))):
        start = place + rng.normal(0, radius / 3, 2)
        t = np.linspace(0, 1, 8)
        angle = first + bend[0] * t + rng.normal(0, 0.15)
        steps = np.cumsum(np.column_stack([np.cos(angle), np.sin(angle)]), 0) * radius / 3
        ImageDraw.Draw(image).line([(float(x), float(y)) for x, y in start + steps], _pick(rng, colours), width)


def _letters(
    rng: np.random.Generator, image: Image.Image, place: np.ndarray, radius: float, colours: list[tuple[int, int, int]]
) -> None:
    text = "".join(chr(int(k)) for k in rng.integers(33, 127, int(rng.integers(1, 8))))
    font = ImageFont.load_default(max(radius * rng.uniform(0.3, 2), 5))
    ImageDraw.Draw(image).text((float(place[0]), float(place[1])), text, _pick(rng, colours), font, anchor="mm")


_SHAPES = (_ball, _ball, _blossom, _blossom, _blossom, _stroke, _letters)
