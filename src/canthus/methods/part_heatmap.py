"""Two-stage convolutional part heatmap regression: three networks in a row find where the landmarks are seen, say it
more exactly, and add the depth.

A. Bulat, G. Tzimiropoulos, "Two-stage convolutional part heatmap regression for the 1st 3D face alignment in the wild
(3DFAW) challenge", ECCV Workshops 2016. The first two networks are those of the authors' "Human pose estimation via
convolutional part heatmap regression", ECCV 2016 (its reference 13).

    picture -> [1] detection -> a probability map a landmark          (Sect. 2.1, sigmoid cross-entropy with discs)
    picture, [1] -> [2] regression -> a Gaussian a landmark -> x, y   (Sect. 2.1, L2)
    picture, [2] -> [3] depth -> z                                    (Sect. 2.2, Table 1, Eq. 1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.codecs import crop_from_map, decode_argmax, decode_dark, encode_disc, encode_gaussian, map_from_crop
from canthus.data.sample import FaceBatch
from canthus.errors import RecipeError
from canthus.face.faces import Alignment
from canthus.face.landmarks import convert, scheme
from canthus.nn.hourglass import deconvolution
from canthus.nn.residual import Residual
from canthus.nn.resnet import PreActResNet, ResNet
from canthus.training.aligner import Aligner, AlignerConfig, Stage
from canthus.training.losses import binary_cross_entropy, mean, mse, smooth_l1

FACE_HEIGHT = 220  # px, of the face that a disc of `disc_radius` is for (Sect. 2.1)
DETECTION_STRIDE = 16  # crop pixels a pixel of the detection trunk
Z_BEND = 0.02  # crop sides; errors of z above it count linearly where z_loss is "sides"


@dataclass(frozen=True)
class PartHeatmapConfig(AlignerConfig):
    """The defaults are the paper's; every published or implied variant is one key away.

    landmarks: 66 is the scheme of the 3DFAW challenge: iBUG 68 without the inner mouth corners, which are then put
    back from their neighbours. map_stride: crop pixels a map pixel.
    """

    size: int = 384
    crop_scale: float = 1.225  # the box extended by 20 to 25 %
    landmarks: Literal[66, 68] = 66
    map_stride: Literal[1, 2, 4] = 1
    detection_depths: tuple[int, ...] = (3, 8, 36, 3)  # ResNet-152
    detection_width: int = 64
    regression_width: int = 256
    regression_levels: int = 4
    depth_depths: tuple[int, ...] = (3, 24, 36, 3)  # pre-activation ResNet-200
    depth_width: int = 64
    depth_shortcut: Literal["raw", "activated"] = "raw"  # what shortcuts of other shapes see of their block's input
    det_head: Literal["score_deconv_conv", "deconv256_conv"] = "score_deconv_conv"
    deconv: Literal[2, 4] = 2  # kernel of the hourglass's deconvolutions
    last_deconv: Literal[4, 8] = 4  # kernel of the last deconvolution, of stride 4; those of 8 overlap, as bilinear
    prior: float = 0.5  # probability that the untrained detection gives every pixel
    disc_rule: Literal["box", "fixed"] = "box"  # radius by the height of the face, or the same for all
    disc_radius: float = 7.0  # crop px
    sigma: float = 6.0  # crop px, of the Gaussians
    xy_from: Literal["regression", "detection"] = "regression"  # "detection" leaves the second network out
    z_input: Literal["raw", "redrawn", "rgb"] = "raw"  # maps as drawn, Gaussians at their peaks, or the picture alone
    z_maps: Literal["mixed", "true"] = "mixed"  # what the depth network learns from
    z_loss: Literal["pixels", "sides"] = "pixels"  # Eq. 1, or smooth L1 in crop sides
    training: Literal["stages", "separate", "end_to_end"] = "stages"  # "separate": no joint stage
    decode: Literal["argmax", "dark"] = "argmax"
    flip_test: bool = True  # average with the mirrored picture when predicting

    def __post_init__(self) -> None:
        super().__post_init__()
        self.want_positive("regression_levels", "disc_radius", "sigma")
        if not 0 < self.prior < 1:
            raise RecipeError(f"`prior` is {self.prior}; a probability between 0 and 1 is wanted")
        self.want_multiple(math.lcm(32, self.map_stride * 4 * 2**self.regression_levels))


class Detection(nn.Module):
    """[1]: a ResNet whose last stage keeps its resolution (stride 16), then a deconvolution and a 1x1 convolution.

    Sect. 2.1. The default head scores first, so that the deconvolution works on L channels and not on 2048. The scores
    start at zero, whatever is seen, and the deconvolution as bilinear (Sect. 2.3).
    """

    def __init__(self, config: PartHeatmapConfig):
        super().__init__()
        count, enlarge = config.landmarks, DETECTION_STRIDE // config.map_stride
        self.trunk = ResNet(config.detection_depths, width=config.detection_width, last_stride=1)
        if config.det_head == "score_deconv_conv":
            score, last = nn.Conv2d(self.trunk.channels, count, 1), nn.Conv2d(count, count, 1)
            nn.init.dirac_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
            self.head = nn.Sequential(score, deconvolution(count, 2 * enlarge, count, enlarge), last)
        else:
            score = nn.Conv2d(256, count, 1)
            self.head = nn.Sequential(
                nn.ConvTranspose2d(self.trunk.channels, 256, 4, 2, 1), score,
                nn.Upsample(scale_factor=enlarge // 2, mode="bilinear"),
            )  # fmt: skip
        nn.init.zeros_(score.weight)
        nn.init.constant_(score.bias, math.log(config.prior / (1 - config.prior)))  # type: ignore[arg-type]

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (B,3,S,S) -> logits (B,L,M,M), M = S / map_stride."""
        return self.head(self.trunk(crops))


