"""Arrays in files: NPZ and NPY beside `np.load`, and what is refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from canthus.decode import read_npy, read_npz

ARRAYS = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3), "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big": np.arange(3, dtype=">f8"), "bits": np.array([True, False]), "text": np.array(["a", "bcd"]),
    "one": np.array(3.5), "none": np.zeros((0, 68, 3)), "word": np.array("swift"),
}  # fmt: skip


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_same_as_numpy_reads(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    read = read_npz(tmp_path / "a.npz")
    assert set(read) == set(ARRAYS)
    for name, wanted in ARRAYS.items():
        np.testing.assert_array_equal(read[name], wanted)
        assert read[name].shape == wanted.shape and read[name].dtype == wanted.dtype.newbyteorder("=")
        assert read[name].flags.writeable
    assert list(read_npz((tmp_path / "a.npz").read_bytes(), ["one"])) == ["one"]
    with pytest.raises(ValueError, match="lacks other; it has floats"):
        read_npz(tmp_path / "a.npz", ["other"])


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1 and len(old) == len(new)
    return data.replace(old, new)


def test_a_shape_that_was_changed_is_noticed(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 3)))
    whole = (tmp_path / "a.npy").read_bytes()
    for other in (b"(4, 3)", b"(6, 3)", b"(5,-3)"):  # np.load answers the first with four rows
        (tmp_path / "a.npy").write_bytes(changed(whole, b"(5, 3)", other))
        with pytest.raises(ValueError, match="announced|wanted"):
            read_npy(tmp_path / "a.npy")


def test_a_changed_header_in_an_archive_is_noticed_though_it_fits(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros((5, 3)))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(changed(whole, b"(5, 3)", b"(3, 5)"))
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "array", [np.array([None]), np.zeros(2, [("a", int)]), np.zeros(2, complex), np.zeros(2, "M8[s]")]
)
def test_objects_records_and_the_like_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="pickled|plain numbers or text"):
        read_npy(tmp_path / "a.npy")


def test_an_archive_that_unfolds_to_too_much_is_refused_before_it_does():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(1025):
            member.write(bytes(2**20))
    assert len(data.getvalue()) < 2e6
    with pytest.raises(ValueError, match="unfold"):
        read_npz(data.getvalue())


def test_what_is_no_archive(tmp_path):
    for content in (b"", b"PK", b"x" * 100):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(zipfile.BadZipFile):
            read_npz(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="no such regular file"):
        read_npz(tmp_path)
