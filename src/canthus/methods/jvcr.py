"""JVCR: one volume that holds all landmarks, drawn from coarse to fine in depth, and a 3D network that reads them off.

Zhang, Li and Sun, "Joint voxel and coordinate regression for accurate 3D facial landmark localization", ICPR 2018.
G, stacked hourglasses, draws the compact volume from the picture; P, 3D convolutions, turns the volume into points.
The two first learn apart, P from true volumes, then as one. Comments name the paper's equations and sections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from canthus.codecs.volumes import encode_volume, voxel_from_crop
from canthus.data.sample import FaceBatch
from canthus.errors import RecipeError
from canthus.face.faces import Alignment
from canthus.face.landmarks import convert
from canthus.nn.hourglass import Hourglass, nearest
from canthus.nn.residual import Residual
from canthus.training.aligner import Aligner, AlignerConfig, Stage
from canthus.training.losses import binary_cross_entropy, mse

STRIDE = 4  # crop pixels per voxel


@dataclass(frozen=True)
class JvcrConfig(AlignerConfig):
    """The paper's configuration (section IV-A)."""

    size: int = 256
    crop_scale: float = 1.25
    landmarks: Literal[66, 68, 71] = 68  # 66: those of 3DFAW; 71: two eye centres and the mouth's centre more
    depths: tuple[int, ...] = (1, 2, 4, 64)  # slices of the volume that each hourglass draws
    channels: int = 256  # of the hourglasses
    levels: int = 4  # times that an hourglass halves its maps
    widths: tuple[int, ...] = (64, 128, 256, 512, 256)  # channels of the 3D convolutions
    z_range: float = 1.0  # depth of the volume / side of the crop
    voxel_loss: Literal["mse", "weighted", "bce"] = "mse"
    balance: float = 10.0  # lambda of eq. 5, where both losses are means
    training: Literal["joint", "separate"] = "joint"  # separate: without the last stage

    def __post_init__(self) -> None:
        super().__post_init__()
        self.want_multiple(STRIDE * 2**self.levels)
        for name in ("depths", "widths"):
            if min(getattr(self, name), default=0) < 1:
                raise RecipeError(f"`{name}` is {getattr(self, name)}; numbers above zero are wanted")


class VoxelNet(nn.Module):
    """G (section III-B.1): a stack of hourglasses, each of which draws the volume, the last one in full depth.

    The depth of a volume is the channels of a map. What one hourglass drew goes into the next.
    """

    def __init__(self, channels: int, levels: int, depths: tuple[int, ...]):
        super().__init__()
        c = channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, c // 4, 7, stride=2, padding=3), nn.BatchNorm2d(c // 4), nn.ReLU(), Residual(c // 4, c // 2),
            nn.MaxPool2d(2), Residual(c // 2, c), Residual(c, c),
        )  # fmt: skip
        self.hourglasses = nn.ModuleList(
            nn.Sequential(
                Hourglass(c, levels, nearest), Residual(c, c), nn.Conv2d(c, c, 1), nn.BatchNorm2d(c), nn.ReLU()
            )
            for _ in depths
        )
        self.draw = nn.ModuleList(nn.Conv2d(c, depth, 1) for depth in depths)
        self.pass_features = nn.ModuleList(nn.Conv2d(c, c, 1) for _ in depths[1:])
        self.pass_volume = nn.ModuleList(nn.Conv2d(depth, c, 1) for depth in depths[:-1])

    def forward(self, crops: Tensor) -> list[Tensor]:
        """Crops (B,3,S,S) -> G^m(I): volumes (B,d_m,S/4,S/4)."""
        x, volumes = self.stem(crops), []
        for m, (hourglass, draw) in enumerate(zip(self.hourglasses, self.draw)):
            features = hourglass(x)
            volumes.append(draw(features))
            if m < len(self.pass_volume):
                x = x + self.pass_features[m](features) + self.pass_volume[m](volumes[m])
        return volumes


