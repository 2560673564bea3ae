"""Images: files of every kind, arrays of every kind, and crops to a fraction of a pixel."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys

import numpy as np
import PIL.ImageFile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import canthus.io.images
from canthus.errors import BoxError, CanthusError, ImageError, ImageKindError, pip_install
from canthus.geometry import sampling
from canthus.geometry.crop import Crop
from canthus.io.images import as_image, as_rgb, can_read, crop_image, memory_of, read_image, read_picture


def smooth_image(height=300, width=400):
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 31 + 1) * np.cos(y / 23), np.cos(x / 43 - y / 37), np.sin((x + 2 * y) / 61)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def make_crop(center, side, angle, size):
    return Crop(np.array([center], float), np.array([side], float), np.array([angle], float), size)


# Files


def test_png_comes_back_as_it_was(tmp_path):
    image = smooth_image(30, 40)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    assert np.array_equal(read_image(str(tmp_path / "a.png")), image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    # The eight EXIF orientations: what to do with the stored pixels to see them upright.
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    stored = smooth_image(20, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright[orientation](stored))


def test_every_kind_of_file_becomes_rgb(tmp_path):
    rgb = smooth_image(16, 24)
    picture = Image.fromarray(rgb)
    grey = np.asarray(picture.convert("L"))
    three = np.repeat(grey[:, :, None], 3, axis=2)

    def through(image, name):
        image.save(tmp_path / name)
        result = read_image(tmp_path / name)
        assert result.dtype == np.uint8 and result.shape == (16, 24, 3)
        return result

    assert np.array_equal(through(picture.convert("L"), "l.png"), three)
    assert np.array_equal(through(picture.convert("RGBA"), "rgba.png"), rgb)  # opaque
    assert np.array_equal(through(picture.convert("LA"), "la.png"), three)
    assert np.array_equal(through(Image.fromarray(grey.astype(np.uint16) * 257), "deep.png"), three)
    assert np.array_equal(through(Image.fromarray(grey.astype(np.int32) * 257), "deep32.tif"), three)
    assert np.array_equal(through(Image.fromarray(grey.astype(np.float32) / 255), "float.tif"), three)
    palette = picture.quantize(64)
    assert np.array_equal(through(palette, "p.png"), np.asarray(palette.convert("RGB")))
    binary = picture.convert("1")
    assert np.array_equal(through(binary, "1.png")[..., 0], np.asarray(binary) * 255)
    assert np.abs(through(picture.convert("CMYK"), "cmyk.tif").astype(int) - rgb).max() <= 1
    clear = Image.new("LA", (24, 16), (200, 0))
    assert (through(clear, "clear.png") == 127).all()  # fully transparent shows the mid grey behind
    indexed = Image.new("P", (24, 16), 3)
    indexed.putpalette(bytes(range(30)))
    indexed.info["transparency"] = 3
    assert (through(indexed, "clear-p.png") == 127).all()


def test_bad_files_are_refused_with_a_sentence(tmp_path):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(smooth_image()).save(whole)
    data = whole.read_bytes()
    png = tmp_path / "whole.png"
    Image.fromarray(smooth_image()).save(png)
    broken = bytearray(png.read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    cases = {
        "empty.jpg": (b"", "empty file"),
        "text.jpg": (b"this is no image", "no known kind of image"),
        "cut.jpg": (data[: len(data) // 2], "cannot be read.*truncated"),
        "photos.tar.gz": (gzip.compress(b"photos"), "compressed archive .*want its files, or an uncompressed tar"),
        "head.jpg": (data[:20], "no known kind of image|cannot be read"),
        "cut.png": (png.read_bytes()[:2000], "cannot be read"),
        "broken.png": (bytes(broken), "cannot be read"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=message) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ImageError, match="no file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError):
        read_image("a\0b")
    Image.new("L", (1, 50)).save(tmp_path / "thin.png")
    with pytest.raises(ImageError, match="1 x 50 px"):
        read_image(tmp_path / "thin.png")
    negative = Image.fromarray(np.full((4, 4), -5, np.int32))
    negative.save(tmp_path / "negative.tif")
    with pytest.raises(ImageError, match="from -5 to -5"):
        read_image(tmp_path / "negative.tif")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    Image.new("L", (100, 100)).save(tmp_path / "bomb.jpg")
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", None)  # whoever decodes fails
    monkeypatch.setattr(canthus.io.images, "MAX_PIXELS", 9_999)
    for name in ("bomb.png", "bomb.jpg"):
        with pytest.raises(ImageError, match=f"{name} of 100 x 100 px, want at most 9999 pixels"):
            read_image(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="too large"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
@pytest.mark.parametrize(("most", "reduction"), [(300 * 400, 1), (80 * 100, 4), (12 * 16, 32)])
def test_a_reduced_picture_is_the_whole_seen_through_larger_pixels(tmp_path, orientation, kind, most, reduction):
    # A blob off the middle; odd sides, so that the last pixels of the reduced picture are cut.
    x, y = np.meshgrid(np.arange(393), np.arange(297))
    blob = 255 * np.exp(-((x - 150) ** 2 + (y - 140) ** 2) / (2 * 30**2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.rint(blob).astype(np.uint8)).save(path, exif=exif, **({"quality": 98} if kind == "jpg" else {}))
    whole, picture = read_image(path), read_picture(path, most)
    assert (picture.size, picture.reduction) == (whole.shape[1::-1], reduction)
    assert picture.pixels.shape[:2] == tuple(-(-side // reduction) for side in whole.shape[:2])

    def middle(pixels: np.ndarray) -> np.ndarray:
        weights = np.where(pixels[..., 0] > 2, pixels[..., 0], 0).astype(float)
        rows, columns = np.indices(weights.shape)
        return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()

    # a shift by half a pixel of the reduced picture would be 2 or 16, one by the cut pixels up to 23
    np.testing.assert_allclose(reduction * middle(picture.pixels) + picture.first, middle(whole), atol=0.3)


def test_pictures_that_are_converted_some_rows_at_a_time_are_the_same(tmp_path, monkeypatch):
    picture = Image.fromarray(smooth_image(65, 40))
    grey = np.asarray(picture.convert("L"))
    clear = picture.convert("RGBA")
    clear.putalpha(picture.convert("L"))
    kinds = {
        "a.png": picture,
        "b.png": clear,
        "c.png": picture.quantize(64),
        "d.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "e.tif": Image.fromarray(grey.astype(np.float32) / 255),
        "f.tif": picture.convert("CMYK"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
    whole = {name: read_image(tmp_path / name) for name in kinds}
    reduced = {name: read_picture(tmp_path / name, 700).pixels for name in kinds}
    assert all(pixels.shape == (33, 20, 3) for pixels in reduced.values())
    for rows in (64, 16, 2):  # of 65: a single row is left over
        monkeypatch.setattr(canthus.io.images, "_BAND", 40 * rows)
        for name in kinds:
            np.testing.assert_array_equal(read_image(tmp_path / name), whole[name])
            np.testing.assert_array_equal(read_picture(tmp_path / name, 700).pixels, reduced[name])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="measures memory by the resource module")
@pytest.mark.parametrize(("kind", "side", "limit"), [("jpg", 14_200, 0.5e9), ("png", 13_000, 1.3e9)])
def test_memory_of_large_pictures(tmp_path, kind, side, limit):
    # 200 megapixels of JPEG are decoded at half size: 50 million pixels, of 4 bytes in Pillow and 3 here.
    # 169 megapixels of PNG: 4 bytes each in Pillow, then a reduced copy; it was 2.3 GB.
    path = tmp_path / f"a.{kind}"
    Image.new("RGB" if kind == "jpg" else "L", (side, side)).save(path)
    code = f"""
