"""local_global: the paper's sizes, each of its variants, the maths of its heads, what each stage trains."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small import STILL, config, recipe  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from canthus.codecs import encode_gaussian, map_from_crop  # noqa: E402
from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.datasets import StoredFaces  # noqa: E402
from canthus.data.sample import FaceBatch  # noqa: E402
from canthus.errors import LandmarkError, RecipeError  # noqa: E402
from canthus.methods import local_global  # noqa: E402
from canthus.methods.local_global import AdjacentHead, AttentionHead, LocalGlobal, LocalGlobalConfig  # noqa: E402
from canthus.training.export import export_onnx  # noqa: E402
from canthus.training.losses import binary_cross_entropy, binary_cross_entropy_floor  # noqa: E402
from canthus.training.train import train  # noqa: E402

SIZE = 64
NEWELL = {"stem": "7x7", "deconv": "nearest", "after": "linear", "head": "module1", "heatmap_loss": "mse"}


def small(**changes) -> LocalGlobal:
    torch.manual_seed(0)
    return LocalGlobal(LocalGlobalConfig(**{**config("local_global", SIZE), **changes}))


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """With random parameters: the heads draw nothing at first."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return module


@pytest.fixture(scope="module")
def batch(made_shards) -> FaceBatch:
    """Six made faces."""
    augmenter = Augmenter(Augmentation(**STILL), SIZE, 1.5)
    return augmenter(StoredFaces([made_shards]).take(np.arange(6)), torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("changes", "parameters", "gigamacs"),
    [
        # 30,389,156 of the heatmaps, 13,255,496 of the regression
        ({}, 43_644_652, 24.4),
        # without the regression and with kernel 2: 16 deconvolutions of 256 x 256 x 12 weights less
        ({"deconv": "k2", "finetune": "none"}, 30_389_156 - 16 * 256 * 256 * 12, 19.1),
        # row 2 of table 1, Newell's network
        ({**NEWELL, "finetune": "none"}, 12_951_696, 15.1),
        # ResNet-18 has 11,176,512 without its classifier
        ({"arch": "resnet18"}, 11_176_512 + 513 * 136, 2.37),
    ],
)
def test_the_paper_s_networks_have_their_size(changes, parameters, gigamacs):
    with FakeTensorMode():
        aligner = LocalGlobal(LocalGlobalConfig(**changes)).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            aligner(torch.zeros(1, 3, 256, 256))
    assert sum(p.numel() for p in aligner.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(gigamacs, rel=0.005)


def test_the_regression_has_its_size():
    with torch.device("meta"):
        finetune = local_global.Finetune(LocalGlobalConfig())
    assert sum(p.numel() for p in finetune.parameters()) == 13_255_496


VARIANTS = [
    {"head": "module1"}, {"head": "module2"}, {"head": "module3"}, {"deconv": "k2"}, {"deconv": "dw4"},
    {"deconv": "nearest"}, {"stem": "7x7"}, {"after": "linear"}, {"heatmap_loss": "mse"}, {"finetune": "none"},
    {"finetune": "shape"}, {"decode": "quarter"}, {"stacks": 1}, {"arch": "resnet18"}, NEWELL,
]  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda c: "+".join(map(str, c.values())))
def test_each_variant_of_the_paper_trains(changes, batch):
    aligner = small(**changes)
    aligner.prepare(batch.xyz)
    before = {name: value.detach().clone() for name, value in aligner.named_parameters() if value.ndim > 1}
    optimizer = torch.optim.Adam(aligner.parameters(), 3e-4)
    stage, costs = aligner.stages()[-1], []
    for _ in range(6):
        terms = aligner.train().training_terms(batch, stage)
        costs.append(torch.stack([w * terms[n].mean() for n, w in stage.terms.items()]).sum())
        optimizer.zero_grad()
        costs[-1].backward()
        optimizer.step()
    assert min(costs[1:]) < costs[0]
    assert all(not torch.equal(before[name], value) for name, value in aligner.named_parameters() if name in before)