class CoordinateNet(nn.Module):
    """P (section III-B.2): 3D convolutions that halve the volume, one that covers what is left, a linear layer."""

    def __init__(self, widths: tuple[int, ...], shape: tuple[int, int, int], landmarks: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, width in zip((1, *widths), widths[:-1]):
            layers += [nn.Conv3d(inputs, width, 4, stride=2, padding=1), nn.BatchNorm3d(width), nn.LeakyReLU(0.2)]
        rest = tuple(side >> len(widths) - 1 for side in shape)
        self.features = nn.Sequential(*layers, nn.Conv3d(widths[-2], widths[-1], rest), nn.Flatten())  # type: ignore[arg-type]
        self.out = nn.Linear(widths[-1], 3 * landmarks)
        nn.init.constant_(self.out.bias, 0.5)  # all points in the middle

    def forward(self, volume: Tensor) -> Tensor:
        """Volume (B,D,H,W) -> points (B,L,3) in crop sides, see `Jvcr.points_from_crop`, always float32."""
        features = self.features(volume[:, None])
        with torch.autocast(volume.device.type, enabled=False):
            return self.out(features.float()).unflatten(1, (-1, 3))


class Jvcr(Aligner):
    """See the module's docstring."""

    Config = JvcrConfig
    stage_names = ("separate", "joint")
    needs = {"voxel": ("points",)}
    without = dict.fromkeys(("voxel", "coordinate"), ("depth", "in the image plane alone"))
    config: JvcrConfig

    def __init__(self, config: JvcrConfig):
        super().__init__(config)
        self.side = config.size // STRIDE
        self.voxels = VoxelNet(config.channels, config.levels, config.depths)
        shape = (config.depths[-1], self.side, self.side)
        self.coordinates = CoordinateNet(config.widths, shape, config.landmarks)
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "mse": mse, "weighted": weighted_mse, "bce": binary_cross_entropy,
        }  # fmt: skip
        self.voxel_loss = losses[config.voxel_loss]
        own, back = landmark_maps(config.landmarks)
        self.own_from_68: Tensor
        self.register_buffer("own_from_68", own, persistent=False)
        self.all_from_own: Tensor
        self.register_buffer("all_from_own", back, persistent=False)

    def prepare(self, xyz: Tensor) -> None:
        """Start P from the mean of training shapes (N,68,3), and G, where it draws logits, from the mean voxel."""
        with torch.no_grad():
            self.coordinates.out.bias.copy_(self.points_from_crop(self.own_from_68 @ xyz.mean(0)).flatten())
            if self.config.voxel_loss == "bce":
                for draw, volume in zip(self.voxels.draw, self.true_volumes(xyz[:256])):
                    draw.bias.fill_(volume.mean().logit())  # type: ignore[operator, union-attr]

    def points_from_crop(self, xyz: Tensor) -> Tensor:
        """Crop pixels (...,L,3) in crop sides from the crop's edges: all of the crop is 0..1, and z = 0 is 0.5."""
        return xyz / self.config.size + xyz.new_tensor([0.5 / self.config.size, 0.5 / self.config.size, 0.5])

    def forward(self, crops: Tensor, start: Tensor | None = None) -> Alignment:
        """See `Aligner.forward`; `start` is not used.

        maps: G^m(I) (B,d_m,S/4,S/4), logits where the loss is cross-entropy; then the points (B,0 or 3,3) in crop
        pixels that P gives beyond the 68. score: the likelihood that the last volume gives to the voxel of a point.
        """
        volumes = self.voxels(crops)
        return self._read(volumes, self._likelihood(volumes[-1]))

    def volume_seen(self, alignment: Alignment) -> Tensor:
        """What P saw of the last volume (B,D,S/4,S/4) of an alignment, 0 to 1 where G has learnt; the first slice is
        the nearest."""
        return self._likelihood(alignment.maps[-2])

    def _likelihood(self, volume: Tensor) -> Tensor:
        """What P sees of the volume that G drew."""
        return volume.sigmoid() if self.config.voxel_loss == "bce" else volume

    def _read(self, volumes: list[Tensor], seen: Tensor) -> Alignment:
        """What P says of the volume `seen` (B,D,H,W), beside the volumes that G drew."""
        points = self.coordinates(seen)
        with torch.autocast(seen.device.type, enabled=False):
            size = self.config.size
            own = points * size - points.new_tensor([0.5, 0.5, 0.5 * size])
            xyz = self.all_from_own @ own
            voxels = voxel_from_crop(xyz, size, self.side, seen.shape[1], self.config.z_range).round().long()
            x, y = voxels[..., :2].clamp(0, self.side - 1).unbind(-1)
            index = (voxels[..., 2].clamp(0, seen.shape[1] - 1) * self.side + y) * self.side + x
            score = seen.float().flatten(1).gather(1, index).clamp(0, 1)
            return Alignment(xyz=xyz, score=score.detach(), maps=(*volumes, own[:, 68:]))

    def true_volumes(self, xyz: Tensor) -> list[Tensor]:
        """V^m (B,d_m,S/4,S/4) of true points (B,68,3), eq. 1 and 2 with a peak of 1."""
        c = self.config
        with torch.autocast(xyz.device.type, enabled=False):  # bf16 would put points on a grid of a pixel
            own = self.own_from_68 @ xyz
            return [
                encode_volume(voxel_from_crop(own, c.size, self.side, depth, c.z_range), self.side, depth)
                for depth in c.depths
            ]

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """voxel: eq. 3, a mean over the voxels of each volume, then a sum over volumes. coordinate: eq. 4, the mean
        over the coordinates, in crop sides. A volume shows all points together, so that a face with an unknown one has
        no voxel term; one without depth has that of the flat volumes."""
        return self._loss(alignment, truth, self.true_volumes(truth.xyz))

    def _loss(self, alignment: Alignment, truth: FaceBatch, true_volumes: list[Tensor]) -> dict[str, Tensor]:
        *volumes, beyond = alignment.maps
        with torch.autocast(truth.xyz.device.type, enabled=False):
            axes = self._own_axes(truth)
            levels = [self.voxel_loss(g.float(), v) for g, v in zip(volumes, true_volumes)]
            if axes is not None:
                flat, deep = axes[..., 0].all(1), axes.all((1, 2))
                levels = [value * (flat if v.shape[1] == 1 else deep) for value, v in zip(levels, true_volumes)]
            voxel = torch.stack(levels).sum(0)
            own = torch.cat([(self.own_from_68 @ alignment.xyz)[:, :68], beyond], dim=1)
            coordinate = mse(self.points_from_crop(own), self.points_from_crop(self.own_from_68 @ truth.xyz), axes)
            return {"voxel": voxel, "coordinate": coordinate}

    def _own_axes(self, truth: FaceBatch) -> Tensor | None:
        """Which coordinates (B,L,3) of the method's own points are known: those all of whose sources are."""
        axes = truth.known_axes
        return None if axes is None else (self.own_from_68 != 0).float() @ (~axes).float() == 0

    def training_terms(self, truth: FaceBatch, stage: Stage) -> dict[str, Tensor]:
        """At first P reads true volumes, then what G draws (section III-B.3)."""
        true_volumes, volumes = self.true_volumes(truth.xyz), self.voxels(truth.crops)
        seen = true_volumes[-1] if stage.teacher_forcing else self._likelihood(volumes[-1])
        return self._loss(self._read(volumes, seen), truth, true_volumes)

    def stages(self) -> tuple[Stage, ...]:
        """15 epochs of pre-training, in which the same batches teach G and P, and 10 as one network, eq. 5."""
        terms = {"voxel": 1.0, "coordinate": self.config.balance}
        separate = Stage("separate", terms, share=15, teacher_forcing=True)
        joint = Stage("joint", terms, share=10)
        return (separate, joint) if self.config.training == "joint" else (separate,)


