"""Eyes and mouth, seen a second time: corrections of their points, expressions, and how far the lids are open."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.face.expressions import EXPRESSIONS
from canthus.face.landmarks import scheme
from canthus.methods.swift.config import LANDMARKS, SwiftConfig
from canthus.nn.linear import zero_linear
from canthus.nn.trunk import Block, convolution

UNKNOWN = ("tongueOut",)  # expressions that the rendered faces cannot have
PATCH = 48  # side of a patch around an eye or the mouth, px
MIN_UP = 0.3  # heads whose upward axis is shorter in the image plane look up or down: their patches are not turned
# pairs of points whose distance is how far eyes and mouth are open
GAPS = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65), (51, 57))
UPPER, LOWER = ([pair[side] for pair in GAPS[:4]] for side in (0, 1))  # lids of the right eye, then of the left
CORNERS, MOUTH_CORNERS = [36, 39, 42, 45], [48, 54]
_LID_ROWS = [[*UPPER, *LOWER].index(k) if k in UPPER + LOWER else -1 for k in range(LANDMARKS)]
_OF_EYE = ("eyeBlink", "eyeSquint", "eyeWide", "eyeLookDown", "eyeLookUp", "cheekSquint", "browDown")
# columns of the expressions that tell of the right and of the left eye: its own, and the blink of the other one
OF_EYES = [
    [EXPRESSIONS.index(name + own) for name in _OF_EYE] + [EXPRESSIONS.index("eyeBlink" + other)]
    for own, other in (("Right", "Left"), ("Left", "Right"))
]


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


class Lids(nn.Module):
    """The lids, moved along the face's vertical by what points and expressions together say of how open eyes are."""

    def __init__(self, hidden: int):
        super().__init__()
        inputs = 2 + len(OF_EYES[0])
        self.moves = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), zero_linear(hidden, 2))

    def forward(self, points: Tensor, expression: Tensor) -> Tensor:
        """Points (B,68,3) of faces and expressions (B,52) -> the points with other lids."""
        seen, told = points.detach(), expression.detach()
        up = seen[:, CORNERS].mean(1) - seen[:, MOUTH_CORNERS].mean(1)
        up = functional.normalize(up, dim=1, eps=1e-6)[:, None]
        right, left = seen[:, CORNERS].unflatten(1, (2, 2)).unbind(2)
        width = torch.linalg.vector_norm(right - left, dim=2).clamp(min=1e-3)  # of both eyes (B,2)
        gaps = ((seen[:, UPPER] - seen[:, LOWER]) * up).sum(2).unflatten(1, (2, 2)).mean(2)
        ratios = gaps / width
        sides = [
            torch.cat([ratios[:, [k, 1 - k]], told[:, columns]], 1)  # of this eye first, then of the other one
            for k, columns in enumerate(OF_EYES)
        ]
        moves = self.moves(torch.stack(sides, 1)) * width[..., None]  # of the upper and the lower lid of both eyes
        by = moves.transpose(1, 2).flatten(1).repeat_interleave(2, 1)[..., None] * up  # in the order of UPPER, LOWER
        still = torch.zeros_like(by[:, :1])
        return points + torch.cat([by, still], 1)[:, _LID_ROWS]
