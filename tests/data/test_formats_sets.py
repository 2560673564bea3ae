"""Readers of the sets, on files that the tests write in the sets' layouts, and on real samples where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import layouts_maker as make
import numpy as np
import pytest
from PIL import Image

scipy_io = pytest.importorskip("scipy.io")
pytest.importorskip("h5py")

from canthus.data import formats  # noqa: E402
from canthus.errors import LandmarkError  # noqa: E402
from canthus.face.landmarks import convert  # noqa: E402

FIXTURES = Path(os.environ.get("CANTHUS_DATA", Path(__file__).parents[3] / "shared" / "data")) / "fixtures"
real = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no samples of the real sets: set CANTHUS_DATA to their folder")


def near(points: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(points, wanted, atol=tolerance)


# ---- single files


def test_pts_counts_from_one_and_says_what_is_wrong(tmp_path):
    make.pts(tmp_path / "a.pts", make.turned(0))
    near(formats.read_pts(tmp_path / "a.pts"), make.turned(0)[:, :2])
    with pytest.raises(LandmarkError, match=r"a\.pts' has 68 points and says 68; 66 are wanted"):
        formats.read_pts(tmp_path / "a.pts", 66)
    text = (tmp_path / "a.pts").read_text()
    (tmp_path / "b.pts").write_text(text.replace("n_points:  68", "n_points: 67"))
    (tmp_path / "c.pts").write_text(text.replace("{", ""))
    (tmp_path / "d.pts").write_text(text.replace("}", "x y\n}"))
    for name in "bcd":
        with pytest.raises(LandmarkError, match=rf"{name}\.pts'"):
            formats.read_pts(tmp_path / f"{name}.pts")


def test_ljson_of_three_versions(tmp_path):
    points = {"points": [[2.0, 1.0], [None, None]], "connectivity": []}
    documents = {
        "v1": {"version": 1, "groups": {"PTS": {"labels": [], "landmarks": points}}},
        "v2": {"version": 2, "labels": [], "landmarks": points},
        "v3": {"version": 3, "groups": {"a": {"labels": [], "landmarks": points}, "b": {"landmarks": points}}},
    }
    for name, document in documents.items():
        (tmp_path / name).write_text(json.dumps(document))
    for name, group in (("v1", None), ("v2", None), ("v3", "b")):
        np.testing.assert_array_equal(formats.read_ljson(tmp_path / name, group), [[1, 2], [np.nan, np.nan]])
    with pytest.raises(LandmarkError, match=r"groups \['a', 'b'\]"):
        formats.read_ljson(tmp_path / "v3")
    (tmp_path / "v2").write_text("[]")
    with pytest.raises(LandmarkError, match="no LJSON"):
        formats.read_ljson(tmp_path / "v2")


def test_coco(tmp_path):
    points = make.turned(0)
    flat = np.c_[points[:, :2], np.full(68, 2)]
    flat[5, 2] = 0
    make.picture(tmp_path / "a.jpg")
    faces = [{"image_id": 7, "keypoints": flat.ravel().tolist(), "bbox": [10, 20, 30, 40]}] * 2
    document = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": faces}
    (tmp_path / "x.json").write_text(json.dumps(document))
    one, two = formats.read_coco(tmp_path / "x.json", "ibug68")
    assert (one.name, two.name) == ("a#0", "a#1") and one.image == tmp_path / "a.jpg"
    assert np.isnan(one.points[5]).all() and one.box.tolist() == [10, 20, 40, 60]
    near(np.delete(one.points, 5, 0), np.delete(points[:, :2], 5, 0))
    with pytest.raises(LandmarkError, match=r"x\.json, a\.jpg' has landmarks of shape \(68, 2\); \(98, 2 or 3\)"):
        list(formats.read_coco(tmp_path / "x.json", "wflw98"))


def test_dlib(tmp_path):
    points = make.turned(0)
    make.picture(tmp_path / "a.jpg")
    parts = "".join(f'<part name="{k:02d}" x="{x:.4f}" y="{y:.4f}"/>' for k, (x, y, _) in enumerate(points) if k != 9)
    box = f'<box top="20" left="10" width="30" height="40">{parts}</box>'
    (tmp_path / "x.xml").write_text(f'<dataset><images><image file="a.jpg">{box}</image></images></dataset>')
    (sample,) = formats.read_dlib_xml(tmp_path / "x.xml", "ibug68")
    assert np.isnan(sample.points[9]).all() and sample.box.tolist() == [10, 20, 40, 60] and sample.name == "a"
    near(np.delete(sample.points, 9, 0), np.delete(points[:, :2], 9, 0), 1e-4)
    with pytest.raises(LandmarkError, match="has a part 66; 0 to 65"):
        list(formats.read_dlib_xml(tmp_path / "x.xml", "3dfaw66"))

    # what is to be ignored, or has no parts, is no face; and five points are not the first five of 68
    others = box.replace("<box", '<box ignore="1"') + '<box top="2" left="1" width="3" height="4"/>'
    (tmp_path / "x.xml").write_text(f'<dataset><images><image file="a.jpg">{box}{others}</image></images></dataset>')
    (again,) = formats.read_dlib_xml(tmp_path / "x.xml")
    assert again.scheme == "ibug68" and again.name == "a"
    five = "".join(f'<part name="{k}" x="{20 + 9 * k}" y="40"/>' for k in range(5))
    five = f'<box top="20" left="10" width="30" height="40">{five}</box>'
    (tmp_path / "x.xml").write_text(f'<dataset><images><image file="a.jpg">{five}</image></images></dataset>')
    with pytest.raises(LandmarkError, match="5 points"):
        list(formats.read_dlib_xml(tmp_path / "x.xml"))


# ---- fitted sets


def test_aflw2000_with_the_arrays_of_3ddfa(tmp_path):
    faces = list(formats.read_aflw2000(make.aflw2000(tmp_path, second=True)))
    for sample, points, yaw in zip(faces, make.shapes(), make.YAWS, strict=True):
        near(sample.points, points)
        near(sample.relabelled, points[:, :2] + [1, 0])
        near(np.rad2deg(sample.angles), [3, yaw, -4])
        assert sample.yaw == pytest.approx(np.deg2rad(40))
    np.save(tmp_path / "test.configs" / "AFLW2000-3D-new.pose.npy", np.zeros(5))
    with pytest.raises(LandmarkError, match=r"new\.pose\.npy' has the shape \(5,\); \(6,\) is wanted"):
        list(formats.read_aflw2000(tmp_path))


def test_300wlp_has_no_depth_as_distributed(tmp_path):
    faces = list(formats.read_300wlp(make.lp300w(tmp_path / "a")))
    assert [s.name for s in faces] == ["AFW/AFW_0", "AFW/AFW_1"] and faces[0].groups == {"AFW"}
    near(faces[1].points, make.shapes()[1][:, :2])
    near(np.rad2deg(faces[1].angles), [3, make.YAWS[1], -4])
    faces = list(formats.read_300wlp(make.lp300w(tmp_path / "b", landmarks=True)))
    near(faces[1].points, make.shapes()[1][:, :2] + [1, 0])  # the mesh's points, where they are
    deep = list(formats.read_300wlp(make.aflw2000(tmp_path / "c")))
    near(deep[2].points, make.shapes()[2])


# ---- marked sets


def test_300w(tmp_path):
    faces = {s.name: s for s in formats.read_300w(make.w300(tmp_path))}
    assert {n: sorted(s.groups) for n, s in faces.items()} == {
        "helen/testset/a": ["common", "full"], "lfpw/testset/b": ["common", "full"], "ibug/c": ["challenge", "full"],
        "afw/d": ["train"],
    }  # fmt: skip
    near(faces["ibug/c"].points, make.shapes()[2][:, :2])
    assert faces["ibug/c"].image.name == "c.png"


def test_300vw(tmp_path):
    faces = list(formats.read_300vw(make.vw300(tmp_path)))
    assert [s.name for s in faces[:2]] == ["001/000001", "001/000002"] and faces[0].image.is_file()
    near(faces[3].points - faces[0].points, np.broadcast_to([6, 0], (68, 2)))


def test_frames_of_300vw_without_labels_are_interpolated(tmp_path):
    make.vw300(tmp_path, frames=6)
    (video,) = tmp_path.iterdir()
    whole = list(formats.read_300vw(tmp_path))
    annotations = sorted((video / "annot").iterdir())
    for gone in (1, 2, 4):
        annotations[gone].unlink()
    (video / "imgs" / "cover.jpg").write_bytes(b"no frame")
    sparse = list(formats.read_300vw(tmp_path))
    assert [s.name for s in sparse] == [s.name for s in whole]
    kinds = [*(s.groups - {video.name} for s in sparse)]
    assert [len(k) for k in kinds] == [1] * 6
    assert ["interpolated" in k for k in kinds] == [False, True, True, False, True, False]
    near(sparse[1].points, (2 * whole[0].points + whole[3].points) / 3, 1e-6)
    near(sparse[4].points, (whole[3].points + whole[5].points) / 2, 1e-6)
    assert all(s.groups == {video.name} for s in whole)


@pytest.mark.parametrize("layout", ["tar", "300wlp"])
def test_renders_of_every_layout(tmp_path, layout):
    from canthus.io.shards import read_shard, shard_path, write_shard

    make.renders(tmp_path / "npz")
    faces = read_shard(tmp_path / "npz" / "shard-00000.npz")
    more = {"contour": faces["xyz"][:, :17], "weak_shift": np.zeros((3, 2)), "weak_scale": np.ones(3)}
    (tmp_path / layout).mkdir()
    write_shard(shard_path(tmp_path / layout, 0, layout), faces | more, 0, layout)
    for one, other in zip(formats.read_renders(tmp_path / layout), formats.read_renders(tmp_path / "npz")):
        assert one.name == other.name
        near(one.points, other.points, 1e-6)
        near(np.rad2deg(one.angles), np.rad2deg(other.angles), 1e-6)


def test_damaged_renders_are_named(tmp_path):
    (tmp_path / "shard-00000.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(LandmarkError, match="shard-00000.npz' is nothing that"):
        list(formats.read_renders(tmp_path))
    make.clips(tmp_path / "clips", frames=3)
    (tmp_path / "clips" / "clip-00001" / "frame-00001.jpg").unlink()
    with pytest.raises(LandmarkError, match="has no picture 'frame-00001.jpg'"):
        list(formats.read_clips(tmp_path / "clips"))
    faults = []
    assert len(list(formats.read_clips(tmp_path / "clips", faults))) == 5 and len(faults) == 1


def test_cofw(tmp_path):
    folder = make.cofw(tmp_path, annotations68=True)
    one, two = formats.read_cofw29(folder)
    wanted, quality = convert(make.shapes()[0][:, :2], "ibug68", "cofw29")
    near(one.points[quality != "missing"], wanted[quality != "missing"])
    assert one.visible.tolist() == [k != 3 for k in range(29)] and one.box.tolist() == [60, 50, 160, 160]
    assert one.image.shape == two.image.shape == (240, 260, 3)
    assert one.image[0, 0].tolist() == [10, 20, 30] and two.image[0, 0].tolist() == [77, 77, 77]
    all68 = list(formats.read_cofw68(folder))
    near(all68[1].points, make.shapes()[1][:, :2])
    assert all68[1].visible.sum() == 51 and not all68[1].visible[0]


@pytest.mark.parametrize("read", [formats.read_cofw29, formats.read_cofw68])
def test_cofw_without_its_test_faces_says_which_file_is_wanted(tmp_path, read):
    make.cofw(tmp_path, part="train")
    (tmp_path / "test_annotations").mkdir()
    with pytest.raises(LandmarkError, match=f"no COFW_test_color.mat in '{tmp_path}'"):
        list(read(tmp_path))


def test_wflw(tmp_path):
    one, two = formats.read_wflw(make.wflw(tmp_path))
    near(convert(two.points, "wflw98", "ibug68")[0], make.shapes()[1][:, :2])
    assert one.groups == {"full"} and two.groups == {"full", "pose", "blur"}
    assert one.name != two.name and one.image == two.image and one.box.tolist() == [60, 50, 200, 190]
    (path,) = tmp_path.rglob("*.txt")
    path.write_text(path.read_text().replace(" 0 0 0 0 0 0 ", " 0 0 0 "))
    with pytest.raises(LandmarkError, match="line 1' has 204 words"):
        list(formats.read_wflw(tmp_path))


def test_aflw21(tmp_path):
    faces = list(formats.read_aflw21(make.aflw21(tmp_path)))
    wanted = convert(make.shapes()[3][:, :2], "ibug68", "aflw21")[0] - [70, 60]
    assert np.isnan(faces[3].points[12]).all() and faces[3].visible.sum() == 20
    near(np.delete(faces[3].points, 12, 0), np.delete(wanted, 12, 0))
    xy = make.shapes()[3][:, :2] - [70, 60]
    near(faces[3].box, [*xy.min(0), *xy.max(0)])
    assert np.rad2deg(faces[3].yaw) == pytest.approx(make.YAWS[3])


def test_aflw_full(tmp_path):
    one, two = formats.read_aflw_full(make.aflw_full(tmp_path))
    near(two.points, convert(make.shapes()[1][:, :2], "ibug68", "aflw19")[0])
    assert one.groups == {"full", "frontal"} and two.groups == {"full"} and not two.visible[4]
    assert two.box.tolist() == [60, 50, 200, 190] and two.name.startswith("2/b")


# ---- sets in space


def test_3dfaw_has_its_nose_in_front_whatever_the_file_says(tmp_path):
    faces = list(formats.read_3dfaw(make.fdaw3(tmp_path)))
    for sample, points in zip(faces, make.shapes()[:3], strict=True):
        wanted = convert(points, "ibug68", "3dfaw66")[0]
        near(sample.points, wanted - [0, 0, wanted[:, 2].mean()])
    (tmp_path / "valid_lm" / "1_lm.csv").write_text("1,2,3\n")
    with pytest.raises(LandmarkError, match=r"1_lm\.csv' has numbers of shape \(1, 3\); \(66, 3\) is wanted"):
        list(formats.read_3dfaw(tmp_path))


def test_menpo3d(tmp_path):
    one, _ = formats.read_menpo3d(make.menpo3d(tmp_path))
    shape = convert(one.points, "menpo84", "ibug68")[0]
    near(shape[:, :2], make.shapes()[0][:, :2])
    near(np.diff(shape[:, 2]), np.diff(make.shapes()[0][:, 2]))


def test_biwi(tmp_path):
    faces = list(formats.read_biwi(make.biwi(tmp_path)))
    for sample, yaw in zip(faces, make.YAWS, strict=True):
        near(np.rad2deg(sample.angles), [3, yaw, -4], 1e-4)
        assert np.isnan(sample.points).all()
    # The head's centre (10, 20, 1000) mm projects to (130 + 500 * 0.01, 120 + 500 * 0.02); 75 mm are 37.5 px there.
    near(faces[0].box, [97.5, 92.5, 172.5, 167.5])


# ---- what is refused


def test_a_missing_picture_and_a_far_point_are_named(tmp_path):
    make.w300(tmp_path)
    (tmp_path / "ibug" / "c.png").unlink()
    with pytest.raises(LandmarkError, match=r"ibug/c\.pts' has no picture 'c\.jpg', \.png or the like"):
        list(formats.read_300w(tmp_path))
    make.w300(tmp_path)
    make.pts(tmp_path / "ibug" / "c.pts", make.turned(0) + [0, 700, 0])
    with pytest.raises(LandmarkError, match=r"c\.pts' has a point at .*far outside its picture of 260x240 px"):
        list(formats.read_300w(tmp_path))
    broken = make.turned(0)
    broken[5] = np.nan
    make.pts(tmp_path / "ibug" / "c.pts", broken)
    with pytest.raises(LandmarkError, match=r"c\.pts' has NaN"):
        list(formats.read_300w(tmp_path))
    make.pts(tmp_path / "ibug" / "c.pts", make.turned(0)[:51])
    with pytest.raises(LandmarkError, match="68 are wanted"):
        list(formats.read_300w(tmp_path))


@pytest.mark.parametrize(
    "read",
    [formats.read_300w, formats.read_300vw, formats.read_cofw29, formats.read_cofw68, formats.read_wflw,
     formats.read_aflw21, formats.read_aflw_full, formats.read_3dfaw, formats.read_menpo3d, formats.read_biwi,
     formats.read_300wlp, formats.read_renders, formats.read_clips],
)  # fmt: skip
def test_an_empty_folder_is_named(tmp_path, read):
    with pytest.raises(LandmarkError, match=str(tmp_path)):
        list(read(tmp_path))


# ---- the real samples


@real
@pytest.mark.parametrize(
    ("name", "scheme", "count"),
    [("300w/test_300w", "ibug68", 2), ("300wlp/test_300wlp", "ibug68", 2), ("aflw/test_aflw", "aflw19", 2),
     ("cofw/test_cofw", "cofw29", 2), ("wflw/test_wflw", "wflw98", 4), ("lapa/test_lapa", "lapa106", 2),
     ("300vw/anno_300vw", "ibug68", 3)],
)  # fmt: skip
def test_real_samples_in_coco_form(name, scheme, count):
    faces = list(formats.read_coco(FIXTURES / f"{name}.json", scheme))
    assert len(faces) == count
    for sample in faces:
        with Image.open(sample.image) as opened:
            size = np.array(opened.size)
        known = np.isfinite(sample.points).all(1)
        assert known.sum() > 10 and (sample.points[known] > -50).all() and (sample.points[known] < size + 50).all()
        points = convert(sample.points, scheme, scheme)[0]
        from canthus.face.landmarks import scheme as find

        right, left = find(
            scheme
        ).eye_corners  # the subject's right eye is left in the picture of a face that looks here
        assert points[right, 0] < points[left, 0]


@real
def test_a_real_pair_of_300wlp():
    from canthus.data.formats.fitted import read_300wlp

    faces = list(read_300wlp(FIXTURES))
    (sample,) = (s for s in faces if "IBUG" in s.name)
    assert sample.points.shape == (68, 2) and 0 < sample.points.min() and sample.points.max() < 450


@real
def test_real_frames_of_300vw():
    faces = list(formats.read_300vw(FIXTURES / "300vw"))
    assert [s.name for s in faces] == ["001/000006", "001/000009", "401/000731", "401/000732"]
    # the JSON of these frames repeats the numbers of the PTS files, which count from 1
    (first, *_) = formats.read_coco(FIXTURES / "300vw" / "anno_300vw.json", "ibug68")
    near(first.points - 1, faces[0].points, 1e-3)


# ---- the head model of 300W-LP's labels


def basel(folder: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Model_Shape.mat and Model_Exp.mat of 80 vertices, 5 identity and 3 expression modes, micrometres."""
    vertices = rng.normal(size=(80, 3)) * 6e4
    arrays = {
        "mu_shape": vertices.reshape(-1, 1), "w": rng.normal(size=(240, 5)) * 1e-2,
        "tri": rng.integers(1, 81, (3, 40)), "keypoints": rng.permutation(80)[:68][None] + 1,
        "mu_exp": rng.normal(size=(240, 1)) * 1e3, "w_exp": rng.normal(size=(240, 3)) * 1e3,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    for file, names in (("Shape", ("mu_shape", "w", "tri", "keypoints")), ("Exp", ("mu_exp", "w_exp"))):
        scipy_io.savemat(folder / f"Model_{file}.mat", {name: arrays[name] for name in names})
    return arrays


def test_points_with_depth_are_rebuilt_from_the_coefficients_of_300wlp(tmp_path):
    """By the formulas of face3d: R = Rx Ry Rz, V = f R X + t, x from 1, y from the bottom."""
    rng = np.random.default_rng(5)
    arrays = basel(tmp_path / "model", rng)
    pitch, yaw, roll = 0.2, -0.7, 0.1
    identity, expression = rng.normal(size=5) * 1e5, rng.normal(size=3)
    shift, scale = np.array([130.0, 120, 5]), 5e-4
    make.picture(tmp_path / "set" / "AFW_Flip" / "a.jpg")
    pose = np.array([[pitch, yaw, roll, *shift, scale]])
    mat = {"Pose_Para": pose, "Shape_Para": identity[:, None], "Exp_Para": expression[:, None]}
    scipy_io.savemat(tmp_path / "set" / "AFW_Flip" / "a.mat", mat | {"pt2d": np.linspace(100, 120, 136).reshape(2, 68)})
    layout = formats.recognise(tmp_path / "set", str(tmp_path / "model"))
    (face,) = layout.read(tmp_path / "set", None)
    cos, sin = np.cos, np.sin
    rx = np.array([[1, 0, 0], [0, cos(pitch), sin(pitch)], [0, -sin(pitch), cos(pitch)]])
    ry = np.array([[cos(yaw), 0, -sin(yaw)], [0, 1, 0], [sin(yaw), 0, cos(yaw)]])
    rz = np.array([[cos(roll), sin(roll), 0], [-sin(roll), cos(roll), 0], [0, 0, 1]])
    head = arrays["mu_shape"].ravel() + arrays["mu_exp"].ravel() + arrays["w"] @ identity + arrays["w_exp"] @ expression
    head = head.reshape(-1, 3)[arrays["keypoints"].ravel() - 1]
    v = scale * head @ (rx @ ry @ rz).T + shift
    expected = np.stack([v[:, 0] - 1, 240 - v[:, 1], v[:, 2] - v[:, 2].mean()], 1)
    near(face.points, expected, 0.02)  # the model is kept in float32: 0.01 um of 100,000, times 68 modes
    near(face.rotation, rx @ ry @ rz, 1e-9)
    assert face.name == "AFW_Flip/a" and face.groups == {"AFW_Flip"}
    (flat,) = formats.recognise(tmp_path / "set").read(tmp_path / "set", None)
    near(flat.points, np.linspace(99, 119, 136).reshape(2, 68).T)
    scipy_io.savemat(tmp_path / "set" / "AFW_Flip" / "a.mat", mat | {"Shape_Para": np.zeros((4, 1))})
    with pytest.raises(LandmarkError, match=r"a\.mat' has \[4, 3, 7\] numbers.* 5, 3 and 7"):
        list(layout.read(tmp_path / "set", None))
