"""What is behind the head: part of an environment map, coloured noise, or one colour.

`choose_backdrop` decides what a view shows; `paint_backdrop` draws it with NumPy and Pillow, and `batch_renderer` draws
many on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from canthus.io.images import GAMMA
from canthus.synth.light import Environment, Light
from canthus.synth.recipe import RandomStreams, SynthRecipe


@dataclass(frozen=True)
class Panorama:
    """The visible part of an environment map; fields as the arguments of `Environment.background`."""

    environment: int
    turn: float
    field_of_view: float
    exposure: float
    tilt: float


@dataclass(frozen=True)
class Clutter:
    """A weighted sum of coloured noise at a few scales."""

    noise: tuple[np.ndarray, ...]  # (C,C,3) uint8 each, to be resized to the picture
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Backdrop:
    """What is behind the head and the standard deviation of its defocus blur, px; an array (3,) is a colour 0..255."""

    content: Panorama | Clutter | np.ndarray
    blur: float


def choose_backdrop(
    streams: RandomStreams,
    recipe: SynthRecipe,
    light: Light,
    own: int,
    environments: Sequence[Environment],
    pan: float = 0.0,
) -> Backdrop:
    """A random backdrop for a light that comes from environment `own`; `pan` as in `view_light`."""
    rng = streams.generator("backdrop")
    kind, near = streams.generator("backdrop kind").random(), rng.random() < 0.6
    here = near and light.exposure != 1.0
    content: Panorama | Clutter | np.ndarray
    if kind < recipe.environment_backdrop:
        number = own if here else int(rng.integers(len(environments)))
        exposure = light.exposure if here else 0.5 / max(float(environments[number].small.mean()), 1e-4)
        angle, tilt = np.radians(rng.uniform(20, 75)), np.radians(rng.normal(0, 10))
        content = Panorama(number, light.turn if light.turn else pan, angle, exposure * rng.uniform(0.5, 1.3), tilt)
    elif kind < recipe.environment_backdrop + recipe.clutter_backdrop:
        content = _choose_clutter(rng)
    else:
        content = np.clip(rng.uniform(0, 255) + rng.normal(0, 40, 3), 0, 255)
    return Backdrop(content, rng.uniform(0, 3))


def _choose_clutter(rng: np.random.Generator) -> Clutter:
    noise, weights = [], []
    for cells in (2, 5, 12, 30):
        grey = rng.random((cells, cells, 1))
        noise.append(((grey + rng.uniform(0, 0.5) * (rng.random((cells, cells, 3)) - grey)) * 255).astype(np.uint8))
        weights.append(rng.random())
    return Clutter(tuple(noise), tuple(weights))


def paint_backdrop(backdrop: Backdrop, size: int, environments: Sequence[Environment]) -> np.ndarray:
    """A backdrop as a picture, float32 (S,S,3) 0..255."""
    content = backdrop.content
    if isinstance(content, Panorama):
        where = environments[content.environment]
        image = np.clip(
            where.background(content.turn, size, content.field_of_view, content.exposure, content.tilt), 0, 1
        )
        image = image ** (1 / GAMMA) * 255
    elif isinstance(content, Clutter):
        image = np.zeros((size, size, 3))
        for noise, weight in zip(content.noise, content.weights):
            image += np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)) * weight
        image = image * 255 / max(image.max(), 1)
    else:
        image = np.broadcast_to(content, (size, size, 3))
    return np.asarray(
        Image.fromarray(image.astype(np.uint8)).filter(ImageFilter.GaussianBlur(backdrop.blur)), np.float32
    )
