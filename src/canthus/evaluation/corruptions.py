"""Corruptions of photos, six kinds at five strengths each, the same for every system: how much does an error grow?

Strengths are relative to the face (its box's longer side) where that matters, and random numbers depend on the number
of the face only.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from canthus.io.images import GAMMA

PHOTONS = 400.0  # that a white pixel collects in full light: the shot noise of a small camera

CORRUPTIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "blur": ("sigma, % of the face", (1, 2, 3, 4, 6)),
    "noise": ("standard deviation, of 255", (8, 16, 24, 32, 48)),
    "jpeg": ("quality", (50, 30, 20, 10, 5)),
    "low light": ("share of the light", (0.5, 0.2, 0.1, 0.05, 0.02)),
    "occlusion": ("share of the box covered, %", (10, 20, 30, 40, 50)),
    "resolution": ("face, px", (96, 64, 48, 32, 24)),
}
"""Kind -> (unit of its strength, five strengths from mild to strong)."""


def corrupt(what: str, strength: float, number: int, image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The photo (H,W,3) uint8 of face `number` with `box` (4,), corrupted with `strength`."""
    picture, side = Image.fromarray(image), float((box[2:] - box[:2]).max())
    rng = np.random.default_rng([number, 77])
    if what == "blur":
        return np.array(picture.filter(ImageFilter.GaussianBlur(strength / 100 * side)))
    if what == "noise":
        return _rounded(image + rng.normal(0, strength, image.shape))
    if what == "jpeg":
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=int(strength))
        return np.array(Image.open(stream).convert("RGB"))
    if what == "low light":
        light = strength * (image / 255.0) ** GAMMA
        light = np.maximum(light + rng.normal(0, 1, image.shape) * np.sqrt(light / PHOTONS), 0)
        return _rounded(255 * light ** (1 / GAMMA))
    if what == "occlusion":
        return _covered(image, box, strength / 100, rng)
    if what == "resolution":
        zoom = min(1.0, strength / side)
        small = max(2, round(picture.width * zoom)), max(2, round(picture.height * zoom))
        return np.array(picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC))
    raise KeyError(what)


def _covered(image: np.ndarray, box: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A rectangle of one random colour, of `share` of the box's area and its proportions, at a random place in it."""
    size = (box[2:] - box[:2]) * np.sqrt(share)
    first = box[:2] + rng.uniform(0, 1, 2) * (box[2:] - box[:2] - size)
    x0, y0, x1, y1 = np.clip(np.rint([*first, *(first + size)]), 0, [*image.shape[1::-1]] * 2).astype(int)
    out = image.copy()
    out[y0:y1, x0:x1] = rng.integers(0, 256, 3)
    return out


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
