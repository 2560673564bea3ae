"""Readers of data sets: what is in the files, in the house's conventions."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_face import face
from PIL import Image

scipy_io = pytest.importorskip("scipy.io")

from canthus.data.formats import read_aflw2000  # noqa: E402
from canthus.errors import LandmarkError  # noqa: E402

POSE = np.array([[0.1, -0.7, 0.3, 55.0, 60.0, 0.0, 1e-3]], np.float32)  # pitch, yaw, roll, shift, scale
POINTS = (face() + [100, 90, 40]).T  # (3,68), 1-based


def write_pair(folder, name, points=POINTS, pose=POSE):
    Image.new("RGB", (200, 180)).save(folder / f"{name}.jpg")
    scipy_io.savemat(folder / f"{name}.mat", {"pt3d_68": points, "Pose_Para": pose})


def only(folder):
    (sample,) = read_aflw2000(folder)
    return sample


def test_pixels_count_from_zero_and_z_has_no_mean(tmp_path):
    write_pair(tmp_path, "image00002")
    sample = only(tmp_path)
    # The first pixel's centre is (1, 1) in the file and (0, 0) here; `face` has zero mean z, the file's is 40.
    np.testing.assert_allclose(sample.points, face() + [99, 89, 0], atol=1e-9)
    assert sample.points[:, 2].mean() == pytest.approx(0, abs=1e-9)
    assert sample.image == tmp_path / "image00002.jpg"


def test_the_rotation_is_the_product_of_the_three_written_out(tmp_path):
    write_pair(tmp_path, "a")
    (sp, sy, sr), (cp, cy, cr) = np.sin(POSE[0, :3]), np.cos(POSE[0, :3])
    x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    np.testing.assert_allclose(only(tmp_path).rotation, x @ y @ z, atol=1e-6)
    # A nose (0, 0, 1) goes to -sin(yaw): to the image's left for a positive yaw, so to the right here.
    assert (only(tmp_path).rotation @ [0, 0, 1])[0] > 0.5


def test_pairs_come_in_the_order_of_names(tmp_path):
    for name in ("image00010", "image00002", "image00004"):
        write_pair(tmp_path, name)
    assert [s.image.stem for s in read_aflw2000(tmp_path)] == ["image00002", "image00004", "image00010"]


WITH_A_HOLE = POINTS + np.where(np.arange(68) == 5, np.nan, 0.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"points": POINTS[:2]}, r"\(2, 68\)"),
        ({"points": POINTS[:, :21]}, r"\(3, 21\)"),
        ({"points": WITH_A_HOLE}, "NaN"),
        ({"pose": POSE[:, :2]}, "pitch, yaw and roll"),
        ({"pose": np.full((1, 7), np.nan)}, "pitch, yaw and roll"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_name_of_the_file(tmp_path, values, said):
    write_pair(tmp_path, "good")
    write_pair(tmp_path, "wrong", **values)
    with pytest.raises(LandmarkError, match=rf"wrong\.mat.*{said}"):
        list(read_aflw2000(tmp_path))


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file", b"\x00" * 200])
def test_a_damaged_file_is_named(tmp_path, content):
    write_pair(tmp_path, "good")
    write_pair(tmp_path, "torn")
    (tmp_path / "torn.mat").write_bytes(content)
    with pytest.raises(LandmarkError, match=r"torn\.mat"):
        list(read_aflw2000(tmp_path))


def test_a_file_cut_short_is_named(tmp_path):
    write_pair(tmp_path, "torn")
    data = (tmp_path / "torn.mat").read_bytes()
    (tmp_path / "torn.mat").write_bytes(data[: len(data) // 2])
    with pytest.raises(LandmarkError, match=r"torn\.mat"):
        list(read_aflw2000(tmp_path))


def test_half_a_pair_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(LandmarkError, match="no .mat files"):
        list(read_aflw2000(tmp_path))
    scipy_io.savemat(tmp_path / "other.mat", {"pt2d": np.zeros((2, 21))})
    with pytest.raises(LandmarkError, match=r"other\.mat' has no picture 'other\.jpg'"):
        list(read_aflw2000(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "other.jpg")
    with pytest.raises(LandmarkError, match=r"other\.mat' lacks \['pt3d_68', 'Pose_Para'\]"):
        list(read_aflw2000(tmp_path))