class Level(nn.Module):
    """One size of the hourglass: C channels go in and down, 2C come up and across."""

    def __init__(self, width: int, levels: int, kernel: int):
        super().__init__()
        double = 2 * width
        self.across = nn.Sequential(Residual(width, width), Residual(width, width), Residual(width, double))
        self.down = nn.Sequential(nn.MaxPool2d(2), *(Residual(width, width) for _ in range(3)))
        if levels > 1:
            inner: list[nn.Module] = [Level(width, levels - 1, kernel), Residual(double, double)]
        else:
            inner = [Residual(width, double), Residual(double, double)]
        self.inner = nn.Sequential(*inner, deconvolution(double, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,2C,H,W)."""
        return self.across(x) + self.inner(self.down(x))


class Regression(nn.Module):
    """[2]: an hourglass with learnt deconvolutions, and one more at the end back to the resolution that came in.

    Sect. 2.1. The layers are those of the authors' released pose network.
    """

    def __init__(self, config: PartHeatmapConfig):
        super().__init__()
        count, width = config.landmarks, config.regression_width
        self.stem = nn.Sequential(
            nn.Conv2d(3 + count, width // 4, 7, 2, 3), nn.BatchNorm2d(width // 4), nn.ReLU(),
            Residual(width // 4, width // 2), nn.MaxPool2d(2),
            Residual(width // 2, width // 2), Residual(width // 2, width // 2), Residual(width // 2, width),
        )  # fmt: skip
        self.hourglass = Level(width, config.regression_levels, config.deconv)
        self.head = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, width, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, count, 1), deconvolution(count, config.last_deconv, stride=4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Picture and probabilities (B,3+L,M,M) -> heatmaps (B,L,M,M)."""
        return self.head(self.hourglass(self.stem(x)))


class Depth(nn.Module):
    """[3]: a pre-activation ResNet on picture and maps, pooled, then one linear layer. Sect. 2.2, Table 1.

    Filters on the maps and the linear layer start as N(0, 0.01^2) (Sect. 2.3).
    """

    def __init__(self, config: PartHeatmapConfig):
        super().__init__()
        maps = 0 if config.z_input == "rgb" else config.landmarks
        self.trunk = PreActResNet(
            config.depth_depths, 3 + maps, config.depth_width, config.depth_shortcut == "activated"
        )
        self.out = nn.Linear(self.trunk.channels, config.landmarks)
        with torch.no_grad():
            self.trunk.stem[0].weight[:, 3:].normal_(std=0.01)  # type: ignore[index,operator]
            self.out.weight.normal_(std=0.01)
            self.out.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(B,3+L,M,M), or (B,3,M,M) -> (B,L)."""
        return self.out(self.trunk(x).mean((2, 3)))


class PartHeatmap(Aligner):
    """See the module's docstring. `maps` of an alignment: logits of the detection, then the maps that x, y are read
    from, both (B,L,M,M); `score` is the peak of the latter."""

    Config = PartHeatmapConfig
    stage_names = ("detection", "regression", "joint", "depth", "end_to_end")
    needs = {"depth": ("depth",)}
    config: PartHeatmapConfig

    def __init__(self, config: PartHeatmapConfig):
        super().__init__(config)
        self.detection = Detection(config)
        if config.xy_from == "regression":
            self.regression = Regression(config)
        self.depth = Depth(config)
        self.own_scheme = {66: "3dfaw66", 68: "ibug68"}[config.landmarks]
        self.map_size = config.size // config.map_stride

    def forward(self, crops: Tensor, start: Tensor | None = None) -> Alignment:
        """See `Aligner.forward`; `start` is not used."""
        logits, maps = self._draw(crops)
        if self.config.flip_test and not self.training:
            turned = crops.flip(-1)
            maps = (maps + self._mirrored(self._draw(turned)[1])) / 2
            seen = (self._see_depth(crops, maps), self._see_depth(turned, self._mirrored(maps))[:, self._mirror()])
            z = (seen[0] + seen[1]) / 2
        else:
            z = self._see_depth(crops, maps)
        with torch.autocast(crops.device.type, enabled=False):
            xy = crop_from_map(self._peaks(maps), self.config.map_stride)
            points = convert(torch.cat([xy, z[..., None]], -1), self.own_scheme, "ibug68")[0]
            middle = points[..., 2:].mean(1, keepdim=True)
            peak = maps.float().amax((2, 3)).clamp(0, 1)
            return Alignment(
                xyz=torch.cat([points[..., :2], points[..., 2:] - middle], -1),
                score=convert(torch.stack([peak, peak], -1), self.own_scheme, "ibug68")[0][..., 0],
                maps=(logits, maps),
            )

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """detection: cross-entropy a pixel. regression: squared difference a pixel. depth: Eq. 1, in pixels^2."""
        logits, maps = alignment.maps
        z = self._points(alignment.xyz)[..., 2]
        terms = {"detection": self._detection_loss(logits, truth), "depth": self._depth_loss(z, truth)}
        return terms | ({"regression": self._regression_loss(maps, truth)} if self._regresses else {})

    def training_terms(self, truth: FaceBatch, stage: Stage) -> dict[str, Tensor]:
        """See `Aligner.training_terms`. Only the networks that `stage` needs are run; the depth network sees its
        forerunners' maps of half the faces of the batch, drawn by lot, and true maps of the rest (Sect. 2.3)."""
        terms, maps = {}, None
        if stage.terms.keys() & {"detection", "regression"}:
            logits = self.detection(truth.crops)
            if "detection" in stage.terms:
                terms["detection"] = self._detection_loss(logits, truth)
            if "regression" in stage.terms:
                maps = self._refine(truth.crops, logits)
                terms["regression"] = self._regression_loss(maps, truth)
        if "depth" in stage.terms:
            given = self._gaussians(truth)
            if self.config.z_maps == "mixed" and self.config.z_input != "rgb":
                chosen = torch.randperm(len(given), device=given.device)[: len(given) // 2]
                own = self._draw(truth.crops[chosen])[1] if maps is None else maps[chosen]
                given = given.index_copy(0, chosen, own.float())
            terms["depth"] = self._depth_loss(self._see_depth(truth.crops, given), truth)
        return terms

    def stages(self) -> tuple[Stage, ...]:
        """Each network alone, those for x, y together, the depth (Sect. 2.3); shares are those of the paper's steps.

        The heatmap losses are means over pixels, and so is the detection's alone: a sum over 147,456 pixels under plain
        gradient descent at the paper's rate diverges. Beside the regression its weight makes it a sum, as the other is.
        """
        pixels = float(self.map_size**2)
        detection, regression, depth = {"detection": pixels}, {"regression": pixels}, {"depth": 1.0}
        if not self._regresses:
            regression = {}
        if self.config.training == "end_to_end":
            return (Stage("end_to_end", detection | regression | depth),)
        stages = [Stage("detection", {"detection": 1.0}, ("detection",), 30)]
        if self._regresses:
            stages.append(Stage("regression", regression, ("regression",), 30))
            if self.config.training == "stages":
                stages.append(Stage("joint", detection | regression, ("detection", "regression"), 30))
        return (*stages, Stage("depth", depth, ("depth",), 50))  # 100 epochs of batches twice as large

    @property
    def _regresses(self) -> bool:
        return self.config.xy_from == "regression"

    def _draw(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the detection and the maps that x, y are read from, (B,L,M,M)."""
        logits = self.detection(crops)
        return logits, self._refine(crops, logits) if self._regresses else logits.sigmoid()

    def _refine(self, crops: Tensor, logits: Tensor) -> Tensor:
        return self.regression(torch.cat([self._picture(crops), logits.sigmoid()], 1))

    def _see_depth(self, crops: Tensor, maps: Tensor) -> Tensor:
        """z (B,L) in crop pixels, of any mean."""
        if self.config.z_input == "rgb":
            seen = self._picture(crops)
        else:
            if self.config.z_input == "redrawn":
                maps = encode_gaussian(self._peaks(maps), self.map_size, self.config.sigma / self.config.map_stride)
            seen = torch.cat([self._picture(crops), maps.to(crops.dtype)], 1)
        return self.depth(seen).float() * (self.config.size if self.config.z_loss == "sides" else 1)

    def _picture(self, crops: Tensor) -> Tensor:
        """The crops in the resolution of the maps."""
        return functional.avg_pool2d(crops, self.config.map_stride)

    def _peaks(self, maps: Tensor) -> Tensor:
        """Where maps (B,L,M,M) are highest, (B,L,2) map pixels."""
        return (decode_argmax if self.config.decode == "argmax" else decode_dark)(maps.float())

    def _mirror(self) -> Tensor:
        return torch.tensor(scheme(self.own_scheme).mirror)

    def _mirrored(self, maps: Tensor) -> Tensor:
        """Maps (B,L,M,M) of the mirrored picture as those of the picture, or the other way round."""
        return maps.flip(-1)[:, self._mirror()]

    def _points(self, xyz: Tensor) -> Tensor:
        """The method's own landmarks (B,L,3) of 68."""
        return convert(xyz, "ibug68", self.own_scheme)[0]

    def _gaussians(self, truth: FaceBatch) -> Tensor:
        """True maps (B,L,M,M): Gaussians of standard deviation `sigma` and peak 1 (Sect. 2.2)."""
        stride = self.config.map_stride
        return encode_gaussian(
            map_from_crop(self._points(truth.xyz)[..., :2], stride), self.map_size, self.config.sigma / stride
        )

    def _detection_loss(self, logits: Tensor, truth: FaceBatch) -> Tensor:
        """Sigmoid cross-entropy a pixel with binary discs (Sect. 2.1), (B,)."""
        c = self.config
        y = truth.xyz[..., 1]
        faces = (y.amax(1) - y.amin(1)) / FACE_HEIGHT if c.disc_rule == "box" else torch.ones_like(y[:, 0])
        centers = map_from_crop(self._points(truth.xyz)[..., :2], c.map_stride)
        discs = encode_disc(centers, self.map_size, (c.disc_radius / c.map_stride * faces)[:, None, None, None])
        with torch.autocast(logits.device.type, enabled=False):
            return binary_cross_entropy(logits.float().contiguous(), discs, self._known(truth.known))

    def _regression_loss(self, maps: Tensor, truth: FaceBatch) -> Tensor:
        """Squared difference a pixel to Gaussians (Sect. 2.1), (B,)."""
        with torch.autocast(maps.device.type, enabled=False):
            return mse(maps.float().contiguous(), self._gaussians(truth), self._known(truth.known))

    def _depth_loss(self, z: Tensor, truth: FaceBatch) -> Tensor:
        """Eq. 1 (B,), or its smooth form in crop sides; both depths with their mean over what is known taken off."""
        true = self._points(truth.xyz)[..., 2]
        known = self._known(truth.known)
        z, true = (values - mean(values, known)[:, None] for values in (z, true))
        if self.config.z_loss == "pixels":
            return mse(z, true, known)
        return smooth_l1(z / self.config.size, true / self.config.size, Z_BEND, known)

    def _known(self, known: Tensor | None) -> Tensor | None:
        """Which of the method's own landmarks (B,L) are known, of which of 68 (B,68) are."""
        if known is None:
            return None
        return self._points(known[..., None].expand(*known.shape, 2).float())[..., 0] > 0.99
