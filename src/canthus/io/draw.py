"""Drawing of faces on their photo."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canthus.errors import ImageError
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
    Raises `ImageError` if the image is not of `faces.image_size`.
    """
    canvas = np.array(as_rgb(image))
    size = canvas.shape[1], canvas.shape[0]
    if size != faces.image_size:
        raise ImageError(f"got an image of {size} px, want the {faces.image_size} px of the faces")
    for face in faces:
        _draw_face(canvas, face, box=box, axes=axes, uncertainty=uncertainty)
    for face, name in zip(faces, names or ()):
        _write(canvas, name, face.boxes[0, :2], int(np.clip(0.15 * face.sizes[0], 10, 48)))
    return canvas


def _draw_face(canvas: np.ndarray, face: Faces, *, box: bool, axes: bool, uncertainty: bool) -> None:
    """Draw a single face on the canvas (H,W,3), by way of a supersampled layer that holds no more than is drawn."""
    size = max(float(face.sizes[0]), 1.0)
    thin, dot = max(1.0, 0.005 * size), max(1.5, 0.013 * size)  # px
    start = face.xy[0].mean(0)
    tips = start + 0.5 * size * face.pose.matrix[0, :2].T * [1, -1]
    drawn = np.concatenate([face.xy[0], tips]) if axes else face.xy[0]
    margin = dot + 2 * thin + (np.nanmax(face.sigma[0], initial=0) if uncertainty else 0)
    low = np.maximum(np.floor(drawn.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(drawn.max(0) + margin) + 1, canvas.shape[1::-1]).astype(int)
    if (low >= high).any():
        return
    factor = next((factor for side, factor in _SUPERSAMPLING if (high - low).max() <= side), 1)
    pen = _Pen((high - low) * factor, low, factor, thin)
    if box:
        pen.rectangle(face.boxes[0])
    pen.landmarks(face, dot, uncertainty)
    if axes:
        pen.axes(start, tips, np.argsort(face.pose.matrix[0, 2]))  # the one that points away from the camera first
    small = pen.layer.reduce(factor)
    drawing = Image.frombytes("RGBa", small.size, small.tobytes()).convert("RGBA")
    part = canvas[low[1] : high[1], low[0] : high[0]]
    picture = Image.fromarray(part)
    picture.paste(drawing, mask=drawing)
    part[...] = picture


def _write(canvas: np.ndarray, text: str, corner: np.ndarray, size: int) -> None:
    """Write white text with a black rim on the canvas, `size` px high, from its lower left corner (x, y)."""
    font = _font(size)
    bounds = np.array(font.getbbox(text, anchor="lb", stroke_width=1)).reshape(2, 2)
    low = np.maximum(np.floor(corner + bounds[0]) - 1, 0).astype(int)
    high = np.minimum(np.ceil(corner + bounds[1]) + 1, canvas.shape[1::-1]).astype(int)
    if (low >= high).any():
        return
    part = canvas[low[1] : high[1], low[0] : high[0]]
    picture = Image.fromarray(part)
    x, y = (corner - low).tolist()
    ImageDraw.Draw(picture).text((x, y), text, "white", font, "lb", stroke_width=1, stroke_fill="black")
    part[...] = picture


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


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

    def landmarks(self, face: Faces, dot: float, uncertainty: bool) -> None:
        xyz, hidden = face.xyz[0], face.visible[0] < 0.5  # NaN, not known, is drawn as seen
        points = self._layer_from_image(xyz[:, :2]).tolist()
        colours = depth_colours(xyz[:, 2]).astype(int)
        edges = np.array(scheme(face.scheme).edges)
        edges = edges[np.argsort(xyz[edges, 2].mean(1))]
        for a, b, colour in zip(*edges.T.tolist(), (colours[edges].sum(1) // 2).tolist()):
            self.line(points[a], points[b], 2 * self.thin, _SHADE)
            self.line(points[a], points[b], self.thin, _ink((*colour, 230)))
        for index in np.argsort(xyz[:, 2]).tolist():  # far to near
            centre, colour = points[index], tuple(colours[index].tolist())
            if uncertainty and np.isfinite(face.sigma[0, index]):
                self.circle(centre, face.sigma[0, index], **self._outline(_ink((*colour, 150))))
            if hidden[index]:
                self.circle(centre, dot, fill=(0, 0, 0, 0), **self._outline((*colour, 255)))
            else:
                self.circle(centre, dot + 0.5 * self.thin, fill=_SHADE)
                self.circle(centre, dot, fill=(*colour, 255))

    def axes(self, start: np.ndarray, tips: np.ndarray, order: np.ndarray) -> None:
        first, *ends = self._layer_from_image(np.stack([start, *tips])).tolist()
        for axis in order.tolist():
            for width, ink in ((2.6 * self.thin, _SHADE), (1.6 * self.thin, (*_AXES[axis], 255))):
                self.line(first, ends[axis], width, ink)
                self.circle(first, width / 2, fill=ink)
                self.circle(ends[axis], 1.2 * width, fill=ink)

    def line(self, a: Sequence[float], b: Sequence[float], width: float, ink: tuple[int, ...]) -> None:
        self.draw.line([*a, *b], fill=ink, width=self._width(width))

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
