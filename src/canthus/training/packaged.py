"""The recipes that come with canthus. Needs no torch, so that they can be listed without it."""

from __future__ import annotations

import itertools
import re
from importlib import resources
from pathlib import Path


def packaged() -> dict[str, Path]:
    """The recipes that come with canthus, by name."""
    folder = Path(str(resources.files("canthus") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def title(path: Path) -> str:
    """The first sentence of the comment that a recipe begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=[^ ]{3}[.]) (?=[A-Z0-9\"])", text)[0].rstrip(":.")
