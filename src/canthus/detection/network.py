"""The detector's network: an anchor-free pyramid over depthwise convolutions.

One cell in strides of 8, 16 and 32 px answers for the face at its place (Tian et al., "FCOS", ICCV 2019), with the
quality of its box as score (Li et al., "Generalized Focal Loss", NeurIPS 2020).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load
from torch import Tensor, nn

from canthus.decode import decoding, read_bytes
from canthus.errors import WeightsError

STRIDES = (8, 16, 32)
STEM, WIDTHS, DEPTHS, NECK = 24, (48, 96, 128), (3, 4, 3), 48
BOX_UNIT = 2.5  # sides are told relative to this many strides
OUTPUTS = 11  # score, 4 of the box, 3 of the upright square, 2 of the upward axis, uncertainty


class Cells(NamedTuple):
    """What A cells say of B pictures, px of the picture, pixels counted by their centres.

    score: (B,A) logit. box: (B,A,4) x0, y0, x1, y1. upright: (B,A,3) centre x, y and side of the square around the
    landmarks of the upright head. up: (B,A,2) upward axis of the head, y down, about unit length. log_sigma: (B,A) of
    the error of `upright`, in its sides.
    """

    score: Tensor
    box: Tensor
    upright: Tensor
    up: Tensor
    log_sigma: Tensor


class DetectorNetwork(nn.Module):
    """Pictures (B,H,W,3) uint8 RGB, sides multiples of 32, to `Cells`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, STEM, 6, 4, 1, bias=False), nn.BatchNorm2d(STEM), nn.ReLU(inplace=True))
        stages, width = [], STEM
        for out, depth, kernel in zip(WIDTHS, DEPTHS, (3, 5, 5)):
            blocks = [Separable(width, out, kernel, 2), *(Separable(out, out, kernel) for _ in range(depth - 1))]
            stages.append(nn.Sequential(*blocks))
            width = out
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, NECK, 1, bias=False), nn.BatchNorm2d(NECK)) for w in WIDTHS
        )
        self.merge = nn.ModuleList(Separable(NECK, NECK, 3) for _ in WIDTHS)
        self.heads = nn.ModuleList(nn.Sequential(Separable(NECK, NECK, 3), nn.Conv2d(NECK, OUTPUTS, 1)) for _ in WIDTHS)
        for head in self.heads:
            assert isinstance(head, nn.Sequential)
            last = head[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
            last.bias.data[0] = -4.6  # a score of 1 % at first, as focal losses want

    def forward(self, pictures: Tensor) -> Cells:
        """See the class."""
        x = self.stem((pictures.permute(0, 3, 1, 2).float() - 127.5) / 64)
        levels = []
        for stage, lateral in zip(self.stages, self.laterals):
            x = stage(x)
            levels.append(lateral(x))
        for k in (1, 0):
            levels[k] = levels[k] + nn.functional.interpolate(levels[k + 1], scale_factor=2.0, mode="nearest")
        answers = []
        for stride, level, merge, head in zip(STRIDES, levels, self.merge, self.heads):
            answers.append(decoded(head(merge(torch.relu(level))), stride))
        return Cells(*(torch.cat(values, 1) for values in zip(*answers)))


class Separable(nn.Module):
    """A depthwise and a pointwise convolution, added to its input where that has the same shape."""

    def __init__(self, inside: int, out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.adds = inside == out and stride == 1
        self.depthwise = nn.Conv2d(inside, inside, kernel, stride, kernel // 2, groups=inside, bias=False)
        self.norm = nn.BatchNorm2d(inside)
        self.pointwise = nn.Conv2d(inside, out, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B,inside,H,W) to (B,out,H/stride,W/stride)."""
        y = self.norm2(self.pointwise(torch.relu(self.norm(self.depthwise(x)))))
        return torch.relu(x + y) if self.adds else torch.relu(y)


def load_network(weights: str | Path) -> DetectorNetwork:
    """The network of a file `detector.safetensors` that training wrote. Raises `WeightsError`."""
    network = DetectorNetwork()
    with decoding(WeightsError, f"'{weights}' holds no detector that this version can load"):
        network.load_state_dict(load(read_bytes(weights)))
    return network


def cell_centres(rows: int, columns: int, stride: int, like: Tensor) -> Tensor:
    """Centres (rows*columns,2) of the cells of one stride, px."""
    y = (torch.arange(rows, device=like.device, dtype=like.dtype) + 0.5) * stride - 0.5
    x = (torch.arange(columns, device=like.device, dtype=like.dtype) + 0.5) * stride - 0.5
    return torch.stack([x[None, :].expand(rows, -1), y[:, None].expand(-1, columns)], -1).reshape(-1, 2)


def decoded(raw: Tensor, stride: int) -> Cells:
    """What the outputs (B,OUTPUTS,H,W) of one stride mean."""
    rows, columns = raw.shape[-2:]
    flat = raw.flatten(2).transpose(1, 2).float()
    centre = cell_centres(rows, columns, stride, flat) + flat[..., 1:3] * stride
    half = torch.exp(flat[..., 3:5].clamp(-5, 5)) * (BOX_UNIT * stride / 2)
    side = 2 * half.amax(-1, keepdim=True)
    upright = torch.cat([centre + 0.2 * flat[..., 5:7] * side, side * torch.exp(flat[..., 7:8].clamp(-2, 2))], -1)
    box = torch.cat([centre - half, centre + half], -1)
    return Cells(flat[..., 0], box, upright, flat[..., 8:10], flat[..., 10])
