"""swift: the fast default. One forward pass of a small residual network regresses 68 points in 3D,
how sure it is of each, whether each can be seen, and the rotation of the head.

Points are regressed as offsets from the mean shape, in units of the crop's side. The uncertainty is learnt by the
Laplace negative log-likelihood (Kumar et al., "LUVLi face alignment", CVPR 2020); the rotation as two columns that
Gram-Schmidt makes orthonormal (Zhou et al., "On the continuity of rotation representations in neural networks",
CVPR 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from canthus.data.sample import FaceBatch
from canthus.face.faces import Alignment
from canthus.geometry.rotation import matrix_from_6d
from canthus.training.aligner import Aligner, AlignerConfig, Stage
from canthus.training.losses import binary_cross_entropy, laplace_nll, mse

LANDMARKS = 68


@dataclass(frozen=True)
class SwiftConfig(AlignerConfig):
    """Sizes of the network."""

    widths: tuple[int, ...] = (16, 32, 64, 96)  # channels of the four resolutions, S/2 to S/16
    depths: tuple[int, ...] = (1, 2, 3, 3)  # residual blocks at each
    features: int = 160  # of the last hidden layer
    places: int = 24  # channels of the map that is kept whole


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


class Swift(Aligner):
    """See the module's docstring."""

    Config = SwiftConfig

    def __init__(self, config: SwiftConfig):
        super().__init__(config)
        layers: list[nn.Module] = [convolution(3, config.widths[0], 3, 2), nn.ReLU()]
        channels = config.widths[0]
        for level, (width, depth) in enumerate(zip(config.widths, config.depths)):
            for k in range(depth):
                layers.append(Block(channels, width, 2 if k == 0 and level else 1))
                channels = width
        self.trunk = nn.Sequential(*layers)
        cells = (config.size // 2 ** len(config.widths)) ** 2
        # Where things are comes from a thin map kept whole, what they look like from the mean of all channels.
        self.place = nn.Sequential(
            convolution(channels, config.places, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(config.places * cells, config.features),
        )
        self.look = nn.Linear(channels, config.features)
        self.out = nn.Linear(config.features, LANDMARKS * 5 + 6)
        nn.init.normal_(self.out.weight, std=1e-3)
        self.mean_shape: Tensor
        self.register_buffer("mean_shape", torch.zeros(LANDMARKS, 3))  # in crop sides from the crop's centre
        with torch.no_grad():
            self.out.bias.zero_()
            self.out.bias[LANDMARKS * 3 : LANDMARKS * 4] = -3.0  # first guess of log sigma: 5 % of the crop
            self.out.bias[-6:] = torch.tensor([1.0, 0, 0, 0, 1, 0])  # a face that looks at the camera

    def prepare(self, xyz: Tensor) -> None:
        """Take the mean of training shapes (N,68,3) in crop pixels as the shape that offsets start from."""
        size = self.config.size
        middle = torch.tensor([(size - 1) / 2, (size - 1) / 2, 0.0])
        self.mean_shape.copy_((xyz.mean(0) - middle) / size)

    def scale_sigma(self, factor: float, power: float = 1.0) -> None:
        """Every sigma that is predicted from now on, in sides of the crop, becomes factor * sigma^power."""
        rows = slice(LANDMARKS * 3, LANDMARKS * 4)
        with torch.no_grad():
            self.out.weight[rows] *= power
            self.out.bias[rows] = self.out.bias[rows] * power + math.log(factor)

    def forward(self, crops: Tensor, start: Tensor | None = None) -> Alignment:
        """See `Aligner.forward`; `start` is not used."""
        maps = self.trunk(crops)
        # bf16 would put coordinates on a grid of half a pixel: from here on full precision
        with torch.autocast(crops.device.type, enabled=False):
            maps = maps.float()
            hidden = torch.relu(self.place(maps) + self.look(maps.mean((2, 3))))
            offset, log_sigma, seen, turn = self.out(hidden).split([LANDMARKS * 3, LANDMARKS, LANDMARKS, 6], dim=1)
            size = self.config.size
            middle = torch.tensor([(size - 1) / 2, (size - 1) / 2, 0.0], device=crops.device)
            return Alignment(
                xyz=(self.mean_shape + offset.unflatten(1, (LANDMARKS, 3))) * size + middle,
                sigma=log_sigma.clamp(-7, 0).exp() * size,
                visible=seen.sigmoid(),
                rotation=matrix_from_6d(turn),
            )

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """points: Laplace negative log-likelihood in the image plane. distance: mean 3D distance / crop side. visible:
        cross-entropy. rotation: mean squared difference of the matrices."""
        size = self.config.size
        apart = torch.linalg.vector_norm(alignment.xyz - truth.xyz, dim=-1)
        plane, log_sigma = alignment.xyz[..., :2] / size, (alignment.sigma[..., None] / size).log()
        return {
            "points": laplace_nll(plane, log_sigma, truth.xyz[..., :2] / size),
            "distance": apart.mean(1) / size,
            "visible": binary_cross_entropy(torch.logit(alignment.visible, 1e-6), truth.visible),
            "rotation": mse(alignment.rotation, truth.rotation),
        }

    def stages(self) -> tuple[Stage, ...]:
        """Distance first settles the points, then likelihood weighs them by how sure each can be."""
        return (
            Stage("regression", {"distance": 20.0, "points": 0.05, "visible": 0.3, "rotation": 2.0}, share=0.5),
            Stage("likelihood", {"distance": 10.0, "points": 0.5, "visible": 0.3, "rotation": 2.0}, share=0.5),
        )
