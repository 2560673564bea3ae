"""A look into a data set: read as training would, but going on after faults; some of its faces are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from canthus.data.formats import FaceSample, Faults, recognise
from canthus.data.truth import Truth, whole_truth
from canthus.errors import CanthusError, LandmarkError, amount
from canthus.geometry.crop import Crop, tight_boxes
from canthus.io.images import as_image, as_png, crop_image
from canthus.io.outputs import atomic_write, make_folder

SHEET = (8, 6)  # columns, rows
TILE = 128  # px
FACE = 0.6  # longer side of the box of the 68 landmarks / side of a tile
VISIBLE, HIDDEN = (80, 240, 80), (240, 70, 60)


@dataclass
class Checked:
    """What a data set holds. schemes: name -> faces. known: faces by how many of the 68 points they have; deep, posed:
    how many have depth, and a rotation. faults: what is wrong, with the file."""

    layout: str
    faces: int = 0
    pictures: int = 0
    deep: int = 0
    posed: int = 0
    schemes: Counter[str] = field(default_factory=Counter)
    known: Counter[int] = field(default_factory=Counter)
    faults: Faults = field(default_factory=list)

    def summary(self) -> str:
        """A few lines for people."""
        counts = {"picture": self.pictures, "face": self.faces, "fault": len(self.faults)}
        lines = [f"{self.layout}: " + ", ".join(amount(count, what) for what, count in counts.items())]
        if self.faces:
            points = ", ".join(f"{count} in {name}" for name, count in self.schemes.most_common())
            fewest, most = min(self.known), max(self.known)
            span = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            lines.append(f"labels: {points}; {span} of our 68 points")
            lines.append(f"depth: {amount(self.deep, 'face')}; rotation: {amount(self.posed, 'face')}")
        return "\n".join(lines)


def check(folder: Path, out: Path, head_model: str, update: Callable[[int, None, str], None]) -> Checked:
    """Read every face of a data set and its picture; write `sheet.png` into `out`. Raises `CanthusError` where the
    folder is in no layout that is known, or nothing can be written."""
    layout = recognise(folder, head_model)
    found, shown, pictures = Checked(layout.title), list[tuple[FaceSample, Truth]](), set[object]()
    every = 1  # of the faces, so that those shown are spread over the set

    def tell() -> None:
        update(found.faces, None, amount(len(found.faults), "fault") if found.faults else "")

    for sample in layout.read(folder, found.faults):
        try:
            picture = sample.image if isinstance(sample.image, Path) else None
            if picture is None or picture not in pictures:
                as_image(sample.image)
            truth = whole_truth([sample])
        except CanthusError as error:
            found.faults.append(error)
            tell()
            continue
        pictures.add(picture or found.faces)
        _count(found, sample, truth)
        if (found.faces - 1) % every == 0:
            shown.append((sample, truth))
            if len(shown) > 2 * SHEET[0] * SHEET[1]:
                shown, every = shown[::2], 2 * every
        tell()
    if not found.faces and not found.faults:
        found.faults.append(LandmarkError(f"'{folder}' holds no face with landmarks"))
    tell()  # of files after the last face too
    found.pictures = len(pictures)
    if shown:
        chosen = np.linspace(0, len(shown) - 1, min(len(shown), SHEET[0] * SHEET[1])).round().astype(int)
        atomic_write(make_folder(out) / "sheet.png", _sheet(shown[k] for k in chosen))
    return found


def _count(found: Checked, sample: FaceSample, truth: Truth) -> None:
    found.faces += 1
    found.schemes[sample.scheme] += 1
    found.known[int(truth.known.sum())] += 1
    found.deep += int(truth.deep[0])
    found.posed += int(truth.posed[0])


def _sheet(faces: Iterable[tuple[FaceSample, Truth]]) -> bytes:
    """A PNG of faces with their known points, green where visible, red where hidden."""
    tiles = []
    for sample, truth in faces:
        crop = Crop.around_boxes(tight_boxes(truth.xyz), 1 / FACE, TILE)
        tile = Image.fromarray(crop_image(as_image(sample.image), crop)[0])
        pen = ImageDraw.Draw(tile)
        points = crop.crop_from_image(truth.xyz)[0, :, :2]
        for (x, y), known, seen in zip(points.tolist(), truth.known[0], truth.visible[0]):
            if known:
                pen.ellipse([x - 1, y - 1, x + 1, y + 1], fill=VISIBLE if seen else HIDDEN)
        tiles.append(tile)
    sheet = Image.new("RGB", (TILE * min(SHEET[0], len(tiles)), TILE * -(-len(tiles) // SHEET[0])))
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % SHEET[0] * TILE, k // SHEET[0] * TILE))
    return as_png(sheet)
