"""local_global: heatmaps drawn by stacked hourglasses with attention, then one shape regressed from all of them.

"Combining Local and Global Features for 3D Face Tracking", ICCV Workshops 2017 (Menpo 3D). The points are projections
of 3D points into the image; the paper predicts no depth, so z is 0. Its tracking loop (section 3.4) is
`canthus.inference.tracker`, for every method. Where the paper is silent or unclear, docs/methods/local_global.md says
what was chosen and why.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.codecs import (
    crop_from_map,
    decode_dark,
    decode_quarter,
    decode_soft_argmax,
    encode_gaussian,
    map_from_crop,
)
from canthus.data.sample import FaceBatch
from canthus.errors import LandmarkError, amount
from canthus.face.completion import Completion
from canthus.face.faces import Alignment
from canthus.face.landmarks import scheme
from canthus.nn.hourglass import Hourglass, deconvolution, nearest
from canthus.nn.linear import zero_linear
from canthus.nn.residual import Residual
from canthus.nn.resnet import ResNet
from canthus.training.aligner import Aligner, AlignerConfig, Stage
from canthus.training.losses import binary_cross_entropy, mean, mse

STRIDE = 4
"""Crop pixels a heatmap pixel (section 3.1: 256 and 64)."""

DEPTH = Completion(noise=0.05, iterations=3, jaw="fixed", open="none")
"""How a fitted head gives z, of which the network says nothing."""

SCHEMES = {68: "ibug68", 84: "menpo84"}
DECODERS = {"quarter": decode_quarter, "dark": decode_dark}


@dataclass(frozen=True)
class LocalGlobalConfig(AlignerConfig):
    """The paper's network by default; each row of its tables 1, 2 and 4 is a change of the keys up to `finetune`.

    size must be STRIDE * 2**depth * k, and STRIDE * 2**len(finetune_widths) * k, both with a whole k.
    """

    size: int = 256
    crop_scale: float = 1.5
    landmarks: Literal[68, 84] = 68  # of still pictures, of videos; truth must have as many
    arch: Literal["hourglass", "resnet18"] = "hourglass"  # resnet18: the first row of table 1, ignores what follows
    stem: Literal["3x3", "7x7"] = "3x3"
    deconv: Literal["k4", "k2", "dw4", "nearest"] = "k4"  # doubles sizes in the hourglass; dw4 is k4 for each channel
    after: Literal["residual", "linear"] = "residual"  # after the hourglass: two residuals, or Newell's one and 1x1
    head: Literal["module1", "module2", "module3", "module4"] = "module4"
    heatmap_loss: Literal["bce", "mse"] = "bce"
    finetune: Literal["none", "shape", "offset"] = "shape"  # offset: from the points that the heatmaps show
    stacks: int = 4
    depth: int = 4  # of an hourglass
    channels: int = 256
    radius: float = 5.0  # of the Gaussians in the target, 3 sigma, heatmap px
    decode: Literal["quarter", "dark"] = "quarter"
    finetune_widths: tuple[int, ...] = (64, 128, 256, 512)
    finetune_features: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        halved = max(self.depth, 0 if self.finetune == "none" else len(self.finetune_widths))
        if self.arch == "hourglass":
            self.want_multiple(STRIDE * 2**halved)
        self.want_positive("stacks", "depth", "channels", "radius", "finetune_features")


def first_bias(config: LocalGlobalConfig) -> float:
    """What the last convolution starts from: the log-odds of the mean pixel of the target; 0 for a squared loss."""
    if config.heatmap_loss == "mse":
        return 0.0
    sigma, side = config.radius / 3, config.size // STRIDE
    mean = 2 * math.pi * sigma**2 * (1 - math.exp(-4.5)) / side**2  # all but exp(-3**2 / 2) lies within 3 sigma
    return math.log(mean / (1 - mean))


class PlainHead(nn.Conv2d):
    """Module 1 of figure 4: a 1x1 convolution draws the N maps."""

    def __init__(self, config: LocalGlobalConfig):
        super().__init__(config.channels, config.landmarks, 1)
        nn.init.zeros_(self.weight)
        nn.init.constant_(self.bias, first_bias(config))  # type: ignore[arg-type]


class AdjacentHead(nn.Module):
    """Module 2: to the map of each point those of its neighbours are added, moved by a learnt affine map each.

    Neighbours are joined by an edge of the landmark scheme, which goes both ways. The paper names the idea only
    (its reference 29); a gate for each edge, closed at first, makes it start as module 1.
    """

    def __init__(self, config: LocalGlobalConfig):
        super().__init__()
        edges = torch.tensor(scheme(SCHEMES[config.landmarks]).edges)
        self.plain = PlainHead(config)
        self.source, self.target = torch.cat([edges, edges.flip(1)]).T
        self.affine = nn.Parameter(torch.eye(2, 3).repeat(len(self.source), 1, 1))
        self.gate = nn.Parameter(torch.zeros(len(self.source)))
        # (N,E): adds up what comes to each point; made from the scheme, so not stored
        self.into: Tensor
        self.register_buffer("into", functional.one_hot(self.target, config.landmarks).T.float(), persistent=False)

    def prepare(self, shape: Tensor) -> None:
        """Start from the offsets between the points of the mean shape (N,2) in crop sides, 2 of the grid's units."""
        with torch.no_grad():
            self.affine[:, :, 2] = 2 * (shape[self.source] - shape[self.target])

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,N,H,W)."""
        maps = self.plain(x)
        with torch.autocast(x.device.type, enabled=False):
            maps = maps.float()
            height, width = maps.shape[-2:]
            across = (2 * torch.arange(width, device=x.device) + 1) / width - 1
            down = (2 * torch.arange(height, device=x.device) + 1) / height - 1
            v, u = torch.meshgrid(down, across, indexing="ij")
            pixels = torch.stack([u, v, torch.ones_like(u)], -1).flatten(0, 1)  # (HW,3)
            grid = (pixels @ self.affine.transpose(1, 2)).unflatten(1, (height, width))  # (E,H,W,2)
            # edges are the batch and faces the channels: a face does not change how an edge moves maps
            neighbours = maps.transpose(0, 1)[self.source]
            moved = functional.grid_sample(neighbours, grid, padding_mode="border", align_corners=False)
            return maps + torch.einsum("ne,ebhw->bnhw", self.into * self.gate, moved)


class AttentionHead(nn.Module):
    """Modules 3 and 4: attention (equations 1 and 2) for each point, in module 4 after one for all points.

    Module 4 is h = sigmoid(a * x) x (equation 3), then for each point i h_i = sigmoid(a_i * h) h (equation 4) and a
    map w_i * h_i + b_i. The attention of a point is one number a pixel, so w_i * h_i = sigmoid(a_i * h) (w_i * h):
    the N modules are two convolutions. Module 3 has h = x.
    """

    def __init__(self, config: LocalGlobalConfig):
        super().__init__()
        channels, points = config.channels, config.landmarks
        self.overall = nn.Conv2d(channels, 1, 1) if config.head == "module4" else None
        self.attention = nn.Conv2d(channels, points, 1)
        self.project = nn.Conv2d(channels, points, 1, bias=False)
        # From random maps the attention, which all share, would be closed before they show anything, and stay so
        nn.init.zeros_(self.project.weight)
        self.bias = nn.Parameter(torch.full((points,), first_bias(config)))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,N,H,W)."""
        if self.overall is not None:
            x = self.overall(x).sigmoid() * x
        return self.attention(x).sigmoid() * self.project(x) + self.bias[:, None, None]


