"""swift: the fast default. One forward pass of a small residual network regresses 68 points in 3D,
the uncertainty and visibility of each, and the rotation of the head. A point is the mean of that answer, of a
second one, from heatmaps, and of a third, the landmarks of a head model. Eyes and mouth are then cut from the same crop
around these points, and a second, smaller network on each of them corrects the points of eyes, brows and mouth and
regresses 52 expression coefficients.

Points are regressed as offsets from the mean shape, in units of the crop's side; the place in a heatmap is its mean,
and the depth there that of a map of depths (Sun et al., "Integral human pose regression", ECCV 2018); pose and shape of
the model are regressed (Zhu et al., "Face alignment across large poses: a 3D solution", CVPR 2016). On photos, which
training never shows, the answers err in different ways, and their mean errs less than each. The uncertainty is
learnt by the Laplace negative log-likelihood (Kumar et al., "LUVLi face alignment", CVPR 2020); the rotation as two
columns that Gram-Schmidt makes orthonormal (Zhou et al., "On the continuity of rotation representations in neural
networks", CVPR 2019). The uncertainty of expressions is learnt by the Gaussian likelihood, weighted by the variance
(Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation", ICLR 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.data.sample import FaceBatch
from canthus.errors import RecipeError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Alignment
from canthus.face.landmarks import scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.rotation import matrix_from_6d
from canthus.nn.trunk import Block, Trunk, convolution
from canthus.training.aligner import Aligner, AlignerConfig, Stage
from canthus.training.losses import binary_cross_entropy, laplace_nll, mean, mse

LANDMARKS = 68
UNKNOWN = ("tongueOut",)  # expressions that the rendered faces cannot have
PATCH = 48  # side of a patch around an eye or the mouth, px
USUAL = 0.25  # strength of an expression, of its end
FACING = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # two columns of the rotation of a face that looks at the camera
MIN_UP = 0.3  # heads whose upward axis is shorter in the image plane look up or down: their patches are not turned
# pairs of points whose distance is how far eyes and mouth are open
GAPS = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65), (51, 57))


@dataclass(frozen=True)
class Region:
    """A part of the face that is cut out as a patch.

    points: the landmarks that are corrected; the patch is centred on their mean. side: of the patch / face size.
    mirrored: the patch is flipped, so that one network serves both eyes.
    """

    points: tuple[int, ...]
    side: float
    mirrored: bool = False

    @property
    def signs(self) -> Tensor:
        """(2,), from the patch's axes to the face's."""
        return torch.tensor([-1.0 if self.mirrored else 1.0, 1.0])


_RIGHT = (*range(36, 42), *range(17, 22))
RIGHT_EYE = Region(_RIGHT, 0.52)
LEFT_EYE = Region(tuple(scheme("ibug68").mirror[k] for k in _RIGHT), 0.52, mirrored=True)
MOUTH = Region(tuple(range(48, 68)), 0.66)
# the rows of corrections, region after region, that belong to the 68 points; -1: none
_CORRECTED = (*RIGHT_EYE.points, *LEFT_EYE.points, *MOUTH.points)
_ROWS = [_CORRECTED.index(k) if k in _CORRECTED else -1 for k in range(LANDMARKS)]


@dataclass(frozen=True)
class SwiftConfig(AlignerConfig):
    """Sizes of the network. Raises `RecipeError` for some that do not fit each other, as `AlignerConfig` does."""

    widths: tuple[int, ...] = (16, 32, 64, 96)  # channels of the four resolutions, S/2 to S/16
    depths: tuple[int, ...] = (1, 2, 3, 3)  # residual blocks at each
    features: int = 160  # of the last hidden layer
    places: int = 24  # channels of the map that is kept whole
    heatmaps: int = 0  # channels of the branch that draws them; 0: none
    modes: int = 0  # in which the head model's landmarks move; 0: no answer from the model
    details: bool = True  # look at eyes and mouth a second time, and give expressions
    eye_features: int = 96  # of the network on a patch around an eye
    mouth_features: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"features": 1, "places": 1, "heatmaps": 0, "modes": 0, "eye_features": 1, "mouth_features": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise RecipeError(f"`{name}` is {getattr(self, name)}; {low} or more is wanted")
        if len(self.widths) < 2 or len(self.widths) != len(self.depths) or min(*self.widths, *self.depths) < 1:
            got = f"`widths` is {self.widths} and `depths` {self.depths}"
            raise RecipeError(f"{got}; as many numbers above zero in each, two or more, are wanted")
        if self.size % 2 ** len(self.widths):
            raise RecipeError(f"`size` is {self.size}; a multiple of {2 ** len(self.widths)} is wanted")


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


def _whole(channels: int, places: int, cells: int, features: int) -> nn.Sequential:
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
            _whole(channels, config.places, cells, config.features),
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


class PatchNetwork(nn.Module):
    """A patch (B,3,PATCH,PATCH) to features (B,F) and corrections (B,P,2) of its points, in sides of the patch along
    its axes."""

    def __init__(self, points: int, features: int):
        super().__init__()
        self.features = nn.Sequential(
            convolution(3, 16, 3, 2), nn.ReLU(), Block(16, 32, 2), Block(32, 64, 2), convolution(64, 24, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(24 * (PATCH // 8) ** 2, features), nn.ReLU(),
        )  # fmt: skip
        self.corrections = nn.Linear(features, points * 2)
        nn.init.normal_(self.corrections.weight, std=1e-3)
        nn.init.zeros_(self.corrections.bias)

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = self.features(patch)
        return features, self.corrections(features).unflatten(1, (-1, 2))


class Patches:
    """Upright patches of crops (B,3,S,S) around points (B,68,2), in sides of the crop from its centre.

    rotation (B,3,3) says which way is up. No gradient reaches points and rotation.
    """

    def __init__(self, crops: Tensor, points: Tensor, rotation: Tensor):
        self.crops, self.points = crops, points.detach()
        extent = self.points.amax(1) - self.points.amin(1)
        self.face_size = extent.prod(1).clamp(min=1e-4).sqrt()
        up = rotation[:, :2, 1].detach()  # with y up
        length = torch.linalg.vector_norm(up, dim=1, keepdim=True)
        up = torch.where(length > MIN_UP, up / length.clamp(min=MIN_UP), up.new_tensor([0.0, 1.0]))
        down = torch.stack([-up[:, 0], up[:, 1]], 1)
        self.axes = torch.stack([torch.stack([down[:, 1], -down[:, 0]], 1), down], 1)  # (B,2,2), rows: right, down

    def cut(self, region: Region) -> Tensor:
        """The patch (B,3,PATCH,PATCH) of a region; black outside the crop."""
        step = (torch.arange(PATCH, device=self.crops.device) + 0.5) / PATCH - 0.5
        v, u = torch.meshgrid(step, step, indexing="ij")
        places = self.offsets(torch.stack([u, v], -1).reshape(1, -1, 2), region)
        places = places + self.points[:, list(region.points)].mean(1, keepdim=True)
        grid = 2 * places.unflatten(1, (PATCH, PATCH))
        return functional.grid_sample(self.crops, grid, padding_mode="zeros", align_corners=False)

    def offsets(self, vectors: Tensor, region: Region) -> Tensor:
        """Vectors (B or 1,P,2) in sides of a region's patch as vectors (B,P,2) in sides of the crop."""
        scaled = vectors * region.signs.to(vectors.device) * (region.side * self.face_size)[:, None, None]
        return scaled @ self.axes