def weighted_mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared difference (B,) of volumes (B,...) in which a voxel counts 1 + 20 truth: 0.4 % of them are
    more than nearly empty."""
    return ((1 + 20 * truth) * (prediction - truth) ** 2).flatten(1).mean(1)


def landmark_maps(count: int) -> tuple[Tensor, Tensor]:
    """Matrices (count,68) and (68,count): the points that P learns from the 68, and the 68 from them.

    66 points are those of 3DFAW, two of the 68 are then blended (`canthus.face.landmarks`). 71 are the 68 and the
    means of four points of each eyelid and of two of the inner lips: in this order right eye, left eye, mouth.
    """
    full = torch.eye(68)
    if count == 66:
        return _matrix("ibug68", "3dfaw66", 68), _matrix("3dfaw66", "ibug68", 66)
    centres = torch.stack([full[points].mean(0) for points in ([37, 38, 40, 41], [43, 44, 46, 47], [62, 66])])
    more = {68: 0, 71: 3}[count]
    return torch.cat([full, centres[:more]]), torch.eye(68, 68 + more)


def _matrix(source: str, target: str, count: int) -> Tensor:
    """What `convert` does to the `count` points of a scheme."""
    units = torch.eye(count)[..., None].expand(count, count, 2)
    return convert(units, source, target)[0][..., 0].T.contiguous()
