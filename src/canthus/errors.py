"""The one exception family: every error a user's input can cause is a `CanthusError`.

Each message is one sentence that says what was got and what is wanted.
"""

from __future__ import annotations


class CanthusError(Exception):
    """Base of every error that canthus raises on purpose."""


class ImageError(CanthusError, ValueError):
    """An image file or array that cannot be used."""


class VideoError(CanthusError, ValueError):
    """A video file, or a folder of frames, that cannot be used."""


class BoxError(CanthusError, ValueError):
    """Face boxes of the wrong shape, order or place."""


class LandmarkError(CanthusError, ValueError):
    """Landmarks of the wrong shape, or an unknown landmark scheme."""


class ModelError(CanthusError, ValueError):
    """A morphable-model file that lacks something, or coefficients that do not fit the model."""


class WeightsError(CanthusError, ValueError):
    """Unknown, missing or damaged weights."""


class RecipeError(CanthusError, ValueError):
    """A training recipe with an unknown key or a value that makes no sense."""


class OutputError(CanthusError, OSError):
    """A result that could not be written."""
