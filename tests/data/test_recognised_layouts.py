"""Any data set of which a reader exists is a source of faces to train on, with masks for what it does not say."""

from __future__ import annotations

import functools
from dataclasses import replace

import layouts_maker as make
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("h5py")

from small import STILL, config  # noqa: E402

from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.formats import FaceSample, recognise  # noqa: E402
from canthus.data.sources import FaceMix, batch_of  # noqa: E402
from canthus.data.truth import whole_truth  # noqa: E402
from canthus.errors import LandmarkError  # noqa: E402
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
    "fdaw3": (make.fdaw3, "3DFAW", 3, 68, True),
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