class Details(nn.Module):
    """Eyes and mouth, seen a second time around the points found: corrections of these points, and expressions."""

    def __init__(self, config: SwiftConfig):
        super().__init__()
        self.eye = PatchNetwork(len(RIGHT_EYE.points), config.eye_features)
        self.mouth = PatchNetwork(len(MOUTH.points), config.mouth_features)
        inputs = 2 * config.eye_features + config.mouth_features + config.features
        last = nn.Linear(192, len(EXPRESSIONS) * 2)
        self.expression = nn.Sequential(nn.Linear(inputs, 192), nn.ReLU(), last)
        nn.init.normal_(last.weight, std=1e-3)
        with torch.no_grad():
            last.bias[: len(EXPRESSIONS)] = 0.1
            last.bias[len(EXPRESSIONS) :] = -1.5  # first guess of log sigma
        self.unknown: Tensor  # NaN for expressions that no training face has
        never = [torch.nan if name in UNKNOWN else 0.0 for name in EXPRESSIONS]
        self.register_buffer("unknown", torch.tensor(never), persistent=False)

    def forward(self, patches: Patches, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """hidden: features (B,F) of the whole face. Gives corrections (B,68,2) of the points in sides of the crop,
        expressions (B,52) and their sigmas (B,52)."""
        eyes = torch.stack([patches.cut(RIGHT_EYE), patches.cut(LEFT_EYE)], 1)
        features, corrections = (v.unflatten(0, (-1, 2)) for v in self.eye(eyes.flatten(0, 1)))
        mouth, of_mouth = self.mouth(patches.cut(MOUTH))
        rows = [
            patches.offsets(values, region)
            for region, values in zip((RIGHT_EYE, LEFT_EYE, MOUTH), (*corrections.unbind(1), of_mouth))
        ]
        correction = torch.cat([*rows, torch.zeros_like(rows[0][:, :1])], 1)[:, _ROWS]
        seen = torch.cat([features.flatten(1), mouth, hidden], 1)
        value, log_sigma = self.expression(seen).chunk(2, dim=1)
        return correction, value if self.training else value + self.unknown, log_sigma.clamp(-4, 0).exp()


class Swift(Aligner):
    """See the module's docstring."""

    Config = SwiftConfig
    stage_names = ("regression", "likelihood", "details", "joint")
    needs = {"rotation": ("rotation",), "expression": ("expression",), "expression_square": ("expression",)}
    without = dict.fromkeys(
        ("distance", "regressed", "heatmaps", "modelled"), ("depth", "in the image plane alone")
    ) | {"visible": ("visibility", "by which way each point faces")}
    tells_sigma = True

    def __init__(self, config: SwiftConfig):
        super().__init__(config)
        self.trunk, channels = Trunk(config.widths, config.depths), config.widths[-1]
        cells = (config.size // 2 ** len(config.widths)) ** 2
        # Positions come from a thin map that is kept whole, appearance from the mean of all channels.
        self.place = _whole(channels, config.places, cells, config.features)
        self.look = nn.Linear(channels, config.features)
        self.out = nn.Linear(config.features, LANDMARKS * 5 + 6)
        nn.init.normal_(self.out.weight, std=1e-3)
        self.mean_shape: Tensor
        self.register_buffer("mean_shape", torch.zeros(LANDMARKS, 3))  # in crop sides from the crop's centre
        with torch.no_grad():
            self.out.bias.zero_()
            self.out.bias[LANDMARKS * 3 : LANDMARKS * 4] = -3.0  # first guess of log sigma: 5 % of the crop
            self.out.bias[-6:] = torch.tensor(FACING)
        self.heatmaps = Heatmaps(config.widths[-2], channels, config.heatmaps) if config.heatmaps else None
        self.shape = ShapeModes(channels, cells, config) if config.modes else None
        self.details = Details(config) if config.details else None
        given = {"regressed": True, "heatmaps": config.heatmaps > 0, "modelled": config.modes > 0}
        self.answers = tuple(name for name, there in given.items() if there)  # whose mean a point is

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
        *_, fine, maps = self.trunk.scales(crops)
        drawn = None if self.heatmaps is None else self.heatmaps(fine, maps)
        # bf16 would put coordinates on a grid of half a pixel: from here on full precision
        with torch.autocast(crops.device.type, enabled=False):
            maps = maps.float()
            hidden = torch.relu(self.place(maps) + self.look(maps.mean((2, 3))))
            offset, log_sigma, seen, turn = self.out(hidden).split([LANDMARKS * 3, LANDMARKS, LANDMARKS, 6], dim=1)
            rotation = matrix_from_6d(turn)
            answers = [self.mean_shape + offset.unflatten(1, (LANDMARKS, 3))]
            if drawn is not None:
                answers.append(drawn)
            if self.shape is not None:
                answers.append(self.shape(maps))
            points = torch.stack(answers).mean(0)
            expression = expression_sigma = None
            if self.details is not None:
                patches = Patches(crops.float(), points[..., :2], rotation)
                correction, expression, expression_sigma = self.details(patches, hidden)
                points = points + functional.pad(correction, (0, 1))
            size = self.config.size
            middle = torch.tensor([(size - 1) / 2, (size - 1) / 2, 0.0], device=crops.device)
            return Alignment(
                xyz=points * size + middle,
                sigma=log_sigma.clamp(-7, 0).exp() * size,
                visible=seen.sigmoid(),
                rotation=rotation,
                expression=expression,
                expression_sigma=expression_sigma,
                steps=tuple(answer * size + middle for answer in answers) if len(answers) > 1 else (),
            )

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """points: Laplace negative log-likelihood in the image plane. distance: mean 3D distance / crop side;
        regressed, heatmaps, modelled: that of each answer, if several. visible: cross-entropy. rotation: mean squared
        difference of the matrices. gaps: mean error of the vectors between lids and between lips / crop side.
        expression: Gaussian negative log-likelihood, and expression_square: squared error of the coefficients that are
        known."""
        size = self.config.size
        plane, log_sigma = alignment.xyz[..., :2] / size, (alignment.sigma[..., None] / size).log()
        upper, lower = (list(side) for side in zip(*GAPS))
        error = (alignment.xyz - truth.xyz)[..., :2] / size
        known = truth.known
        gaps = None if known is None else known[:, upper] & known[:, lower]
        terms = {
            "points": laplace_nll(plane, log_sigma, truth.xyz[..., :2] / size, known),
            "distance": _distance(alignment.xyz, truth) / size,
            "visible": binary_cross_entropy(torch.logit(alignment.visible, 1e-6), truth.visible, known),
            "rotation": mse(alignment.rotation, truth.rotation),
            "gaps": mean(torch.linalg.vector_norm(error[:, upper] - error[:, lower], dim=-1), gaps),
        }
        for name, answer in zip(self.answers, alignment.steps):
            terms[name] = _distance(answer, truth) / size
        return terms if self.details is None else terms | _expression_terms(alignment, truth.expression)

    def stages(self) -> tuple[Stage, ...]:
        """Distance first settles the points, then likelihood weighs them by their uncertainty; eyes and mouth follow,
        and last all of it together, so that the trunk learns from expressions as well."""
        whole = {"visible": 0.3, "rotation": 2.0}
        if len(self.answers) > 1:
            weights = {"regressed": 5.0, "heatmaps": 10.0, "modelled": 10.0}
            whole |= {name: weights[name] for name in self.answers}
        branches = {"heatmaps": self.heatmaps, "shape": self.shape}
        trunk = ("trunk", "place", "look", "out", *(name for name, branch in branches.items() if branch is not None))
        stages = (
            Stage("regression", {"distance": 20.0, "points": 0.05, **whole}, trunk, share=0.45),
            Stage("likelihood", {"distance": 10.0, "points": 0.5, **whole}, trunk, share=0.45),
        )
        if self.details is None:
            return stages
        terms = {"points": 0.5, "distance": 10.0, "gaps": 40.0, "expression": 5.0, "expression_square": 20.0}
        together = Stage("joint", terms | whole, (*trunk, "details"), share=0.2)
        return (*stages, Stage("details", terms, ("details",), share=0.1), together)


def _distance(xyz: Tensor, truth: FaceBatch) -> Tensor:
    """Mean distance (B,) of points (B,68,3), px; in the image plane where their depth is not known."""
    difference = xyz - truth.xyz
    if truth.known_axes is not None:
        difference = torch.where(truth.known_axes, difference, 0.0)
    return mean(torch.linalg.vector_norm(difference, dim=-1), truth.known)


def _expression_terms(alignment: Alignment, truth: Tensor | None) -> dict[str, Tensor]:
    """The terms of coefficients that both network and truth (B,52), or None, know."""
    true = torch.full_like(alignment.expression, torch.nan) if truth is None else truth
    known = torch.isfinite(true) & torch.isfinite(alignment.expression)
    deviation = torch.where(known, alignment.expression - true, 0.0)
    sigma = alignment.expression_sigma
    likelihood = (sigma.log() + 0.5 * (deviation / sigma) ** 2) * sigma.detach()
    count = known.sum(1).clamp(min=1)
    return {
        "expression": (likelihood * known).sum(1) / count,
        "expression_square": (deviation**2).sum(1) / count,
    }
