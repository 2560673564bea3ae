"""The parts of a head as files want them: skin, eyes, teeth and tongue, each with a material; photos as their textures.

A part with a picture has texture coordinates of its own that fill that picture, because the layout of the whole head
gives the eyes next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from canthus.errors import ModelError, OutputError
from canthus.face.meshes import FaceMeshes
from canthus.face.morphable import MorphableModel
from canthus.geometry.coverage import fragments, nearest
from canthus.io.images import as_png

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "eyes": (0.9, 0.89, 0.87), "teeth": (0.93, 0.9, 0.83), "tongue": (0.76, 0.45, 0.43),
}  # fmt: skip
"""Of parts without a picture, sRGB."""
SKIN_COLOUR = (0.87, 0.76, 0.71)
_IRIS, _PUPIL, _RIM = 6.2, 2.4, 0.7  # mm on the mean head: radii, and the width of the dark ring around the iris
_IRIS_COLOURS = np.array([(0.02, 0.02, 0.02), (0.36, 0.25, 0.16), (0.14, 0.09, 0.06)])  # pupil, iris, its ring
_EYES_SIDE, _SIDES = 512, (256, 2048)  # px of pictures
_MARGIN = 0.02  # of a picture's side, around its part
_FACING = (0.15, 0.45)  # cosine to the view under which a photo counts for nothing, and from which on it counts fully
_BEHIND = 0.003  # of the head's height: what lies deeper than this behind another part of it is hidden
_DEPTH_SIDE = 1024  # px of the picture that tells what is hidden
_OUTLINE = 20  # of its px: nearer to the outline of the head a photo may show what is behind it


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a head with a material of its own.

    vertex: (W,), the model's vertex that each of the part's is. corners: (T,3) of the part's. uv: (W,2) texture
    coordinates, v down, or None. texture: (S,S,3) uint8 sRGB; None: one plain colour.
    """

    name: str
    vertex: np.ndarray
    corners: np.ndarray
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None

    @property
    def png(self) -> bytes | None:
        """The texture as a file."""
        return None if self.texture is None else as_png(Image.fromarray(self.texture))

    @property
    def colour(self) -> tuple[float, float, float]:
        """What the part is without a texture, sRGB."""
        return COLOURS.get(self.name, SKIN_COLOUR)


def parts_of(model: MorphableModel) -> list[Part]:
    """The parts of a model with one texture coordinate a vertex. Eyes in mm have a picture of irises."""
    parts = []
    for name, chosen in model.parts.items():
        if model.uv is not None and model.uv_triangles is not None:
            vertex, corners, uv = split_seams(model.triangles[chosen], model.uv, model.uv_triangles[chosen])
            parts.append(Part(name, vertex, corners, uv * [1, -1] + [0, 1]))
        else:
            vertex, corners = np.unique(model.triangles[chosen], return_inverse=True)
            parts.append(Part(name, vertex, corners.reshape(-1, 3)))
    return [_with_irises(part, model) if part.name == "eyes" and model.unit == "mm" else part for part in parts]


def photo_parts(meshes: FaceMeshes, face: int, image: np.ndarray) -> list[Part]:
    """The parts of a head with the colours of its photo `image` (H,W,3) uint8 on skin and eyes.

    Where the photo shows the skin, it has the photo's colours. What is hidden or seen at a flat angle has those of its
    mirror point, if that is seen, and else what continues the colours around it, towards the mean of all that is seen.
    Hidden parts of eyes have the colours of `parts_of`. Whatever covers the face in the photo, such as hair or
    glasses, is taken for skin. Raises `OutputError` for a model without texture coordinates.
    """
    if meshes.uv is None:
        raise OutputError("got a head model without texture coordinates, want one with, or no photo")
    view = _View(meshes.vertices[face].astype(np.float64), meshes.triangles, image)
    try:
        mirror = meshes.model.mirror
    except ModelError:  # not symmetric: the other side tells nothing
        mirror = None
    return [_textured(part, view, mirror) for part in parts_of(meshes.model)]


