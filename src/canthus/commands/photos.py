"""The main verb: photos in, landmarks, pose and mesh out, file by file.

A file that cannot be read or written is reported and the next one is taken. A file's JSON is written last, so it
stands for everything of that file: `resume` skips files that have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from os.path import exists  # unlike pathlib's, it says False of a name that cannot be
from pathlib import Path

import numpy as np
from PIL import Image

from canthus.errors import CanthusError, ImageError
from canthus.face.faces import Faces
from canthus.inference.predictor import Predictor
from canthus.io.draw import overlay
from canthus.io.images import as_png, read_image
from canthus.io.inputs import file_of, find, make_folder_of
from canthus.io.outputs import atomic_write, write_csv, write_json, write_mesh, write_pts

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
OVERLAY = ".overlay.png"
CHUNK = 8  # photos in memory at a time; their faces share network batches


@dataclass(frozen=True)
class Outputs:
    """What is written for each photo, beside the JSON. mesh: a suffix of `outputs.write_mesh`, or None."""

    overlay: bool = True
    pts: bool = False
    csv: bool = False
    mesh: str | None = None


@dataclass
class Summary:
    """What became of the files."""

    files: int = 0
    faces: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether there was work to do and none of it worked."""
        return self.files == 0 and bool(self.failures)


def find_images(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """(photo, its target below the output folder) of files, folders (searched in depth) and glob patterns.

    A photo named twice is taken once; overlays of an earlier run are no photos.
    Raises `ImageError` for an input that gives none.
    """

    def below(folder: Path) -> list[Path]:
        return sorted(p for p in folder.rglob("*") if _is_photo(p) and p.is_file())

    def missing(given: str) -> ImageError:
        return ImageError(f"no photo in '{given}': files ending in {', '.join(sorted(SUFFIXES))} are wanted")

    return find(inputs, _is_photo, below, missing)


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.endswith(OVERLAY)


def align(
    photos: Sequence[tuple[Path, Path]],
    out: Path,
    aligner: Predictor,
    outputs: Outputs = Outputs(),
    resume: bool = False,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Align `photos` (as `find_images` gives them) and write the results below `out`; `progress` after each chunk."""
    summary, start = Summary(), time.perf_counter()
    waiting = [(p, out / name) for p, name in photos if not (resume and exists(file_of(out / name, ".json")))]
    summary.skipped = len(photos) - len(waiting)
    for i in range(0, len(waiting), CHUNK):
        read: list[tuple[Path, Path, np.ndarray]] = []
        for photo, target in waiting[i : i + CHUNK]:
            try:
                read.append((photo, target, read_image(photo)))
            except CanthusError as error:
                summary.failures.append((photo, str(error)))
        for (photo, target, picture), faces in zip(read, aligner.predict_many([r[2] for r in read]) if read else []):
            try:
                _write(photo, target, picture, faces, outputs)
                summary.files += 1
                summary.faces += len(faces)
            except CanthusError as error:
                summary.failures.append((photo, str(error)))
        summary.seconds = time.perf_counter() - start
        progress(summary)
    return summary


def _write(photo: Path, target: Path, picture: np.ndarray, faces: Faces, outputs: Outputs) -> None:
    make_folder_of(target)
    mesh = faces.mesh()
    if outputs.overlay:
        atomic_write(file_of(target, OVERLAY), as_png(Image.fromarray(overlay(picture, faces))))
    for k in range(len(faces)):
        number = "" if len(faces) == 1 else f".{k}"
        if outputs.pts:
            write_pts(file_of(target, f"{number}.pts"), faces, k)
        if outputs.mesh:
            write_mesh(file_of(target, f"{number}.{outputs.mesh}"), mesh, k)
    if outputs.csv:
        write_csv(file_of(target, ".csv"), [faces])
    write_json(file_of(target, ".json"), faces, mesh=mesh, image=photo.name)
