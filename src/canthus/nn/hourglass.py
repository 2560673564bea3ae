"""The hourglass: down to a few pixels and up again, with a residual on the way across at every size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from canthus.nn.residual import Residual


class Hourglass(nn.Module):
    """Newell et al., "Stacked hourglass networks for human pose estimation", ECCV 2016: one residual per place.

    `upsample(channels)` makes the layer that doubles the size at each level; sides must be divisible by 2**depth.
    """

    def __init__(self, channels: int, depth: int, upsample: Callable[[int], nn.Module]):
        super().__init__()
        self.across = Residual(channels, channels)
        self.down = nn.Sequential(nn.MaxPool2d(2), Residual(channels, channels))
        inner = Hourglass(channels, depth - 1, upsample) if depth > 1 else Residual(channels, channels)
        self.inner = inner
        self.up = nn.Sequential(Residual(channels, channels), upsample(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        return self.across(x) + self.up(self.inner(self.down(x)))


def nearest(channels: int) -> nn.Module:
    """Doubles the size by repeating pixels (Newell et al. 2016)."""
    return nn.Upsample(scale_factor=2, mode="nearest")


def deconvolution(channels: int, kernel: int = 4, groups: int = 1, stride: int = 2) -> nn.ConvTranspose2d:
    """Makes maps `stride` times larger by a learnable transposed convolution that starts as interpolation of each
    channel by itself: bilinear for a kernel of 2 `stride`, nearest for one of `stride`. `groups` = `channels` makes it
    depthwise."""
    layer = nn.ConvTranspose2d(channels, channels, kernel, stride, (kernel - stride) // 2, groups=groups)
    offset = (torch.arange(kernel) - (kernel - 1) / 2).abs() / stride  # from the kernel's centre, in pixels that go in
    taps = 1 - offset if kernel == 2 * stride else torch.ones(kernel)
    nn.init.zeros_(layer.weight)
    layer.bias = nn.Parameter(torch.zeros(channels))
    with torch.no_grad():
        channel = torch.arange(channels)
        layer.weight[channel, channel % (channels // groups)] = taps[:, None] * taps
    return layer
