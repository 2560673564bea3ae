"""The U-Net that speaks at several of its scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.nn.trunk import Trunk


def _double(inputs: int, outputs: int) -> nn.Sequential:
    """Twice 3x3 convolution, batch norm, ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Convolutions(nn.ModuleList):
    """The printed way down: `_double` at S, S/2, S/4..., with max pooling between."""

    def __init__(self, widths: Sequence[int]):
        super().__init__(_double(i, o) for i, o in zip((3, *widths), widths))

    def scales(self, x: Tensor) -> list[Tensor]:
        """The maps of each resolution, fine to coarse."""
        maps: list[Tensor] = []
        for level, block in enumerate(self):
            x = block(functional.max_pool2d(x, 2) if level else x)
            maps.append(x)
        return maps


class UNet(nn.Module):
    """Ronneberger et al., "U-Net", MICCAI 2015, with padding, batch norm and an answer at each of the finest scales.

    widths: channels at S, S/2, S/4...; `heads` of the finest scales answer with `outputs` channels each, from a 1x1
    convolution in full precision. S must be divisible by 2**(len(widths) - 1).
    depths: residual blocks of each width, from S/2 on (`Trunk`), take the place of the convolutions on the way down;
    then the finest answer is at S/2 and S must be divisible by 2**len(widths).
    """

    def __init__(self, widths: Sequence[int], outputs: int, depths: Sequence[int] = (), heads: int = 3):
        super().__init__()
        self.trunk = Trunk(widths, depths) if depths else Convolutions(widths)
        narrow, wide = list(widths[-2::-1]), list(widths[:0:-1])  # of each step up, coarse to fine
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in zip(wide, narrow))
        self.merge = nn.ModuleList(_double(2 * o, o) for o in narrow)
        self.heads = nn.ModuleList(nn.Conv2d(o, outputs, 1) for o in narrow[-heads:])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B,3,S,S) -> answers (B,outputs,s,s) float32, coarse to fine; the last is at the resolution of widths[0]."""
        *kept, x = self.trunk.scales(x)
        decoded = []
        for up, merge, skip in zip(self.up, self.merge, reversed(kept)):
            x = merge(torch.cat([skip, up(x)], dim=1))
            decoded.append(x)
        with torch.autocast(x.device.type, enabled=False):
            return tuple(head(d.float()) for head, d in zip(self.heads, decoded[-len(self.heads) :]))