@pytest.mark.parametrize("head", ["module3", "module4"])
def test_the_attention_of_all_points_is_that_of_each_point_by_itself(head):
    settings = LocalGlobalConfig(head=head, channels=8)
    two_convolutions = shaken(AttentionHead(settings))
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(4))
    if head == "module4":  # equation 3
        y = torch.sigmoid(torch.einsum("c,bchw->bhw", two_convolutions.overall.weight[0, :, 0, 0], x)
                          + two_convolutions.overall.bias)  # fmt: skip
        h = y[:, None] * x
    else:
        h = x
    maps = []
    for i in range(68):  # equation 4, one module a point, then its projection to one map
        y = torch.sigmoid(functional.conv2d(
            h, two_convolutions.attention.weight[i : i + 1], two_convolutions.attention.bias[i : i + 1]
        ))  # fmt: skip
        refined = y * h
        assert refined.shape == x.shape
        maps.append(functional.conv2d(
            refined, two_convolutions.project.weight[i : i + 1], two_convolutions.bias[i : i + 1]
        ))  # fmt: skip
    torch.testing.assert_close(two_convolutions(x), torch.cat(maps, 1), atol=1e-5, rtol=1e-5)


def test_maps_of_neighbours_come_to_lie_on_a_point_at_once_they_are_let_in():
    head = AdjacentHead(LocalGlobalConfig(head="module2", channels=68))
    # Points 37 and 38 are neighbours on the eye, 37 and 0 are not.
    assert head.into.sum(1)[37] == 2 and {36, 38} == set(head.source[head.into[37] > 0].tolist())
    size, shape = 32, torch.rand(68, 2, generator=torch.Generator().manual_seed(5)) - 0.5
    drawn = encode_gaussian((shape * 0.8 + 0.5)[None] * size - 0.5, size, 1.5)
    head.prepare(shape * 0.8)
    with torch.no_grad():
        head.plain.bias.zero_()
        head.plain.weight.copy_(torch.eye(68)[:, :, None, None])
        torch.testing.assert_close(head(drawn), drawn)  # closed at first
        head.gate.fill_(0.5)
        together = head(drawn)
    # Two neighbours at half height add a whole peak, less what bilinear reading loses of one.
    peak = together[0, 37].max()
    assert 1.8 < peak <= 2.0 and torch.equal(together[0, 37].argmax(), drawn[0, 37].argmax())


def test_untrained_maps_say_how_rare_a_landmark_is():
    aligner = small(size=256, radius=5.0)
    maps = aligner.eval()(torch.rand(1, 3, 256, 256)).maps
    # 2 pi (5/3)^2 px of 64^2, less the 1.1 % beyond 3 sigma: 0.00421; log(0.00421 / 0.99579) = -5.465
    for m in maps:
        torch.testing.assert_close(m, torch.full_like(m, -5.465), atol=1e-3, rtol=0)


def test_the_cross_entropy_of_the_target_with_itself_is_its_floor():
    # The entropy of a Gaussian with sigma 5/3 cut at 5 px, on 64 x 64 px, is 0.00670 a pixel.
    target = encode_gaussian(torch.tensor([[[31.3, 30.6]]]), 64, 5 / 3, 5.0)
    logits = torch.logit(target, 1e-7)
    assert binary_cross_entropy(logits, target).item() == pytest.approx(0.0067, abs=1e-4)
    assert binary_cross_entropy_floor(target).item() == pytest.approx(0.0067, abs=1e-4)


