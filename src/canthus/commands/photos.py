"""What `align` does with files: photos in, landmarks, pose and mesh out, file by file.

A file that cannot be read or written is reported and the next one is taken. A photo's JSON is written last and says
which file it speaks of and what else was written, so it stands for all results of that photo: `resume` passes over
photos whose JSON says that what is asked for is there.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from os.path import isfile  # unlike pathlib's, it says False of a name that cannot be
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from canthus.errors import CanthusError, ImageError, LandmarkError, amount, pip_install
from canthus.face.faces import Faces
from canthus.inference.lanes import Lanes, loads
from canthus.inference.predictor import Predictor
from canthus.io.card import Card
from canthus.io.draw import overlay
from canthus.io.images import HEIF, Picture, as_png, can_read, memory_of, read_picture
from canthus.io.inputs import Found, Kind, Source, file_of, find, is_address, is_apple_double, make_folder_of, reason
from canthus.io.meshes import write_mesh
from canthus.io.outputs import (
    atomic_write,
    read_document,
    remove_leftovers,
    write_json,
    write_pts,
)
from canthus.io.photo_lists import is_collection
from canthus.io.tables import write_csv

log = logging.getLogger(__name__)

OVERLAY = ".overlay.png"
LOST = "the process that aligned it was ended, by a fault in a decoder or for lack of memory"
PHOTO_PIXELS = 2**26  # larger photos are read at a half, a quarter, ... of their size


@dataclass(frozen=True)
class Outputs:
    """What is written for each photo, beside the JSON.

    mesh: a suffix of `meshes.write_mesh`, or None. expressions: whether a head model is fitted and the JSON holds its
    identity and, where the weights give none, its expression; both are there with a mesh too. scheme: that of the
    points in JSON, PTS and overlay (`Faces.converted`); None is the weights' own.
    """

    overlay: bool = True
    pts: bool = False
    csv: bool = False
    mesh: str | None = None
    expressions: bool = False
    scheme: str | None = None

    def files(self, faces: int) -> list[str]:
        """The endings of the files of a photo with this many faces, without the JSON's."""
        numbers = [""] if faces == 1 else [f".{k}" for k in range(faces)]
        return [
            *([OVERLAY] if self.overlay else []),
            *(f"{number}.pts" for number in numbers if self.pts),
            *(f"{number}.{self.mesh}" for number in numbers if self.mesh),
            *([".csv"] if self.csv else []),
        ]


@dataclass
class Summary:
    """What became of the files.

    files: photos that were aligned and written. skipped: photos that `resume` found done. failures: what failed, and
    why. untold: how many more failed that are not among these. passed_over: how many files are no photos that can be
    read, by suffix.
    """

    files: int = 0
    faces: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[tuple[str | Path, str]] = field(default_factory=list)
    untold: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """How many photos and folders failed."""
        return len(self.failures) + self.untold


def _is_photo(name: str) -> bool:
    return can_read(Path(name).suffix.lower()) and not name.endswith(OVERLAY) and not is_apple_double(name)


def photo_kind() -> Kind:
    """The files that `find_images` wants."""
    hints = {suffix: pip_install("heic") for suffix in HEIF if not can_read(suffix)}
    return Kind("photo", ImageError, _is_photo, hints=hints)


def find_images(inputs: Iterable[str | Path]) -> Found:
    """The photos in files, folders (searched in depth) and glob patterns, and their targets, by `inputs.find`.

    Photos are what `images.can_read`; overlays of an earlier run are none. Raises `ImageError` as `find`, and for
    addresses, lists and archives, which `photo_lists.photos_in` takes.
    """
    given = [os.fspath(one) for one in inputs]
    for one in given:
        if is_address(one) or is_collection(one):
            raise ImageError(
                f"got '{one}', want --format parquet or csv for addresses, lists and archives: JSON files are written "
                "for photos on this machine only"
            )
    return find(given, photo_kind())


def check_scheme(name: str, card: Card) -> None:
    """Raise `LandmarkError` unless weights of this card give all points of a landmark scheme."""
    quality = Faces.empty((1, 1), card.scheme).landmark_quality(name)
    if missing := int((quality == "missing").sum()):
        raise LandmarkError(f"got the scheme {name}, of which {missing} points cannot be told from {card.scheme}")


