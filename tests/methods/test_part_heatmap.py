"""Part heatmap regression: the sizes of the paper's networks, its targets, its stages, its variants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small import STILL, config, recipe  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.datasets import StoredFaces  # noqa: E402
from canthus.data.sample import FaceBatch  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.landmarks import convert, scheme  # noqa: E402
from canthus.methods.part_heatmap import PartHeatmap, PartHeatmapConfig  # noqa: E402
from canthus.nn.hourglass import deconvolution  # noqa: E402
from canthus.training.aligner import Aligner, Stage  # noqa: E402
from canthus.training.train import train  # noqa: E402

SIZE = 64


def small(**changes: Any) -> PartHeatmap:
    torch.manual_seed(0)
    return PartHeatmap(PartHeatmapConfig(**{**config("part_heatmap", SIZE), **changes}))


def of_paper(**changes: Any) -> PartHeatmap:
    """Shapes without numbers: the full network, which holds no memory."""
    with torch.device("meta"):
        return PartHeatmap(PartHeatmapConfig(**changes)).eval()


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def giga_macs(network: nn.Module, channels: int, size: int) -> float:
    """Multiplications of convolutions and linear layers, 10^9, for one picture."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, channels, size, size, device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.fixture(scope="module")
def batch(made_shards: Path) -> FaceBatch:
    """Six made faces."""
    augmenter = Augmenter(Augmentation(**STILL), SIZE, 1.4)
    return augmenter(StoredFaces([made_shards]).take(np.arange(6)), torch.Generator().manual_seed(0))


def stage(aligner: PartHeatmap, name: str) -> Stage:
    return next(s for s in aligner.stages() if s.name == name)


# Counted by hand from the trunks' published sizes: ResNet-152 less its classifier 58,143,808; the score layer 2048 * 66
# + 66, the deconvolution 66 * 32^2 + 66, the last layer 66^2 + 66 = 207,306 more.
def test_the_paper_s_networks_have_their_sizes():
    aligner = of_paper()
    assert parameters(aligner.detection) == 58_143_808 + 207_306
    assert parameters(aligner.regression) == 17_605_828
    assert parameters(aligner.depth) == 62_959_362
    assert giga_macs(aligner.detection, 3, 384) == pytest.approx(40.8, abs=0.05)
    assert giga_macs(aligner.regression, 3 + 66, 384) == pytest.approx(41.9, abs=0.05)
    assert giga_macs(aligner.depth, 3 + 66, 384) == pytest.approx(51.7, abs=0.05)


def test_the_printed_38_blocks_would_make_206_layers_not_200():
    layers = lambda depths: 3 * sum(depths) + 2
    assert layers(PartHeatmapConfig().depth_depths) == 200 and layers((3, 24, 38, 3)) == 206
    assert parameters(of_paper(depth_depths=(3, 24, 38, 3)).depth) / 1e6 == pytest.approx(65.2, abs=0.05)


def test_true_bilinear_deconvolutions_cost_what_they_cost():
    regression = of_paper(deconv=4).regression
    assert parameters(regression) / 1e6 == pytest.approx(30.2, abs=0.05)
    assert giga_macs(regression, 3 + 66, 384) == pytest.approx(51.5, abs=0.05)


def test_at_256_px():
    aligner = of_paper(size=256)
    macs = [giga_macs(n, c, 256) for n, c in ((aligner.detection, 3), (aligner.regression, 69), (aligner.depth, 69))]
    assert macs == pytest.approx([18.1, 18.6, 23.0], abs=0.05)


@pytest.mark.parametrize(("det_head", "side"), [("score_deconv_conv", 32), ("deconv256_conv", 32)])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_maps_have_the_resolution_that_was_asked_for(det_head, side, stride):
    aligner = small(det_head=det_head, map_stride=stride, regression_levels=1)
    logits, maps = aligner.eval()(torch.rand(2, 3, SIZE, SIZE)).maps
    assert logits.shape == maps.shape == (2, 68, SIZE // stride, SIZE // stride)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8), (32, 16)])
def test_deconvolutions_start_as_bilinear(kernel, stride):
    layer = deconvolution(3, kernel, groups=3, stride=stride)
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    inner = slice(stride, -stride)  # beyond the border the one sees zeros, the other the border
    torch.testing.assert_close(layer(x)[..., inner, inner], expected[..., inner, inner])


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 4)])
def test_deconvolutions_without_overlap_start_as_nearest(kernel, stride):
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.interpolate(x, scale_factor=stride, mode="nearest")
    torch.testing.assert_close(deconvolution(3, kernel, stride=stride)(x), expected)


