"""Drawing of faces on their photo."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canthus.errors import ImageError, LandmarkError
from canthus.face.faces import Faces
from canthus.face.landmarks import scheme
from canthus.io.images import as_rgb

# Far to near: cool and dark to warm and light, so that depth also reads in grey.
_RAMP = np.array([(62, 96, 220), (118, 88, 214), (190, 84, 170), (240, 112, 96), (250, 174, 72), (255, 232, 138)])
_AXES = ((235, 64, 52), (60, 190, 90), (70, 130, 250))  # x red, y green, z blue


def _ink(colour: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """A colour (red, green, blue, opacity), multiplied by its opacity."""
    red, green, blue, opacity = colour
    return red * opacity // 255, green * opacity // 255, blue * opacity // 255, opacity


_SHADE = _ink((16, 18, 24, 130))  # behind everything thin, for contrast on skin
_BOX = _ink((255, 255, 255, 110))

_SUPERSAMPLING = ((256, 3), (2048, 2))  # up to a side of the layer, px: larger faces have wider lines


def overlay(
    image: np.ndarray,
    faces: Faces,
    *,
    box: bool = True,
    axes: bool = True,
    uncertainty: bool = False,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """A copy of `image` (H,W,3) uint8 RGB with `faces` drawn on it.

    Landmarks go from dark blue (farthest point of the face) to light yellow (nearest); points with a
    visibility below one half are hollow. `box` draws the tight box. `axes` draws the head's axes from the
    middle of the face: red to the subject's left, green up, blue out of the face. `uncertainty` draws a
    circle of one sigma around each point. `names` (N,) are written above the boxes.
    Raises `ImageError` if the image is not of `faces.image_size`, `LandmarkError` for what are no faces.
    """
    if not isinstance(faces, Faces):
        raise LandmarkError(f"got {type(faces).__name__} to draw, want Faces")
    canvas = np.array(as_rgb(image), order="C")
    size = canvas.shape[1], canvas.shape[0]
    if size != faces.image_size:
        raise ImageError(f"got an image of {size} px, want the {faces.image_size} px of the faces")
    boxes, sizes = faces.boxes, faces.sizes
    for k in range(len(faces)):
        drawn = _Drawn(
            faces.xyz[k].astype(np.float64), faces.sigma[k] if uncertainty else None, faces.visible[k] < 0.5, boxes[k],
            max(float(sizes[k]), 1.0), faces.pose.matrix[k], _chains(faces.scheme),
        )  # fmt: skip
        _draw_face(canvas, drawn, box=box, axes=axes)
    for corner, side, name in zip(boxes[:, :2], sizes.tolist(), names or ()):
        _write(canvas, name, corner, int(np.clip(0.15 * side, 10, 48)))
    return canvas


class _Drawn(NamedTuple):
    """What is drawn of one face: points (L,3), their sigma (L,) or None, which are hollow (L,), box (4,), size, pose
    (3,3), and the points of each line through several."""

    xyz: np.ndarray
    sigma: np.ndarray | None
    hollow: np.ndarray
    box: np.ndarray
    size: float
    matrix: np.ndarray
    chains: list[list[int]]


@cache
def _chains(name: str) -> list[list[int]]:
    """The edges of a scheme as lines through as many points as possible."""
    chains: list[list[int]] = []
    for a, b in scheme(name).edges:
        if chains and chains[-1][-1] == a:
            chains[-1].append(b)
        else:
            chains.append([a, b])
    return chains


def _draw_face(canvas: np.ndarray, face: _Drawn, *, box: bool, axes: bool) -> None:
    """Draw a single face on the canvas (H,W,3), by way of a supersampled layer that holds no more than is drawn."""
    thin, dot = max(1.0, 0.005 * face.size), max(1.5, 0.013 * face.size)  # px
    xy = face.xyz[:, :2]
    start = xy.mean(0)
    tips = start + 0.5 * face.size * face.matrix[:2].T * [1, -1]
    drawn = np.concatenate([xy, tips]) if axes else xy
    margin = dot + 2 * thin + (0 if face.sigma is None else np.nanmax(face.sigma, initial=0))
    low = np.maximum(np.floor(drawn.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(drawn.max(0) + margin) + 1, canvas.shape[1::-1]).astype(int)
    if (low >= high).any():
        return
    factor = next((factor for side, factor in _SUPERSAMPLING if (high - low).max() <= side), 1)
    pen = _Pen((high - low) * factor, low, factor, thin)
    if box:
        pen.rectangle(face.box)
    pen.landmarks(face, dot)
    if axes:
        pen.axes(start, tips, np.argsort(face.matrix[2]))  # the one that points away from the camera first
    _put(canvas, np.asarray(pen.layer.reduce(factor)), low)


def _put(canvas: np.ndarray, layer: np.ndarray, low: np.ndarray) -> None:
    """Put a layer (h,w,4), multiplied by its opacity, on the canvas, with its first pixel at `low` (x, y). Little of it
    is drawn on, and only that is worked on."""
    place = np.flatnonzero(layer.view(np.uint32))
    ink = layer.reshape(-1, 4).take(place, axis=0).astype(np.uint16)
    row, column = np.divmod(place, layer.shape[1])
    pixels, place = canvas.reshape(-1, 3), (row + low[1]) * canvas.shape[1] + column + low[0]
    pixels[place] = ink[:, :3] + (pixels.take(place, axis=0) * (255 - ink[:, 3:]) + 127) // 255


def _write(canvas: np.ndarray, text: str, corner: np.ndarray, size: int) -> None:
    """Write white text with a black rim on the canvas, `size` px high, from its lower left corner (x, y)."""
    label, offset = _label(text, size)
    first = np.rint(corner).astype(int) + offset
    low, high = np.maximum(first, 0), np.minimum(first + label.shape[1::-1], canvas.shape[1::-1])
    if (low < high).all():
        inside = tuple(slice(a, b) for a, b in zip((low - first)[::-1], (high - first)[::-1]))
        _put(canvas, np.ascontiguousarray(label[inside]), low)


@lru_cache(maxsize=256)
def _label(text: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A text as a layer for `_put`, and where its first pixel lies from the lower left corner of the text."""
    font: Any = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text, anchor="lb", stroke_width=1)
    label = Image.new("RGBA", (int(right - left) + 3, int(bottom - top) + 3))
    place = 1 - left, 1 - top
    ImageDraw.Draw(label).text(place, text, "white", font, "lb", stroke_width=1, stroke_fill="black")
    layer = np.frombuffer(label.convert("RGBa").tobytes(), np.uint8).reshape(label.height, label.width, 4)
    return layer, -np.floor(place).astype(int)


