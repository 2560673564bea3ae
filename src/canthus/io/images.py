"""Images at the door: read a file, check an array, cut crops, write PNG. Inside, an image is uint8 (H, W, 3) RGB."""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from os import PathLike, fspath
from os.path import isfile  # unlike pathlib's, it says False of a name that cannot be
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from canthus.errors import BoxError, ImageError, ImageKindError, ImageSizeError, pip_install
from canthus.geometry.crop import Crop
from canthus.io.inputs import is_address

MAX_PIXELS = 2**28
"""Pixels of the largest picture that is decoded, by the file's header: at Pillow's 4 bytes a pixel, 1 GiB. Except for
JPEG, Pillow's own limit, twice `Image.MAX_IMAGE_PIXELS`, holds too."""

GAMMA = 2.2  # of displays: a stored value is a linear one to the power of 1 / GAMMA, both 0..1
HEIF = frozenset({".heic", ".heif", ".hif"})
# how gzip, zip, bzip2, xz, 7z and zstd begin
_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")
# of the container that HEIF and MP4 share, those of pictures (ISO/IEC 23008-12, annex B)
_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"miaf", b"avif", b"avis"}
)

_COMMON = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
# what Pillow runs another program for, or knows by name and cannot decode
_NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_BAND = 2**24  # pixels that are converted at a time

_ORIENTATION = 0x0112  # EXIF
# how to make the stored pixels upright: swap rows and columns, then reverse x, reverse y
_UPRIGHT = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


ImageLike = str | PathLike | bytes | BinaryIO | Image.Image | np.ndarray
"""What `as_image` takes."""