def test_the_untrained_detection_knows_nothing():
    logits = small(prior=0.01, det_head="deconv256_conv").detection(torch.rand(2, 3, SIZE, SIZE))
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01))


def test_new_filters_are_gaussian():
    aligner = small(depth_width=64)
    assert aligner.depth.trunk.stem[0].weight[:, 3:].std().item() == pytest.approx(0.01, rel=0.02)
    assert aligner.depth.out.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_discs_are_7_px_for_a_face_of_220(batch):
    # A face 22 px high has discs of radius 0.7 crop px. At logits of -50 a pixel costs 50 in a disc, nothing elsewhere,
    # so the loss counts the pixels in discs.
    def pixels_in_discs(aligner: PartHeatmap, xyz) -> np.ndarray:
        logits = torch.full((1, 68, SIZE, SIZE), -50.0)
        truth = FaceBatch(xyz, batch.visible[:1], batch.rotation[:1], crops=batch.crops[:1])
        return aligner._detection_loss(logits, truth).numpy() / 50 * SIZE**2

    xyz = torch.full((1, 68, 3), 32.0)
    xyz[0, 0, 1], xyz[0, 1, 1] = 20.0, 42.0  # 22 px high
    radii = {"fixed": 7.0, "box": 0.7}
    for rule, radius in radii.items():
        inside = sum(x * x + y * y <= radius * radius for x in range(-9, 10) for y in range(-9, 10))
        aligner = small(map_stride=1, disc_rule=rule)
        np.testing.assert_allclose(pixels_in_discs(aligner, xyz), inside, rtol=1e-4)


