"""MATLAB files: beside SciPy's reader, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

scipy_io = pytest.importorskip("scipy.io")

from canthus.decode.mat import read_mat  # noqa: E402

DATA = Path(os.environ.get("CANTHUS_DATA", Path(__file__).parents[3] / "shared" / "data"))
CRASHES = DATA / "reports" / "crashes_loadmat.mat"

RNG = np.random.default_rng(0)
NUMBERS = {
    **{f"whole{t}": RNG.integers(0, 100, (3, 5)).astype(t) for t in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")},
    "single": RNG.normal(size=(3, 68)).astype(np.float32), "double": RNG.normal(size=(3, 68)),
    "row": RNG.normal(size=7), "deep": RNG.normal(size=(2, 3, 4)), "none": np.zeros((0, 3)), "one": 2.5,
    "flags": np.array([[True, False]]),
}  # fmt: skip


def saved(folder: Path, compressed: bool = False, **values) -> Path:
    path = folder / "a.mat"
    scipy_io.savemat(path, values, do_compression=compressed)
    return path


def from_bytes(folder: Path, data: bytes, *wanted: str) -> dict[str, np.ndarray]:
    (folder / "a.mat").write_bytes(data)
    return read_mat(folder / "a.mat", wanted or ("x",))


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_are_those_that_scipy_reads(tmp_path, compressed):
    path = saved(tmp_path, compressed, **NUMBERS)
    ours, theirs = read_mat(path, tuple(NUMBERS)), scipy_io.loadmat(path)
    assert set(ours) == set(NUMBERS)
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name])
        assert values.shape == theirs[name].shape
        assert values.dtype == theirs[name].dtype or name == "flags"  # MATLAB keeps truth values as uint8


def test_text_and_cells_of_text(tmp_path):
    cell = np.empty((2, 1), object)
    cell[:, 0] = "0/image1.jpg", "ärger.jpg"
    read = read_mat(saved(tmp_path, names=cell, word="abc"), ("names", "word"))
    assert read["names"].shape == (2, 1) and [str(name) for name in read["names"][:, 0]] == [
        "0/image1.jpg",
        "ärger.jpg",
    ]
    assert str(read["word"]) == "abc"


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_not_wanted_may_be_anything(tmp_path, compressed):
    path = saved(tmp_path, compressed, a={"b": 1}, big=RNG.normal(size=(200, 200)), c=np.array([1j]), d=[[1.0, 2.0]])
    assert list(read_mat(path, ("d", "e"))) == ["d"]
    with pytest.raises(ValueError, match="'a' is a struct"):
        read_mat(path, ("a",))
    with pytest.raises(ValueError, match="'c' is complex"):
        read_mat(path, ("c",))


def test_whole_numbers_that_matlab_packs_into_fewer_bytes(tmp_path):
    # by hand: a double array (1,3) named x whose values are stored as uint8
    inner = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, 1, 3) + struct.pack("<HH4s", 1, 1, b"x")
    inner += struct.pack("<HH4s", 2, 3, bytes([1, 2, 250]))
    data = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x100) + b"IM" + struct.pack("<II", 14, len(inner)) + inner
    expected = scipy_io.loadmat(io.BytesIO(data))["x"]
    assert expected.tolist() == [[1, 2, 250]]
    read = from_bytes(tmp_path, data)["x"]
    np.testing.assert_array_equal(read, expected)
    assert read.dtype == np.float64


def test_files_of_big_endian_machines(tmp_path):
    inner = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 1, 2) + struct.pack(">HH4s", 1, 1, b"x")
    inner += struct.pack(">IIdd", 9, 16, 1.5, -2.0)
    data = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x100) + b"MI" + struct.pack(">II", 14, len(inner)) + inner
    assert from_bytes(tmp_path, data)["x"].tolist() == [[1.5, -2.0]] == scipy_io.loadmat(io.BytesIO(data))["x"].tolist()


@pytest.mark.skipif(not CRASHES.exists(), reason="the file that crashes SciPy is not here")
def test_the_file_that_crashes_scipy_is_refused():
    with pytest.raises(ValueError, match="begins with something else than its class"):
        read_mat(CRASHES, ("pt3d_68", "Pose_Para"))


def test_flipped_class_and_lengths_are_refused(tmp_path):
    """The bits that crash SciPy's reader: in the head of a variable."""
    whole = saved(tmp_path, pt3d_68=RNG.normal(size=(3, 68))).read_bytes()
    for place in range(128, 128 + 56):
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            try:
                read = from_bytes(tmp_path, bytes(data), "pt3d_68")
            except (ValueError, zlib.error):
                continue
            assert all(values.size == 3 * 68 for values in read.values())  # another name, flag or order of sides


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no MATLAB file"),
        (b"\0" * 300, "no MATLAB file"),
        (b"MATLAB 7.3".ljust(124) + b"\x00\x02IM", "version 7.3"),
        (b"MATLAB 5.0".ljust(124) + b"\x00\x03IM", "0x300"),
        (b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 14, 10**9), "are there"),
        (b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"\0" * 4, "cut off"),
        (b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 3, 0), "element of type 3"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, data, said):
    with pytest.raises(ValueError, match=said):
        from_bytes(tmp_path, data)
