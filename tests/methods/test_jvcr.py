"""JVCR: sizes as published, volumes, the two ways that P is taught, what 66 and 71 points are, learning, export."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small import STILL, config  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import canthus  # noqa: E402
from canthus.codecs.volumes import voxel_from_crop  # noqa: E402
from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.datasets import StoredFaces  # noqa: E402
from canthus.data.sample import FaceBatch  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.landmarks import convert  # noqa: E402
from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.geometry.projection import project  # noqa: E402
from canthus.geometry.rotation import matrix_from_euler  # noqa: E402
from canthus.methods.jvcr import (  # noqa: E402
    CoordinateNet,
    Jvcr,
    JvcrConfig,
    VoxelNet,
    landmark_maps,
    weighted_mse,
)
from canthus.training.aligner import Aligner  # noqa: E402
from canthus.training.export import export_onnx  # noqa: E402
from canthus.training.losses import mse  # noqa: E402

SIZE, SIDE = 64, 16
SMALL = JvcrConfig(**{**config("jvcr", SIZE), "voxel_loss": "mse"})
PAPER = JvcrConfig()


def shapes(count: int, size: int, seed: int, most: float) -> Tensor:
    """Points (count,68,3) of random heads turned by up to `most` degrees, in crops of 1.25 times their box."""
    rng, model = np.random.default_rng(seed), MorphableModel.default()
    points = model.landmarks(rng.normal(size=(count, 10)), rng.uniform(0, 0.3, (count, len(model.expression))))
    turn = np.deg2rad(rng.uniform([-20, -most, -20], [20, most, 20], (count, 3)))
    xyz = project(points, matrix_from_euler(turn, "aflw"), np.ones(count), np.zeros((count, 2)))
    low, high = xyz[..., :2].min(1, keepdims=True), xyz[..., :2].max(1, keepdims=True)
    middle = np.concatenate([(low + high) / 2, xyz[..., 2:].mean(1, keepdims=True)], axis=-1)
    scale = size / (1.25 * (high - low).max(-1, keepdims=True))
    return torch.from_numpy((xyz - middle) * scale + [(size - 1) / 2, (size - 1) / 2, 0]).float()


def small(**changes) -> Jvcr:
    torch.manual_seed(0)
    return Jvcr(replace(SMALL, **changes))


@pytest.fixture(scope="module")
def batch(made_shards) -> FaceBatch:
    augmenter = Augmenter(Augmentation(**STILL), SIZE, 1.25)
    return augmenter(StoredFaces([made_shards]).take(np.arange(4)), torch.Generator().manual_seed(0))


# ---- the networks


def test_the_published_networks_have_as_many_parameters():
    # P(68) by hand: kernels of 64 taps (1 64 + 64 128 + 128 256 + 256 512 + 512 256) = 19,402,752, their biases 1,216,
    # batch norm 2 * 960, the linear layer (256 + 1) * 204 = 52,428. A landmark more adds 3 * 257 = 771.
    with torch.device("meta"):
        g = VoxelNet(PAPER.channels, PAPER.levels, PAPER.depths)
        p = {count: CoordinateNet(PAPER.widths, (64, 64, 64), count) for count in (66, 68, 71)}
    assert sum(w.numel() for w in g.parameters()) == 13_010_119
    counted = {count: sum(w.numel() for w in net.parameters()) for count, net in p.items()}
    assert counted == {66: 19_456_774, 68: 19_458_316, 71: 19_460_629}


def test_the_published_networks_cost_as_much():
    with torch.device("meta"):
        g, p = VoxelNet(PAPER.channels, PAPER.levels, PAPER.depths), CoordinateNet(PAPER.widths, (64, 64, 64), 68)
        with FlopCounterMode(display=False) as of_g:
            volumes = g(torch.zeros(1, 3, 256, 256))
        with FlopCounterMode(display=False) as of_p:
            p.features(volumes[-1][:, None])
    assert [tuple(v.shape) for v in volumes] == [(1, d, 64, 64) for d in (1, 2, 4, 64)]
    assert of_g.get_total_flops() / 2 == pytest.approx(15.3e9, rel=0.005)
    # outputs * inputs * taps: (32^3 * 64 + (16^3 * 128 * 64) + ...) * 64 = 3.90e9; the linear layer adds 5e4
    assert of_p.get_total_flops() / 2 == pytest.approx(3.90e9, rel=0.005)


ABLATIONS = [
    {"depths": (16, 16)}, {"depths": (16,)}, {"depths": (1, 2, 4, 16)}, {"depths": (16, 16, 16, 16)},
    {"landmarks": 66}, {"landmarks": 71}, {"z_range": 1.3}, {"voxel_loss": "weighted"}, {"voxel_loss": "bce"},
    {"balance": 1.0}, {"training": "separate"},
]  # fmt: skip


@pytest.mark.parametrize("change", ABLATIONS, ids=str)
def test_a_variant_is_one_key_and_runs(change, batch):
    jvcr = small(**change).train()
    stages = jvcr.stages()
    assert [s.name for s in stages] == ["separate", "joint"][: 1 if "training" in change else 2]
    for stage in stages:
        assert stage.terms == {"voxel": 1.0, "coordinate": change.get("balance", 10.0)}
        terms = jvcr.training_terms(batch, stage)
        assert terms.keys() == stage.terms.keys()
        assert all(term.shape == (4,) and torch.isfinite(term).all() for term in terms.values())
    out = jvcr.eval()(batch.crops)
    depths = jvcr.config.depths
    assert [tuple(v.shape) for v in out.maps[:-1]] == [(4, d, SIDE, SIDE) for d in depths]
    assert out.xyz.shape == (4, 68, 3) and out.score.shape == (4, 68)
    assert out.score.min() >= 0 and out.score.max() <= 1


def test_a_variant_that_does_not_exist_is_refused():
    with pytest.raises(RecipeError, match="voxel_loss.*bec"):
        small(voxel_loss="bec")
    with pytest.raises(RecipeError, match="landmarks"):
        small(landmarks=21)


def test_every_variant_differs_from_the_default(batch):
    """By its networks, by what it is taught or by its losses: a key that changes nothing is no ablation."""

    def described(jvcr: Jvcr) -> list:
        with torch.no_grad():
            terms = jvcr.train().training_terms(batch, jvcr.stages()[-1])
        total = [float(jvcr.stages()[-1].terms[name] * value.sum()) for name, value in terms.items()]
        return [len(jvcr.stages()), sum(p.numel() for p in jvcr.parameters()), total]

    default = described(small())
    assert default == described(small())
    for change in ABLATIONS:
        assert described(small(**change)) != default, change


# ---- landmarks


def test_66_points_are_those_of_3dfaw_and_come_back():
    xyz = shapes(3, SIZE, 0, 60)
    own, back = landmark_maps(66)
    few = own @ xyz
    torch.testing.assert_close(few, convert(xyz, "ibug68", "3dfaw66")[0])
    torch.testing.assert_close(own @ (back @ few), few)  # the 66 themselves are exact ...
    assert (back @ few - xyz).norm(dim=-1).max() < 0.05 * SIZE  # ... and the two mouth corners blended


def test_71_points_are_the_68_and_three_centres():
    xyz = shapes(3, SIZE, 0, 60)
    own, back = landmark_maps(71)
    many = own @ xyz
    torch.testing.assert_close(many[:, 68], xyz[:, [37, 38, 40, 41]].mean(1))
    torch.testing.assert_close(many[:, 69], xyz[:, [43, 44, 46, 47]].mean(1))
    torch.testing.assert_close(many[:, 70], (xyz[:, 62] + xyz[:, 66]) / 2)
    torch.testing.assert_close(back @ many, xyz)


@pytest.mark.parametrize("landmarks", [66, 68, 71])
def test_coordinate_loss_is_of_all_points_that_p_gives(landmarks, batch):
    jvcr = small(landmarks=landmarks).eval()
    true = jvcr.own_from_68 @ batch.xyz
    jvcr.coordinates.forward = lambda volume: jvcr.points_from_crop(true)
    out = jvcr(batch.crops)
    assert jvcr.loss(out, batch)["coordinate"].max() < 1e-10
    # One point off by 3 px along x: (3 / 64)^2 / (3 L).
    wrong = true.clone()
    wrong[:, -1, 0] += 3
    jvcr.coordinates.forward = lambda volume: jvcr.points_from_crop(wrong)
    expected = (3 / SIZE) ** 2 / (3 * landmarks)
    torch.testing.assert_close(jvcr.loss(jvcr(batch.crops), batch)["coordinate"], torch.full((4,), expected))


def test_all_of_the_crop_is_0_to_1():
    corners = torch.tensor([[-0.5, -0.5, -SIZE / 2], [SIZE - 0.5, SIZE - 0.5, SIZE / 2], [31.5, 31.5, 0]])
    expected = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5]])
    torch.testing.assert_close(small().points_from_crop(corners), expected)


def test_p_starts_from_the_mean_shape(batch):
    jvcr = small(landmarks=71)
    jvcr.prepare(batch.xyz)
    torch.nn.init.zeros_(jvcr.coordinates.out.weight)
    torch.testing.assert_close(jvcr.eval()(batch.crops).xyz, batch.xyz.mean(0).expand(4, 68, 3))


# ---- volumes


@pytest.mark.parametrize("depth", [1, 2, 4, 16])
def test_a_true_volume_is_bright_where_a_point_is(depth):
    jvcr, xyz = small(depths=(depth, 16), z_range=1.3), shapes(5, SIZE, 1, 60)
    volume = jvcr.true_volumes(xyz)[0]
    assert volume.shape == (5, depth, SIDE, SIDE) and volume.max() <= 1
    x, y, z = voxel_from_crop(xyz, SIZE, SIDE, depth, 1.3).round().long().unbind(-1)
    there = volume[torch.arange(5)[:, None], z.clamp(0, depth - 1), y, x]
    # At worst half a voxel off along all three axes; a point in front of the first slice cannot be worse here.
    assert there.min() >= math.exp(-3 / 8) - 1e-6


@pytest.mark.parametrize(
    ("depth", "low", "high"), [(1, 0.035, 0.0522), (2, 0.027, 0.0522), (4, 0.017, 0.0313), (64, 1.25e-3, 1.445e-3)]
)
def test_an_empty_volume_costs_what_a_collapsed_g_would(depth, low, high):
    # Without overlap a landmark adds pi times the sum of exp(-(k - z)^2) over the slices, which is at most 1 for one
    # slice, 1.57 for two and 1.7725 in a deep grid: 68 pi (1 / 64^2, 1.57 / (2 64^2), 1.7725 / (4 64^2), ... / 64^3).
    jvcr = Jvcr(JvcrConfig(depths=(depth, 64), z_range=1.3, channels=8, widths=(1, 1)))
    volume = jvcr.true_volumes(shapes(6, 256, 0, 45))[0]
    assert low < float(mse(torch.zeros_like(volume), volume).mean()) < high


def test_a_depth_of_one_crop_side_is_too_shallow_for_turned_faces():
    # More than half of these faces, turned by up to 80 degrees, reach further than half a crop side from their mean z;
    # none reaches 0.65.
    xyz = shapes(400, SIZE, 2, 80)
    z = {r: voxel_from_crop(xyz, SIZE, SIDE, 16, r)[..., 2] for r in (1.0, 1.3)}
    outside = {r: ((v < -0.5) | (v > 15.5)).any(1).float().mean() for r, v in z.items()}
    assert outside[1.0] > 0.5 and outside[1.3] == 0
    x, y, k = voxel_from_crop(xyz, SIZE, SIDE, 16, 1.0).round().long().unbind(-1)
    there = small(z_range=1.0).true_volumes(xyz)[-1][torch.arange(400)[:, None], k.clamp(0, 15), y, x]
    lost = (k < 0) | (k > 15)
    assert there[lost].min() < 0.5 and there[~lost].min() >= math.exp(-3 / 8) - 1e-6


def test_weighted_difference_by_hand():
    # (1 + 20 * 0) * 0.5^2 = 0.25 and (1 + 20 * 1) * 0.5^2 = 5.25: mean 2.75
    assert float(weighted_mse(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 1.0]]))) == pytest.approx(2.75)


def test_with_cross_entropy_g_starts_as_empty_as_the_truth(batch):
    jvcr = small(voxel_loss="bce", z_range=1.3, depths=(1, 2, 16))
    jvcr.prepare(batch.xyz)
    for draw, truth in zip(jvcr.voxels.draw, jvcr.true_volumes(batch.xyz)):
        torch.testing.assert_close(draw.bias.sigmoid(), truth.mean().expand(len(draw.bias)))
    seen = jvcr.eval()(batch.crops).score
    assert 0 < seen.mean() < 0.2


def test_score_is_what_the_volume_says_of_the_voxel(batch):
    jvcr = small(z_range=1.3).eval()
    jvcr.coordinates.forward = lambda volume: jvcr.points_from_crop(batch.xyz)
    volumes = jvcr.true_volumes(batch.xyz)
    assert jvcr._read(volumes, volumes[-1]).score.min() >= math.exp(-3 / 8) - 1e-6
    assert jvcr._read(volumes, torch.zeros_like(volumes[-1])).score.max() == 0
    assert jvcr._read(volumes, 2 * torch.ones_like(volumes[-1])).score.min() == 1  # G may overshoot


# ---- training


def gradients(jvcr: Jvcr, batch: FaceBatch, stage: int, term: str) -> dict[str, bool]:
    """Whether a term of a stage teaches G and P."""
    jvcr.zero_grad()
    jvcr.train().training_terms(batch, jvcr.stages()[stage])[term].mean().backward()
    return {
        name: any(p.grad is not None and bool((p.grad != 0).any()) for p in child.parameters())
        for name, child in jvcr.named_children()
    }


def test_apart_each_network_learns_from_its_own_term_and_joined_g_learns_from_both(batch):
    jvcr = small()
    assert gradients(jvcr, batch, 0, "voxel") == {"voxels": True, "coordinates": False}
    assert gradients(jvcr, batch, 0, "coordinate") == {"voxels": False, "coordinates": True}
    assert gradients(jvcr, batch, 1, "voxel") == {"voxels": True, "coordinates": False}
    assert gradients(jvcr, batch, 1, "coordinate") == {"voxels": True, "coordinates": True}


def test_in_pre_training_p_reads_the_truth_and_no_picture(batch):
    jvcr, dark = small().eval(), replace(batch, crops=torch.zeros_like(batch.crops))
    with torch.no_grad():
        for parameter in jvcr.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        apart, joined = jvcr.stages()
        terms = [jvcr.training_terms(b, s) for s in (apart, joined) for b in (batch, dark)]
        read = jvcr._read(jvcr.voxels(batch.crops), jvcr.true_volumes(batch.xyz)[-1])
    assert torch.equal(terms[0]["coordinate"], terms[1]["coordinate"])
    assert torch.equal(terms[0]["coordinate"], jvcr.loss(read, batch)["coordinate"])
    assert not torch.equal(terms[0]["voxel"], terms[1]["voxel"])
    assert not torch.equal(terms[2]["coordinate"], terms[3]["coordinate"])
    said = jvcr.loss(jvcr(batch.crops), batch)
    assert all(torch.equal(terms[2][name], said[name]) for name in said)


def test_15_epochs_apart_and_10_as_one():
    assert [(s.name, s.share) for s in Jvcr(SMALL).stages()] == [("separate", 15), ("joint", 10)]


def test_the_voxel_loss_sums_the_means_of_the_levels(batch):
    jvcr = small(depths=(1, 4, 16)).eval()
    out = jvcr(batch.crops)
    levels = [((g - v) ** 2).mean((1, 2, 3)) for g, v in zip(out.maps, jvcr.true_volumes(batch.xyz))]
    torch.testing.assert_close(jvcr.loss(out, batch)["voxel"], levels[0] + levels[1] + levels[2])


@pytest.mark.slow
def test_p_learns_to_read_points_off_2000_true_volumes():
    torch.manual_seed(0)
    jvcr = small(widths=(16, 32, 64, 64), z_range=1.3)
    xyz, p = shapes(2000, SIZE, 0, 30), jvcr.coordinates
    jvcr.prepare(xyz)
    volumes, points = jvcr.true_volumes(xyz)[-1], jvcr.points_from_crop(xyz)
    steps = 2000
    optimizer = torch.optim.AdamW(p.parameters(), lr=6e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        some = torch.randint(2000, (16,))
        loss = mse(p(volumes[some]), points[some]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        distance = torch.linalg.vector_norm(p.eval()(volumes) - points, dim=-1).mean()
    assert distance < 0.01  # of the crop's side, where the mean shape is 14 % away


# ---- files


@pytest.mark.slow
def test_saved_loaded_and_exported_it_says_the_same(tmp_path):
    jvcr = small(landmarks=66, voxel_loss="bce", levels=1, channels=16)  # all the default does, and two things more
    with torch.no_grad():
        for parameter in jvcr.parameters():  # an untrained network says nearly the same to every picture
            parameter.add_(0.05 * torch.randn(parameter.shape))
    pictures = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    before = jvcr.run(pictures)
    assert np.ptp(before.xyz, axis=0).max() > 0.1
    jvcr.save(tmp_path / "weights")
    after = Aligner.load(tmp_path / "weights").run(pictures)
    np.testing.assert_array_equal(after.xyz, before.xyz)
    np.testing.assert_array_equal(after.score, before.score)
    assert export_onnx(tmp_path / "weights", tmp_path / "onnx") < 1e-3


def test_the_published_recipe_is_the_default_configuration():
    yaml = pytest.importorskip("yaml")
    folder = Path(canthus.__file__).parent / "recipes"
    paper = yaml.safe_load((folder / "jvcr-paper.yaml").read_text())
    assert "config" not in paper
    # 25 epochs of 61,225 pictures, the rate a tenth after 10 and 20 of them
    assert paper["steps"] == pytest.approx(25 * 61_225 / paper["batch"], rel=1e-4)
    assert [25 * drop for drop in paper["lr_milestones"]] == [10, 20] and paper["optimizer"] == "rmsprop"


def test_true_volumes_are_exact_where_networks_run_in_bfloat16(batch):
    aligner = small()
    exact = aligner.true_volumes(batch.xyz)
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(aligner.true_volumes(batch.xyz), exact, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("change", [{"size": 96, "levels": 4}, {"depths": (1, 0)}, {"depths": ()}, {"widths": ()}])
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(RecipeError, match="wanted"):
        JvcrConfig(**change)
