"""swift: the fast default. One forward pass of a small residual network regresses 68 points in 3D,
the uncertainty and visibility of each, and the rotation of the head. A point is the mean of that answer, of a
second one, from heatmaps, and of a third, the landmarks of a head model. Eyes and mouth are then cut from the same crop
around these points, and a second, smaller network on each of them corrects the points of eyes, brows and mouth and
regresses 52 expression coefficients. These know more of how far eyes are open than the points, and move the lids.

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

import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.data.sample import FaceBatch
from canthus.face.faces import Alignment
from canthus.geometry.rotation import matrix_from_6d
from canthus.methods.swift.answers import FACING, Heatmaps, ShapeModes, whole
from canthus.methods.swift.config import LANDMARKS, SwiftConfig
from canthus.methods.swift.details import GAPS, Details, Lids, Patches
from canthus.nn.trunk import Trunk
from canthus.training.aligner import Aligner, Stage
from canthus.training.losses import binary_cross_entropy, laplace_nll, mean, mse


class Swift(Aligner):
    """See the module's docstring."""

    Config = SwiftConfig
    stage_names = ("regression", "likelihood", "details", "joint", "lids")
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
        self.place = whole(channels, config.places, cells, config.features)
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
        self.lids = Lids(config.lids) if config.lids else None
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
                if self.lids is not None:
                    points = self.lids(points, expression)
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
        difference of the matrices. gaps: mean error of the vectors between lids and between lips / crop side;
        gaps_square: its mean square.
        expression: Gaussian negative log-likelihood, and expression_square: squared error of the coefficients that are
        known."""
        size = self.config.size
        plane, log_sigma = alignment.xyz[..., :2] / size, (alignment.sigma[..., None] / size).log()
        upper, lower = (list(side) for side in zip(*GAPS))
        error = (alignment.xyz - truth.xyz)[..., :2] / size
        known = truth.known
        gaps = None if known is None else known[:, upper] & known[:, lower]
        apart = error[:, upper] - error[:, lower]
        terms = {
            "points": laplace_nll(plane, log_sigma, truth.xyz[..., :2] / size, known),
            "distance": _distance(alignment.xyz, truth) / size,
            "visible": binary_cross_entropy(torch.logit(alignment.visible, 1e-6), truth.visible, known),
            "rotation": mse(alignment.rotation, truth.rotation),
            "gaps": mean(torch.linalg.vector_norm(apart, dim=-1), gaps),
            "gaps_square": mean((apart**2).sum(-1), gaps),
        }
        for name, answer in zip(self.answers, alignment.steps):
            terms[name] = _distance(answer, truth) / size
        return terms if self.details is None else terms | _expression_terms(alignment, truth.expression)

    def stages(self) -> tuple[Stage, ...]:
        """Distance first settles the points, then likelihood weighs them by their uncertainty; eyes and mouth follow,
        then all of it together, so that the trunk learns from expressions as well, and last how far the lids move."""
        whole = {"visible": 0.3, "rotation": 2.0}
        if len(self.answers) > 1:
            weights = {"regressed": 5.0, "heatmaps": 10.0, "modelled": 10.0}
            whole |= {name: weights[name] for name in self.answers}
        branches = {"heatmaps": self.heatmaps, "shape": self.shape}
        trunk = ("trunk", "place", "look", "out", *(name for name, branch in branches.items() if branch is not None))
        stages: tuple[Stage, ...] = (
            Stage("regression", {"distance": 20.0, "points": 0.05, **whole}, trunk, share=0.45),
            Stage("likelihood", {"distance": 10.0, "points": 0.5, **whole}, trunk, share=0.45),
        )
        if self.details is None:
            return stages
        terms = {"points": 0.5, "distance": 10.0, "gaps": 40.0, "expression": 5.0, "expression_square": 20.0}
        together = Stage("joint", terms | whole, (*trunk, "details"), share=0.2)
        stages = (*stages, Stage("details", terms, ("details",), share=0.1), together)
        if self.lids is None:
            return stages
        return (*stages, Stage("lids", {"gaps_square": 1e3}, ("lids",), share=0.05))


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
