"""All that is in a photograph beside the head: light, backdrop, and what a camera does to the picture.

What is drawn for a view and the drawing are apart: `choose_backdrop` and `choose_development` say what, here NumPy and
Pillow do it, and `darkroom` does it for many pictures on a GPU.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from canthus.synth.lighting import Environment, Light
from canthus.synth.recipe import Dice, SynthRecipe


@dataclass(frozen=True)
class Panorama:
    """What one sees of an environment; arguments as of `Environment.background`."""

    environment: int
    turn: float
    field_of_view: float
    exposure: float
    tilt: float


@dataclass(frozen=True)
class Clutter:
    """Coloured noise at a few scales."""

    noise: tuple[np.ndarray, ...]  # (C,C,3) uint8 each, to be brought to the picture's size
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Backdrop:
    """What is behind the head, and how far out of focus it is in px; an array (3,) is a colour 0..255."""

    seen: Panorama | Clutter | np.ndarray
    blur: float


@dataclass(frozen=True)
class Development:
    """What a camera does to a picture, in this order; None: it does not. Lengths in px of the stored picture."""

    gamma: float | None = None
    cast: np.ndarray | None = None  # (3,)
    blur: float | None = None
    motion: tuple[float, float] | None = None  # length and angle
    resolution: int | None = None  # px
    loudness: float | None = None
    quality: int | None = None  # of JPEG


def plain_light(rng: np.random.Generator, brightness: float) -> Light:
    """An even glow and one lamp somewhere before the head; brightness as of `Environment.light`."""
    fill, tint = rng.uniform(0.25, 1.0), np.clip(rng.normal(1, 0.08, (2, 3)), 0.7, 1.3)
    ambient = np.zeros((9, 3))
    ambient[0] = fill * brightness / 0.282095 * tint[0]
    direction = rng.normal(size=3) + [0, 0.5, 1.0]
    direction /= np.linalg.norm(direction)
    return Light(ambient, direction, (1 - fill) * brightness / 0.3 * tint[1], 1.0, 0.0)


def view_light(
    dice: Dice, recipe: SynthRecipe, environments: Sequence[Environment], albedo: float, pan: float = 0.0
) -> tuple[Light, int]:
    """Light of one view, and the number of the environment it comes from or, where it is plain, of that for the
    backdrop.

    albedo: of the skin; a camera half follows it. pan: radians that the camera has turned.
    """
    rng = dice.roll("light")
    environment = int(rng.integers(len(environments)))
    turn = rng.uniform(0, 2 * np.pi) + pan
    brightness = 0.28 / albedo**0.7 * np.exp(rng.normal(0, 0.4))
    light = environments[environment].light(turn, brightness)
    if dice.drawn("hdri", recipe.hdri) is None:
        light = plain_light(dice.roll("plain light"), brightness)
    return light, environment


def choose_backdrop(
    dice: Dice, recipe: SynthRecipe, light: Light, own: int, environments: Sequence[Environment], pan: float = 0.0
) -> Backdrop:
    """What is behind the head under a light that comes from environment `own`."""
    rng = dice.roll("backdrop")
    kind, here = dice.roll("backdrop kind").random(), light.exposure != 1.0 and rng.random() < 0.6
    seen: Panorama | Clutter | np.ndarray
    if kind < recipe.environment_backdrop:
        number = own if here else int(rng.integers(len(environments)))
        exposure = light.exposure if here else 0.5 / max(float(environments[number].small.mean()), 1e-4)
        angle, tilt = np.radians(rng.uniform(20, 75)), np.radians(rng.normal(0, 10))
        seen = Panorama(number, light.turn if light.turn else pan, angle, exposure * rng.uniform(0.5, 1.3), tilt)
    elif kind < recipe.environment_backdrop + recipe.clutter_backdrop:
        seen = _choose_clutter(rng)
    else:
        seen = np.clip(rng.uniform(0, 255) + rng.normal(0, 40, 3), 0, 255)
    return Backdrop(seen, rng.uniform(0, 3))


def _choose_clutter(rng: np.random.Generator) -> Clutter:
    noise, weights = [], []
    for cells in (2, 5, 12, 30):
        grey = rng.random((cells, cells, 1))
        noise.append(((grey + rng.uniform(0, 0.5) * (rng.random((cells, cells, 3)) - grey)) * 255).astype(np.uint8))
        weights.append(rng.random())
    return Clutter(tuple(noise), tuple(weights))


def choose_development(dice: Dice, recipe: SynthRecipe) -> Development:
    """What a camera does to a view."""
    out: dict = {}
    if (rng := dice.drawn("tone", recipe.tone)) is not None:
        out["gamma"] = np.exp(rng.normal(0, 0.17))
    if (rng := dice.drawn("cast", recipe.cast)) is not None:
        out["cast"] = np.exp(rng.normal(0, 0.1, 3) * [1, 0.4, 1])
    if (rng := dice.drawn("blur", recipe.blur)) is not None:
        out["blur"] = rng.uniform(0.3, 1.4) * recipe.size / 176
    if (rng := dice.drawn("motion", recipe.motion)) is not None:
        out["motion"] = rng.uniform(2, 7) * recipe.size / 176, rng.uniform(0, np.pi)
    if (rng := dice.drawn("low resolution", recipe.low_resolution)) is not None:
        out["resolution"] = max(round(recipe.size * rng.uniform(0.25, 0.7)), 16)
    if (rng := dice.drawn("noise", recipe.noise)) is not None:
        out["loudness"] = rng.uniform(1, 9)
    if (rng := dice.drawn("jpeg", recipe.jpeg)) is not None:
        out["quality"] = int(rng.integers(25, 85))
    return Development(**out)


def paint_backdrop(backdrop: Backdrop, size: int, environments: Sequence[Environment]) -> np.ndarray:
    """A backdrop, float32 (S,S,3) 0..255."""
    seen = backdrop.seen
    if isinstance(seen, Panorama):
        where = environments[seen.environment]
        image = np.clip(where.background(seen.turn, size, seen.field_of_view, seen.exposure, seen.tilt), 0, 1)
        image = image ** (1 / 2.2) * 255
    elif isinstance(seen, Clutter):
        image = np.zeros((size, size, 3))
        for noise, weight in zip(seen.noise, seen.weights):
            image += np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)) * weight
        image = image * 255 / max(image.max(), 1)
    else:
        image = np.broadcast_to(seen, (size, size, 3))
    return np.asarray(
        Image.fromarray(image.astype(np.uint8)).filter(ImageFilter.GaussianBlur(backdrop.blur)), np.float32
    )


def reduce_picture(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture (S,S,4) with coverage brought down to `size`: colour premultiplied, float32 0..255."""
    planes = np.moveaxis(picture, -1, 0).astype(np.float32, "C")
    planes[:3] *= planes[3] / 255
    resized = [Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR) for p in planes]
    return np.stack([np.asarray(p) for p in resized], -1)


