"""Trunks start from weights with the keys of torchvision and timm: written here as these packages lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from canthus.errors import RecipeError, WeightsError  # noqa: E402
from canthus.nn.pretrained import load_trunk  # noqa: E402
from canthus.nn.resnet import IMAGENET, PreActResNet, ResNet  # noqa: E402
from canthus.training.aligner import build  # noqa: E402
from canthus.training.recipe import Recipe  # noqa: E402
from canthus.training.train import load_trunks  # noqa: E402

DEPTHS, WIDTH = (1, 2, 1, 1), 8
Tensors = dict[str, Tensor]


def made(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """Random weights of these shapes; scales and variances of norms are positive."""
    rng = torch.Generator().manual_seed(3)
    values = {name: 0.3 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    positive = {name for name, v in values.items() if v.ndim == 1 and name.endswith(("running_var", "weight"))}
    return {name: v.abs() + 0.5 if name in positive else v for name, v in values.items()}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def torchvision(bottleneck: bool = True) -> Tensors:
    """The keys of torchvision's ResNet, which are timm's."""
    shapes = {"conv1.weight": (WIDTH, 3, 7, 7), **norm("bn1", WIDTH), "fc.weight": (10, 4), "fc.bias": (10,)}
    channels = WIDTH
    for level, depth in enumerate(DEPTHS):
        width = WIDTH * 2**level
        outputs = 4 * width if bottleneck else width
        for k in range(depth):
            name = f"layer{level + 1}.{k}"
            kernels = [(width, channels, 1), (width, width, 3), (outputs, width, 1)]
            for n, (o, i, side) in enumerate(kernels if bottleneck else [(width, channels, 3), (width, width, 3)], 1):
                shapes |= {f"{name}.conv{n}.weight": (o, i, side, side), **norm(f"{name}.bn{n}", o)}
            if channels != outputs or (k == 0 and level):
                down = f"{name}.downsample"
                shapes |= {f"{down}.0.weight": (outputs, channels, 1, 1), **norm(f"{down}.1", outputs)}
            channels = outputs
    return made(shapes)


def timm_v2() -> Tensors:
    """The keys of timm's resnetv2 with batch norm."""
    shapes: dict[str, tuple[int, ...]] = {"stem.conv.weight": (WIDTH, 3, 7, 7), "head.fc.weight": (10, 4, 1, 1)}
    channels = WIDTH
    for level, depth in enumerate(DEPTHS):
        width = WIDTH * 2**level
        for k in range(depth):
            name = f"stages.{level}.blocks.{k}"
            layers = [(width, channels, 1), (width, width, 3), (4 * width, width, 1)]
            for n, (o, i, side) in enumerate(layers, 1):
                shapes |= {**norm(f"{name}.norm{n}", i), f"{name}.conv{n}.weight": (o, i, side, side)}
            if channels != 4 * width:
                shapes[f"{name}.downsample.conv.weight"] = (4 * width, channels, 1, 1)
            channels = 4 * width
    return made(shapes | norm("norm", channels))