import resource
from canthus.io.images import read_picture
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = read_picture({str(path)!r}, 2**26)
print(picture.reduction, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    reduction, memory = map(int, result.stdout.split())
    assert reduction == 2 and memory < limit


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    image = smooth_image(60, 80)
    for name in ("a.heic", "renamed.jpg"):
        heif.from_pillow(Image.fromarray(image)).save(tmp_path / name, format="HEIF", quality=95)
        assert np.abs(read_image(tmp_path / name).astype(int) - image).mean() < 4
    assert can_read(".heic")
    assert "HEIF" not in Image.ID  # Pillow is left as it was


def test_heic_without_its_reader_is_refused_with_the_command_that_installs_it(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=re.escape(pip_install("heic"))):
        read_image(tmp_path / "a.heic")


@pytest.mark.parametrize("reader", [True, False])
def test_a_video_is_told_from_heif_whose_container_it_shares(tmp_path, monkeypatch, reader):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41" + bytes(100))
    if not reader:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageKindError, match="which is a video, want an image"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "got None, want the path of an image file"),
        (3, "got 3, want the path"),
        ("", "got '', want the path"),
        ("https://host/a.jpg", "got the address 'https://host/a.jpg', want a file on this machine"),
    ],
)
def test_what_is_no_path_is_refused_in_its_own_words(path, message):
    with pytest.raises(ImageError, match=re.escape(message)):
        read_image(path)