def split_seams(
    triangles: np.ndarray, uv: np.ndarray, uv_triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What file formats want, one texture coordinate a vertex, for which a vertex on a seam becomes two: the old vertex
    (W,) that each new one is, triangles (T,3) of new ones, and texture coordinates (W,2)."""
    corners = np.stack([triangles, uv_triangles], axis=-1).reshape(-1, 2)
    pairs, numbers = np.unique(corners, axis=0, return_inverse=True)
    return pairs[:, 0], numbers.reshape(-1, 3), uv[pairs[:, 1]]


def _spread(part: Part) -> Part:
    """A part whose texture coordinates fill the picture, in their proportions."""
    assert part.uv is not None
    low, extent = part.uv.min(0), np.ptp(part.uv, axis=0).max()
    return replace(part, uv=_MARGIN + (part.uv - low) * ((1 - 2 * _MARGIN) / extent))


class _Texels:
    """The pixels of a picture of `side` that a part covers: pixel (N,), and the model's vertices (N,3) with weights
    (N,3) that each of them is."""

    def __init__(self, part: Part, side: int):
        assert part.uv is not None
        found = list(fragments(part.uv * side - 0.5, part.corners, (side, side)))
        owner, pixel, weights = (np.concatenate(column) for column in zip(*found))
        self.pixel, first = np.unique(pixel, return_index=True)
        self.weights, self.vertices = weights[first], part.vertex[part.corners[owner[first]]]

    def of(self, values: np.ndarray, mirror: np.ndarray | None = None) -> np.ndarray:
        """Values (V,...) of the model's vertices at the pixels, or at their mirror points."""
        at = values[self.vertices if mirror is None else mirror[self.vertices]]
        return np.einsum("nk,nk...->n...", self.weights, at)


def _with_irises(part: Part, model: MorphableModel) -> Part:
    if part.uv is None:
        return part
    part = _spread(part)
    texels, mean = _Texels(part, _EYES_SIDE), model.mean.astype(np.float64)
    colours = np.full((_EYES_SIDE**2, 3), COLOURS["eyes"])
    own, at = mean[part.vertex], texels.of(mean)
    for side in (-1, 1):
        middle = own[side * own[:, 0] > 0].mean(0)
        here = (side * at[:, 0] > 0) & (at[:, 2] > middle[2])
        radius = np.linalg.norm((at - middle)[:, :2], axis=1)
        for limit, colour in zip((_IRIS, _IRIS - _RIM, _PUPIL), _IRIS_COLOURS[[2, 1, 0]]):
            share = np.clip((limit - radius) / 0.4 + 0.5, 0, 1)[here, None]
            pixel = texels.pixel[here]
            colours[pixel] += share * (colour - colours[pixel])
    return replace(part, texture=_as_picture(colours * 255))


class _View:
    """A photo as seen from the surface of a head in it: vertices (V,3) px, z larger nearer."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray, image: np.ndarray):
        self.vertices, self.triangles, self.image = vertices, triangles, image
        a, b, c = (vertices[triangles[:, k]] for k in range(3))
        across = -np.cross(b - a, c - a)  # y points down
        normals = np.zeros_like(vertices)
        for k in range(3):
            np.add.at(normals, triangles[:, k], across)
        self.facing = normals[:, 2] / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
        self.low, extent = vertices[:, :2].min(0), np.ptp(vertices[:, :2], axis=0)
        self.behind = _BEHIND * extent[1]
        self.zoom = _DEPTH_SIDE / extent.max()
        shape = np.ceil(extent * self.zoom).astype(int)[::-1] + 1
        self.depth = nearest(self._in_depth(vertices), triangles, (int(shape[0]), int(shape[1])))
        inside = _box_means(np.isfinite(self.depth), _OUTLINE)  # 1/2 on a straight outline
        self.within = np.clip(4 * inside - 3, 0, 1)

    def _in_depth(self, points: np.ndarray) -> np.ndarray:
        return np.concatenate([(points[:, :2] - self.low) * self.zoom, points[:, 2:]], axis=1)

    def look(self, points: np.ndarray, facing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours (N,3) of points (N,3) on the head, and how far each is seen, (N,) 0..1."""
        column, row = np.rint(self._in_depth(points)[:, :2]).astype(int).T
        height, width = self.depth.shape
        row, column = row.clip(0, height - 1), column.clip(0, width - 1)
        share = np.clip((facing - _FACING[0]) / (_FACING[1] - _FACING[0]), 0, 1)
        share = share * share * (3 - 2 * share)
        limit = np.array(self.image.shape[1::-1]) - 1
        inside = ((points[:, :2] >= 0) & (points[:, :2] <= limit)).all(1)
        seen = inside & (points[:, 2] >= self.depth[row, column] - self.behind)
        return sample(self.image, points[:, :2]), share * seen * self.within[row, column]

    def side(self, part: Part) -> int:
        """Of a picture for a part that has more pixels than what is seen of it in the photo, within _SIDES."""
        assert part.uv is not None
        in_photo, in_uv = (_areas(p[part.corners]) for p in (self.vertices[part.vertex, :2], part.uv))
        seen = (self.facing[part.vertex][part.corners].min(1) > _FACING[1]) & (in_uv > 0)
        wanted = 1.5 * np.sqrt(in_photo[seen].sum() / max(in_uv[seen].sum(), 1e-9))
        return int(np.clip(2 ** np.ceil(np.log2(max(wanted, 1.0))), *_SIDES))


def _box_means(values: np.ndarray, reach: int) -> np.ndarray:
    """Means of values (H,W) over squares that reach so far from each place; beyond the border values are 0."""
    for _ in range(2):
        sums = np.cumsum(np.pad(values.astype(np.float64), [(reach + 1, reach), (0, 0)]), axis=0)
        values = ((sums[2 * reach + 1 :] - sums[: -2 * reach - 1]) / (2 * reach + 1)).T
    return values


def _areas(corners: np.ndarray) -> np.ndarray:
    """Twice the areas of triangles with corners (T,3,2)."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colours (N,3) of an image (H,W,3) at points (N,2) px, bilinear; those outside have the colour of the border."""
    limit = np.array(image.shape[1::-1]) - 1
    points = np.clip(points, 0, limit)
    low = np.minimum(points.astype(int), limit - 1)
    x, y = (points - low).T[..., None]
    column, row = low.T
    upper, lower = ((1 - x) * image[r, column] + x * image[r, column + 1] for r in (row, row + 1))
    return (1 - y) * upper + y * lower


def _textured(part: Part, view: _View, mirror: np.ndarray | None) -> Part:
    if part.name not in ("skin", "eyes"):  # teeth and tongue are placed too roughly
        return part
    own = part.texture
    part = _spread(part) if own is None else part
    side = view.side(part)
    texels = _Texels(part, side)
    colours, known = np.zeros((side**2, 3), np.float32), np.zeros((side**2, 1), np.float32)
    for other in (None,) if mirror is None else (None, mirror):
        seen, share = view.look(texels.of(view.vertices, other), texels.of(view.facing, other))
        left = share[:, None] * (1 - known[texels.pixel])
        colours[texels.pixel] += left * seen
        known[texels.pixel] += left
    if own is None:
        filled = _filled(colours.reshape(side, side, 3), known.reshape(side, side, 1))
    else:
        beneath = np.asarray(Image.fromarray(own).resize((side, side)), np.float32)
        filled = colours + (1 - known) * beneath.reshape(-1, 3)
    return replace(part, texture=_as_picture(filled))


def _filled(colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colours (S,S,3), multiplied by their weights (S,S,1) 0..1, continued to where these are less than 1: by the means
    of ever larger blocks (Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.4: pull and push)."""
    side = len(weight)
    if side == 1:
        return colours + (1 - weight) * 255 * np.array(SKIN_COLOUR, np.float32)
    below, total = (a.reshape(side // 2, 2, side // 2, 2, -1).sum((1, 3)) for a in (colours, weight))
    share = np.minimum(total, 1)
    coarse = _filled(below * (share / np.maximum(total, 1e-9)), share)
    return colours + (1 - weight) * _doubled(_doubled(coarse).swapaxes(0, 1)).swapaxes(0, 1)


def _doubled(rows: np.ndarray) -> np.ndarray:
    """Twice as many rows (2N,...), bilinear between the middles of those (N,...) given."""
    before, after = np.concatenate([rows[:1], rows[:-1]]), np.concatenate([rows[1:], rows[-1:]])
    return np.stack([0.75 * rows + 0.25 * before, 0.75 * rows + 0.25 * after], 1).reshape(-1, *rows.shape[1:])


def _as_picture(colours: np.ndarray) -> np.ndarray:
    """Colours (S*S,3) or (S,S,3), 0..255, as a picture."""
    side = int(np.sqrt(colours.size // 3))
    return np.rint(colours).clip(0, 255).astype(np.uint8).reshape(side, side, 3)