def develop(image: np.ndarray, by: Development, grain: np.random.Generator) -> np.ndarray:
    """What a camera does to a picture (S,S,3) 0..255: uint8 out. Nothing here moves a point. grain: of the noise."""
    if by.gamma is not None:
        image = np.clip(image / 255, 0, 1) ** by.gamma * 255
    if by.cast is not None:
        image = image * by.cast
    out = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if by.blur is not None:
        out = out.filter(ImageFilter.GaussianBlur(by.blur))
    if by.motion is not None:
        out = Image.fromarray(_smeared(np.asarray(out, np.float32), *by.motion))
    if by.resolution is not None:
        small = out.resize((by.resolution, by.resolution), Image.Resampling.BILINEAR)
        out = small.resize(out.size, Image.Resampling.BICUBIC)
    if by.loudness is not None:
        noise = grain.standard_normal(image.shape, np.float32) * np.float32(by.loudness)
        out = Image.fromarray(np.clip(np.asarray(out) + noise, 0, 255).astype(np.uint8))
    if by.quality is not None:
        file = io.BytesIO()
        out.save(file, "JPEG", quality=by.quality)
        out = Image.open(file)
    return np.asarray(out)


def streak(length: float, angle: float) -> Iterator[tuple[int, int, float]]:
    """Whole shifts (x, y) in px and weights that move a picture along a line by -length/2..length/2; the weights sum to
    the number of steps, `streak_steps`."""
    for t in np.linspace(-length / 2, length / 2, streak_steps(length)):
        x, y = t * np.cos(angle), t * np.sin(angle)
        i, j = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - i, y - j
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            yield i + dx, j + dy, (fx if dx else 1 - fx) * (fy if dy else 1 - fy)


def streak_steps(length: float) -> int:
    """Into how many steps `streak` divides a length."""
    return max(int(np.ceil(length)), 2)


def _smeared(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """The mean of copies shifted by -length/2..length/2 px along a line; borders are repeated."""
    reach = int(np.ceil(length / 2)) + 1
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "edge")
    h, w = image.shape[:2]
    total = np.zeros_like(image)
    for x, y, weight in streak(length, angle):
        total += weight * wide[reach + y : reach + y + h, reach + x : reach + x + w]
    return (total / streak_steps(length)).astype(np.uint8)