def test_what_pillow_hands_to_other_programs_is_no_image(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="no known kind of image"):
        read_image(tmp_path / "a.jpg")


def test_permission_denied_is_said_in_these_words(tmp_path, monkeypatch):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", "a.png")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match="could not read .*a.png: Permission denied$"):
        read_image(tmp_path / "a.png")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "TIFF"]),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    keep=st.floats(0.02, 1),
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged tags
def test_damaged_files_never_raise_anything_else(tmp_path_factory, kind, damage, keep):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "damaged"
    with open(path, "wb") as file:
        Image.fromarray(smooth_image(20, 20)).save(file, format=kind)
    data = bytearray(path.read_bytes())
    for where, value in damage:
        data[int(where * (len(data) - 1))] = value
    path.write_bytes(data[: max(1, int(keep * len(data)))])
    try:
        assert read_image(path).dtype == np.uint8
    except ImageError:
        pass


# Arrays


def test_the_content_of_a_file_gives_what_the_file_gives(tmp_path):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(3 * 4 * 5, dtype=np.uint8).reshape(4, 5, 3)).save(path, exif=exif)
    wanted, data = read_image(path), path.read_bytes()
    assert wanted.shape == (5, 4, 3)
    with open(path, "rb") as file:
        for given in (path, str(path), data, bytearray(data), io.BytesIO(data), file):
            np.testing.assert_array_equal(as_image(given), wanted)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK", "F", "I;16"])
def test_a_pillow_image_gives_its_pixels(mode):
    rgb = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3)
    image = Image.fromarray(np.full((4, 6), 0.5, np.float32)) if mode == "F" else rgb.convert(mode)
    if mode == "F":
        wanted = np.full((4, 6, 3), 128)  # 0.5 * 255, rounded to even
    elif mode == "I;16":
        wanted = np.asarray(as_rgb(np.asarray(image).astype(np.uint16)))
    else:
        wanted = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(as_image(image), wanted)


def test_a_pillow_image_is_not_turned():
    image = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    image.getexif()[0x0112] = 6
    assert as_image(image).shape == (4, 6, 3)


class Broken(io.BytesIO):
    def read(self, *size):
        raise RuntimeError("no connection")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "empty file <bytes>"),
        (b"no image", "file <bytes>, which is no known kind"),
        (io.BytesIO(), "empty file <file>"),
        (io.StringIO("text"), "a file that gives str, want"),
        (Broken(), r"<file>, which cannot be read \(no connection\)"),
        (None, "got NoneType, want a path, a binary file or its bytes, a Pillow image, or an array"),
        ([[1, 2], [3, 4]], "got list, want"),
        (7, "got int, want"),
        (memoryview(b"no"), "got memoryview, want"),
        (Image.new("RGB", (1, 9)), "1 x 9 px"),
        (np.ma.masked_equal(np.eye(4), 0), "masked"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(given, message):
    with pytest.raises(ImageError, match=message):
        as_image(given)


def test_a_pillow_image_of_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-800])
    with Image.open(path) as image, pytest.raises(ImageError, match="cut.png, which cannot be read"):
        as_image(image)


def test_an_array_without_masked_pixels_is_taken():
    assert as_image(np.ma.masked_array(np.eye(4))).shape == (4, 4, 3)


def test_uint8_rgb_is_not_copied():
    image = smooth_image()
    assert as_rgb(image) is image


def test_values_are_scaled_to_uint8():
    values = np.array([[0.0, 0.5], [0.9975, 1.0]])
    # 255 times these: 0, 127.5 (to even: 128), 254.4 (also in half precision), 255.
    for dtype in (np.float16, np.float32, np.float64):
        assert as_rgb(values.astype(dtype))[..., 0].tolist() == [[0, 128], [254, 255]]
    # 65535 / 255 = 257 to one: 128 is just below the middle between 0 and 1, 129 above.
    deep = np.array([[0, 128], [129, 65535]], dtype=np.uint16)
    assert as_rgb(deep)[..., 0].tolist() == [[0, 0], [1, 255]]
    assert np.array_equal(as_rgb(deep.astype(">u2")), as_rgb(deep))