@pytest.mark.parametrize(("decode", "allowed"), [("dark", 0.02), ("quarter", 4 * math.hypot(0.25, 0.25))])
def test_ideal_maps_decode_to_the_points_and_cost_their_floor(decode, allowed, batch, monkeypatch):
    aligner = small(decode=decode, finetune="none").eval()
    target = encode_gaussian(map_from_crop(batch.xyz[..., :2], 4), SIZE // 4, 1.0, 3.0)
    # DARK looks 1 px around the peak: within 3 px everywhere
    monkeypatch.setattr(aligner.heatmaps, "forward", lambda crops: (torch.logit(target, 1e-9),) * 2)
    out = aligner(batch.crops)
    apart = torch.linalg.vector_norm(out.xyz[..., :2] - batch.xyz[..., :2], dim=-1)
    assert apart.max() < allowed + 1e-3
    assert (out.xyz[..., 2] == 0).all()
    torch.testing.assert_close(out.score, target.amax((2, 3)), atol=1e-5, rtol=0)
    assert (out.score > math.exp(-0.25) - 1e-3).all()  # the nearest pixel is at most (1/2, 1/2) away, sigma is 1
    cost = aligner.loss(out, batch)["heatmaps"]  # two stacks
    torch.testing.assert_close(cost, 2 * binary_cross_entropy_floor(target), atol=1e-5, rtol=0)


def test_the_regression_of_an_offset_starts_from_what_the_maps_show(batch, monkeypatch):
    aligner = small(finetune="offset").eval()
    aligner.prepare(batch.xyz)
    target = encode_gaussian(map_from_crop(batch.xyz[..., :2], 4), SIZE // 4, 1.0, 3.0)
    monkeypatch.setattr(aligner.heatmaps, "forward", lambda crops: (torch.logit(target, 1e-9),))
    out = aligner(batch.crops)
    apart = torch.linalg.vector_norm(out.xyz[..., :2] - batch.xyz[..., :2], dim=-1)
    assert apart.max() < 0.2  # crop px; the centre of what is left of a Gaussian cut at 3 sigma
    shape = small(finetune="shape").eval()
    shape.prepare(batch.xyz)
    mean = batch.xyz[..., :2].mean(0).expand(6, -1, -1)
    torch.testing.assert_close(shape(batch.crops).xyz[..., :2], mean, atol=1e-4, rtol=0)
    assert not torch.allclose(mean, batch.xyz[..., :2], atol=1)


def test_the_cost_of_a_shape_is_its_squared_normalised_error(batch):
    aligner = small().eval()
    out = aligner(batch.crops)
    moved = batch.xyz[..., :2] + torch.tensor([3.0, 4.0])  # 5 px
    cost = aligner.loss(type(out)(xyz=functional.pad(moved, (0, 1)), maps=out.maps), batch)["shape"]
    box = batch.xyz[..., :2].amax(1) - batch.xyz[..., :2].amin(1)
    torch.testing.assert_close(cost, 25 / (box[:, 0] * box[:, 1]))


def test_the_shape_teaches_the_heatmaps_too(batch):
    for finetune in ("shape", "offset"):
        aligner = shaken(small(finetune=finetune)).train()
        aligner.loss(aligner(batch.crops), batch)["shape"].mean().backward()
        assert all((p.grad != 0).any() for p in aligner.heatmaps.stacks[-1].head.parameters()), finetune


def test_only_the_heatmaps_learn_in_the_first_stage(made_shards, tmp_path, monkeypatch):
    seen, terms = [], LocalGlobal.training_terms

    def watched(self, truth, stage):
        seen.append((stage.name, {k: v.clone() for k, v in self.state_dict().items()}))
        return terms(self, truth, stage)

    monkeypatch.setattr(LocalGlobal, "training_terms", watched)
    changes = {"steps": 10, "warmup_steps": 1, "batch": 2}
    for _ in train(recipe("local_global", made_shards, **changes), tmp_path):
        pass
    assert [name for name, _ in seen] == ["heatmaps"] * 7 + ["end_to_end"] * 3
    for (stage, before), (_, after) in pairwise(seen):
        moved = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
        assert moved == ({"heatmaps"} if stage == "heatmaps" else {"heatmaps", "finetune"})


def test_84_points_of_videos():
    aligner = small(landmarks=84).eval()
    crops, xyz = torch.rand(2, 3, SIZE, SIZE), torch.rand(2, 84, 3) * SIZE
    aligner.prepare(xyz)
    out = aligner(crops)
    assert out.xyz.shape == (2, 84, 3) and out.score.shape == (2, 84)
    aligner.loss(out, FaceBatch(xyz, torch.ones(2, 84), torch.eye(3).expand(2, 3, 3), crops=crops))
    with pytest.raises(LandmarkError, match="68 points, want 84"):
        aligner.prepare(xyz[:, :68])
    assert len(AdjacentHead(LocalGlobalConfig(landmarks=84, channels=8)).gate) > 120


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="`head` is 'module5'.*module4"):
        LocalGlobalConfig(head="module5")
    with pytest.raises(RecipeError, match="`finetune` is False"):  # YAML's "off"
        LocalGlobalConfig(finetune=False)


OTHER = {"finetune": "shape", "decode": "quarter", "head": "module2", "stacks": 1}


@pytest.mark.parametrize("changes", [{}, OTHER], ids=["as it comes", "module2"])
@pytest.mark.slow
def test_onnx_says_what_torch_says(changes, tmp_path, batch):
    aligner = small(**changes)
    aligner.prepare(batch.xyz)
    with torch.no_grad():  # draws something, so that no peak is a tie
        shaken(aligner.finetune)
        for stack in aligner.heatmaps.stacks:
            shaken(stack.head)
    aligner.save(tmp_path / "weights")
    assert export_onnx(tmp_path / "weights", tmp_path / "onnx") < 1e-3


@pytest.mark.parametrize("change", [{"size": 112}, {"radius": 0.0}, {"stacks": 0}, {"finetune_widths": (8,) * 7}])
def test_values_that_do_not_fit_are_refused(change):
    with pytest.raises(RecipeError, match="wanted"):
        LocalGlobalConfig(**change)
