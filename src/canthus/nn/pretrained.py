"""Weights for the trunks of methods, from a safetensors file that the user has.

Those of ResNets learnt on ImageNet. Keys are those of torchvision and timm: `conv1`, `layer1.0.conv1`, ... of a ResNet,
`stem.conv`, `stages.0.blocks.0.norm1`, ... of timm's `resnetv2_*`, the pre-activation form. The classifier is passed
over. A small trunk takes that of weights of `swift`; the rest of these is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from canthus.decode import decoding, read_bytes
from canthus.errors import WeightsError
from canthus.nn.resnet import IMAGENET, PreActResNet, ResNet
from canthus.nn.trunk import Trunk

CLASSIFIERS = ("fc.", "head.", "head_fc.", "classifier.")
PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".tar", ".ckpt", ".t7")
NORM = ("weight", "bias", "running_mean", "running_var")


def load_trunk(trunk: ResNet | PreActResNet | Trunk, path: str | Path) -> None:
    """Put the weights of a file into a trunk, in place.

    Weights of a network for pictures normalised by `IMAGENET` are turned into those for RGB 0..1 where the trunk sees
    that. Filters of inputs beyond the first three stay as they are. Raises `WeightsError` for a pickle, which is never
    loaded, for a damaged file, and for weights of another network.
    """
    path = Path(path)
    if path.suffix.lower() in PICKLES:
        raise WeightsError(
            f"'{path}' is a pickle, which can run any code and is never loaded; where you trust it, convert it: "
            f"safetensors.torch.save_file(torch.load('{path.name}', weights_only=True), '{path.stem}.safetensors')"
        )
    with decoding(WeightsError, f"the trunk's weights '{path}' cannot be read; a safetensors file is wanted"):
        found = {name.removeprefix("module."): values for name, values in load(read_bytes(path)).items()}
    own = trunk.state_dict()
    counters = {name for name in found if name.endswith("num_batches_tracked")}
    if isinstance(trunk, Trunk):
        keys = {name: f"trunk.{name}" for name in own if not name.endswith("num_batches_tracked")}
        found = {name: values for name, values in found.items() if name.startswith("trunk.")}
    else:
        own["stem.0.weight"] = own["stem.0.weight"][:, :3]
        keys = dict(_resnet_keys(trunk) if isinstance(trunk, ResNet) else _preact_keys(trunk))
    missing = [theirs for theirs in keys.values() if theirs not in found]
    extra = sorted(n for n in set(found) - set(keys.values()) - counters if not n.startswith(CLASSIFIERS))
    if missing or extra:
        what = f"lacks '{missing[0]}'" if missing else f"has '{extra[0]}', for which there is no place"
        raise WeightsError(f"'{path}' {what}: weights of {_name(trunk)} are wanted")
    loaded = {ours: found[theirs].to(own[ours].dtype) for ours, theirs in keys.items()}
    for ours, values in loaded.items():
        if values.shape != own[ours].shape:
            shapes = f"{tuple(values.shape)} for '{keys[ours]}', {tuple(own[ours].shape)} is wanted"
            raise WeightsError(f"'{path}' has {shapes}: it is not of {_name(trunk)}")
    if not isinstance(trunk, Trunk) and not trunk.normalised:
        _take_unit_range(loaded)
    with torch.no_grad():
        for ours, values in loaded.items():
            own[ours].copy_(values)


def _take_unit_range(loaded: dict[str, Tensor]) -> None:
    """w * (x - mean) / deviation is w' * x with w' = w / deviation, less a constant, which the norm after it takes in.

    Exact but for the border, where the padding then is black and not of the mean colour.
    """
    mean, deviation = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    weight = loaded["stem.0.weight"] / deviation
    loaded["stem.0.weight"] = weight
    loaded["stem.1.running_mean"] = loaded["stem.1.running_mean"] + (weight * mean).sum((1, 2, 3))


def _resnet_keys(trunk: ResNet) -> Iterator[tuple[str, str]]:
    """Our names and those of torchvision; timm has the same."""
    yield "stem.0.weight", "conv1.weight"
    yield from _norm("stem.1", "bn1")
    for level, depth in enumerate(trunk.depths):
        for k in range(depth):
            ours, theirs = f"stages.{level}.{k}", f"layer{level + 1}.{k}"
            for n in range(3 if trunk.bottleneck else 2):  # convolution, norm, ReLU
                yield f"{ours}.branch.{3 * n}.weight", f"{theirs}.conv{n + 1}.weight"
                yield from _norm(f"{ours}.branch.{3 * n + 1}", f"{theirs}.bn{n + 1}")
            if _has_shortcut(trunk, level, k):
                yield f"{ours}.shortcut.0.weight", f"{theirs}.downsample.0.weight"
                yield from _norm(f"{ours}.shortcut.1", f"{theirs}.downsample.1")


def _preact_keys(trunk: PreActResNet) -> Iterator[tuple[str, str]]:
    """Our names and those of timm, whose first block begins with the norm that ends our stem."""
    yield "stem.0.weight", "stem.conv.weight"
    yield from _norm("stem.1", "stages.0.blocks.0.norm1")
    for level, depth in enumerate(trunk.depths):
        for k in range(depth):
            ours, theirs = f"stages.{level}.{k}", f"stages.{level}.blocks.{k}"
            first = level == k == 0
            for n in range(3):  # norm, ReLU, convolution
                place = 3 * n - (2 if first else 0)
                if n or not first:
                    yield from _norm(f"{ours}.branch.{place}", f"{theirs}.norm{n + 1}")
                yield f"{ours}.branch.{place + 2}.weight", f"{theirs}.conv{n + 1}.weight"
            if _has_shortcut(trunk, level, k):
                yield f"{ours}.shortcut.weight", f"{theirs}.downsample.conv.weight"
    yield from _norm("last.0", "norm")


def _norm(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    return ((f"{ours}.{part}", f"{theirs}.{part}") for part in NORM)


def _has_shortcut(trunk: ResNet | PreActResNet, level: int, k: int) -> bool:
    return not isinstance(trunk.stages[level][k].shortcut, nn.Identity)  # type: ignore[index,union-attr]


def _name(trunk: ResNet | PreActResNet | Trunk) -> str:
    if isinstance(trunk, Trunk):
        return "swift with a trunk of these widths and depths"
    layers = "-".join(map(str, trunk.depths))
    kind = "" if isinstance(trunk, ResNet) else "pre-activation "
    return f"a {kind}ResNet of {layers} blocks with keys of torchvision or timm"