def test_shapes():
    grey = smooth_image()[..., 0]
    expected = np.stack([grey] * 3, axis=-1)
    assert np.array_equal(as_rgb(grey), expected) and np.array_equal(as_rgb(grey[..., None]), expected)
    # Opacity 51/255 = 0.2: 0.2 * 200 + 0.8 * 127 = 141.6.
    glass = np.full((2, 2, 4), (200, 0, 127, 51), dtype=np.uint8)
    assert as_rgb(glass)[0, 0].tolist() == [142, 102, 127]
    every = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), axis=-1)
    seen = as_rgb(every[..., [0, 0, 0, 1]].astype(np.uint8))[..., 0]
    exact = (every[..., 0] * every[..., 1] + 127 * (255 - every[..., 1])) / 255
    assert np.abs(seen - exact).max() <= 0.5


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), bool), "type bool"),
        (np.zeros((4, 4, 3), np.int64), "type int64, want uint8"),
        (np.zeros((4, 4), complex), "type complex"),
        (np.full((4, 4), None), "type object"),
        (np.full((4, 4), 255.0), "from 255 to 255, want 0 to 1"),
        (np.full((4, 4), -0.1), "from -0.1"),
        (np.full((4, 4), np.nan), "from nan"),
        (np.full((4, 4), np.inf), "to inf"),
        (np.zeros((3, 64, 64), np.uint8), r"shape \(3, 64, 64\)"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "4 x 0 px"),
        (np.zeros((1, 4, 3), np.uint8), "at least 2 x 2"),
        (None, "got NoneType, want an image array"),
        ("face.jpg", "got str, want an image array"),
        ([[1, 2], [3]], "list"),
    ],
)
def test_bad_arrays_are_refused_with_a_sentence(image, message):
    with pytest.raises(ImageError, match=message):
        as_rgb(image)


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5) | st.sampled_from(
    [(2, 2), (3, 4, 1), (3, 4, 3), (3, 4, 4)]
)


@settings(deadline=None)
@given(hnp.arrays(hnp.scalar_dtypes() | hnp.array_dtypes(max_size=2), shapes)
       | hnp.arrays(hnp.floating_dtypes(), shapes, elements={"min_value": 0, "max_value": 1}))  # fmt: skip
def test_any_array_is_either_rgb_or_refused(array):
    try:
        result = as_rgb(array)
    except CanthusError:
        return
    assert result.dtype == np.uint8 and result.shape == (*array.shape[:2], 3)


# Crops


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0])
@pytest.mark.parametrize("side", [24.0, 64.0, 121.7, 127.9, 128.1, 200.0, 330.0, 520.0, 900.0])
def test_crop_image_agrees_with_the_plain_warp(side, angle):
    image = smooth_image()
    crop = make_crop((170.3, 140.8), side, angle, 64)
    got = crop_image(image, crop)[0].astype(float)
    planes = np.moveaxis(image.astype(float), 2, 0)
    expected = np.moveaxis(sampling.warp(planes, crop.affine_image_from_crop()[0], 64), 0, 2)
    # Near the border blocks and single pixels fade differently; inside, on a smooth image, they agree.
    v, u = np.mgrid[:64, :64]
    where = crop.image_from_crop(np.stack([u, v], -1).reshape(1, -1, 2).astype(float)).reshape(64, 64, 2)
    rim = 2 * max(1.0, side / 64) if side >= 128 else 0.0
    inside = ((where >= rim) & (where <= np.array([399, 299]) - rim)).all(-1)
    outside = ((where <= -1 - rim) | (where >= np.array([400, 300]) + rim)).any(-1)
    # Pillow cuts fractions off (1 level); the blocks' means are rounded, and so are the image's pixels, which
    # the means even out (0.5 each). Averaging over blocks of b px and interpolating between them change a
    # curved image by b^2 / 24 and b^2 / 8 times its second derivatives, 100 (1/31^2 + 1/23^2) at most.
    block = side // 64 if side >= 128 else 0
    bound = 1.01 if block == 0 else 2.01 + block**2 * (1 / 24 + 1 / 8) * 100 * (1 / 31**2 + 1 / 23**2)
    assert inside.sum() > 100
    assert np.abs(got - expected)[inside].max() <= bound
    assert abs((got - expected)[inside].mean()) < 0.6  # cut off: half a level
    assert (got[outside] == 0).all()
    if side < 128:  # no averaging: also the fading over the border is the same
        assert np.abs(got - expected).max() <= 1.01


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.3, np.pi])
@pytest.mark.parametrize("shrink", [0.5, 1.0, 1.7, 2.0, 2.6, 3.0, 5.5])
def test_a_blob_lands_where_crop_from_image_says(shrink, angle):
    x0, y0 = 301.37, 288.71
    sigma = 3.0 * max(1.0, shrink)
    y, x = np.mgrid[:600, :640]
    blob = 250 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))
    image = np.repeat(np.rint(blob).astype(np.uint8)[..., None], 3, axis=2)
    crop = make_crop((310.2, 280.9), 96 * shrink, angle, 96)
    seen = crop_image(image, crop)[0, ..., 0].astype(float)
    v, u = np.mgrid[:96, :96]
    centroid = [(u * seen).sum() / seen.sum(), (v * seen).sum() / seen.sum()]
    expected = crop.crop_from_image(np.array([[[x0, y0]]]))[0, 0]
    np.testing.assert_allclose(centroid, expected, atol=0.02)


