"""The pre-activation bottleneck residual of hourglass networks."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """BN-ReLU-1x1 (half the outputs), BN-ReLU-3x3, BN-ReLU-1x1, all with bias; the shortcut is a bare 1x1 where the
    number of channels changes.

    He et al., "Identity mappings in deep residual networks", ECCV 2016, as hourglass networks use it (Newell et al.,
    "Stacked hourglass networks for human pose estimation", ECCV 2016).
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        half = outputs // 2
        self.branch = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, half, 1),
            nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, outputs, 1),
        )  # fmt: skip
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C',H,W)."""
        return self.shortcut(x) + self.branch(x)
