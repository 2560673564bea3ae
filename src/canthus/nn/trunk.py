"""The small residual trunk of `swift`, which other networks can begin with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm; at inference the two are one."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016); dense ones, which CPUs run at full rate."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.AvgPool2d(stride), convolution(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C',H/stride,W/stride)."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class Trunk(nn.Sequential):
    """A picture (B,3,S,S) to maps of ever more channels at S/2, S/4, ...

    widths: channels of each resolution; depths: blocks at each, the first of which halves the resolution before.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int]):
        layers: list[nn.Module] = [convolution(3, widths[0], 3, 2), nn.ReLU()]
        channels, ends = widths[0], []
        for level, (width, depth) in enumerate(zip(widths, depths)):
            for k in range(depth):
                layers.append(Block(channels, width, 2 if k == 0 and level else 1))
                channels = width
            ends.append(len(layers))
        super().__init__(*layers)
        self.ends = ends

    def scales(self, x: Tensor) -> list[Tensor]:
        """The last map of each resolution, fine to coarse."""
        maps, begin = [], 0
        for end in self.ends:
            for layer in list(self)[begin:end]:
                x = layer(x)
            maps.append(x)
            begin = end
        return maps
