"""The inputs of a command, as files, folders and patterns, and the target of each file: what the names of its results
begin with.

A target follows from the path as it was given and from what lies beside the file, never from the other inputs:

- a file: its name, `photo.jpg` -> `photo`
- a file in a given folder: the folder's name and the path below it, `holiday` -> `holiday/day1/photo`
- a file that matches a pattern: the same, from the last folder before a wildcard, `raw/*/*.png` -> `raw/a/photo`

The suffix is left out unless the results of a neighbour would then have the same names: of `a.jpg` and `a.png` in one
folder the targets are `a.jpg` and `a.png`. A file that a folder would pass over keeps it where any other file
has the same stem. A name of more than 200 bytes is cut and ends in a hash of the whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import glob, has_magic
from os.path import isdir, lexists  # unlike pathlib's, these say False of a name that cannot be
from pathlib import Path
from typing import NamedTuple

from canthus.decode import encodable
from canthus.errors import CanthusError, OutputError

LONGEST = 200  # bytes of a target's name: file systems take 255, and endings such as ".overlay.png" follow


@dataclass
class Found:
    """What inputs hold.

    files: (path as it was given, its target below the output folder). passed_over: how many other files the folders and
    patterns hold, by suffix. hints: what to say of some of these. failures: folders that cannot be read, and why.
    """

    files: list[tuple[Path, Path]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    hints: Mapping[str, str] = field(default_factory=dict)
    failures: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """The kind of input that a command takes.

    what: the word for it. error: what to raise. wanted: whether a file of this name is one. whole: whether a folder
    that holds files of these names is one by itself, so that its files are not taken; None: never. hints: what to say
    of some suffixes that are passed over.
    """

    what: str
    error: type[CanthusError]
    wanted: Callable[[str], bool]
    whole: Callable[[list[str]], bool] | None = None
    hints: Mapping[str, str] = field(default_factory=dict)


class Source(NamedTuple):
    """What tells one file from another: the path as it was given, its length in bytes and its SHA-256."""

    path: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Source:
        """The source that `path` is now. Raises `OSError`."""
        digest, length = hashlib.sha256(), 0
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                length += len(block)
        return cls(encodable(os.fspath(path)), length, digest.hexdigest())


def find(inputs: Iterable[str | Path], kind: Kind) -> Found:
    """The files of `inputs`: files and unknown names as they are, of folders and patterns those that are wanted.

    Folders are searched in depth, each once. Links to folders are followed after everything else, if what they lead to
    has not been searched by then. A link to a file is a file under the link's name.
    Raises `kind.error` for an input that is empty, an address or gives nothing, and for two files of one target.
    """
    found, places, listings = Found(hints=kind.hints), dict[str, str](), dict[str, _Names]()
    for given in [os.fspath(one) for one in inputs]:
        _check_given(given, kind)
        if is_address(given):
            raise kind.error(f"got the address '{given}', want a {kind.what} or folder on this machine")
        here = Found()
        pairs = list(_pairs(given, kind, here, listings))
        if not pairs and not here.failures:
            raise _nothing(given, kind, here)
        for path, target in pairs:
            if target not in places:
                places[target] = path
                found.files.append((Path(path), Path(target)))
            elif os.path.abspath(places[target]) != os.path.abspath(path):
                raise kind.error(
                    f"got '{places[target]}' and '{path}', whose results would both be named '{target}', "
                    "want other output folders for one of them, or the folder above both as input"
                )
        found.passed_over += here.passed_over
        found.failures += here.failures
    return found


def paths_of(given: str, kind: Kind, passed_over: Counter[str]) -> Iterator[str]:
    """The paths that `find` finds of one input, as a stream: of a folder of millions it holds no more than one folder's
    names at a time.

    Raises `kind.error` as `find`, and for the first folder that cannot be read.
    """
    _check_given(given, kind)
    here, some = Found(), False
    for path, _ in _pairs(given, kind, here, {}):
        if here.failures:
            break
        some = True
        yield path
    if here.failures:
        place, why = here.failures[0]
        raise kind.error(f"{place}: {why}")
    if not some:
        raise _nothing(given, kind, here)
    passed_over += here.passed_over


def _check_given(given: str, kind: Kind) -> None:
    if not given:
        raise kind.error(f"got an empty path, want a {kind.what}, a folder or a pattern")


def _nothing(given: str, kind: Kind, found: Found) -> CanthusError:
    only = f", only {counted(found.passed_over, kind.hints)}" if found.passed_over else ""
    return kind.error(f"no {kind.what} in '{given}'{only}")


def counted(passed_over: Counter[str], hints: Mapping[str, str], most: int = 12) -> str:
    """`passed_over` in words, the most frequent suffixes first, such as "3 .txt, 1 .heic (a hint)"."""
    parts = []
    for suffix, count in passed_over.most_common(most):
        hint = f" ({hints[suffix]})" if suffix in hints else ""
        parts.append(f"{count} {suffix or 'without a suffix'}{hint}")
    rest = passed_over.total() - sum(count for _, count in passed_over.most_common(most))
    return ", ".join(parts) + (f", {rest} of other kinds" if rest else "")


def is_apple_double(name: str) -> bool:
    """Whether a file has a name of those with the attributes of others, which macOS leaves on foreign disks and in
    archives: ._photo.jpg beside photo.jpg."""
    return os.path.basename(name).startswith("._")


def is_address(path: str) -> bool:
    """Whether `path` is a URL, such as s3://bucket/folder, which `pathlib` would take for a local path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def check_folder(folder: str) -> Path:
    """The path of an output folder, which need not be there yet. Raises `OutputError` for an empty name, for addresses,
    and where no such folder can be or be made."""
    if not folder:
        raise OutputError("got an empty name for the output folder, want a folder")
    if is_address(folder):
        raise OutputError(f"got the address '{folder}' for the output folder, want a folder on this machine")
    place = nearest = Path(folder)
    while not lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if lexists(nearest) and not isdir(nearest):
        raise OutputError(f"got '{folder}' for the output folder, but '{nearest}' is no folder, want another place")
    if nearest != place and not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(
            f"got '{folder}' for the output folder, which you may not make in '{nearest}', want another place"
        )
    return place


