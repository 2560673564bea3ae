"""What `align` does with photos by the million: tables of faces in parts, here or at an address.

Part K holds the faces of the photos from K * size to (K + 1) * size of the inputs, so its number and content follow
from the inputs alone. Files of a part: the table `part-00000.parquet`, a table of the photos that could not be read,
`_failures-00000.parquet`, if there are any, and, written last, `_part-00000.json`, which stands for both. Readers of
folders of tables, such as pyarrow's, pass over names that begin with _.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from canthus.commands.photos import LOST, PHOTO_PIXELS, Summary
from canthus.decode import decoding, fits, parse_json
from canthus.errors import CanthusError, OutputError
from canthus.face.faces import Faces
from canthus.geometry.crop import as_boxes
from canthus.inference.lanes import Lanes, chunked, loads
from canthus.inference.predictor import Predictor
from canthus.io.columns import FAILURE_COLUMNS, ImageFaces
from canthus.io.images import Picture
from canthus.io.photo_lists import Opened, Photo
from canthus.io.places import Folder
from canthus.io.tables import table_writer, write_rows

SCHEMA = "canthus.part/1"
PART = 8192  # photos
SHOWN = 20  # failures that are told one by one

T = TypeVar("T")


class Plan(NamedTuple):
    """What a run is to write: tables in a format, "csv" or "parquet", of a fixed number of photos each; of these every
    `shards`-th one from number `shard` on."""

    format: str = "parquet"
    size: int = PART
    shard: int = 0
    shards: int = 1


def read_shard(text: str) -> tuple[int, int]:
    """`shard` and `shards` of a plan out of a text such as "3/16". Raises `CanthusError`."""
    numbers = re.fullmatch(r"(\d+)/(\d+)", text)
    if numbers is None or int(numbers[1]) >= int(numbers[2]):
        raise CanthusError(f"got the shard '{text}', want I/N with I from 0 to N - 1, such as 0/16")
    return int(numbers[1]), int(numbers[2])


class Answer(NamedTuple):
    """What a photo gave: its faces, or why it has none."""

    name: str
    faces: Faces | None
    error: str = ""


def align(
    photos: Iterable[Photo],
    out: Folder,
    lanes: Lanes,
    plan: Plan,
    resume: bool = False,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Align photos and write parts into `out`; `progress` after each chunk and each part.

    Of the failures SHOWN are listed, the tables of failures have all. `resume` skips parts that are complete; without,
    `out` must hold none of those that are to be written. Raises `OutputError` for parts there of other photos, weights
    or settings, and what reading the inputs raises.
    """
    summary, start = Summary(), time.perf_counter()
    for part in left(photos, out, lanes.aligner, plan, resume, summary, progress):
        answers = lanes.map(partial(align_chunk, share=lanes.share), part.photos, lost)
        part.write(out, _counted(answers, summary, start, progress), lanes.aligner)
        progress(summary)
    return summary


def left(
    photos: Iterable[Photo],
    out: Folder,
    aligner: Predictor,
    plan: Plan,
    resume: bool,
    summary: Summary,
    progress: Callable[[Summary], None],
) -> Iterator[Part]:
    """The parts that are to be written; those that are there go into the summary. Raises `OutputError` as `align`."""
    existing = out.names()
    for part in parts_of(photos, plan):
        if part.about not in existing:
            yield part
            continue
        if not resume:
            raise OutputError(f"got '{out.place}' with parts of an earlier run, want --resume, or another folder")
        done = part.read(out, aligner)
        summary.skipped += done["photos"] - done["failures"]
        summary.untold += done["failures"]
        progress(summary)


def _counted(
    answers: Iterable[list[Answer]], summary: Summary, start: float, progress: Callable[[Summary], None]
) -> Iterator[list[Answer]]:
    for some in answers:
        failed = [(answer.name, answer.error) for answer in some if answer.faces is None]
        shown = failed[: SHOWN - len(summary.failures)]
        summary.files += len(some) - len(failed)
        summary.faces += sum(len(answer.faces) for answer in some if answer.faces is not None)
        summary.failures += shown
        summary.untold += len(failed) - len(shown)
        summary.seconds = time.perf_counter() - start
        yield some
        progress(summary)