def bn(x: Tensor, tensors: Tensors, name: str) -> Tensor:
    w, b, mean, var = (tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
    return functional.batch_norm(x, mean, var, w, b)


def plain_resnet(x: Tensor, t: Tensors, bottleneck: bool) -> Tensor:
    """torchvision's forward pass, by its keys."""
    x = functional.max_pool2d(bn(functional.conv2d(x, t["conv1.weight"], None, 2, 3), t, "bn1").relu(), 3, 2, 1)
    for level, depth in enumerate(DEPTHS):
        for k in range(depth):
            name, y = f"layer{level + 1}.{k}", x
            count, strided = (3, 2) if bottleneck else (2, 1)
            stride = 2 if level and not k else 1
            for n in range(1, count + 1):
                w = t[f"{name}.conv{n}.weight"]
                y = functional.conv2d(y, w, stride=stride if n == strided else 1, padding=w.shape[-1] // 2)
                y = bn(y, t, f"{name}.bn{n}")
                y = y.relu() if n < count else y
            if f"{name}.downsample.0.weight" in t:
                x = bn(functional.conv2d(x, t[f"{name}.downsample.0.weight"], stride=stride), t, f"{name}.downsample.1")
            x = (x + y).relu()
    return x


def plain_v2(x: Tensor, t: Tensors) -> Tensor:
    """timm's forward pass of the pre-activation form, by its keys."""
    x = functional.max_pool2d(functional.conv2d(x, t["stem.conv.weight"], None, 2, 3), 3, 2, 1)
    for level, depth in enumerate(DEPTHS):
        for k in range(depth):
            name, stride = f"stages.{level}.blocks.{k}", 2 if level and not k else 1
            active = bn(x, t, f"{name}.norm1").relu()
            if f"{name}.downsample.conv.weight" in t:
                x = functional.conv2d(active, t[f"{name}.downsample.conv.weight"], stride=stride)
            y = functional.conv2d(active, t[f"{name}.conv1.weight"])
            y = functional.conv2d(bn(y, t, f"{name}.norm2").relu(), t[f"{name}.conv2.weight"], stride=stride, padding=1)
            x = x + functional.conv2d(bn(y, t, f"{name}.norm3").relu(), t[f"{name}.conv3.weight"])
    return bn(x, t, "norm").relu()


@pytest.mark.parametrize("bottleneck", [True, False])
def test_a_resnet_says_what_torchvision_s_would(tmp_path, bottleneck):
    tensors = torchvision(bottleneck)
    save_file(tensors | {"bn1.num_batches_tracked": torch.tensor(7)}, tmp_path / "a.safetensors")
    trunk = ResNet(DEPTHS, width=WIDTH, bottleneck=bottleneck, normalised=True).eval()
    load_trunk(trunk, tmp_path / "a.safetensors")
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(trunk(x), plain_resnet(x, tensors, bottleneck), rtol=1e-4, atol=1e-4)


def test_a_pre_activation_resnet_says_what_timm_s_would(tmp_path):
    tensors = timm_v2()
    save_file(tensors, tmp_path / "a.safetensors")
    trunk = PreActResNet(DEPTHS, width=WIDTH, shared=True).eval()
    trunk.normalised = True
    load_trunk(trunk, tmp_path / "a.safetensors")
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(trunk(x), plain_v2(x, tensors), rtol=1e-4, atol=1e-4)


def test_a_trunk_that_sees_0_to_1_has_the_normalisation_in_its_weights(tmp_path):
    """Padding is the mean colour around normalised pictures and black around others: they agree away from borders."""
    save_file(torchvision(), tmp_path / "a.safetensors")
    one = ResNet(DEPTHS, width=WIDTH, normalised=True).eval()
    two = ResNet(DEPTHS, width=WIDTH).eval()
    for trunk in (one, two):
        load_trunk(trunk, tmp_path / "a.safetensors")
    x = torch.rand(2, 3, 64, 64)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    first, second = one.stem[:3]((x - mean) / deviation), two.stem[:3](x)
    torch.testing.assert_close(first[..., 2:-2, 2:-2], second[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-4)


def test_filters_on_maps_stay(tmp_path):
    save_file(torchvision(), tmp_path / "a.safetensors")
    trunk = ResNet(DEPTHS, inputs=5, width=WIDTH, normalised=True)
    before = trunk.stem[0].weight.detach().clone()
    load_trunk(trunk, tmp_path / "a.safetensors")
    after = trunk.stem[0].weight.detach()
    assert torch.equal(after[:, 3:], before[:, 3:]) and torch.equal(after[:, :3], torchvision()["conv1.weight"])


def test_other_weights_and_pickles_are_refused_and_change_nothing(tmp_path):
    trunk = ResNet(DEPTHS, width=WIDTH)
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    tensors = torchvision()
    cases = {
        "lacks 'conv1.weight'": timm_v2(),
        "has 'layer9.0.conv1.weight', for which there is no place": tensors | {"layer9.0.conv1.weight": torch.ones(1)},
        r"has \(8, 4, 7, 7\) for 'conv1.weight', \(8, 3, 7, 7\)": tensors | {"conv1.weight": torch.ones(8, 4, 7, 7)},
    }
    for said, wrong in cases.items():
        save_file(wrong, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match=said):
            load_trunk(trunk, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"b\.safetensors' cannot be read"):
        load_trunk(trunk, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"resnet50\.pth' is a pickle.*save_file\(torch.load"):
        load_trunk(trunk, Path("resnet50.pth"))
    assert all(torch.equal(v, before[k]) for k, v in trunk.state_dict().items())


PART = {"size": 64, "detection_depths": DEPTHS, "detection_width": 8, "regression_width": 16, "regression_levels": 1}


def test_a_recipe_names_files_for_networks(tmp_path):
    save_file(torchvision(), tmp_path / "a.safetensors")
    file = str(tmp_path / "a.safetensors")
    aligner = build("part_heatmap", PART | {"depth_depths": (1, 1, 1), "depth_width": 8})
    load_trunks(aligner, {"detection": file})
    assert torch.equal(aligner.detection.trunk.stages[0][0].branch[0].weight, torchvision()["layer1.0.conv1.weight"])
    with pytest.raises(RecipeError, match="`trunk_weights` has the unknown key 'detectoin'; 'detection'"):
        load_trunks(aligner, {"detectoin": file})
    with pytest.raises(WeightsError, match="pre-activation ResNet of 1-1-1 blocks"):
        load_trunks(aligner, file)  # one file for both
    with pytest.raises(RecipeError, match="jvcr has no trunk"):
        load_trunks(build("jvcr", {"size": 64, "channels": 16, "levels": 2, "widths": (8, 16), "depths": (1, 8)}), file)


def test_both_networks_of_pose_aware_start_from_one_file(tmp_path):
    save_file(torchvision(), tmp_path / "a.safetensors")
    aligner = build("pose_aware", {"size": 64, "depths": DEPTHS, "width": WIDTH})
    load_trunks(aligner, str(tmp_path / "a.safetensors"))
    for network in (aligner.rough, aligner.stable):
        assert torch.equal(network.trunk.stem[0].weight, torchvision()["conv1.weight"])


def test_a_small_trunk_starts_from_weights_of_swift(tmp_path):
    sizes = {"widths": (4, 8, 12, 16), "depths": (1, 1, 2, 1)}
    swift = build("swift", {"size": 32, "features": 8, "places": 4, "details": False, **sizes}).eval()
    save_file(swift.state_dict(), tmp_path / "a.safetensors")
    aligner = build("cprfa", {"size": 32, "vertices": 16, "cpr_widths": (8, 8), "hidden": 8, **sizes}).eval()
    load_trunks(aligner, str(tmp_path / "a.safetensors"))
    crops = torch.rand(2, 3, 32, 32)
    assert torch.equal(aligner.unet.trunk(crops), swift.trunk(crops))
    other = build("swift", {"size": 32, "features": 8, "places": 4, "details": False, "widths": (4, 8, 12, 16)})
    save_file(other.state_dict(), tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match="weights of swift with a trunk of these widths and depths are wanted"):
        load_trunks(aligner, str(tmp_path / "b.safetensors"))


@pytest.mark.parametrize("given", [3, {"detection": 3}, ["a"]])
def test_trunk_weights_that_are_no_files_are_refused(given):
    with pytest.raises(RecipeError, match="`trunk_weights` is"):
        Recipe(faces=("a",), trunk_weights=given)


def test_the_command_line_may_name_one_network():
    changes = ["trunk_weights.detection=a.safetensors"]
    assert Recipe.read("part_heatmap-paper", changes).trunk_weights == {"detection": "a.safetensors"}
    assert Recipe.read("pose_aware-paper", ["trunk_weights=a.safetensors"]).trunk_weights == "a.safetensors"


def test_both_kinds_of_shortcut_have_the_same_weights():
    one, two = PreActResNet(DEPTHS, width=WIDTH), PreActResNet(DEPTHS, width=WIDTH, shared=True)
    two.load_state_dict(one.state_dict())
    x = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(one.eval()(x), two.eval()(x))