def file_of(target: Path, ending: str) -> Path:
    """The file of a target that ends in `ending`, such as ".json"."""
    return target.with_name(target.name + ending)


def make_folder_of(target: Path) -> None:
    """Make the folder of a target's files. Raises `OutputError`, also where nothing may be written into it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"could not make the folder '{target.parent}': {reason(error)}") from error
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"could not write into the folder '{target.parent}': {os.strerror(errno.EACCES)}")


def reason(error: OSError | ValueError) -> str:
    """Why the system refused, in its usual words."""
    return getattr(error, "strerror", None) or str(error)


def _pairs(given: str, kind: Kind, found: Found, listings: dict[str, _Names]) -> Iterator[tuple[str, str]]:
    """(path, target) of one input; `listings` keeps the names of folders between calls."""
    if isdir(given):
        yield from _below(given, _folder_name(given), kind, found)
    elif not lexists(given) and has_magic(given):
        root = os.path.dirname(given)
        while has_magic(root):
            root = os.path.dirname(root)
        pattern = os.path.relpath(given, root or ".").split(os.sep)
        if "**" in pattern:  # glob would go round loops of links
            yield from _below(root, _folder_name(root), kind, found, lambda parts: _matches(parts, pattern))
            return
        for path in sorted(glob(given)):
            target = os.path.join(_folder_name(root), os.path.relpath(path, root or "."))
            if isdir(path):
                yield from _below(path, target, kind, found)
            elif kind.wanted(os.path.basename(path)):
                yield path, os.path.join(os.path.dirname(target), _neighbours(path, listings).target(path, kind))
            else:
                found.passed_over[_suffix(path)] += 1
    else:
        if os.path.basename(os.path.normpath(given)) in ("", os.curdir, os.pardir):
            return
        given = given.rstrip(os.sep)
        yield given, _neighbours(given, listings).target(given, kind)


def _below(
    top: str, label: str, kind: Kind, found: Found, matches: Callable[[list[str]], bool] = lambda parts: True
) -> Iterator[tuple[str, str]]:
    """(path, target) of what a folder and those below it hold and `matches`, given the names on the way from `top`.

    Each folder once, linked ones after the others, as a link may lead to what is found without it.
    """
    seen = set[tuple[int, int]]()
    folders: list[list[str]] = [[]]  # names on the way from `top`, the next one last
    links: list[list[str]] = []
    while folders or links:
        parts = folders.pop() if folders else links.pop()
        folder = os.path.join(top, *parts)
        try:
            status = os.stat(folder or ".")
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder or ".") as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            found.failures.append((Path(folder), f"could not look into the folder: {reason(error)}"))
            continue
        below, names = list[os.DirEntry[str]](), list[str]()
        for entry in entries:
            if _is_folder(entry):
                below.append(entry)
            else:
                names.append(entry.name)
        if kind.whole and kind.whole(names):
            if matches(parts):
                yield folder, os.path.join(label, *parts) or os.path.basename(os.path.abspath(folder))
            names = []
        neighbours = _Names([entry.name for entry in entries])
        for name in names:
            if not matches([*parts, name]):
                continue
            if kind.wanted(name):
                yield os.path.join(folder, name), os.path.join(label, *parts, neighbours.target(name, kind))
            else:
                found.passed_over[_suffix(name)] += 1
        for entry in reversed(below):
            (links if entry.is_symlink() else folders).append([*parts, entry.name])
        links.sort(reverse=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether the names of a path match those of a pattern, as `glob` matches them: ** stands for any folders, and
    wildcards for no name that begins with a dot."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        if _matches(parts, pattern[1:]):
            return True
        return bool(parts) and not parts[0].startswith(".") and (pattern == ["**"] or _matches(parts[1:], pattern))
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


class _Names:
    """The names in one folder, which say whether a target needs the suffix of its file. Case does not tell names apart,
    as some file systems do not."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names: dict[str, str] = {}
        self.of_stem: dict[str, list[str]] = {}
        for name in names:
            self.names[name.casefold()] = name
            self.of_stem.setdefault(os.path.splitext(name)[0].casefold(), []).append(name)

    def target(self, path: str, kind: Kind) -> str:
        """The last name of the target of a file of this folder."""
        name = os.path.basename(path)
        stem = os.path.splitext(name)[0]
        key = stem.casefold()
        numbered = re.fullmatch(r"(.+)\.\d+", key)  # as the files of several faces: a.0.pts of a.jpg
        rivals = [*self.of_stem.get(key, ()), *(self.of_stem.get(numbered[1], ()) if numbered else ())]
        if key in self.names:
            if kind.whole:  # it may be a folder
                return _cut(name)
            rivals.append(self.names[key])
        named = not kind.wanted(name)  # such as an animated PNG: other files may be taken when they are named, too
        return _cut(name if any(rival != name and (named or kind.wanted(rival)) for rival in rivals) else stem)


def _neighbours(path: str, listings: dict[str, _Names]) -> _Names:
    folder = os.path.dirname(path)
    if folder not in listings:
        try:
            names = os.listdir(folder or ".")
        except (OSError, ValueError):  # the file itself may still be readable
            names = []
        listings[folder] = _Names(names)
    return listings[folder]


def _cut(name: str) -> str:
    data = name.encode("utf-8", "surrogateescape")
    if len(data) <= LONGEST:
        return name
    digest = hashlib.sha256(data).hexdigest()[:16]
    return data[: LONGEST - 17].decode("utf-8", "ignore") + "-" + digest


def _folder_name(given: str) -> str:
    """The name of a folder as it was given, empty for the current one."""
    name = os.path.basename(os.path.normpath(given or "."))
    return "" if name == os.curdir else os.path.basename(os.path.abspath(given)) if name == os.pardir else name


def _suffix(path: str) -> str:
    return "._*" if is_apple_double(path) else os.path.splitext(path)[1].lower()
