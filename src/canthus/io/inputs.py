"""What a verb is given, as files, folders and glob patterns, and where what it writes about each of them goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from glob import glob, has_magic
from os.path import exists, isdir  # unlike pathlib's, these say False of a name that cannot be
from pathlib import Path

from canthus.errors import CanthusError


def find(
    inputs: Iterable[str | Path],
    wanted: Callable[[Path], bool],
    below: Callable[[Path], Iterable[Path]],
    missing: Callable[[str], CanthusError],
) -> list[tuple[Path, Path]]:
    """(input, its target below the output folder) of files, folders and glob patterns; one named twice is taken once.

    A file or an unknown name is taken as it is, of a pattern what is `wanted`, of a folder what `below` finds in it.
    Raises what `missing` makes of an input that gives nothing.
    """
    found: dict[Path, Path] = {}
    for given in map(str, inputs):
        path = Path(given)
        if isdir(path):
            paths = list(below(path))
            names = [p.relative_to(path) if p != path else Path(path.resolve().name) for p in paths]
        elif not exists(path) and has_magic(given):
            paths = sorted(p for p in map(Path, glob(given, recursive=True)) if wanted(p))
            names = [Path(p.name) for p in paths]
        else:
            paths, names = [path], [Path(path.name)]
        if not paths:
            raise missing(given)
        for one, name in zip(paths, names):
            found.setdefault(one.resolve(), name)
    return apart(found)


def apart(found: dict[Path, Path]) -> list[tuple[Path, Path]]:
    """(input, target) of input -> its name below an output folder. A target is what the names of its files begin with.

    Inputs that would share a target keep their suffix in it, and a number if that is not enough.
    """
    taken: set[Path] = set()
    stems = [name.with_suffix("") for name in found.values()]
    out = []
    for (path, name), stem in zip(found.items(), stems):
        target = stem if stems.count(stem) == 1 else name.with_name(name.name.replace(".", "_"))
        number = 1
        while target in taken:
            target, number = target.with_name(f"{stem.name}-{number}"), number + 1
        taken.add(target)
        out.append((path, target))
    return out


def file_of(target: Path, ending: str) -> Path:
    """The file of a target that ends in `ending`, such as ".json"."""
    return target.with_name(target.name + ending)


def make_folder_of(target: Path) -> None:
    """Make the folder of a target's files; where that fails, their first write says why, in its usual words."""
    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