HEADS = {"module1": PlainHead, "module2": AdjacentHead, "module3": AttentionHead, "module4": AttentionHead}
UPSAMPLE = {
    "k4": lambda channels: deconvolution(channels, 4),
    "k2": lambda channels: deconvolution(channels, 2),
    "dw4": lambda channels: deconvolution(channels, 4, groups=channels),
    "nearest": nearest,
}


class Stack(nn.Module):
    """One hourglass and the maps it draws (figure 3)."""

    def __init__(self, config: LocalGlobalConfig):
        super().__init__()
        channels = config.channels
        self.hourglass = Hourglass(channels, config.depth, UPSAMPLE[config.deconv])
        linear = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        last = Residual(channels, channels) if config.after == "residual" else linear
        self.after = nn.Sequential(Residual(channels, channels), last)
        self.head = HEADS[config.head](config)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B,C,H,W) -> features of the same shape, maps (B,N,H,W)."""
        features = self.after(self.hourglass(x))
        return features, self.head(features)


class Link(nn.Module):
    """What a stack hands to the next: its input, its features and its maps, added (figure 3, Newell et al. 2016)."""

    def __init__(self, config: LocalGlobalConfig):
        super().__init__()
        self.features = nn.Conv2d(config.channels, config.channels, 1)
        self.maps = nn.Conv2d(config.landmarks, config.channels, 1)

    def forward(self, x: Tensor, features: Tensor, maps: Tensor) -> Tensor:
        """-> (B,C,H,W)."""
        return x + self.features(features) + self.maps(maps)


class HeatmapNetwork(nn.Module):
    """Section 3.1: the stem brings the crop to a quarter, then stacked hourglasses draw maps, each better than the
    one before."""

    def __init__(self, config: LocalGlobalConfig):
        super().__init__()
        channels, kernel = config.channels, int(config.stem[0])
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels // 4, kernel, 2, kernel // 2), nn.BatchNorm2d(channels // 4), nn.ReLU(),
            Residual(channels // 4, channels // 2), nn.MaxPool2d(2),
            Residual(channels // 2, channels // 2), Residual(channels // 2, channels),
        )  # fmt: skip
        self.stacks = nn.ModuleList(Stack(config) for _ in range(config.stacks))
        self.links = nn.ModuleList(Link(config) for _ in range(config.stacks - 1))

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """(B,3,S,S) -> maps (B,N,S/4,S/4) of each stack, logits where the loss is cross-entropy."""
        x = self.stem(crops)
        features, drawn = self.stacks[0](x)
        maps = [drawn]
        for link, stack in zip(self.links, self.stacks[1:]):
            x = link(x, features, drawn)
            features, drawn = stack(x)
            maps.append(drawn)
        return tuple(maps)


class Finetune(nn.Module):
    """Section 3.3: a small VGG looks at picture and heatmaps, two linear layers say the shape as one."""

    def __init__(self, config: LocalGlobalConfig):
        super().__init__()
        channels, layers = 3 + config.landmarks, list[nn.Module]()
        for width in config.finetune_widths:
            for inputs in (channels, width):
                convolution = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            channels = width
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        cells = (config.size // STRIDE // 2 ** len(config.finetune_widths)) ** 2
        self.sees_start = config.finetune == "offset"
        inputs = channels * cells + (2 * config.landmarks if self.sees_start else 0)
        self.hidden = nn.Linear(inputs, config.finetune_features)
        self.out = zero_linear(config.finetune_features, 2 * config.landmarks)

    def forward(self, crops: Tensor, heatmaps: Tensor, start: Tensor) -> Tensor:
        """Points (B,N,2) in crop sides, from those of `start` (B,N,2) and what is seen."""
        x = self.convolutions(torch.cat([functional.avg_pool2d(crops, STRIDE), heatmaps], 1))
        with torch.autocast(crops.device.type, enabled=False):
            x = torch.cat([x.float(), start.flatten(1)], 1) if self.sees_start else x.float()
            return start + self.out(torch.relu(self.hidden(x))).unflatten(1, (-1, 2))


class Baseline(nn.Module):
    """ResNet-18 that regresses the shape from the picture alone (first row of table 1)."""

    def __init__(self, config: LocalGlobalConfig):
        super().__init__()
        self.trunk = ResNet((2, 2, 2, 2), bottleneck=False)
        self.out = zero_linear(self.trunk.channels, 2 * config.landmarks)

    def forward(self, crops: Tensor, start: Tensor) -> Tensor:
        """Points (B,N,2) in crop sides, from those of `start` (B,N,2)."""
        x = self.trunk(crops).mean((2, 3))
        with torch.autocast(crops.device.type, enabled=False):
            return start + self.out(x.float()).unflatten(1, (-1, 2))


class LocalGlobal(Aligner):
    """See the module's docstring. `Alignment.maps` are the maps of each stack; with the regression, `Alignment.steps`
    are the points that the last of them shows."""

    Config = LocalGlobalConfig
    stage_names = ("heatmaps", "end_to_end", "shape")
    config: LocalGlobalConfig

    def __init__(self, config: LocalGlobalConfig):
        self.scheme = SCHEMES[config.landmarks]
        super().__init__(config)
        self.card = replace(self.card, completion=asdict(DEPTH))
        self.baseline = Baseline(config) if config.arch == "resnet18" else None
        self.heatmaps = HeatmapNetwork(config) if config.arch == "hourglass" else None
        self.finetune = Finetune(config) if config.arch == "hourglass" and config.finetune != "none" else None
        self.mean_shape: Tensor
        self.register_buffer("mean_shape", torch.zeros(config.landmarks, 2))  # in crop sides from the crop's centre

    def prepare(self, xyz: Tensor) -> None:
        """Take the mean of training shapes (M,N,3) in crop pixels as what the regression starts from."""
        if xyz.shape[1] != self.config.landmarks:
            raise LandmarkError(f"got faces with {amount(xyz.shape[1], 'point')}, want {self.config.landmarks}")
        self.mean_shape.copy_(self._sides(xyz[..., :2].mean(0)))
        for module in self.modules():
            if isinstance(module, AdjacentHead):
                module.prepare(self.mean_shape)

    def forward(self, crops: Tensor, start: Tensor | None = None) -> Alignment:
        """See `Aligner.forward`; `start` is not used."""
        # crops.shape[0], because len() would fix the batch in an export
        mean_shape = self.mean_shape.expand(crops.shape[0], -1, -1)
        if self.heatmaps is None:
            return Alignment(xyz=self._xyz(self.baseline(crops, mean_shape)))  # type: ignore[misc]
        maps = tuple(m.float() for m in self.heatmaps(crops))
        with torch.autocast(crops.device.type, enabled=False):
            heat = maps[-1].sigmoid() if self.config.heatmap_loss == "bce" else maps[-1].clamp(0, 1)
            score = heat.amax((2, 3))
            shown = self._xyz(self._sides(crop_from_map(DECODERS[self.config.decode](heat), STRIDE)))
        if self.finetune is None:
            return Alignment(xyz=shown, score=score, maps=maps)
        first = self._centroid(heat) if self.config.finetune == "offset" else mean_shape
        xyz = self._xyz(self.finetune(crops, heat, first))
        return Alignment(xyz=xyz, score=score, steps=(shown,), maps=maps)

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """heatmaps: cross-entropy, or mean squared difference, a pixel, of all stacks together. shape: mean squared
        distance / area of the true box, which is the square of what equation 5 averages (section 3.3)."""
        points, terms = truth.xyz[..., :2], {}
        if alignment.maps:
            size, radius = self.config.size // STRIDE, self.config.radius
            target = encode_gaussian(map_from_crop(points, STRIDE), size, radius / 3, radius)
            difference = binary_cross_entropy if self.config.heatmap_loss == "bce" else mse
            terms["heatmaps"] = torch.stack([difference(m, target, truth.known) for m in alignment.maps]).sum(0)
        if self.heatmaps is None or self.finetune is not None:
            area = (points.amax(1) - points.amin(1)).prod(1)
            terms["shape"] = mean(((alignment.xyz[..., :2] - points) ** 2).sum(2), truth.known) / area
        return terms

    def stages(self) -> tuple[Stage, ...]:
        """First the heatmaps; then, end to end (section 3.3), the shape too."""
        if self.heatmaps is None:
            return (Stage("shape", {"shape": 1.0}),)
        if self.finetune is None:
            return (Stage("heatmaps", {"heatmaps": 1.0}),)
        return (
            Stage("heatmaps", {"heatmaps": 1.0}, trains=("heatmaps",), share=0.7),
            Stage("end_to_end", {"heatmaps": 1.0, "shape": 1.0}, share=0.3),
        )

    def _centroid(self, heat: Tensor) -> Tensor:
        """Centres of mass (B,N,2) of squared heatmaps, in crop sides. The square keeps the many pixels of the ground
        from pulling; unlike a peak, the centre passes gradients on."""
        centres = decode_soft_argmax(heat.clamp(min=1e-6).log(), temperature=0.5)
        return self._sides(crop_from_map(centres, STRIDE))

    def _sides(self, points: Tensor) -> Tensor:
        """Crop pixels -> crop sides from the crop's centre."""
        return (points - (self.config.size - 1) / 2) / self.config.size

    def _xyz(self, sides: Tensor) -> Tensor:
        """Crop sides (B,N,2) from the crop's centre -> crop pixels (B,N,3), z 0."""
        return functional.pad(sides * self.config.size + (self.config.size - 1) / 2, (0, 1))
