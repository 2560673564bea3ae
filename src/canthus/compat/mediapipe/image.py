"""Images as MediaPipe holds them."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from canthus.compat import without_opacity
from canthus.errors import ImageError
from canthus.io.images import as_rgb, read_image


class ImageFormat(IntEnum):
    """The kinds of pixels that faces are looked for in."""

    SRGB = 1
    SRGBA = 2
    GRAY8 = 3


class Image:
    """A picture: uint8 (H,W,3), (H,W,4) or (H,W). Raises `ImageError` for another array."""

    def __init__(self, image_format: ImageFormat, data: np.ndarray):
        self.image_format, self._data = ImageFormat(image_format), np.asarray(data)
        channels = {ImageFormat.SRGB: 3, ImageFormat.SRGBA: 4, ImageFormat.GRAY8: 1}[self.image_format]
        got = self._data.shape[2] if self._data.ndim == 3 else 1
        if self._data.dtype != np.uint8 or self._data.ndim not in (2, 3) or got != channels:
            wanted = f"uint8 of {channels} channels for {self.image_format.name}"
            raise ImageError(f"got an image of {self._data.dtype} and shape {self._data.shape}, want {wanted}")

    @classmethod
    def create_from_file(cls, file_name: str) -> Image:
        """Read an image file, turned upright. Raises `ImageError`."""
        return cls(ImageFormat.SRGB, read_image(file_name))

    def numpy_view(self) -> np.ndarray:
        """The pixels."""
        return self._data

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self._data.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self._data.shape[0])


def pixels(image: Any) -> np.ndarray:
    """RGB (H,W,3) of an `Image`, without its opacity. Raises `ImageError` for anything else."""
    if not isinstance(image, Image):
        raise ImageError(f"got an image of type {type(image).__name__}, want an mp.Image")
    return as_rgb(without_opacity(image.numpy_view()))