def align(
    found: Found,
    out: Path,
    lanes: Lanes,
    outputs: Outputs = Outputs(),
    resume: bool = False,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Align the photos that `find_images` found and write the results below `out`; `progress` after each chunk.

    `resume` skips a photo if its JSON says that the same weights wrote all that is asked for, of the same photo.
    A photo of more than PHOTO_PIXELS is read reduced; the overlay has its reduced size, all numbers are of the whole.
    """
    summary, start = Summary(failures=list(found.failures), passed_over=found.passed_over), time.perf_counter()
    work = partial(_align_chunk, outputs=outputs, resume=resume, share=lanes.share)
    files = ((path, out / name) for path, name in found.files)
    for done in lanes.map(work, files, lambda file: Summary(failures=[(file[0], LOST)])):
        summary.files += done.files
        summary.faces += done.faces
        summary.skipped += done.skipped
        summary.failures += done.failures
        summary.seconds = time.perf_counter() - start
        progress(summary)
    return summary


def _align_chunk(
    aligner: Predictor, files: list[tuple[Path, Path]], outputs: Outputs, resume: bool, share: int
) -> Summary:
    """Do some photos (path, target)."""
    summary, folders = Summary(), set[Path]()

    def read(file: tuple[Path, Path]) -> _Photo | None:
        path, target = file
        if resume and _is_done(path, target, outputs, aligner):
            summary.skipped += 1
            log.info("%s: done before", path)
            return None
        try:
            photo = _Photo(path, target, read_picture(path, PHOTO_PIXELS), _source(path))
            _make_folder(target, folders)  # before the networks work for nothing
            return photo
        except CanthusError as error:
            summary.failures.append((path, str(error)))
            _remove_stale(target, path)
            return None

    for load in loads(files, lambda file: memory_of(file[0], PHOTO_PIXELS), read, share):
        answers = aligner.predict_many([photo.picture.pixels for photo in load])
        for photo, faces in zip(load, answers, strict=True):
            try:
                _write(photo, faces, outputs, aligner.min_face)
                summary.files += 1
                summary.faces += len(faces)
                log.info("%s: %s", photo.path, amount(len(faces), "face"))
            except CanthusError as error:
                summary.failures.append((photo.path, str(error)))
        load.clear()
        del photo
    return summary


class _Photo(NamedTuple):
    path: Path
    target: Path
    picture: Picture
    source: Source


def _source(path: Path) -> Source:
    try:
        return Source.of(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"could not read {path}: {reason(error)}") from error


def _make_folder(target: Path, folders: set[Path]) -> None:
    """Make the folder of a target's files, if it is not one of `folders`, which it joins."""
    if target.parent not in folders:
        make_folder_of(target)
        remove_leftovers(target.parent)
        folders.add(target.parent)


def _write(photo: _Photo, faces: Faces, outputs: Outputs, min_face: float | None) -> None:
    target, picture = photo.target, photo.picture
    shown = faces.converted(outputs.scheme or faces.scheme)
    points = shown.scaled(picture.reduction, picture.first, picture.size)
    whole = faces.scaled(picture.reduction, picture.first, picture.size)
    mesh = whole.mesh() if outputs.mesh or outputs.expressions else None
    seen = mesh if picture.reduction == 1 else faces.mesh()  # in pixels of the picture that gives the colours
    written = [target.name + ending for ending in outputs.files(len(faces))]
    earlier = _results(target)
    now = photo.source[1:], faces.weights, points.scheme, min_face
    if earlier and (earlier.source[1:], earlier.weights, earlier.scheme, earlier.min_face) == now:
        written += [name for name in earlier.files if name not in written]  # such as the table of a run with --csv
    elif earlier:
        earlier.remove()
    json_file = file_of(target, ".json")
    if written:  # until all of it is there no JSON stands for it
        with suppress(OSError):
            json_file.unlink()
    if outputs.overlay:
        atomic_write(file_of(target, OVERLAY), as_png(Image.fromarray(overlay(picture.pixels, shown))))
    for k in range(len(faces)):
        number = "" if len(faces) == 1 else f".{k}"
        if outputs.pts:
            write_pts(file_of(target, f"{number}.pts"), points, k)
        if outputs.mesh == "glb" and seen is not None:
            write_mesh(file_of(target, f"{number}.glb"), seen, k, picture.pixels, mesh)
        elif outputs.mesh and mesh is not None:
            write_mesh(file_of(target, f"{number}.{outputs.mesh}"), mesh, k)
    if outputs.csv:
        write_csv(file_of(target, ".csv"), [whole])
    about = {"image": photo.source, "reduction": picture.reduction, "files": written, "min_face": min_face}
    write_json(json_file, points, mesh=mesh, **about)


@dataclass
class _Results:
    """What a JSON of an earlier run says: which file it speaks of, by which weights, and what else was written."""

    json: Path
    source: Source
    weights: str
    scheme: str
    min_face: float | None
    files: list[str]
    faces: int
    expressions: bool

    def remove(self) -> None:
        """Remove the JSON and the files that it names."""
        for name in [self.json.name, *self.files]:
            with suppress(OSError):
                self.json.with_name(name).unlink()


def _results(target: Path) -> _Results | None:
    """What the JSON of a target says; None without one, and for one that is broken or no JSON of ours."""
    path = file_of(target, ".json")
    if not isfile(path):
        return None
    try:
        document, faces = read_document(path)
    except (CanthusError, OSError):
        return None
    image, names = document["image"], document.get("files")
    own = [
        n
        for n in (names if isinstance(names, list) else [])
        if isinstance(n, str) and n.startswith(f"{target.name}.") and Path(n).name == n
    ]
    return _Results(
        json=path,
        source=Source(str(image.get("path")), image.get("bytes"), image.get("sha256")),
        weights=document["weights"],
        scheme=faces.scheme,
        min_face=document.get("min_face"),
        files=own,
        faces=len(faces),
        expressions=all("identity" in face for face in document["faces"]),
    )


def _is_done(path: Path, target: Path, outputs: Outputs, aligner: Predictor) -> bool:
    """Whether all results exist, made by this aligner from the file as it is now."""
    results = _results(target)
    if not results or results.weights != aligner.card.title or (outputs.expressions and not results.expressions):
        return False
    if results.scheme != (outputs.scheme or aligner.card.scheme) or results.min_face != aligner.min_face:
        return False
    wanted = [target.name + ending for ending in outputs.files(results.faces)]
    if not (set(wanted) <= set(results.files) and all(isfile(target.with_name(name)) for name in wanted)):
        return False
    return _is_of(results, path)


def _is_of(results: _Results, path: Path) -> bool:
    try:
        return path.stat().st_size == results.source.bytes and Source.of(path).sha256 == results.source.sha256
    except (OSError, ValueError):
        return False


def _remove_stale(target: Path, path: Path) -> None:
    """Remove results that speak of other contents of a photo that is there and cannot be read any more."""
    results = _results(target)
    if results and isfile(path) and not _is_of(results, path):
        results.remove()
