"""The one exception family: every error a user's input can cause is a `CanthusError`.

Each message is one sentence that says what was got and what is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


class CanthusError(Exception):
    """Base of every error that canthus raises on purpose."""


class ImageError(CanthusError, ValueError):
    """An image file or array that cannot be used."""


class ImageKindError(ImageError):
    """A file that is no known kind of image."""


class ImageSizeError(ImageError):
    """An image of more pixels than are read."""


class VideoError(CanthusError, ValueError):
    """A video file, or a folder of frames, that cannot be used."""


class VideoSizeError(VideoError):
    """A video of more pixels, frames or seconds than are wanted."""


class BoxError(CanthusError, ValueError):
    """Face boxes of the wrong shape, order or place."""


class LandmarkError(CanthusError, ValueError):
    """Landmarks of the wrong shape, or an unknown landmark scheme."""


class NoFilesError(LandmarkError):
    """A folder without the files of a data set."""


class ModelError(CanthusError, ValueError):
    """A morphable-model file that lacks something, or coefficients that do not fit the model."""


class WeightsError(CanthusError, ValueError):
    """Unknown, missing or damaged weights."""


class RecipeError(CanthusError, ValueError):
    """A training recipe with an unknown key or a value that makes no sense."""


class OutputError(CanthusError, OSError):
    """A result that could not be written."""


def first_few(texts: Iterable[str], most: int, separator: str = ", ") -> str:
    """The first `most` of the texts, and how many more there are."""
    known = list(texts)
    return separator.join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")


def amount(count: int, one: str, more: str = "") -> str:
    """A number of things in words, such as "1 face" and "2 faces"; `more` is the plural where it is not `one` + s."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def pip_install(extra: str) -> str:
    """The command that installs the extra (such as 'train') of this package that an optional feature needs.

    A source checkout is named by its folder, which works from anywhere; otherwise, and where that folder is gone, it is
    the published package.
    """
    source = json.loads(distribution("canthus").read_text("direct_url.json") or "{}")
    folder = Path(url2pathname(urlsplit(source.get("url", "")).path))
    if "dir_info" not in source or not folder.is_dir():
        return f"pip install 'canthus[{extra}]'"
    editable = "-e " if source["dir_info"].get("editable") else ""
    return f"pip install {editable}'{'.' if folder == Path.cwd() else folder}[{extra}]'"