class Picture(NamedTuple):
    """An image file as it was read.

    pixels: (h,w,3) uint8 RGB, upright. size: (width, height) of the whole picture, upright. reduction: how many pixels
    of the whole picture, along x and along y, became one of `pixels`. first: (x, y) of the whole picture at the centre
    of `pixels[0, 0]`. So x_whole = reduction * x + first[0], y alike.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    reduction: int
    first: tuple[float, float]


def read_image(path: str | PathLike[str]) -> np.ndarray:
    """The image in a file as uint8 (H, W, 3) RGB, turned upright as its EXIF tag says.

    Raises `ImageError` for a file that is missing, empty, truncated, corrupt, no image, or of more than MAX_PIXELS.
    """
    return read_picture(path, MAX_PIXELS).pixels


def read_picture(path: str | PathLike[str], most: int) -> Picture:
    """`read_image`, reduced by the least power of two that leaves at most `most` pixels: JPEG while it is decoded, with
    less time and memory, other kinds afterwards. Raises `ImageError`."""
    if not isinstance(path, str | PathLike) or not fspath(path):
        raise ImageError(f"got {path!r}, want the path of an image file")
    if isinstance(path, str) and is_address(path):  # `Path` would mangle it
        raise ImageError(f"got the address '{path}', want a file on this machine, or the bytes of one")
    path = Path(path)
    try:
        with _decoding(path):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                what = "directory" if stat.S_ISDIR(mode) else "special file"
                raise ImageError(f"got the {what} {path}, want an image file")
            if path.stat().st_size == 0:
                raise ImageError(f"got the empty file {path}, want an image")
            # By its name, Pillow 13 would map a grey TIFF into memory, and scramble one that is tagged as turned.
            with open(path, "rb") as file, _opened(file, path) as image:
                return _read(image, path, most, MAX_PIXELS)
    except FileNotFoundError as error:
        what = "a link to nothing" if path.is_symlink() else "no file"
        raise ImageError(f"got the path {path}, where there is {what}, want an image file") from error


def decode_picture(data: bytes, name: str, most: int) -> Picture:
    """`read_picture` of the bytes of a file, called `name` in errors. Raises `ImageError`."""
    return _decoded(data, name, most, MAX_PIXELS)


def decode_image(data: bytes, name: str, limit: int) -> np.ndarray:
    """`read_image` of the bytes of a file, called `name` in errors, of at most `limit` pixels.

    Raises `ImageKindError` for bytes of no known kind of image, `ImageSizeError` for more pixels than `limit`, and
    `ImageError` for what is damaged or empty.
    """
    return _decoded(data, name, limit, limit).pixels


def _decoded(data: bytes, name: str, most: int, limit: int) -> Picture:
    if not data:
        raise ImageError(f"got the empty file {name}, want an image")
    with _decoding(name), io.BytesIO(data) as file, _opened(file, name) as image:
        return _read(image, name, most, limit)


def memory_of(file: str | PathLike[str] | bytes, most: int) -> int:
    """Bytes that `read_picture` of a file, or `decode_picture` of its bytes, takes, by its header and without what
    decoders keep; 0 for what it would refuse."""
    if not isinstance(file, bytes) and not isfile(file):  # to open a named pipe would wait for its writer
        return 0
    with suppress(Exception), io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as opened:  # as above
        with _opened(opened, "") as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return 0
            area = _reduction(width, height, most) ** 2
            drafted = area if isinstance(image, JpegImageFile) else 1
            return 4 * width * height // drafted + 3 * width * height // area
    return 0


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    """What decoders raise as `ImageError`, but for `FileNotFoundError`."""
    try:
        yield
    except (ImageError, FileNotFoundError):
        raise
    except UnidentifiedImageError as error:
        raise ImageKindError(f"got the file {path}, which is no known kind of image, want a JPEG") from error
    except Image.DecompressionBombError as error:
        raise ImageSizeError(f"got the image {path}, which is too large ({error}), want a smaller one") from error
    except Exception as error:  # on a damaged file the decoders raise anything, SyntaxError included
        if isinstance(error, OSError) and error.errno:  # of the system, not of a decoder
            raise ImageError(f"could not read {path}: {error.strerror}") from error
        raise ImageError(f"got the file {path}, which cannot be read ({error}), want it intact") from error


def can_read(suffix: str) -> bool:
    """Whether files of a suffix (lower case, with its dot) are images that `read_image` reads."""
    return suffix in _COMMON or suffix in _readable()


@cache
def _readable() -> frozenset[str]:
    """The suffixes of what Pillow here decodes, and of HEIF where pillow-heif is installed."""
    kinds = _kinds()
    heif = HEIF if find_spec("pillow_heif") else ()
    return frozenset(s for s, kind in Image.registered_extensions().items() if kind in kinds).union(heif)


def _kinds() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in Image.ID if kind not in _NOT_READ)


def _opened(file: BinaryIO, path: str | Path) -> Image.Image:
    head = file.read(64)
    file.seek(0)
    if head.startswith(b"\xff\xd8\xff"):  # `Image.open` would refuse large ones, though they can be read reduced
        return JpegImageFile(file)
    try:
        return Image.open(file, formats=_kinds())
    except UnidentifiedImageError:
        if head.startswith(_PACKED):
            raise ImageKindError(f"got the compressed archive {path}, want its files, or an uncompressed tar") from None
        if head[4:8] != b"ftyp":
            raise
    listed = head[8 : int.from_bytes(head[:4], "big")]
    if not _BRANDS.intersection(listed[k : k + 4] for k in range(0, len(listed), 4)):
        raise ImageKindError(f"got the file {path}, which is a video, want an image; `canthus track` takes videos")
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError(f"got the file {path}, which may be HEIF, want its reader: {pip_install('heic')}") from error
    return HeifImageFile(file)


def _read(image: Image.Image, path: str | Path, most: int, limit: int) -> Picture:
    width, height = image.size
    if width * height > limit:
        raise ImageSizeError(f"got the image {path} of {width} x {height} px, want at most {limit} pixels")
    reduction, drafted = _reduction(width, height, most), 1
    if reduction > 1:
        draft = image.draft(None, (max(1, width // reduction), max(1, height // reduction)))  # None but for JPEG
        drafted = 1 if draft is None else round(width / draft[1][2])
    image.load()
    if drafted == 1:
        width, height = image.size  # TIFF is turned upright while it is loaded
    pixels = _rgb(image, reduction // drafted)
    swap, reverse_x, reverse_y = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1), (False, False, False))
    if swap:
        pixels, width, height = pixels.swapaxes(0, 1), height, width
    pixels = pixels[:: -1 if reverse_y else 1, :: -1 if reverse_x else 1]
    # A pixel at the stored end may stand for fewer of the whole; reversed, it comes first.
    lack_x = reduction * pixels.shape[1] - width if reverse_x else 0
    lack_y = reduction * pixels.shape[0] - height if reverse_y else 0
    first = (reduction - 1) / 2 - lack_x, (reduction - 1) / 2 - lack_y
    return Picture(np.ascontiguousarray(pixels), (width, height), reduction, first)


def _reduction(width: int, height: int, most: int) -> int:
    """The least power of two by which a picture is reduced to at most `most` pixels."""
    reduction = 1
    while -(-width // reduction) * -(-height // reduction) > most:
        reduction *= 2
    return reduction


def _rgb(image: Image.Image, reduction: int) -> np.ndarray:
    """The pixels of a decoded file by `as_rgb`, reduced, some rows at a time: conversions make copies."""
    width, height = image.size
    rows = max(1, _BAND // (width * reduction)) * reduction
    if height <= rows and reduction == 1:
        return as_rgb(plain_array(image))
    out = np.empty((-(-height // reduction), -(-width // reduction), 3), np.uint8)
    for top in range(0, max(1, height - 1), rows):  # a single row that is left joins the band before it
        bottom = height if top + rows >= height - 1 else top + rows
        band = as_rgb(plain_array(image.crop((0, top, width, bottom))))
        if reduction > 1:
            band = np.asarray(Image.fromarray(band).reduce(reduction))
        out[top // reduction :][: len(band)] = band
    return out


def as_image(image: ImageLike) -> np.ndarray:
    """An image as uint8 (H, W, 3) RGB, from a path or the content of a file by `read_image`, from an array by `as_rgb`,
    or from a Pillow image as its pixels are (an EXIF tag does not turn them). Raises `ImageError` for anything else."""
    if isinstance(image, np.ndarray):
        return as_rgb(image)
    if isinstance(image, str | PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        with _decoding(getattr(image, "filename", "") or "<image>"):
            image.load()
            return _rgb(image, 1)
    name = "<bytes>" if isinstance(image, bytes | bytearray) else str(getattr(image, "name", "<file>"))
    with _decoding(name):
        data = image.read() if hasattr(image, "read") else image
    if not isinstance(data, bytes | bytearray):
        got = type(image).__name__ if data is image else f"a file that gives {type(data).__name__}"
        raise ImageError(f"got {got}, want a path, a binary file or its bytes, a Pillow image, or an array")
    return decode_image(bytes(data), name, MAX_PIXELS)


def as_rgb(image: Any) -> np.ndarray:
    """`image` as uint8 (H, W, 3) RGB; an array that is this already is returned as it is.

    Accepts uint8, uint16 (0 to 65535) and floating point (0 to 1) arrays (H, W), (H, W, 1), (H, W, 3) and (H,
    W, 4); the fourth channel is opacity, and what shines through is mid grey (127). Raises `ImageError` for
    everything else: other types, shapes and ranges, NaN, masked pixels, and images with a side of less than 2 pixels.
    """
    if np.ma.is_masked(image):
        raise ImageError("got an image with masked pixels, want all of them known")
    try:
        given = np.asarray(image)
    except Exception as error:  # __array__ of a foreign object may raise anything
        raise ImageError(f"got {type(image).__name__} ({error}), want an image array (H, W, 3)") from error
    if given.ndim == 0:
        raise ImageError(f"got {type(image).__name__}, want an image array (H, W, 3)")
    if given.ndim not in (2, 3) or (given.ndim == 3 and given.shape[2] not in (1, 3, 4)):
        raise ImageError(f"got an image of shape {given.shape}, want (H, W) or (H, W, 1, 3 or 4)")
    if min(given.shape[:2]) < 2:
        raise ImageError(f"got an image of {given.shape[1]} x {given.shape[0]} px, want at least 2 x 2")
    pixels = _as_uint8(given)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        wide = pixels.astype(np.uint16)  # 255 * 255 and the rounding fit
        opacity = wide[:, :, 3:]
        return ((wide[:, :, :3] * opacity + 127 * (255 - opacity) + 127) // 255).astype(np.uint8)
    return pixels


def as_png(image: Image.Image) -> bytes:
    """A Pillow image as the bytes of a PNG file, packed quickly rather than tightly."""
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return data.getvalue()


def crop_image(image: np.ndarray, crop: Crop) -> np.ndarray:
    """The pixels (B, S, S, 3) uint8 of each crop, S = crop.size; black outside the image.

    Bilinear; a crop that shrinks the image by 2 or more is averaged over whole blocks of pixels first, so
    that fine texture does not alias. Only the part of the image under the crop is touched. `image` is
    anything that `as_rgb` takes. Raises `BoxError` for a crop that is not finite or has no area.
    """
    image = as_rgb(image)
    fields = [np.asarray(field, dtype=np.float64) for field in (crop.center, crop.side, crop.angle)]
    if not all(np.isfinite(field).all() for field in fields) or not (fields[1] > 0).all():
        got = f"centre {fields[0].tolist()}, side {fields[1].tolist()} and angle {fields[2].tolist()}"
        raise BoxError(f"got a crop with {got}, want finite numbers and a side above 0")
    crop = Crop(fields[0], fields[1], fields[2], crop.size)
    result = np.zeros((len(crop.side), crop.size, crop.size, 3), dtype=np.uint8)
    for out, affine in zip(result, crop.affine_image_from_crop(), strict=True):
        _cut(image, affine, out)
    return result


def _cut(image: np.ndarray, affine: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` (S, S, 3) from `image` with affine_image_from_crop (2, 3)."""
    size = len(out)
    extent = np.array(image.shape[1::-1])
    linear, shift = affine[:, :2], affine[:, 2]
    block = min(max(1, math.floor(math.hypot(linear[0, 0], linear[1, 0]) + 1e-9)), int(extent.max()))
    corners = np.array([[0, 0], [0, size - 1], [size - 1, 0], [size - 1, size - 1]]) @ linear.T + shift
    # One block more on each side is all that the bilinear kernel can reach.
    low = np.clip(np.floor(corners.min(axis=0)) - block, 0, extent).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1 + block, 0, extent).astype(int)
    if (low >= high).any():
        return
    part = Image.fromarray(np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]))
    if block > 1:
        part = part.reduce(block)
    # A black rim: without it Pillow repeats the border's pixels for half a pixel instead of fading out.
    part = ImageOps.expand(part, border=1)
    # Pillow counts from a pixel's corner on both sides: corner coordinate = centre coordinate + 0.5. In these
    # a reduction by `block` is a plain division.
    start = (shift - linear.sum(axis=1) / 2 + 0.5 - low) / block + 1
    linear = linear / block
    data = (linear[0, 0], linear[0, 1], start[0], linear[1, 0], linear[1, 1], start[1])
    cut = part.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    out[...] = np.asarray(cut)


def plain_array(image: Image.Image) -> np.ndarray:
    """The pixels of a decoded file in one of the forms that `as_rgb` takes."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which some formats hold in 32
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"got grey values from {values.min()} to {values.max()}, want 0 to 65535")
        return values.astype(np.uint16)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "F", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image)


def _as_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype.kind != "f":
        raise ImageError(f"got an image of type {image.dtype}, want uint8, uint16, or float from 0 to 1")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1):  # NaN fails every comparison
        raise ImageError(f"got an image with values from {low:g} to {high:g}, want 0 to 1 for floating point")
    return np.rint(image.astype(np.float32) * 255).astype(np.uint8)
