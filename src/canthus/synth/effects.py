"""What a camera does to a picture: tone, white balance, blur, noise, compression.

`choose_camera_effects` decides what a view gets; `apply_camera_effects` does it with NumPy and Pillow, and
`batch_renderer` does it to many pictures on a GPU.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from canthus.synth.recipe import RandomStreams, SynthRecipe


@dataclass(frozen=True)
class CameraEffects:
    """What a camera does to a picture, in this order; None: nothing. Lengths in px of the stored picture."""

    gamma: float | None = None
    cast: np.ndarray | None = None  # (3,) factors: white balance that is off
    blur: float | None = None  # standard deviation
    motion: tuple[float, float] | None = None  # length, and angle in radians
    resolution: int | None = None  # side in px to which it is reduced and enlarged again
    noise: float | None = None  # standard deviation, levels of 255
    jpeg_quality: int | None = None  # 1..100


def choose_camera_effects(streams: RandomStreams, recipe: SynthRecipe) -> CameraEffects:
    """Random camera effects of a view."""
    out: dict = {}
    if (rng := streams.maybe("tone", recipe.tone)) is not None:
        out["gamma"] = np.exp(rng.normal(0, 0.17))
    if (rng := streams.maybe("cast", recipe.cast)) is not None:
        out["cast"] = np.exp(rng.normal(0, 0.1, 3) * [1, 0.4, 1])
    if (rng := streams.maybe("blur", recipe.blur)) is not None:
        out["blur"] = rng.uniform(0.3, 1.4) * recipe.size / 176
    if (rng := streams.maybe("motion", recipe.motion)) is not None:
        out["motion"] = rng.uniform(2, 7) * recipe.size / 176, rng.uniform(0, np.pi)
    if (rng := streams.maybe("low resolution", recipe.low_resolution)) is not None:
        out["resolution"] = max(round(recipe.size * rng.uniform(0.25, 0.7)), 16)
    if (rng := streams.maybe("noise", recipe.noise)) is not None:
        out["noise"] = rng.uniform(1, 9)
    if (rng := streams.maybe("jpeg", recipe.jpeg)) is not None:
        out["jpeg_quality"] = int(rng.integers(25, 85))
    return CameraEffects(**out)


def downsample(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture (S,S,4) with coverage reduced to `size`: colour premultiplied, float32 0..255."""
    planes = np.moveaxis(picture, -1, 0).astype(np.float32, "C")
    planes[:3] *= planes[3] / 255
    resized = [Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR) for p in planes]
    return np.stack([np.asarray(p) for p in resized], -1)


def apply_camera_effects(image: np.ndarray, effects: CameraEffects, rng: np.random.Generator) -> np.ndarray:
    """A picture (S,S,3) 0..255 after the effects, uint8; none of them moves a point. rng: of the noise."""
    if effects.gamma is not None:
        image = np.clip(image / 255, 0, 1) ** effects.gamma * 255
    if effects.cast is not None:
        image = image * effects.cast
    out = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if effects.blur is not None:
        out = out.filter(ImageFilter.GaussianBlur(effects.blur))
    if effects.motion is not None:
        out = Image.fromarray(_motion_blurred(np.asarray(out, np.float32), *effects.motion))
    if effects.resolution is not None:
        small = out.resize((effects.resolution, effects.resolution), Image.Resampling.BILINEAR)
        out = small.resize(out.size, Image.Resampling.BICUBIC)
    if effects.noise is not None:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(effects.noise)
        out = Image.fromarray(np.clip(np.asarray(out) + noise, 0, 255).astype(np.uint8))
    if effects.jpeg_quality is not None:
        file = io.BytesIO()
        out.save(file, "JPEG", quality=effects.jpeg_quality)
        out = Image.open(file)
    return np.asarray(out)


def motion_offsets(length: float, angle: float) -> Iterator[tuple[int, int, float]]:
    """Integer shifts (x, y) in px with weights that spread a picture along a line by -length/2..length/2.

    The weights sum to `motion_steps(length)`.
    """
    for t in np.linspace(-length / 2, length / 2, motion_steps(length)):
        x, y = t * np.cos(angle), t * np.sin(angle)
        i, j = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - i, y - j
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            yield i + dx, j + dy, (fx if dx else 1 - fx) * (fy if dy else 1 - fy)


def motion_steps(length: float) -> int:
    """The number of steps into which `motion_offsets` divides a length."""
    return max(int(np.ceil(length)), 2)


def _motion_blurred(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """The mean of copies shifted by -length/2..length/2 px along a line; borders are repeated."""
    reach = int(np.ceil(length / 2)) + 1
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "edge")
    h, w = image.shape[:2]
    total = np.zeros_like(image)
    for x, y, weight in motion_offsets(length, angle):
        total += weight * wide[reach + y : reach + y + h, reach + x : reach + x + w]
    return (total / motion_steps(length)).astype(np.uint8)
