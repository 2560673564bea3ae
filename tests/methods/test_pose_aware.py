"""Pose-aware alignment (BMVC 2019): which points are placed, the normal frame, losses, ablations, export."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from shapes import MIRROR, head68, made_up_faces  # noqa: E402
from small import CONFIGS, STILL  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.datasets import StoredFaces  # noqa: E402
from canthus.data.sample import FaceBatch  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.faces import Alignment  # noqa: E402
from canthus.inference.runtime import OnnxAligner  # noqa: E402
from canthus.methods.pose_aware import SEMIFACE, PoseAware, PoseAwareConfig, Regressor  # noqa: E402
from canthus.training.aligner import Aligner, build  # noqa: E402
from canthus.training.export import export_onnx, face_crops  # noqa: E402
from canthus.training.losses import wing  # noqa: E402

SIZE = 64
SMALL = {"size": SIZE, **CONFIGS["pose_aware"], "extra": (22, 35, 45, 54)}


def small(**changes) -> PoseAware:
    torch.manual_seed(0)
    return build("pose_aware", {**SMALL, **changes})


@pytest.fixture(scope="module")
def batch(made_shards) -> FaceBatch:
    augmenter = Augmenter(Augmentation(**STILL), SIZE, 1.4)
    return augmenter(StoredFaces([made_shards]).take(np.arange(12)), torch.Generator().manual_seed(0))


def points(angles: list[tuple[float, float, float]]) -> torch.Tensor:
    """Made-up faces (B,68,2) in the middle of crops of `SIZE`; (pitch, yaw, roll) in degrees of the aflw set."""
    faces = made_up_faces(angles, scale=0.28)
    return torch.tensor(faces.xyz[..., :2] - faces.xyz[..., :2].mean(1, keepdims=True)).float() + (SIZE - 1) / 2


def mirrored(xy: torch.Tensor) -> torch.Tensor:
    return torch.stack([SIZE - 1 - xy[..., 0], xy[..., 1]], -1)[:, MIRROR]


# what is placed


def test_the_stable_points_are_30_of_one_half_and_4_of_the_other():
    assert len(set(SEMIFACE)) == 30
    assert set(SEMIFACE) == {k for k in range(17, 68) if head68()[k, 0] <= 0}  # image's left, and midline
    aligner = small()
    assert aligner.ids.tolist() == sorted([*SEMIFACE, 22, 35, 45, 54])
    assert len(aligner.ids) == 34 and not (aligner.ids < 17).any()  # no jaw
    # a point and its mirror image are never both in the 30, except on the midline
    assert all(k == MIRROR[k] or MIRROR[k] not in SEMIFACE for k in SEMIFACE)
    # all 51 inner points are one of the 30 or the mirror image of one
    assert {*SEMIFACE, *MIRROR[list(SEMIFACE)]} == set(range(17, 68))


def test_parameters_and_operations_of_the_paper():
    """ResNet-50 without its classifier has 23,508,032; + 2048 x 136 + 136 and 2048 x 68 + 68. 4.09 GMAC."""
    with torch.device("meta"):
        rough, stable = Regressor(PoseAwareConfig(), 68), Regressor(PoseAwareConfig(), 34)
        picture = torch.zeros(1, 3, 224, 224)
    counts = [sum(p.numel() for p in net.parameters()) for net in (rough, stable)]
    assert counts == [23_786_696, 23_647_364]
    with FlopCounterMode(display=False) as counter:
        rough.trunk(picture)
    assert counter.get_total_flops() / 2 + 2048 * 136 == 4_087_414_784


# the spatial transform


def test_faces_that_look_left_are_mirrored_and_no_others():
    aligner = small()
    yaw = [-60, -30, -15, 0, 15, 30, 60]  # aflw: positive yaw looks to the picture's left
    left = aligner._frame(points([(0, y, r) for r in (-25, 0, 25) for y in yaw])).left
    assert left.tolist() == [False, False, False, False, True, True, True] * 3


def test_the_frame_takes_roll_size_and_place_away():
    aligner = small()
    shapes = points([(0, y, 0) for y in (-50, -20, 0, 20, 50)])
    c, s = np.cos(0.6), np.sin(0.6)
    moved = 0.7 * (shapes - 20) @ torch.tensor([[c, s], [-s, c]]).float() + 30
    first, second = (aligner._into_frame(points, aligner._frame(points)) for points in (shapes, moved))
    torch.testing.assert_close(first, second, atol=1e-3, rtol=0)
    span = (first.amax(1) - first.amin(1)).amax(1) / SIZE
    assert ((span > 0.5) & (span < 0.75)).all()  # 62 % for the mean shape
    assert (first[:, 30, 0] >= first[:, 27, 0] - 0.1).all()  # every nose points right, or to the viewer


def test_a_face_and_its_mirror_image_are_one_in_the_frame():
    aligner, shapes = small(), points([(10, -40, 5), (0, -20, -20)])
    frames = [aligner._frame(s) for s in (shapes, mirrored(shapes))]
    assert frames[0].left.tolist() == [False, False] and frames[1].left.tolist() == [True, True]
    one, other = (aligner._into_frame(s, f) for s, f in zip((shapes, mirrored(shapes)), frames))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    crops = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(frames[0].picture(crops), frames[1].picture(crops.flip(-1)), atol=1e-4, rtol=0)


def test_out_of_the_frame_is_back_again():
    aligner, shapes = small(), points([(0, -40, 20), (10, 35, -20), (0, 0, 0)])
    frame = aligner._frame(shapes)
    back = aligner._from_frame(aligner._into_frame(shapes, frame), frame)
    torch.testing.assert_close(back, shapes, atol=1e-4, rtol=0)


def test_the_picture_in_the_frame_shows_what_the_points_say():
    """A bright dot at a landmark is at the landmark in the frame."""
    aligner, shapes = small(), points([(0, -40, 20), (10, 35, -20)])
    v, u = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    spot = shapes[:, 36, :, None, None]
    crops = torch.exp(-((u - spot[:, 0]) ** 2 + (v - spot[:, 1]) ** 2) / 8)[:, None].expand(-1, 3, -1, -1)
    frame = aligner._frame(shapes)
    picture = frame.picture(crops)[:, 0]
    found = torch.stack([(picture * u).sum((1, 2)), (picture * v).sum((1, 2))], -1) / picture.sum((1, 2))[:, None]
    inside = aligner._into_frame(shapes, frame)
    number = torch.where(frame.left, torch.tensor(MIRROR[36]), torch.tensor(36))  # mirrored, it is the other eye
    torch.testing.assert_close(found, inside[torch.arange(2), number], atol=0.1, rtol=0)


def test_the_frame_is_learnt_from_training_shapes(batch):
    aligner = small()
    before = aligner.right_shape.clone()
    aligner.prepare(batch.xyz)
    assert not torch.equal(before, aligner.right_shape)
    extent = aligner.right_shape.amax(0) - aligner.right_shape.amin(0)
    torch.testing.assert_close(extent.amax(), torch.tensor(0.62 * SIZE))
    with torch.no_grad():
        starts = batch.xyz[..., :2].mean(0), aligner.right_shape[aligner.ids]
        for net, start in zip((aligner.rough, aligner.stable), starts):
            net.out.weight.zero_()
            said = net(torch.rand(2, 3, SIZE, SIZE))
            torch.testing.assert_close(said, start.expand(2, -1, -1), atol=1e-3, rtol=0)


# what the network says


def test_stable_points_of_a_mirrored_face_are_those_of_the_other_half(batch):
    aligner = small().eval()
    aligner.prepare(batch.xyz)
    said = points([(0, -40, 10), (0, 40, 10)])
    aligner.rough.forward = lambda crops: said
    out = aligner(torch.rand(2, 3, SIZE, SIZE))
    right, left = (set(torch.nonzero(score).flatten().tolist()) for score in out.score)
    assert right == set(aligner.ids.tolist())
    assert left == {int(MIRROR[k]) for k in right}
    open_points = out.score == 0
    torch.testing.assert_close(out.xyz[open_points][:, :2], said[open_points])  # rough until they are completed
    torch.testing.assert_close(out.steps[0][..., :2], said)
    assert (out.xyz[..., 2] == 0).all()


def test_a_perfect_second_network_places_its_points_exactly():
    aligner = small().eval()
    true = points([(0, -40, 10), (0, 40, 10), (5, 3, -5)])
    rough = true + torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    frame = aligner._frame(rough)
    aligner.rough.forward = lambda crops: rough
    aligner.stable.forward = lambda crops: aligner._into_frame(true, frame)[:, aligner.ids]
    out = aligner(torch.rand(3, 3, SIZE, SIZE))
    placed = out.score > 0
    torch.testing.assert_close(out.xyz[placed][:, :2], true[placed], atol=1e-3, rtol=0)


# losses and stages


def test_wing_has_the_papers_constants():
    at = lambda d: float(wing(torch.tensor([[d]]), torch.zeros(1, 1), 18.0, 3.0))  # noqa: E731
    assert at(18.0) == pytest.approx(35.0264, abs=1e-4)
    assert at(18.0001) == pytest.approx(at(17.9999), abs=1e-3)
    assert at(28.0) - 28.0 == pytest.approx(17.0264, abs=1e-4)
    assert at(1e-3) / 1e-3 == pytest.approx(6.0, abs=2e-3)


def test_loss_is_in_pixels_of_a_crop_of_224(batch):
    aligner = small()
    off = Alignment(batch.xyz + torch.tensor([SIZE / 224 * 18, 0, 0]), score=torch.ones(12, 68), steps=(batch.xyz,))
    terms = aligner.loss(replace(off, steps=(off.xyz,)), batch)
    torch.testing.assert_close(terms["rough"], torch.full((12,), 35.0264 / 2), atol=1e-3, rtol=0)  # only x is off
    assert (aligner.loss(off, batch)["rough"] == 0).all()
    weights = {stage.name: stage.terms for stage in aligner.stages()}
    assert weights == {"rough": {"rough": 136.0}, "stable": {"stable": 68.0}}  # sums over coordinates


def test_training_sees_frames_as_a_first_network_would_make_them(batch):
    aligner = small()
    true = batch.xyz[..., :2].repeat(80, 1, 1)
    torch.manual_seed(0)
    exact, shaken = aligner._frame(true), aligner._shaken_frame(true)
    turn, zoom = shaken.crop.angle - exact.crop.angle, (shaken.crop.side / exact.crop.side).log()
    shift = (shaken.crop.center - exact.crop.center) / (0.62 * exact.crop.side)[:, None]
    assert np.rad2deg(float(turn.std())) == pytest.approx(3, rel=0.1)
    assert float(zoom.std()) == pytest.approx(0.04, rel=0.1) and float(shift.std()) == pytest.approx(0.03, rel=0.1)
    near, far = (points([(0, yaw, 0) for yaw in np.linspace(*ends, 20).repeat(20)]) for ends in ((0, 10), (20, 60)))
    assert 0.05 < (aligner._shaken_frame(near).left != aligner._frame(near).left).float().mean() < 0.5
    assert torch.equal(aligner._shaken_frame(far).left, aligner._frame(far).left)  # no doubt which way these look


@pytest.mark.parametrize("name", ["rough", "stable"])
def test_a_stage_trains_one_network_and_runs_no_other(batch, name):
    aligner = small().train()
    stage = next(s for s in aligner.stages() if s.name == name)
    other = aligner.stable if name == "rough" else aligner.rough
    other.forward = None  # not callable
    terms = aligner.training_terms(batch, stage)
    assert terms.keys() == {name} and terms[name].shape == (12,)
    terms[name].mean().backward()
    assert all(p.grad is not None for p in getattr(aligner, name).parameters())
    assert all(p.grad is None for p in other.parameters())


def test_the_second_network_does_not_move_the_first(batch):
    aligner = small().train()
    aligner.loss(aligner(batch.crops), batch)["stable"].mean().backward()
    assert all(p.grad is None or not p.grad.any() for p in aligner.rough.parameters())
    assert all(p.grad is not None for p in aligner.stable.parameters())


# ablations


ABLATIONS = {
    "one network": {"second": "none"},
    "no head model": {"second": "all"},
    "no balance": {"bins": 1},
    "30 points": {"extra": ()},
    "jaw on the skin": {"jaw": "fixed"},
    "the method": {},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_one_key(name, batch, made_shards):
    changes = ABLATIONS[name]
    assert len(changes) <= 1
    aligner = small(**{"jaw": "soft", **changes})
    assert [s.name for s in aligner.stages()] == (["rough"] if name == "one network" else ["rough", "stable"])
    assert len(aligner.ids) == {"one network": 68, "no head model": 68, "30 points": 30}.get(name, 34)
    out = aligner.eval()(batch.crops)
    assert (out.score.sum(1) == len(aligner.ids)).all()
    for stage in aligner.stages():
        assert torch.isfinite(aligner.training_terms(batch, stage)[stage.name]).all()
    run = aligner.run(face_crops(made_shards / "shard-00000.npz", aligner.card, 3))
    assert run.xyz.shape == (3, 68, 3) and np.isfinite(run.xyz).all()
    assert np.abs(run.xyz[..., 2]).max() > 5  # depth is the fitted head's, with one network as well
    wanted = {
        "noise": 0.01,
        "iterations": 5,
        "jaw": aligner.config.jaw,
        "open": "score",
        "evidence": 0.0,
        "points": None,
    }
    assert aligner.card.completion == wanted


def test_balance_draws_rare_poses_more_often():
    yaw = np.concatenate([np.random.default_rng(0).normal(0, 8, 500), np.linspace(-60, 60, 30)])
    xyz = torch.cat([points([(0, float(y), 0)]) for y in yaw])
    xyz = torch.cat([xyz, torch.zeros_like(xyz[..., :1])], -1)
    weights = small().sampling_weights(xyz)
    assert weights.shape == (530,)
    assert weights[np.abs(yaw) > 40].mean() > 5 * weights[np.abs(yaw) < 10].mean()
    limited = small(oversampling=2.0).sampling_weights(xyz)
    assert limited.max() < weights.max()
    assert small(bins=1).sampling_weights(xyz) is None


# the step after the network


@pytest.mark.slow
def test_onnx_and_torch_end_in_the_same_completed_faces(overfitted, tmp_path):
    weights, shard = overfitted("pose_aware")
    assert export_onnx(weights, tmp_path) < 1e-3
    aligner, twin = Aligner.load(weights), OnnxAligner(tmp_path)
    crops = face_crops(shard, aligner.card, 8)
    ours, theirs = aligner.run(crops), twin.run(crops)
    np.testing.assert_allclose(ours.xyz, theirs.xyz, atol=5e-3)
    np.testing.assert_array_equal(ours.score, theirs.score)
    np.testing.assert_allclose(ours.rotation, theirs.rotation, atol=1e-3)
    assert theirs.coefficients.shape == (8, 132) and np.ptp(theirs.xyz[..., 2]) > 5
    np.testing.assert_allclose(twin.run(crops[:1]).xyz, theirs.xyz[:1], atol=5e-3)  # any number of faces
    assert json.loads((tmp_path / "card.json").read_text())["completion"]["jaw"] == "fixed"
    with np.load(shard) as d:
        np.save(tmp_path / "picture.npy", d["image"][0])
        box = [*d["xyz"][0, :, :2].min(0), *d["xyz"][0, :, :2].max(0)]
    code = f"""
import sys, numpy as np, canthus
picture = np.load({str(tmp_path / "picture.npy")!r})
faces = canthus.load({str(tmp_path)!r}).predict(picture, boxes={[float(v) for v in box]})
assert np.ptp(faces.xyz[0, :, 2]) > 5 and faces.landmarks("aflw19").shape == (1, 19, 3)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frames_are_exact_where_networks_run_in_bfloat16(batch):
    """The second network sees the same picture and learns the same points."""
    aligner, stage, seen = small(), PoseAware.stages(small())[1], []
    aligner.stable.forward = lambda picture: seen.append(picture) or torch.zeros(len(picture), len(aligner.ids), 2)
    aligner._wing = lambda predicted, true, known: seen.append(true) or true.mean((1, 2))
    for half in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            aligner.training_terms(batch, stage)
    for one, other in zip(seen[:2], seen[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("change", [{"bins": 0}, {"extra": (70,)}, {"omega": -3.0}, {"epsilon": 0.0}])
def test_values_that_make_no_sense_are_refused(change):
    with pytest.raises(RecipeError, match="wanted"):
        PoseAwareConfig(**change)
