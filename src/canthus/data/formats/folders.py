"""The files of a data set's folder. Links are followed, and what macOS adds to archives is passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """The folder and those below it, each with the names of its folders and of its files, in order.

    A folder that is met again, by a link, is passed over: links may run in circles.
    """
    met = {os.path.realpath(folder)}
    for place, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in sorted(below) if name != "__MACOSX" and _new(os.path.join(place, name), met)]
        yield Path(place), below, [name for name in sorted(names) if not name.startswith("._")]


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """The files of a folder of any of the patterns, in order; upper and lower case are alike.

    A pattern is a path below the folder, as "*/annot/*.pts"; one that begins with "**/" fits at any depth.
    """
    wanted = [(p.startswith("**/"), p.lower().removeprefix("**/").split("/")) for p in patterns]
    found = []
    for place, _, names in walk(folder):
        above = [part.lower() for part in place.relative_to(folder).parts]
        for name in names:
            parts = [*above, name.lower()]
            if any((deep or len(parts) == len(p)) and _fit(parts[-len(p) :], p) for deep, p in wanted):
                found.append(place / name)
    return sorted(found)


def _new(folder: str, met: set[str]) -> bool:
    """Whether a folder is not among those that were met; from now on it is."""
    real = os.path.realpath(folder)
    if real in met:
        return False
    met.add(real)
    return True


def _fit(parts: list[str], patterns: list[str]) -> bool:
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