class Part(NamedTuple):
    """Some photos whose faces are one table."""

    number: int
    photos: list[Photo]
    plan: Plan

    @property
    def table(self) -> str:
        """The name of the table of faces."""
        return f"part-{self.number:05d}.{self.plan.format}"

    @property
    def failures(self) -> str:
        """The name of the table of failures."""
        return f"_failures-{self.number:05d}.{self.plan.format}"

    @property
    def about(self) -> str:
        """The name of the JSON that stands for the part."""
        return f"_part-{self.number:05d}.json"

    def wanted(self, aligner: Predictor) -> dict[str, Any]:
        """What the JSON of this part has to say."""
        digest = hashlib.sha256(repr([tuple(photo) for photo in self.photos]).encode("utf-8", "surrogateescape"))
        return {
            "schema": SCHEMA,
            "part": self.number,
            "photos": len(self.photos),
            "photos_sha256": digest.hexdigest(),
            "weights": aligner.card.title,
            "min_face": aligner.min_face,
            "table": self.table,
        }

    def read(self, out: Folder, aligner: Predictor) -> dict[str, Any]:
        """What the JSON of this part says. Raises `OutputError` if it is another one's."""
        with decoding(OutputError, f"'{self.about}' in '{out.place}' cannot be read"):
            about = parse_json(out.read(self.about))
            counts = {name: about[name] for name in ("photos", "failures", "faces")}
            if not fits(counts, dict[str, int]):
                raise ValueError(f"it counts {counts}")
        wanted = self.wanted(aligner)
        others = [name for name in wanted if about.get(name) != wanted[name]]
        if others:
            raise OutputError(
                f"got the part {self.number} in '{out.place}', which differs in {', '.join(others)}, want another "
                "folder for other photos, weights or settings"
            )
        return about

    def write(self, out: Folder, answers: Iterable[Sequence[Answer]], aligner: Predictor) -> dict[str, Any]:
        """Write the tables and then the JSON; gives what it says. Raises `OutputError`."""
        faces, failed = 0, list[Answer]()
        with out.written(self.table) as path, table_writer(path, weights=aligner.card.title) as put:
            for some in answers:
                good = [answer for answer in some if answer.faces is not None]
                failed += [answer for answer in some if answer.faces is None]
                images = [ImageFaces(a.name, 0, 0.0, a.faces, np.arange(len(a.faces))) for a in good]  # type: ignore
                faces += sum(len(image.faces) for image in images)
                put(images)
        if failed:
            columns = {
                "image": np.array([answer.name for answer in failed], object),
                "error": np.array([answer.error for answer in failed], object),
            }
            with out.written(self.failures) as path:
                write_rows(path, columns, FAILURE_COLUMNS)
        else:  # those of a run that was killed before its JSON was written
            out.remove(self.failures)
        about = {**self.wanted(aligner), "faces": faces, "failures": len(failed)}
        out.write(self.about, json.dumps(about).encode() + b"\n")
        return about


def parts_of(photos: Iterable[Photo], plan: Plan) -> Iterator[Part]:
    """The parts of the plan's shard."""
    for number, some in enumerate(chunked(photos, plan.size)):
        if number % plan.shards == plan.shard:
            yield Part(number, some, plan)


def lost(photo: Photo) -> list[Answer]:
    """The answer of a photo that ends the process that aligns it."""
    return [Answer(photo.name, None, LOST)]


class _Read(NamedTuple):
    number: int  # in its chunk
    picture: Picture
    boxes: np.ndarray | None  # (N,4) in pixels of the picture as it was read


def align_chunk(aligner: Predictor, photos: list[Photo], share: int) -> list[Answer]:
    """The faces of some photos, in their order. share: bytes of pictures to hold at a time."""
    answers = dict[int, Answer]()

    def attempt(number: int, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except CanthusError as error:
            answers[number] = Answer(photos[number].name, None, str(error))
            return None

    def read(one: tuple[int, Opened]) -> _Read | None:
        return attempt(one[0], lambda: _read(*one))

    with ThreadPoolExecutor(len(photos)) as pool:  # a place far away answers several as quickly as one
        opened = list(pool.map(lambda one: attempt(one[0], lambda: Opened.of(one[1])), enumerate(photos)))
    readable = [(number, one) for number, one in enumerate(opened) if one is not None]
    for load in loads(readable, lambda one: one[1].memory(PHOTO_PIXELS), read, share):
        for kind in ([r for r in load if r.boxes is None], [r for r in load if r.boxes is not None]):
            boxes = None if not kind or kind[0].boxes is None else [r.boxes for r in kind]
            for (number, picture, _), faces in zip(kind, aligner.predict_many([r.picture.pixels for r in kind], boxes)):
                whole = faces.scaled(picture.reduction, picture.first, picture.size)
                answers[number] = Answer(photos[number].name, whole)
        load.clear()
        del kind, picture
    return [answers[number] for number in range(len(photos))]


def _read(number: int, opened: Opened) -> _Read:
    picture, boxes = opened.picture(PHOTO_PIXELS), opened.photo.boxes
    if boxes is None:
        return _Read(number, picture, None)
    whole = as_boxes(np.array(boxes), picture.size)
    return _Read(number, picture, (whole - [*picture.first, *picture.first]) / picture.reduction)