class _Pen:
    """Draws in image pixels on a layer whose first pixel is `corner` and which is `factor` times as fine.

    The colours of the layer are multiplied by their opacity, the fourth channel. For Pillow the layer is RGBX, whose
    fourth channel has no meaning: it would undo and redo that product whenever it resizes RGBA.
    """

    def __init__(self, size: np.ndarray, corner: np.ndarray, factor: int, thin: float) -> None:
        self.layer = Image.new("RGBX", tuple(size.tolist()))
        self.draw = ImageDraw.Draw(self.layer)
        self.corner, self.factor, self.thin = corner, factor, thin  # thin: px of the image

    def rectangle(self, box: np.ndarray) -> None:
        self.draw.rectangle(self._layer_from_image(box.reshape(2, 2)).ravel().tolist(), **self._outline(_BOX))

    def landmarks(self, face: _Drawn, dot: float) -> None:
        z, places = face.xyz[:, 2], self._layer_from_image(face.xyz[:, :2])
        points = [tuple(point) for point in np.rint(places).astype(int).tolist()]  # Pillow would round down
        colours = depth_colours(z).astype(int)
        for chain in face.chains:
            self.draw.line([points[k] for k in chain], fill=_SHADE, width=self._width(2 * self.thin))
        edges = np.array([edge for chain in face.chains for edge in zip(chain, chain[1:])])
        edges = edges[np.argsort(z[edges].sum(1))]
        between, thin = colours[edges].sum(1) // 2, self._width(self.thin)
        for (a, b), colour in zip(edges.tolist(), between.tolist()):
            self.draw.line([points[a], points[b]], fill=_ink((*colour, 230)), width=thin)
        rim = self._width(0.5 * self.thin)
        shaded, plain = (self._circles(places, radius) for radius in (dot + 0.5 * self.thin, dot))
        for index in np.argsort(z).tolist():  # far to near
            colour = tuple(colours[index].tolist())
            if face.sigma is not None and np.isfinite(face.sigma[index]):
                self.circle(points[index], face.sigma[index], **self._outline(_ink((*colour, 150))))
            if face.hollow[index]:
                self.draw.ellipse(plain[index], fill=(0, 0, 0, 0), outline=(*colour, 255), width=thin)
            else:
                self.draw.ellipse(shaded[index], fill=(*colour, 255), outline=_SHADE, width=rim)

    def axes(self, start: np.ndarray, tips: np.ndarray, order: np.ndarray) -> None:
        first, *ends = self._layer_from_image(np.stack([start, *tips])).tolist()
        for axis in order.tolist():
            for width, ink in ((2.6 * self.thin, _SHADE), (1.6 * self.thin, (*_AXES[axis], 255))):
                self.line(first, ends[axis], width, ink)
                self.circle(first, width / 2, fill=ink)
                self.circle(ends[axis], 1.2 * width, fill=ink)

    def line(self, a: Sequence[float], b: Sequence[float], width: float, ink: tuple[int, ...]) -> None:
        self.draw.line([*a, *b], fill=ink, width=self._width(width))

    def _circles(self, places: np.ndarray, radius: float) -> list[list[int]]:
        """The boxes (N,4) of circles around places (N,2) of the layer."""
        width = round(2 * radius * self.factor)
        first = np.floor(places - width / 2 + 0.5).astype(int)
        boxes: list[list[int]] = np.concatenate([first, first + width], axis=1).tolist()
        return boxes

    def circle(self, centre: Sequence[float], radius: float, **how: Any) -> None:
        (x, y), r = centre, radius * self.factor
        self.draw.ellipse([round(x - r), round(y - r), round(x + r), round(y + r)], **how)

    def _outline(self, ink: tuple[int, ...]) -> dict[str, Any]:
        return {"outline": ink, "width": self._width(self.thin)}

    def _layer_from_image(self, points: np.ndarray) -> np.ndarray:
        """Points (N,2); pixel centres are integers on both sides."""
        return (points - self.corner + 0.5) * self.factor - 0.5

    def _width(self, width: float) -> int:
        return max(1, round(width * self.factor))


def depth_colours(z: np.ndarray) -> np.ndarray:
    """RGB colours (L,3) uint8 of the depths `z` (L,) of one face: nearest (largest) warm, farthest cool."""
    depth = (z - z.min()) / max(float(np.ptp(z)), 1e-6)
    stops = np.linspace(0, 1, len(_RAMP))
    colours = np.stack([np.interp(depth, stops, channel) for channel in _RAMP.T], axis=-1)
    return colours.round().astype(np.uint8)