def test_fine_texture_does_not_alias():
    # Stripes of one pixel, shrunk 4 times, are grey; read pixel by pixel they would stay black and white.
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    got = crop_image(stripes, make_crop((199.5, 199.5), 256.0, 0.2, 64))
    assert np.abs(got.astype(int) - 127).max() <= 2


def test_an_identity_crop_is_a_slice():
    image = smooth_image()
    crop = make_crop((100 + 31.5, 50 + 31.5), 64.0, 0.0, 64)
    assert np.array_equal(crop_image(image, crop)[0], image[50:114, 100:164])


def test_many_crops_and_crops_far_away():
    image = smooth_image()
    centers = np.array([[100.0, 100], [9000, 9000], [-500, 100]])
    crop = Crop(centers, np.full(3, 50.0), np.zeros(3), 32)
    got = crop_image(image, crop)
    assert got.shape == (3, 32, 32, 3) and got.dtype == np.uint8
    assert got[0].any() and not got[1:].any()
    assert crop_image(image, make_crop((200, 150), 1e7, 0.0, 32)).shape == (1, 32, 32, 3)
    assert crop_image(image, make_crop((200, 150), 1e-3, 0.0, 32)).any()
    empty = Crop(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 32)
    assert crop_image(image, empty).shape == (0, 32, 32, 3)


def test_a_torch_crop_cuts_the_same():
    torch = pytest.importorskip("torch")
    image, crop = smooth_image(), make_crop((100, 120), 77.0, 0.2, 32)
    same = Crop(*(torch.as_tensor(field) for field in (crop.center, crop.side, crop.angle)), 32)
    assert np.array_equal(crop_image(image, same), crop_image(image, crop))


@pytest.mark.parametrize(
    ("center", "side", "angle"),
    [((np.nan, 0), 10, 0), ((0, 0), 0, 0), ((0, 0), -5, 0), ((0, 0), np.inf, 0), ((0, 0), 10, np.nan)],
)
def test_impossible_crops_are_refused(center, side, angle):
    with pytest.raises(BoxError, match="want finite"):
        crop_image(smooth_image(), make_crop(center, side, angle, 32))


def test_memory_of_a_file_by_its_header(tmp_path):
    picture = Image.new("RGB", (400, 300))
    for name in ("a.png", "a.jpg"):
        picture.save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert memory_of(data, 400 * 300) == memory_of(tmp_path / name, 400 * 300) == 7 * 400 * 300
    # reduced to 200 x 150: JPEG while it is decoded, PNG after all of it was
    assert memory_of(tmp_path / "a.jpg", 30_000) == 7 * 200 * 150
    assert memory_of(tmp_path / "a.png", 30_000) == 4 * 400 * 300 + 3 * 200 * 150
    assert memory_of(b"no picture", 100) == memory_of(tmp_path / "none.png", 100) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert memory_of(tmp_path / "pipe.jpg", 100) == 0
    with pytest.raises(ImageError, match="got the special file"):
        read_image(tmp_path / "pipe.jpg")
