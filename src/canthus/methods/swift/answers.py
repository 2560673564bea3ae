"""Where the points of a face are, by heatmaps and by the head model: the second and the third answer of swift."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.errors import RecipeError
from canthus.face.morphable import MorphableModel
from canthus.geometry.rotation import matrix_from_6d
from canthus.methods.swift.config import LANDMARKS, SwiftConfig
from canthus.nn.trunk import convolution

USUAL = 0.25  # strength of an expression, of its end
FACING = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # two columns of the rotation of a face that looks at the camera


class Heatmaps(nn.Module):
    """A trunk's last map but one, (B,F,N,N), and its last, (B,C,N/2,N/2), to points (B,68,3) in sides of the crop from
    its centre: the mean place in a heatmap of N x N cells, and the mean of a map of depths under it."""

    def __init__(self, fine: int, coarse: int, channels: int):
        super().__init__()
        self.fine, self.coarse = convolution(fine, channels, 1), convolution(coarse, channels, 1)
        self.mix, self.draw = convolution(channels, channels, 3), nn.Conv2d(channels, 2 * LANDMARKS, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """See the class."""
        wide = functional.interpolate(self.coarse(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        maps = torch.relu(self.fine(fine) + wide)
        maps = torch.relu(self.mix(maps) + maps)
        # bf16 would put coordinates on a grid of half a pixel
        with torch.autocast(maps.device.type, enabled=False):
            score, depth = self.draw(maps.float()).chunk(2, dim=1)
            share = score.flatten(2).softmax(2).unflatten(2, score.shape[2:])
            cells = (torch.arange(score.shape[3], device=score.device) + 0.5) / score.shape[3] - 0.5
            x, y = (share.sum(2) * cells).sum(2), (share.sum(3) * cells).sum(2)
            return torch.stack([x, y, (share * depth).sum((2, 3))], 2)


def whole(channels: int, places: int, cells: int, features: int) -> nn.Sequential:
    """A map (B,channels,N,N) of N x N = cells to features (B,F): thinned to `places` channels, and kept whole."""
    return nn.Sequential(convolution(channels, places, 1), nn.ReLU(), nn.Flatten(), nn.Linear(places * cells, features))


def landmark_modes(model: MorphableModel, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean landmarks (68,3) of a head model, around their centre, and their `count` strongest modes (count,68,3) of
    unit standard deviation, if expressions have USUAL of their strength."""
    mean = model.landmarks()[0]
    moves = np.concatenate([model.at_landmarks(model.identity), USUAL * model.at_landmarks(model.expression)])
    moves = (moves - moves.mean(1, keepdims=True)).reshape(len(moves), -1)
    _, strength, axes = np.linalg.svd(moves, full_matrices=False)
    return mean - mean.mean(0), (strength[:, None] * axes)[:count].reshape(-1, LANDMARKS, 3)


class ShapeModes(nn.Module):
    """A trunk's last map (B,C,N,N) to points (B,68,3) in sides of the crop from its centre: the landmarks of the
    shipped head model, moved along their strongest modes, then turned, scaled and shifted (weak perspective)."""

    def __init__(self, channels: int, cells: int, config: SwiftConfig):
        super().__init__()
        mean, modes = landmark_modes(MorphableModel.default(), config.modes)
        if len(modes) < config.modes:
            raise RecipeError(f"`modes` is {config.modes}; at most {len(modes)}, as the head model has, are wanted")
        self.mean: Tensor
        self.modes: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("modes", torch.tensor(modes, dtype=torch.float32).flatten(1))
        self.place, self.look = (
            whole(channels, config.places, cells, config.features),
            nn.Linear(channels, config.features),
        )
        self.out = nn.Linear(config.features, 9 + len(modes))
        nn.init.normal_(self.out.weight, std=1e-3)
        extent = np.ptp(mean[:, :2], axis=0).max() * config.crop_scale
        with torch.no_grad():  # the mean head in the middle of the crop, looking at the camera
            self.out.bias.zero_()
            self.out.bias[:6] = torch.tensor(FACING)
            self.out.bias[8] = -math.log(extent)

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        hidden = torch.relu(self.place(maps) + self.look(maps.mean((2, 3))))
        turn, shift, log_scale, amounts = self.out(hidden).split([6, 2, 1, len(self.modes)], dim=1)
        shape = self.mean + (amounts @ self.modes).unflatten(1, (LANDMARKS, 3))
        turned = shape @ matrix_from_6d(turn).transpose(1, 2) * log_scale.exp()[..., None]
        return turned * turned.new_tensor([1.0, -1.0, 1.0]) + functional.pad(shift, (0, 1))[:, None]
