"""The detector's second network: a closer look at each place where the pyramid saw something.

Cascades of this kind: Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional
networks", IEEE Signal Processing Letters 2016.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load
from torch import Tensor, nn

from canthus.decode import decoding, read_bytes
from canthus.errors import WeightsError
from canthus.nn.trunk import Trunk

WIDTHS, DEPTHS = (16, 32, 64, 96), (1, 2, 2, 1)  # of the trunk, at a half to a sixteenth of the crop
OUTPUTS = 7  # score, 3 of the square, 2 of the upward axis, uncertainty


class Looks(NamedTuple):
    """What is seen in crops (B,) around candidates, in sides of their squares and along the axes of the crop.

    score: (B,) logit of a face being there. move: (B,3) from the candidate's square to that of the upright head: right
    and down in sides of the candidate's, and the logarithm of the ratio of the sides. up: (B,2) upward axis of the
    head, y down, about unit length. log_sigma: (B,) of the error of the square, in its sides.
    """

    score: Tensor
    move: Tensor
    up: Tensor
    log_sigma: Tensor


class RefinerNetwork(nn.Module):
    """Crops (B,S,S,3) RGB, 0..255, to `Looks`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(WIDTHS, DEPTHS)
        self.head = nn.Linear(4 * WIDTHS[-1], OUTPUTS)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, crops: Tensor) -> Looks:
        """See the class."""
        maps = self.trunk((crops.permute(0, 3, 1, 2).float() - 127.5) / 64)
        raw = self.head(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))
        return Looks(raw[:, 0], raw[:, 1:4], raw[:, 4:6], raw[:, 6].clamp(-6, 2))


def load_refiner(weights: str | Path) -> RefinerNetwork:
    """The network of a file `refiner.safetensors` that training wrote. Raises `WeightsError`."""
    network = RefinerNetwork()
    with decoding(WeightsError, f"'{weights}' holds no refiner that this version can load"):
        network.load_state_dict(load(read_bytes(weights)))
    return network


def look_terms(looks: Looks, face: Tensor, move: Tensor, up: Tensor) -> dict[str, Tensor]:
    """Means: `seen` (cross-entropy) over all crops, over those of a face `square` (Laplace likelihood of `move`) and
    `axis` (squared distance of unit vectors).

    face: (B,) True where there is one; move (B,3), up (B,2): what is true there, see `Looks`.
    """
    count = face.sum().clamp(min=1)
    seen = nn.functional.binary_cross_entropy_with_logits(looks.score, face.to(looks.score.dtype))
    error, log_sigma = (looks.move - move).abs()[face], looks.log_sigma[face]
    likelihood = (error * torch.exp(-log_sigma)[:, None]).sum(1) + 3 * log_sigma
    axis = ((looks.up - up)[face] ** 2).sum(1)
    return {"seen": seen, "square": likelihood.sum() / count, "axis": axis.sum() / count}
