"""Any data set of which a reader exists is a source of faces to train on, with masks for what it does not say."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace

import layouts_maker as make
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("h5py")

from small import STILL, config  # noqa: E402

from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.check import check  # noqa: E402
from canthus.data.formats import FaceSample, read_300w, recognise  # noqa: E402
from canthus.data.formats.files import read_pts  # noqa: E402
from canthus.data.sources import FaceMix, batch_of  # noqa: E402
from canthus.data.truth import whole_truth  # noqa: E402
from canthus.errors import CanthusError, LandmarkError, ModelError  # noqa: E402
from canthus.evaluation.protocols import protocol  # noqa: E402
from canthus.face.landmarks import convert  # noqa: E402
from canthus.training.aligner import build  # noqa: E402
from canthus.training.partial import counted  # noqa: E402

# maker -> title of the layout, faces for training, points of the 68 that are known, whether depth is
LAYOUTS = {
    "aflw2000": (make.aflw2000, "AFLW2000-3D", 6, 68, True),
    "lp300w": (make.lp300w, "300W-LP", 2, 68, False),
    "lp300w_mesh": (functools.partial(make.lp300w, landmarks=True), "300W-LP", 2, 68, False),
    "w300": (make.w300, "300-W, training part", 1, 68, False),
    "vw300": (make.vw300, "300-VW", 6, 68, False),
    "cofw": (functools.partial(make.cofw, part="train"), "COFW, training part", 2, 21, False),
    "cofw_test": (make.cofw, "COFW, test part", 2, 21, False),
    "cofw68": (functools.partial(make.cofw, annotations68=True), "COFW-68, test part", 2, 68, False),
    "wflw": (functools.partial(make.wflw, part="train"), "WFLW, training part", 2, 68, False),
    "wflw_test": (make.wflw, "WFLW, test part", 2, 68, False),
    "aflw21": (make.aflw21, "AFLW by 3DDFA", 6, 16, False),
    "fdaw3": (make.fdaw3, "3DFAW, test part", 3, 68, True),
    "fdaw3_train": (functools.partial(make.fdaw3, part="train"), "3DFAW, training part", 3, 68, True),
    "menpo3d": (make.menpo3d, "Menpo-3D", 2, 68, True),
    "pts": (make.pts_pairs, "pictures with .pts", 3, 68, False),
    "coco": (make.coco, "COCO keypoints", 2, 68, False),
    "dlib": (make.dlib_xml, "dlib XML", 2, 67, False),
    "arrays": (make.arrays, "pictures with arrays of points", 3, 68, False),
    "renders": (make.renders, "rendered shards", 6, 68, True),
    "clips": (make.clips, "rendered clips", 42, 68, True),
}


@pytest.fixture(params=LAYOUTS)
def made(request, tmp_path):
    """A folder in a layout, and what is expected of it."""
    maker, *expected = LAYOUTS[request.param]
    return maker(tmp_path / "set"), request.param, *expected


def test_a_layout_is_told_by_its_files_and_gives_its_faces(made):
    folder, _, title, count, _, _ = made
    layout = recognise(folder)
    assert layout.title == title
    assert len(list(layout.read(folder, None))) == count


def test_every_layout_is_a_source_of_crops_with_masks(made):
    folder, name, _, count, points, deep = made
    mix = FaceMix([str(folder)], 48, 1.4, seed=0)
    assert len(mix) == count
    batch = batch_of(mix.fetch(0, count, 0), Augmenter(Augmentation(**STILL), 48, 1.4), torch.Generator())
    for field in ("crops", "xyz", "rotation"):
        assert torch.isfinite(getattr(batch, field)).all()
    known = torch.ones(count, 68, dtype=torch.bool) if batch.known is None else batch.known
    assert known.sum(1).max() == points
    assert mix.share("depth") == (1 if deep else pytest.approx(1 / 3) if name == "arrays" else 0)
    assert mix.share("points") == (1 if points == 68 and name != "coco" else 0.5 if name == "coco" else 0)
    assert batch.having("depth") is None or batch.having("depth").float().mean() == pytest.approx(mix.share("depth"))


def test_a_folder_of_300w_has_the_faces_for_training_that_it_has_in_the_set(tmp_path):
    folder = make.w300(tmp_path / "300w")
    make.pts(folder / "helen" / "trainset" / "e.pts", make.turned(0))
    make.picture(folder / "helen" / "trainset" / "e.png")
    assert read(folder / "helen") == (["trainset/e"], [])
    assert recognise(folder / "ibug").title == "300-W, test part"


def test_points_of_the_mesh_of_300w_lp_are_found_at_any_depth(tmp_path):
    make.lp300w(tmp_path / "data" / "300W_LP", landmarks=True)
    deep, own = (list(recognise(folder).read(folder)) for folder in (tmp_path / "data", tmp_path / "data" / "300W_LP"))
    for one, other in zip(deep, own, strict=True):
        np.testing.assert_array_equal(one.points, other.points)


def test_aflw_full_gives_its_training_part(tmp_path):
    folder = make.aflw_full(tmp_path)
    layout = recognise(folder)
    assert layout.title == "AFLW-Full, training part"
    first = next(iter(layout.read(folder, None)))
    assert first.scheme == "aflw19" and first.name.startswith("0/a")


def test_a_folder_of_no_layout_and_one_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(LandmarkError, match=r"no layout that is known \(\.docx found\)"):
        recognise(tmp_path)
    with pytest.raises(LandmarkError, match="no folder"):
        recognise(tmp_path / "nowhere")


def test_faults_are_noted_and_the_other_faces_read(tmp_path):
    folder = make.pts_pairs(tmp_path)
    (folder / "1.pts").write_text("nonsense")
    (folder / "2.png").unlink()
    with pytest.raises(LandmarkError, match=r"1\.pts"):
        list(recognise(folder).read(folder, None))
    faults = []
    assert [face.name for face in recognise(folder).read(folder, faults)] == ["0"]
    assert len(faults) == 2 and "1.pts" in str(faults[0]) and "2.pts" in str(faults[1])


def read(folder) -> tuple[list[str], list[str]]:
    """The names of the faces to train on, and what is wrong with others."""
    faults = []
    names = [face.name for face in recognise(folder).read(folder, faults)]
    return names, [str(fault) for fault in faults]


def test_of_3dfaw_the_training_part_is_trained_on_and_the_rest_measured(tmp_path):
    measured = protocol("3dfaw")
    make.fdaw3(tmp_path, "train")
    assert [face.name for face in measured.faces(tmp_path)] == [f"train_img/{k}" for k in range(3)]
    make.fdaw3(tmp_path, "valid")
    assert recognise(tmp_path).title == "3DFAW, training part"
    (tmp_path / "valid_lm" / "1_lm.csv").write_text("1,2,3\n")
    assert read(tmp_path) == ([f"train_img/{k}" for k in range(3)], [])
    make.fdaw3(tmp_path, "valid")
    assert [face.name for face in measured.faces(tmp_path)] == [f"valid_img/{k}" for k in range(3)]


def test_of_300w_the_training_part_is_read_alone(tmp_path):
    make.w300(tmp_path)
    (tmp_path / "ibug" / "c.png").unlink()
    assert read(tmp_path) == (["afw/d"], [])
    shutil.rmtree(tmp_path / "afw")
    assert recognise(tmp_path).title == "300-W, test part"
    assert len(read(tmp_path)[0]) == 2


# maker -> of its first face: what makes all points equal, and the file that is named
AT_ONE_PLACE = {
    "pts": (make.pts_pairs, lambda f: make.pts(f / "0.pts", np.full((68, 2), 100.0)), "0.pts"),
    "fdaw3": (make.fdaw3, lambda f: (f / "valid_lm" / "0_lm.csv").write_text("9,9,9\n" * 66), "0_lm.csv"),
    "arrays": (make.arrays, lambda f: np.savez(f / "0.npz", points=np.ones((68, 3))), "0.npz"),
}


@pytest.mark.parametrize("name", AT_ONE_PLACE)
def test_points_at_one_place_are_a_fault_of_their_file(tmp_path, name):
    maker, spoil, file = AT_ONE_PLACE[name]
    spoil(maker(tmp_path / "set"))
    found = check(tmp_path / "set", tmp_path / "out", "", lambda *_: None)
    (fault,) = found.faults
    assert found.faces == 2 and f"{file}' has all its points at one place" in str(fault)
    assert "2 pictures, 2 faces, 1 fault" in found.summary()


def test_a_label_of_3dfaw_of_another_form_is_a_fault(tmp_path):
    labels = make.fdaw3(tmp_path) / "valid_lm"
    lines = (labels / "0_lm.csv").read_text().splitlines()
    (labels / "0_lm.csv").write_text("\n".join(["x,y,z", *lines]))
    (labels / "1_lm.csv").write_text("\n".join(line.replace(",", ";") for line in lines))
    make.picture(tmp_path / "valid_img" / "3.jpg")
    (labels / "3_lm.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    (tmp_path / "readme.txt").write_text("of no picture")
    names, faults = read(tmp_path)
    assert names == ["valid_img/2"]
    for k, reason in ((0, "to float: 'x'"), (1, "to float: '"), (3, r"shape (66, 2); (66, 3) is wanted")):
        assert sum(f"valid_lm/{k}_lm.csv' " in fault and reason in fault for fault in faults) == 1
    assert len(faults) == 3
    (tmp_path / "valid_img" / "2.jpg").unlink()
    assert "valid_lm/2_lm.csv' has no picture '2.jpg', .png or the like in '" in read(tmp_path)[1][-2]


def test_every_bad_frame_of_300vw_is_named_and_the_others_kept(tmp_path):
    make.vw300(tmp_path, frames=8)
    labels, pictures = tmp_path / "001" / "annot", tmp_path / "001" / "imgs"
    (labels / "000001.pts").write_text("")
    (labels / "000002.pts").unlink()  # not between two that are known
    (pictures / "000004.jpg").unlink()
    make.pts(labels / "000006.pts", np.full((68, 2), 100.0))
    (labels / "cover.pts").write_text("")
    names, faults = read(tmp_path)
    assert names == [f"001/{k:06d}" for k in (3, 5, 7, 8)]
    assert [fault.partition(" ")[0].rpartition("/")[2] for fault in faults] == [
        "cover.pts'", "000001.pts'", "000004.pts'", "000006.pts'"
    ]  # fmt: skip
    assert f"'{labels / '000004.pts'}' has no picture '000004.jpg', .png or the like in '{pictures}'" in faults[2]


def coco_file(folder, change) -> None:
    path = folder / "annotations" / "face_train.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_an_annotation_of_coco_without_a_picture_is_a_fault_and_without_keypoints_none(tmp_path):
    def change(document):
        face = document["annotations"][0]
        document["annotations"] += [
            face | {"id": 5, "image_id": 99}, {"id": 6, "image_id": 0}, face | {"keypoints": []},
            face | {"keypoints": [0] * 204, "num_keypoints": 0},
        ]  # fmt: skip

    coco_file(make.coco(tmp_path), change)
    names, (fault,) = read(tmp_path)
    assert names == ["0", "1"]
    assert "face_train.json', annotation 5, has the image_id 99" in fault


def test_broken_json_is_named(tmp_path):
    path = make.coco(tmp_path) / "annotations" / "face_train.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(LandmarkError, match=r"face_train\.json' is broken JSON: "):
        recognise(tmp_path)
    path.with_name("face_val.json").write_text(whole)
    names, (fault,) = read(tmp_path)
    assert names == ["0", "1"] and "face_train.json' is broken JSON: " in fault


def test_a_face_that_stops_a_training_tells_how_to_see_all_faults(tmp_path):
    folder = make.pts_pairs(tmp_path)
    (folder / "1.pts").write_text("nonsense")
    with pytest.raises(LandmarkError, match=rf"1\.pts' .*; `canthus data check {folder}` lists all that is wrong$"):
        FaceMix([str(folder)], 48, 1.4, seed=0)


def test_a_set_without_a_face_is_named(tmp_path):
    coco_file(make.coco(tmp_path), lambda document: document.update(annotations=[]))
    with pytest.raises(LandmarkError, match=f"'{tmp_path}' holds no face with landmarks"):
        FaceMix([str(tmp_path)], 48, 1.4, seed=0)


def test_the_log_says_what_a_folder_holds(tmp_path, caplog):
    with caplog.at_level("INFO"):
        FaceMix([str(make.renders(tmp_path / "a")), str(make.pts_pairs(tmp_path / "b"))], 260, 1.4, seed=0)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'a'}: rendered shards, 6 faces, 68 of 68 points, depth, rotation, no expression, no vertices",
        f"{tmp_path / 'b'}: pictures with .pts, 3 faces, 68 of 68 points, no depth, no rotation",
    ]


def test_links_are_followed_but_not_in_circles(tmp_path):
    make.w300(tmp_path / "elsewhere")
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("helen", "lfpw", "ibug", "afw"):
        (folder / name).symlink_to(tmp_path / "elsewhere" / name)
    (folder / "ibug" / "back").symlink_to(folder)
    assert recognise(folder).title == "300-W, training part"
    assert sorted(face.name for face in read_300w(folder)) == ["afw/d", "helen/testset/a", "ibug/c", "lfpw/testset/b"]


def test_what_macos_adds_is_passed_over_and_upper_case_is_found(tmp_path):
    make.pts_pairs(tmp_path)
    for place in (tmp_path, tmp_path / "__MACOSX"):
        place.mkdir(exist_ok=True)
        (place / "._0.pts").write_bytes(b"\x00\x05\x16\x07")
        (place / "._list_98pt_rect_attr_test.txt").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "__MACOSX" / "1.pts").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "0.png").rename(tmp_path / "0.PNG")
    (tmp_path / "1.pts").rename(tmp_path / "1.PTS")
    assert recognise(tmp_path).title == "pictures with .pts"
    assert read(tmp_path) == (["0", "1", "2"], [])


def test_pictures_of_300wlp_may_have_upper_case_endings(tmp_path):
    make.lp300w(tmp_path)
    (tmp_path / "AFW" / "AFW_0.jpg").rename(tmp_path / "AFW" / "AFW_0.JPG")
    assert read(tmp_path) == (["AFW/AFW_0", "AFW/AFW_1"], [])


def test_a_folder_of_several_sets_is_told_from_a_set(tmp_path):
    for maker, file in ((make.aflw21, "AFLW_GT_pts21.npy"), (make.wflw, "folder WFLW_images")):
        maker(tmp_path / "one")
        with pytest.raises(LandmarkError, match=f": no {file} in '{tmp_path}'; the set's own folder is wanted$"):
            FaceMix([str(tmp_path)], 48, 1.4, seed=0)
        shutil.rmtree(tmp_path / "one")
    make.vw300(tmp_path / "vw")
    make.pts_pairs(tmp_path / "pts")
    said = f"'{tmp_path}' was recognised as 300-VW: no VIDEO/annot/NNNNNN.pts files in '{tmp_path}'"
    with pytest.raises(LandmarkError, match=f"^{said}; the set's own folder is wanted$"):
        FaceMix([str(tmp_path)], 48, 1.4, seed=0)


def test_the_folder_of_a_head_model_that_is_none_is_named(tmp_path):
    folder = make.lp300w(tmp_path / "set")
    layout = recognise(folder, str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="nowhere' holds neither Model_Shape.mat and Model_Exp.mat nor u_shp.npy"):
        list(layout.read(folder))


# ---- the whole truth


def samples(scheme: str, axes: int, keep=slice(None)) -> list[FaceSample]:
    """The faces of `layouts_maker.shapes` in a scheme, without those not in `keep`."""
    out = []
    for points in make.shapes():
        own = points if scheme == "ibug68" else convert(points, "ibug68", scheme)[0]
        marked = np.full((len(own), axes), np.nan)
        marked[keep] = own[keep, :axes]
        out.append(FaceSample(np.zeros((240, 260, 3), np.uint8), marked, scheme=scheme))
    return out


def test_what_is_known_stays_and_the_rest_is_near_where_it_should_be():
    """The guess is the mean head in the pose of 21 points; a made-up face differs from it by its shape alone."""
    truth = whole_truth(samples("cofw29", 2))
    shapes = np.stack(make.shapes())
    assert truth.known.sum() == 6 * 21 and not truth.deep.any() and not truth.posed.any()
    np.testing.assert_allclose(truth.xyz[..., :2][truth.known], shapes[..., :2][truth.known], atol=1e-3)
    for face in range(4):  # up to 45 degrees
        apart = np.linalg.norm(truth.xyz[face, :, :2] - shapes[face, :, :2], axis=-1)[~truth.known[face]]
        assert apart.mean() < 0.25 * 120  # the whole face is 120 px wide


def test_depth_comes_through_and_gives_the_rotation():
    truth = whole_truth(samples("3dfaw66", 3))
    shapes = np.stack(make.shapes())
    assert truth.deep.all() and truth.posed.all() and truth.known.all()
    exact = [k for k in range(68) if k not in (60, 64)]  # blended from their neighbours
    np.testing.assert_allclose(truth.xyz[:, exact, :2], shapes[:, exact, :2], atol=1e-3)
    z = truth.xyz[:, exact, 2] - truth.xyz[:, exact, 2].mean(1, keepdims=True)
    np.testing.assert_allclose(z, shapes[:, exact, 2] - shapes[:, exact, 2].mean(1, keepdims=True), atol=1e-3)
    turned = np.rad2deg(np.arcsin(truth.rotation[:, 0, 2]))
    assert np.abs(np.abs(turned) - np.abs(make.YAWS)).max() < 15


def test_few_points_give_a_head_that_looks_at_the_camera():
    truth = whole_truth(samples("ibug68", 2, keep=[36, 45]))
    np.testing.assert_array_equal(truth.rotation, np.eye(3)[None].repeat(6, 0))
    assert np.isfinite(truth.xyz).all() and truth.known.sum() == 12
    with pytest.raises(LandmarkError, match="has 1 of the 68 points"):
        whole_truth(samples("ibug68", 2, keep=[36]))


@pytest.mark.parametrize("method", ["swift", "jvcr", "local_global", "part_heatmap"])
def test_what_is_a_guess_counts_in_no_loss(tmp_path, method):
    aligner = build(method, config(method, 64))
    torch.manual_seed(0)
    mix = FaceMix([str(make.cofw(tmp_path / "a")), str(make.lp300w(tmp_path / "b"))], 64, 1.4, seed=0)
    batch = batch_of(mix.fetch(0, 4, 0), Augmenter(Augmentation(**STILL), 64, 1.4), torch.Generator().manual_seed(1))
    # elsewhere within the box, whose height disc radii come from
    low, high = batch.xyz.amin(1, keepdim=True), batch.xyz.amax(1, keepdim=True)
    inside = low + torch.rand(batch.xyz.shape, generator=torch.Generator().manual_seed(2)) * (high - low)
    xyz = torch.where(batch.known_axes, batch.xyz, inside)
    edge = (batch.xyz == low) | (batch.xyz == high)
    xyz[..., :2] = torch.where(edge, batch.xyz, xyz)[..., :2]
    turned = torch.where(batch.posed[:, None, None], batch.rotation, -batch.rotation)
    other = replace(batch, xyz=xyz, rotation=turned)
    assert not torch.equal(xyz, batch.xyz)
    alignment = aligner.eval()(batch.crops)
    one, two = (
        {k: counted(v, b, aligner.needs.get(k, ())) for k, v in aligner.loss(alignment, b).items()}
        for b in (batch, other)
    )
    for name in one:
        flat = method == "jvcr" and name == "voxel"  # a slice of all depths is a little brighter where z is 0
        torch.testing.assert_close(one[name], two[name], rtol=0.05 if flat else 1e-5, atol=1e-6)


def test_a_set_without_any_face_is_a_fault(tmp_path):
    folder = make.coco(tmp_path / "set")
    file = folder / "annotations" / "face_train.json"
    document = json.loads(file.read_text())
    for annotation in document["annotations"]:
        del annotation["keypoints"]
    file.write_text(json.dumps(document))
    found = check(folder, tmp_path / "out", "", lambda *_: None)
    assert found.faces == 0 and [str(fault) for fault in found.faults] == [f"'{folder}' holds no face with landmarks"]


def test_a_part_that_is_not_there_is_named(tmp_path):
    make.w300(tmp_path)
    with pytest.raises(CanthusError, match="is of the part full or private: the root of the whole set is wanted"):
        protocol("300w").faces(tmp_path / "afw")


def test_a_pts_file_without_a_brace_is_told_so(tmp_path):
    make.pts_pairs(tmp_path)
    first = min(tmp_path.glob("*.pts"))
    first.write_text(first.read_text().replace("}", ""))
    with pytest.raises(LandmarkError, match="a line with a brace of its own is missing"):
        read_pts(first)


def test_a_link_to_nowhere_is_told(tmp_path):
    (tmp_path / "x.xml").symlink_to("nowhere")
    faults = []
    assert not list(recognise(tmp_path).read(tmp_path, faults))
    assert len(faults) == 1 and "x.xml" in str(faults[0])
