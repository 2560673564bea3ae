"""Drawing of faces on their photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canthus.errors import ImageError
from canthus.face.faces import Faces
from canthus.face.landmarks import scheme
from canthus.io.images import as_rgb

# Far to near: cool and dark to warm and light, so that depth also reads in grey.
_RAMP = np.array([(62, 96, 220), (118, 88, 214), (190, 84, 170), (240, 112, 96), (250, 174, 72), (255, 232, 138)])
_AXES = ((235, 64, 52), (60, 190, 90), (70, 130, 250))  # x red, y green, z blue
_DARK = (16, 18, 24, 130)  # behind everything thin, for contrast on skin
_BOX = (255, 255, 255, 110)

_SUPERSAMPLING = 3
_LAYER_SIDE = 4096  # px, to bound the memory: larger faces get less supersampling


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
    photo = Image.fromarray(as_rgb(image))
    if photo.size != faces.image_size:
        raise ImageError(f"got an image of {photo.size} px, want the {faces.image_size} px of the faces")
    for face in faces:
        _draw_face(photo, face, box=box, axes=axes, uncertainty=uncertainty)
    pen = ImageDraw.Draw(photo)
    for face, name in zip(faces, names or ()):
        x, y = face.boxes[0, :2]
        font = ImageFont.load_default(float(np.clip(0.15 * face.sizes[0], 10, 48)))
        pen.text((x, y), name, "white", font, "lb", stroke_width=1, stroke_fill="black")
    return np.array(photo)  # asarray would be read-only


def _draw_face(photo: Image.Image, face: Faces, *, box: bool, axes: bool, uncertainty: bool) -> None:
    """Draw a single face into `photo`, on a supersampled layer no larger than the face and its margin."""
    size = max(float(face.sizes[0]), 1.0)
    reach = 0.6 * size + 4  # px: axes are half a face long and start inside it; dots have a least size
    corners = face.boxes[0] + [-reach, -reach, reach, reach]
    left, top = np.maximum(np.floor(corners[:2]), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners[2:]) + 1, photo.size).astype(int)
    if left >= right or top >= bottom:
        return
    factor = int(np.clip(_LAYER_SIDE // max(right - left, bottom - top), 1, _SUPERSAMPLING))
    layer = Image.new("RGBA", ((right - left) * factor, (bottom - top) * factor))
    pen = _Pen(layer, np.array([left, top]), factor, size)

    if box:
        pen.rectangle(face.boxes[0])
    pen.landmarks(face, uncertainty)
    if axes:
        pen.axes(face)

    small = layer.reduce(factor)
    photo.paste(small, (int(left), int(top)), small)


class _Pen:
    """Draws in image pixels on a layer whose first pixel is `corner` and which is `factor` times as fine."""

    def __init__(self, layer: Image.Image, corner: np.ndarray, factor: int, size: float) -> None:
        self.draw = ImageDraw.Draw(layer)
        self.corner, self.factor, self.size = corner, factor, size
        self.thin = max(1.0, 0.005 * size)  # px of the photo
        self.dot = max(1.5, 0.013 * size)

    def rectangle(self, box: np.ndarray) -> None:
        corners = [*self._layer_from_image(box[:2]), *self._layer_from_image(box[2:])]
        self.draw.rectangle(corners, outline=_BOX, width=self._width(self.thin))

    def landmarks(self, face: Faces, uncertainty: bool) -> None:
        xyz, hidden = face.xyz[0], face.visible[0] < 0.5  # NaN, not known, is drawn as seen
        colours = depth_colours(xyz[:, 2])
        edges = np.array(scheme(face.scheme).edges)
        for a, b in edges[np.argsort(xyz[edges, 2].mean(1))]:
            self.line(xyz[a, :2], xyz[b, :2], 2 * self.thin, _DARK)
            self.line(xyz[a, :2], xyz[b, :2], self.thin, (*((colours[a].astype(int) + colours[b]) // 2), 230))
        for index in np.argsort(xyz[:, 2]):  # far to near
            centre, colour = xyz[index, :2], tuple(colours[index])
            if uncertainty and np.isfinite(face.sigma[0, index]):
                self.circle(centre, face.sigma[0, index], outline=(*colour, 150))
            if hidden[index]:
                self.circle(centre, self.dot, fill=(0, 0, 0, 0), outline=(*colour, 255))
            else:
                self.circle(centre, self.dot + 0.5 * self.thin, fill=_DARK)
                self.circle(centre, self.dot, fill=(*colour, 255))

    def axes(self, face: Faces) -> None:
        start = face.xy[0].mean(0)
        R = face.pose.matrix[0]
        for axis in np.argsort(R[2]):  # the one that points away from the camera first
            tip = start + 0.5 * self.size * R[:2, axis] * [1, -1]
            for width, colour in ((2.6 * self.thin, _DARK), (1.6 * self.thin, (*_AXES[axis], 255))):
                self.line(start, tip, width, colour)
                self.circle(start, width / 2, fill=colour)
                self.circle(tip, 1.2 * width, fill=colour)

    def line(self, a: np.ndarray, b: np.ndarray, width: float, colour: tuple[int, ...]) -> None:
        ends = [*self._layer_from_image(a), *self._layer_from_image(b)]
        self.draw.line(ends, fill=colour, width=self._width(width))

    def circle(
        self,
        centre: np.ndarray,
        radius: float,
        fill: tuple[int, ...] | None = None,
        outline: tuple[int, ...] | None = None,
    ) -> None:
        x, y = self._layer_from_image(centre)
        radius = radius * self.factor
        ends = [round(x - radius), round(y - radius), round(x + radius), round(y + radius)]
        self.draw.ellipse(ends, fill=fill, outline=outline, width=self._width(self.thin))

    def _layer_from_image(self, point: np.ndarray) -> tuple[float, float]:
        """Pixel centres are integers on both sides."""
        x, y = (point - self.corner + 0.5) * self.factor - 0.5
        return float(x), float(y)

    def _width(self, width: float) -> int:
        return max(1, round(width * self.factor))


def depth_colours(z: np.ndarray) -> np.ndarray:
    """RGB colours (L,3) uint8 of the depths `z` (L,) of one face: nearest (largest) warm, farthest cool."""
    depth = (z - z.min()) / max(float(np.ptp(z)), 1e-6)
    stops = np.linspace(0, 1, len(_RAMP))
    colours = np.stack([np.interp(depth, stops, channel) for channel in _RAMP.T], axis=-1)
    return colours.round().astype(np.uint8)
