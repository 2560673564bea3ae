"""All that is in a photograph beside the head: light, backdrop, and what a camera does to the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from canthus.synth.lighting import Environment, Light
from canthus.synth.recipe import Dice, SynthRecipe


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
) -> tuple[Light, Environment]:
    """Light of one view, and the environment it comes from or, where it is plain, the one for the backdrop.

    albedo: of the skin; a camera half follows it. pan: radians that the camera has turned.
    """
    rng = dice.roll("light")
    environment = environments[int(rng.integers(len(environments)))]
    turn = rng.uniform(0, 2 * np.pi) + pan
    brightness = 0.28 / albedo**0.7 * np.exp(rng.normal(0, 0.4))
    light = environment.light(turn, brightness)
    if dice.drawn("hdri", recipe.hdri) is None:
        light = plain_light(dice.roll("plain light"), brightness)
    return light, environment


def backdrop(
    dice: Dice, recipe: SynthRecipe, light: Light, own: Environment, others: Sequence[Environment], pan: float = 0.0
) -> np.ndarray:
    """What is behind the head, float32 (S,S,3) 0..255."""
    size, rng = recipe.size, dice.roll("backdrop")
    kind, here = dice.roll("backdrop kind").random(), light.exposure != 1.0 and rng.random() < 0.6
    if kind < recipe.environment_backdrop:
        seen = own if here else others[int(rng.integers(len(others)))]
        exposure = light.exposure if here else 0.5 / max(float(seen.small.mean()), 1e-4)
        angle, tilt = np.radians(rng.uniform(20, 75)), np.radians(rng.normal(0, 10))
        turn = light.turn if light.turn else pan
        image = np.clip(seen.background(turn, size, angle, exposure * rng.uniform(0.5, 1.3), tilt), 0, 1)
        image = image ** (1 / 2.2) * 255
    elif kind < recipe.environment_backdrop + recipe.clutter_backdrop:
        image = _clutter(rng, size)
    else:
        image = np.broadcast_to(np.clip(rng.uniform(0, 255) + rng.normal(0, 40, 3), 0, 255), (size, size, 3))
    blurred = Image.fromarray(image.astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 3)))
    return np.asarray(blurred, np.float32)


def _clutter(rng: np.random.Generator, size: int) -> np.ndarray:
    image = np.zeros((size, size, 3))
    for cells in (2, 5, 12, 30):
        grey = rng.random((cells, cells, 1))
        noise = Image.fromarray(
            ((grey + rng.uniform(0, 0.5) * (rng.random((cells, cells, 3)) - grey)) * 255).astype(np.uint8)
        )
        image += np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)) * rng.random()
    return image * 255 / max(image.max(), 1)


def reduce_picture(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture (S,S,4) with coverage brought down to `size`: colour premultiplied, float32 0..255."""
    planes = np.moveaxis(picture, -1, 0).astype(np.float32, "C")
    planes[:3] *= planes[3] / 255
    resized = [Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR) for p in planes]
    return np.stack([np.asarray(p) for p in resized], -1)


def develop(dice: Dice, recipe: SynthRecipe, image: np.ndarray, grain: Dice | None = None) -> np.ndarray:
    """What a camera does to a picture (S,S,3) 0..255: uint8 out. Nothing here moves a point.

    grain: the dice of the noise, where it changes while all else stays, as in a clip.
    """
    if (rng := dice.drawn("tone", recipe.tone)) is not None:
        image = np.clip(image / 255, 0, 1) ** np.exp(rng.normal(0, 0.17)) * 255
    if (rng := dice.drawn("cast", recipe.cast)) is not None:
        image = image * np.exp(rng.normal(0, 0.1, 3) * [1, 0.4, 1])
    out = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if (rng := dice.drawn("blur", recipe.blur)) is not None:
        out = out.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.4) * recipe.size / 176))
    if (rng := dice.drawn("motion", recipe.motion)) is not None:
        length = rng.uniform(2, 7) * recipe.size / 176
        out = Image.fromarray(_smeared(np.asarray(out, np.float32), length, rng.uniform(0, np.pi)))
    if (rng := dice.drawn("low resolution", recipe.low_resolution)) is not None:
        small = max(round(recipe.size * rng.uniform(0.25, 0.7)), 16)
        out = out.resize((small, small), Image.Resampling.BILINEAR).resize(out.size, Image.Resampling.BICUBIC)
    if (rng := dice.drawn("noise", recipe.noise)) is not None:
        loudness = rng.uniform(1, 9)
        noise = (grain or dice).roll("grain").standard_normal((*image.shape[:2], 3), np.float32) * np.float32(loudness)
        out = Image.fromarray(np.clip(np.asarray(out) + noise, 0, 255).astype(np.uint8))
    if (rng := dice.drawn("jpeg", recipe.jpeg)) is not None:
        file = io.BytesIO()
        out.save(file, "JPEG", quality=int(rng.integers(25, 85)))
        out = Image.open(file)
    return np.asarray(out)


def _smeared(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """The mean of copies shifted by -length/2..length/2 px along a line; borders are repeated."""
    steps = max(int(np.ceil(length)), 2)
    reach = int(np.ceil(length / 2)) + 1
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "edge")
    h, w = image.shape[:2]
    total = np.zeros_like(image)
    for t in np.linspace(-length / 2, length / 2, steps):
        x, y = t * np.cos(angle), t * np.sin(angle)
        i, j = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - i, y - j
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            top, left = reach + j + dy, reach + i + dx
            total += (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * wide[top : top + h, left : left + w]
    return (total / steps).astype(np.uint8)
