"""Residual networks of ImageNet fame, from scratch: the trunks that several methods regress from.

`ResNet` is the original (He et al., "Deep residual learning for image recognition", CVPR 2016), `PreActResNet` the
full pre-activation form (He et al., "Identity mappings in deep residual networks", ECCV 2016).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of RGB 0..1, by which networks trained on ImageNet have their pictures normalised."""
EXPANSION = 4
"""Outputs of a bottleneck / its width."""


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class _Block(nn.Module):
    """Post-activation block: two 3x3 (basic), or 1x1, 3x3 with the stride, 1x1 (bottleneck)."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = width * EXPANSION if bottleneck else width
        layers = (
            [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
            if bottleneck
            else [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        )
        steps: list[nn.Module] = []
        for layer in layers:
            steps += [_convolution(*layer), nn.BatchNorm2d(layer[1]), nn.ReLU()]
        self.branch = nn.Sequential(*steps[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.branch(x))


class ResNet(nn.Module):
    """The trunk without pooling and classifier: (B,inputs,S,S) -> (B,channels,S/32,S/32), or S/16 with `last_stride` 1.

    depths: blocks in each of the four stages: (2,2,2,2) with `bottleneck` False is ResNet-18, (3,4,6,3) ResNet-50,
    (3,8,36,3) ResNet-152. width: channels of the stem, 64 in the papers. normalised: whether the first three inputs are
    RGB by `IMAGENET`, and not 0..1, which weights from elsewhere must be told. `channels` is the number of outputs.
    """

    def __init__(
        self,
        depths: Sequence[int],
        inputs: int = 3,
        width: int = 64,
        last_stride: int = 2,
        bottleneck: bool = True,
        normalised: bool = False,
    ):
        super().__init__()
        self.depths, self.bottleneck, self.normalised = tuple(depths), bottleneck, normalised
        self.stem = nn.Sequential(
            _convolution(inputs, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        stages, channels = [], width
        for level, depth in enumerate(depths):
            stride = (1, 2, 2, last_stride)[level]
            blocks = []
            for k in range(depth):
                blocks.append(_Block(channels, width * 2**level, stride if k == 0 else 1, bottleneck))
                channels = width * 2**level * (EXPANSION if bottleneck else 1)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.channels = channels
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.stages(self.stem(x))


class _PreActBlock(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3 with the stride, BN-ReLU-1x1; the shortcut is a bare 1x1 where shapes change, which sees
    the block's input as it is, or after the first BN-ReLU (`shared`)."""

    def __init__(self, inputs: int, width: int, stride: int, activate: bool, shared: bool):
        super().__init__()
        outputs = width * EXPANSION
        before = [nn.BatchNorm2d(inputs), nn.ReLU()] if activate else []  # the stem has activated already
        self.branch = nn.Sequential(
            *before, _convolution(inputs, width, 1),
            nn.BatchNorm2d(width), nn.ReLU(), _convolution(width, width, 3, stride),
            nn.BatchNorm2d(width), nn.ReLU(), _convolution(width, outputs, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)
        self.shared = shared and activate and not same

    def forward(self, x: Tensor) -> Tensor:
        if self.shared:
            x = self.branch[:2](x)
            return self.shortcut(x) + self.branch[2:](x)
        return self.shortcut(x) + self.branch(x)


class PreActResNet(nn.Module):
    """The trunk up to the last BN and ReLU: (B,inputs,S,S) -> (B,channels,S/32,S/32).

    depths: (3,24,36,3) is ResNet-200, (3,4,6,3) its small kin of 50 layers. width: channels of the stem, 64 in the
    paper. shared: shortcuts of other shapes see the activated input of their block, as in the networks that were
    trained on ImageNet. The first three inputs are RGB 0..1.
    """

    def __init__(self, depths: Sequence[int], inputs: int = 3, width: int = 64, shared: bool = False):
        super().__init__()
        self.depths, self.normalised = tuple(depths), False
        self.stem = nn.Sequential(
            _convolution(inputs, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        stages, channels = [], width
        for level, depth in enumerate(depths):
            blocks = []
            for k in range(depth):
                stride = 2 if k == 0 and level else 1
                blocks.append(_PreActBlock(channels, width * 2**level, stride, bool(level or k), shared))
                channels = width * 2**level * EXPANSION
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.channels = channels
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.last(self.stages(self.stem(x)))


def _initialise(trunk: nn.Module) -> None:
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
