"""What two methods draw on their way to points, as pictures: volumes (Figures 4 and 5 of JVCR) and dense annotations
(Figures 2 (b) and 6 of CPRFA)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from canthus.data.formats import FaceSample
from canthus.errors import CanthusError
from canthus.evaluation.collect import picture_of, true_boxes
from canthus.face.faces import Alignment
from canthus.face.landmarks import scheme
from canthus.geometry.crop import Crop
from canthus.io.charts import beside
from canthus.io.images import crop_image
from canthus.methods.cprfa.linear_face import pixels
from canthus.methods.cprfa.method import Cprfa
from canthus.methods.jvcr import Jvcr
from canthus.training.aligner import Aligner

TILE = 192  # side of one picture, px


@torch.inference_mode()
def drawn(aligner: Aligner, samples: Sequence[FaceSample]) -> Image.Image:
    """A sheet with one row a face, the crop around its true box first. Raises `CanthusError` for a method that draws
    nothing that is shown here."""
    crops = Crop.around_boxes(true_boxes(samples), aligner.card.crop_scale, aligner.card.crop_size)
    rows = []
    for k, sample in enumerate(samples):
        cut = crop_image(picture_of(sample), crops[k : k + 1])
        inputs = torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 255
        if isinstance(aligner, Jvcr):
            tiles = volume_tiles(aligner, cut[0], aligner(inputs))
        elif isinstance(aligner, Cprfa):
            tiles = annotation_tiles(aligner, cut[0], aligner(inputs))
        else:
            raise CanthusError(f"the method {aligner.method} draws no volumes and no codes that could be shown")
        rows.append(beside(tiles))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for k, row in enumerate(rows):
        sheet.paste(row, (0, k * row.height))
    return sheet


def volume_tiles(aligner: Jvcr, crop: np.ndarray, alignment: Alignment) -> list[Image.Image]:
    """Of a crop (S,S,3): points in it; the last volume from the front, from the subject's left and from above, the
    largest voxel along each ray, nearer ones brighter, the brightest white; the points from the side."""
    volume = aligner.volume_seen(alignment)[0].clamp(0, 1).numpy()  # (D,H,W), the first slice is the nearest
    depth, height, width = volume.shape
    near = np.linspace(1, 0.35, depth)[:, None, None]
    left = np.linspace(1, 0.35, width)[None, None, ::-1]
    above = np.linspace(1, 0.35, height)[None, :, None]
    views = [(volume * near).max(0), (volume * left).max(2).T, (volume * above).max(1)[::-1]]
    xyz = alignment.xyz[0].numpy()
    side = np.stack([(crop.shape[0] - 1) / 2 - xyz[:, 2], xyz[:, 1]], axis=1)
    ground = np.zeros_like(crop) + np.uint8(255)
    return [
        _points(crop, xyz[:, :2]), *(_tile((255 * view / max(view.max(), 1e-6)).astype(np.uint8)) for view in views),
        _points(ground, side, lines=True),
    ]  # fmt: skip


def annotation_tiles(aligner: Cprfa, crop: np.ndarray, alignment: Alignment) -> list[Image.Image]:
    """Of a crop (S,S,3): the crop; the codes of its pixels as colours, black where there is no face; the chosen
    vertices that were found; the landmarks."""
    answer = next(m for m in reversed(alignment.maps) if m.ndim == 4)  # the U-Net's at full size
    mask = answer[0, 4] > answer[0, 3]
    codes = (255 * answer[0, :3].sigmoid() * mask).permute(1, 2, 0).numpy().astype(np.uint8)
    points, found = aligner.look_up(answer, aligner.layout[:2].flatten())
    seen = pixels(points, aligner.config.size)[0][found[0]].numpy()
    return [_tile(crop), _tile(codes), _points(crop, seen), _points(crop, alignment.xyz[0, :, :2].numpy())]


def _tile(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)


def _points(picture: np.ndarray, xy: np.ndarray, lines: bool = False) -> Image.Image:
    """A picture (S,S,3) with points (L,2) in its pixels, joined as landmarks are."""
    tile = _tile(picture)
    zoom = TILE / picture.shape[0]
    places = (xy + 0.5) * zoom - 0.5
    draw = ImageDraw.Draw(tile)
    if lines:
        for a, b in scheme("ibug68").edges:
            draw.line([*places[a], *places[b]], fill=(150, 160, 170))
    for x, y in places:
        draw.ellipse([x - 1.5, y - 1.5, x + 1.5, y + 1.5], fill=(230, 70, 60) if lines else (60, 220, 90))
    return tile