def test_detection_loss_is_the_cross_entropy_a_pixel(batch):
    aligner = small()
    logits = torch.randn(6, 68, 32, 32, generator=torch.Generator().manual_seed(0))
    height = (batch.xyz[..., 1].amax(1) - batch.xyz[..., 1].amin(1)).numpy()
    v, u = np.mgrid[:32, :32]
    expected = []
    for k in range(6):
        total = 0.0
        for n in range(68):
            x, y = (batch.xyz[k, n, :2].numpy() + 0.5) / 2 - 0.5
            inside = np.hypot(u - x, v - y) <= 7 * height[k] / 220 / 2
            p = 1 / (1 + np.exp(-logits[k, n].numpy().astype(float)))
            total -= np.where(inside, np.log(p), np.log(1 - p)).sum()
        expected.append(total / (68 * 32 * 32))
    np.testing.assert_allclose(aligner._detection_loss(logits, batch).numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("count", [66, 68])
def test_perfect_maps_give_the_points_back(count, batch):
    """Without the networks: true maps decode to the true points within half a map pixel, or exactly by DARK."""
    for decode, worst in (("argmax", 0.5 * math.sqrt(2) * 2), ("dark", 1e-2)):
        aligner = small(landmarks=count, decode=decode)
        points = aligner._points(batch.xyz)
        stride = aligner.config.map_stride
        xy = (aligner._peaks(aligner._gaussians(batch)) + 0.5) * stride - 0.5
        assert torch.linalg.vector_norm(xy - points[..., :2], dim=-1).max() <= worst
        assert aligner._regression_loss(aligner._gaussians(batch), batch).max() == 0


def test_depth_loss_is_equation_1_and_minds_no_shift(batch):
    aligner = small(z_loss="pixels")
    z = batch.xyz[..., 2] + torch.linspace(-3, 3, 68)  # of mean 0
    expected = torch.linspace(-3, 3, 68).square().mean().expand(6)
    torch.testing.assert_close(aligner._depth_loss(z, batch), expected)
    torch.testing.assert_close(aligner._depth_loss(z + 100, batch), expected, rtol=1e-3, atol=0)


def test_66_landmarks_are_3dfaw_s_and_become_68(batch):
    aligner = small(landmarks=66).eval()
    out = aligner(batch.crops)
    assert out.maps[1].shape[1] == 66 and out.xyz.shape == (6, 68, 3) and out.score.shape == (6, 68)
    assert ((out.score >= 0) & (out.score <= 1)).all()
    own = convert(out.xyz, "ibug68", "3dfaw66")[0]
    xy = (aligner._peaks(out.maps[1]) + 0.5) * 2 - 0.5
    torch.testing.assert_close(own[..., :2], xy)
    torch.testing.assert_close(out.xyz, convert(own, "3dfaw66", "ibug68")[0])
    torch.testing.assert_close(out.xyz[..., 2].mean(1), torch.zeros(6), atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [66, 68])
def test_the_flip_test_sees_no_left_and_right(count, batch):
    """Averaged over both pictures, what is said of the mirrored picture is the mirror image."""
    aligner = small(landmarks=count, flip_test=True, decode="dark", z_input="raw").eval()
    with torch.no_grad():
        for p in aligner.parameters():
            p.add_(0.03 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        one, other = aligner(batch.crops), aligner(batch.crops.flip(-1))
        plain = small(landmarks=count, flip_test=False, decode="dark", z_input="raw").eval()
        plain.load_state_dict(aligner.state_dict())
        bare = plain(batch.crops), plain(batch.crops.flip(-1))
    mirror = torch.tensor(scheme("ibug68").mirror)

    def apart(a, b) -> float:
        back = b.xyz[:, mirror] * torch.tensor([-1.0, 1, 1]) + torch.tensor([SIZE - 1.0, 0, 0])
        return (a.xyz - back).abs().max().item()

    assert apart(one, other) < 1e-2 < apart(*bare)


def test_only_what_a_stage_names_is_computed_and_only_what_it_trains_learns(batch):
    aligner = small()
    names = [s.name for s in aligner.stages()]
    assert names == ["detection", "regression", "joint", "depth"]
    for s in aligner.stages():
        aligner.zero_grad()
        for name, child in aligner.named_children():
            child.requires_grad_(name in s.trains)
        terms = aligner.training_terms(batch, s)
        assert terms.keys() == s.terms.keys()
        torch.stack([w * terms[n].mean() for n, w in s.terms.items()]).sum().backward()
        for name, child in aligner.named_children():
            assert all((p.grad is not None) == (name in s.trains) for p in child.parameters()), (s.name, name)


def test_each_stage_has_its_share_of_the_steps(made_shards, tmp_path):
    plan = recipe("part_heatmap", made_shards, steps=28, batch=4, warmup_steps=1, save_every=100, ema_decay=0.0)
    rows = list(train(plan, tmp_path / "run"))
    # 28 steps by 30 : 30 : 30 : 50 are 6, 6, 6 and 10
    kinds = ["+".join(name for name in ("detection", "regression", "depth") if name in row) for row in rows]
    assert kinds == ["detection"] * 6 + ["regression"] * 6 + ["detection+regression"] * 6 + ["depth"] * 10


def test_half_of_the_faces_show_the_depth_network_true_maps(batch, monkeypatch):
    def seen(aligner: PartHeatmap, truth: FaceBatch) -> torch.Tensor:
        given: list[torch.Tensor] = []
        inner = aligner._see_depth
        monkeypatch.setattr(aligner, "_see_depth", lambda c, maps: (given.append(maps), inner(c, maps))[1])
        aligner.training_terms(truth, stage(aligner, "depth"))
        return given[0]

    mixed, true = small(z_input="raw").eval(), small(z_input="raw", z_maps="true").eval()
    gaussians, drawn = mixed._gaussians(batch), mixed._draw(batch.crops)[1]

    def same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().amax((1, 2, 3)) < 1e-5

    kinds = set()
    for lot in range(20):
        torch.manual_seed(lot)
        given = seen(mixed, batch)
        is_true, is_drawn = same(given, gaussians), same(given, drawn)
        assert is_true.sum() == is_drawn.sum() == 3 and (is_true ^ is_drawn).all()
        kinds |= {(k, bool(t)) for k, t in enumerate(is_true)}
    assert len(kinds) == 12  # each face both ways
    assert not torch.allclose(drawn, gaussians, atol=0.1)
    torch.testing.assert_close(seen(true, batch), gaussians)


def test_redrawn_maps_say_only_where_the_peak_is(batch):
    aligner = small(z_input="redrawn").eval()
    maps = aligner._gaussians(batch)
    loud = maps * 0.3 + 0.1
    same = aligner._see_depth(batch.crops, loud), aligner._see_depth(batch.crops, maps)
    torch.testing.assert_close(*same, atol=0.1, rtol=0)
    raw = small(z_input="raw").eval()
    assert not torch.allclose(raw._see_depth(batch.crops, loud), raw._see_depth(batch.crops, maps), atol=0.1)


def test_without_maps_the_depth_comes_from_the_picture_alone(batch):
    aligner = small(z_input="rgb").eval()
    assert aligner.depth.trunk.stem[0].in_channels == 3
    maps = aligner._gaussians(batch)
    torch.testing.assert_close(aligner._see_depth(batch.crops, maps), aligner._see_depth(batch.crops, maps.flip(-1)))


VARIANTS: list[dict[str, Any]] = [
    {}, {"xy_from": "detection"}, {"z_input": "rgb"}, {"z_input": "raw"}, {"z_maps": "true"}, {"training": "separate"},
    {"training": "end_to_end"}, {"disc_rule": "fixed"}, {"det_head": "deconv256_conv"}, {"deconv": 4},
    {"landmarks": 66}, {"last_deconv": 4}, {"z_loss": "pixels"}, {"decode": "argmax"}, {"flip_test": False},
    {"map_stride": 1},
]  # fmt: skip
STAGES = {
    "separate": ["detection", "regression", "depth"],
    "end_to_end": ["end_to_end"],
    "detection": ["detection", "depth"],
}


@pytest.mark.parametrize("change", VARIANTS, ids=lambda c: "-".join(f"{k}={v}" for k, v in c.items()) or "as it is")
def test_every_variant_is_one_key_away(change, batch):
    aligner = small(**change)
    key = next(iter(change.values()), None)
    assert [s.name for s in aligner.stages()] == STAGES.get(key, ["detection", "regression", "joint", "depth"])
    for s in aligner.stages():
        terms = aligner.training_terms(batch, s)
        assert terms.keys() == s.terms.keys()
        assert all(t.shape == (6,) and torch.isfinite(t).all() for t in terms.values())
        assert s.terms.keys() <= aligner.loss(aligner(batch.crops), batch).keys()
    out = aligner.eval()(batch.crops)
    assert out.xyz.shape == (6, 68, 3) and torch.isfinite(out.xyz).all()


def test_detection_alone_has_no_second_network(batch):
    aligner = small(xy_from="detection").eval()
    assert {name for name, _ in aligner.named_children()} == {"detection", "depth"}
    logits, maps = aligner(batch.crops).maps
    torch.testing.assert_close(maps, logits.sigmoid())


@pytest.mark.parametrize("change", [{"z_input": "drawn"}, {"landmarks": 67}, {"deconv": 3}, {"size": 100}])
def test_what_there_is_not_is_refused(change):
    ((key, value),) = change.items()
    with pytest.raises(RecipeError, match=f"`{key}` is {value!r}"):
        PartHeatmapConfig(**change)


@pytest.mark.slow
def test_onnx_says_what_torch_says(overfitted, tmp_path):
    pytest.importorskip("onnxscript")
    from canthus.training import export

    weights, shard = overfitted("part_heatmap")
    assert export.export_onnx(weights, tmp_path) <= 1e-3
    aligner, twin = Aligner.load(weights), export.OnnxAligner(tmp_path)
    crops = export.face_crops(shard, aligner.card, 8)
    ours, theirs = aligner.run(crops), twin.run(crops)
    np.testing.assert_allclose(theirs.xyz, ours.xyz, atol=1e-3)
    np.testing.assert_allclose(theirs.score, ours.score, atol=1e-4)
    assert ours.score.mean() > 0.3  # of faces that it knows


@pytest.mark.parametrize("change", [{"size": 160, "map_stride": 2}, {"size": 96}, {"prior": 0.0}, {"sigma": 0.0}])
def test_values_that_do_not_fit_are_refused(change):
    with pytest.raises(RecipeError, match="wanted"):
        PartHeatmapConfig(**change)
