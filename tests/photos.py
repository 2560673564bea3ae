"""The photo of examples/ and the default aligner, read once for all tests; and helpers to repaint the photo."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

import canthus
from canthus.inference.runtime import OnnxAligner

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
# Read off the photo by hand, pixels: the tight box around the landmarks, and the subject's right and left pupils.
BOX = np.array([180, 84, 273, 177])
PUPILS = np.array([[206, 103], [244, 101]])


@cache
def photo() -> np.ndarray:
    """The astronaut, (512,512,3) uint8 RGB; read-only, as all tests share it."""
    image = canthus.read_image(PHOTO).copy()
    image.flags.writeable = False
    return image


@cache
def aligner() -> OnnxAligner:
    """The default aligner on one thread."""
    return canthus.load(threads=1)


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`image` at another size, smoothly."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def on_canvas(picture: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """A grey picture of width x height with `picture` pasted at (left, top)."""
    canvas = np.full((height, width, 3), 110, np.uint8)
    canvas[top : top + len(picture), left : left + picture.shape[1]] = picture
    return canvas


def distance(points: np.ndarray, wanted: np.ndarray) -> float:
    """Mean distance in the image plane of two sets of landmarks (68,2 or 3), in sizes of the wanted face's box."""
    size = np.sqrt(np.prod(np.ptp(wanted[:, :2], axis=0)))
    return float(np.linalg.norm(points[:, :2] - wanted[:, :2], axis=1).mean() / size)
