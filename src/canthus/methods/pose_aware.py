"""pose_aware: landmarks that every pose shows from a network, the others from a head model fitted to those.

Li, Li, Cui, Zha, "Pose-Aware Face Alignment based on CNN and 3DMM", BMVC 2019. A first network finds rough
landmarks; they tell where the face looks and how it lies in the crop. A similarity, and a mirror for faces that look
to the left of the picture, bring it into one normal frame, in which a second network finds the *stable* landmarks,
those of the half of the face that can be seen. A head model fitted to these gives the *unstable* rest:
`completion.complete`, a step in NumPy after the network, whatever runs it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from canthus.data.augment import warp_batch
from canthus.data.balance import PoseSpace, balanced_weights, coefficient, pose_space
from canthus.data.sample import FaceBatch
from canthus.errors import RecipeError
from canthus.face.completion import Completion
from canthus.face.faces import Alignment
from canthus.face.landmarks import convert, scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import Crop
from canthus.geometry.projection import project
from canthus.geometry.rotation import matrix_from_euler
from canthus.geometry.similarity import apply, fit_similarity, invert
from canthus.nn.resnet import IMAGENET, ResNet
from canthus.training.aligner import Aligner, AlignerConfig, Stage
from canthus.training.losses import wing

SCHEMES = {68: "ibug68", 19: "aflw19"}
SEMIFACE = (*range(17, 22), *range(27, 34), *range(36, 42), *range(48, 52), *range(57, 63), 66, 67)
"""Figure 2: the 30 landmarks of brow, eye, nose and mouth on the image's left and on the midline."""
SEMIFACE_19 = (0, 1, 2, 6, 7, 8, 12, 13, 15, 16, 18)
"""The same of the 19 points of AFLW, with the chin: eleven."""
INNER = {68: slice(17, 68), 19: slice(0, 18)}  # all but the jaw, which the similarity is fitted to
UNIT = 224  # px; wing loss and network outputs have the scale of a crop of this side
SPAN = 0.62  # longer side of the mean face in the normal frame / side of the frame
FRONTAL = 1 / 9  # faces turned by less than this share of the most are frontal
JITTER = {"turn": np.deg2rad(3.0), "zoom": 0.04, "shift": 0.03}  # how far a first network's frame is off, one deviation


@dataclass(frozen=True)
class PoseAwareConfig(AlignerConfig):
    """The paper's configuration; its ablations change one key each.

    landmarks: of the networks, 68 or the 19 of AFLW, from which the fitted head gives all 68. second: what the second
    network places: the "stable" landmarks, "all" (no head model for any), or "none": there is one network only. extra:
    stable landmarks besides `SEMIFACE`, in the numbers of the 68. bins: of the pose that batches are balanced over, 1
    for no balance; oversampling: how many times as often as without it a face comes at most. jaw, evidence, noise,
    iterations: of `completion.Completion`. omega, epsilon: of the wing loss, in pixels of a crop of 224. gain: such
    pixels a unit that the last layers say; optimisers of the Adam family, whose steps do not grow with the loss, want
    more than one. depths, width, bottleneck: of both ResNets.
    """

    size: int = 224
    crop_scale: float = 1.0
    landmarks: Literal[68, 19] = 68
    second: Literal["stable", "all", "none"] = "stable"
    extra: tuple[int, ...] = (22, 35, 45, 54)  # inner end of the brow, nose wing, outer corners of eye and mouth
    bins: int = 9
    oversampling: float = 1000.0
    jaw: Literal["fixed", "soft"] = "soft"
    evidence: float = 0.0
    noise: float = 0.068  # eos with lambda 30 and a variance of 3 px^2: sqrt(90) px of a face of 139 px
    iterations: int = 30
    omega: float = 18.0
    epsilon: float = 3.0
    gain: float = 1.0
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    bottleneck: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= k < 68 for k in self.extra):
            raise RecipeError(f"`extra` is {self.extra}; numbers of the 68 landmarks, 0 to 67, are wanted")
        self.want_positive("bins", "oversampling", "omega", "epsilon", "gain", "width")


class Regressor(nn.Module):
    """ResNet, mean over the map, one linear layer: (B,3,S,S) RGB 0..1 -> points (B,P,2) in crop pixels."""

    def __init__(self, config: PoseAwareConfig, points: int):
        super().__init__()
        self.unit = config.gain * config.size / UNIT  # crop pixels
        self.trunk = ResNet(config.depths, width=config.width, bottleneck=config.bottleneck, normalised=True)
        self.out = nn.Linear(self.trunk.channels, points * 2)
        nn.init.normal_(self.out.weight, std=1e-3)
        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = (torch.tensor(values).reshape(3, 1, 1) for values in IMAGENET)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def start_from(self, points: Tensor) -> None:
        """Let the last layer begin with `points` (P,2)."""
        with torch.no_grad():
            self.out.bias.copy_(points.flatten() / self.unit)

    def forward(self, crops: Tensor) -> Tensor:
        """See the class."""
        maps = self.trunk((crops - self.mean) / self.deviation)
        with torch.autocast(crops.device.type, enabled=False):
            return self.out(maps.float().mean((2, 3))).unflatten(1, (-1, 2)) * self.unit


class Frame(NamedTuple):
    """The normal frame of B faces (Figure 4): `crop` lies in the network's crop; where `left` (B,) it is mirrored."""

    crop: Crop
    left: Tensor

    def picture(self, crops: Tensor) -> Tensor:
        """The faces (B,3,S,S) in the normal frame."""
        warped = warp_batch(crops, self.crop)
        return torch.where(self.left[:, None, None, None], warped.flip(-1), warped)


class PoseAware(Aligner):
    """See the module's docstring."""

    Config = PoseAwareConfig
    stage_names = ("rough", "stable")
    config: PoseAwareConfig

    def __init__(self, config: PoseAwareConfig):
        self.scheme = SCHEMES[config.landmarks]
        super().__init__(config)
        how = Completion(config.noise, config.iterations, config.jaw, evidence=config.evidence)
        if config.landmarks == 19:
            how = replace(how, points="aflw19")
        self.card = replace(self.card, completion=asdict(how), scheme="ibug68")
        placed = _stable(config) if config.second == "stable" else range(config.landmarks)
        self.rough = Regressor(config, config.landmarks)
        if config.second != "none":
            self.stable = Regressor(config, len(placed))
        self.ids: Tensor  # landmarks that the last network places, in the normal frame's numbering
        self.slots: Tensor  # where among them a landmark is; anything for those it does not place
        self.placed: Tensor
        self.mirror: Tensor
        self.register_buffer("ids", torch.tensor([*placed]), persistent=False)
        is_placed = torch.zeros(config.landmarks).index_fill(0, self.ids, 1.0)
        self.register_buffer("placed", is_placed, persistent=False)
        self.register_buffer("slots", (is_placed.cumsum(0) - 1).clamp(min=0).long(), persistent=False)
        self.register_buffer("mirror", torch.tensor(scheme(self.scheme).mirror), persistent=False)
        self.mean_shape: Tensor  # (L,2) the Procrustes mean
        self.pose_axis: Tensor  # (L,2)
        self.frontal: Tensor  # () coefficient that a frontal face keeps below
        self.right_shape: Tensor  # (L,2) mean of the faces that are not mirrored, in the normal frame
        self.register_buffer("frontal", torch.zeros(()))
        for name in ("mean_shape", "pose_axis", "right_shape"):
            self.register_buffer(name, torch.zeros(config.landmarks, 2))
        self.prepare(_turned_mean_heads(config.size, self.scheme))

    def prepare(self, xyz: Tensor) -> None:
        """Learn from training shapes (N,L,3) in crop pixels what turns left and right, and where networks begin."""
        shapes = xyz[..., :2].double().cpu()
        space = pose_space(shapes.numpy(), self.scheme)
        turned = np.abs(coefficient(shapes.numpy(), space))
        frontal = turned[turned <= max(np.percentile(turned, 99) * FRONTAL, turned.min())]
        self.mean_shape.copy_(torch.from_numpy(space.mean))
        self.pose_axis.copy_(torch.from_numpy(space.axis))
        self.frontal.fill_(float(np.median(frontal)))
        shapes = shapes.to(self.mean_shape)
        right = torch.where(self._looks_left(shapes)[:, None, None], self._mirrored(shapes), shapes)
        right = apply(fit_similarity(right, self.mean_shape.expand_as(right)), right).mean(0)
        low, high = right.amin(0), right.amax(0)
        size = self.config.size
        self.right_shape.copy_((right - (low + high) / 2) / (high - low).amax() * SPAN * size + (size - 1) / 2)
        self.rough.start_from(shapes.mean(0))
        if self.config.second != "none":
            self.stable.start_from(self.right_shape[self.ids])

    def sampling_weights(self, xyz: Tensor) -> Tensor | None:
        """Section 3.3, balancing in the mini-batch: bins of the 1-D pose of all training shapes (N,L,3)."""
        if self.config.bins == 1:
            return None
        shapes = xyz[..., :2].double().cpu().numpy()
        values = coefficient(shapes, pose_space(shapes, self.scheme))
        return torch.from_numpy(balanced_weights(values, self.config.bins, self.config.oversampling))

    def forward(self, crops: Tensor, start: Tensor | None = None) -> Alignment:
        """See `Aligner.forward`; `start` is not used.

        What the networks say: z is 0. score is 1 for landmarks that the last network placed, 0 for those
        that `Predictor.finish` will complete and that are rough till then. steps: the rough landmarks.
        """
        rough = self.rough(crops)
        score = self.placed.expand(crops.shape[0], -1)  # len would fix the batch in an export
        if self.config.second == "none":
            return Alignment(_flat(rough), score=score)
        with torch.autocast(crops.device.type, enabled=False):
            frame = self._frame(rough.detach())
            picture = frame.picture(crops.float())
        fine = self.stable(picture)
        with torch.autocast(crops.device.type, enabled=False):
            score = torch.where(frame.left[:, None], score[:, self.mirror], score)
            xy = torch.where(score[..., None] > 0, self._from_frame(fine[:, self.slots], frame), rough)
        return Alignment(_flat(xy), score=score, steps=(_flat(rough),))

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """rough: wing loss of the first network's points. stable: that of the second one's, in the normal frame."""
        rough = alignment.steps[0] if alignment.steps else alignment.xyz
        terms = {"rough": self._wing(rough[..., :2], truth.xyz[..., :2], truth.known)}
        if self.config.second != "none":
            with torch.autocast(rough.device.type, enabled=False):
                frame = self._frame(rough[..., :2].detach())
                predicted, true = (self._into_frame(p[..., :2], frame)[:, self.ids] for p in (alignment.xyz, truth.xyz))
            terms["stable"] = self._wing(predicted, true, self._known_in(frame, truth))
        return terms

    def training_terms(self, truth: FaceBatch, stage: Stage) -> dict[str, Tensor]:
        """The second network learns from true frames, shaken as much as a first network's are off."""
        if "rough" in stage.terms:
            return {"rough": self._wing(self.rough(truth.crops), truth.xyz[..., :2], truth.known)}
        with torch.autocast(truth.crops.device.type, enabled=False):  # bf16 would move the picture by pixels
            frame = self._shaken_frame(truth.xyz[..., :2])
            true = self._into_frame(truth.xyz[..., :2], frame)[:, self.ids]
            picture = frame.picture(truth.crops)
        return {"stable": self._wing(self.stable(picture), true, self._known_in(frame, truth))}

    def stages(self) -> tuple[Stage, ...]:
        """One network after the other; the weights turn means over coordinates into the paper's sums."""
        rough = Stage("rough", {"rough": 2.0 * self.config.landmarks}, trains=("rough",))
        stable = Stage("stable", {"stable": 2.0 * len(self.ids)}, trains=("stable",))
        return (rough,) if self.config.second == "none" else (rough, stable)

    def _wing(self, predicted: Tensor, true: Tensor, known: Tensor | None) -> Tensor:
        unit = self.config.size / UNIT
        return wing(predicted / unit, true / unit, self.config.omega, self.config.epsilon, known)

    def _known_in(self, frame: Frame, truth: FaceBatch) -> Tensor | None:
        """Which of the second network's points (B,P) are known of faces that it sees in a frame; None if all are."""
        if truth.known is None:
            return None
        return torch.where(frame.left[:, None], truth.known[:, self.mirror], truth.known)[:, self.ids]

    # The spatial transform (Section 3.3, Figure 4)

    def _looks_left(self, shapes: Tensor, doubt: Tensor | float = 0.0) -> Tensor:
        return coefficient(shapes, PoseSpace(self.mean_shape, self.pose_axis)) + doubt < -self.frontal

    def _frame(self, shapes: Tensor, doubt: Tensor | float = 0.0) -> Frame:
        """The frame that brings shapes (B,L,2) in crop pixels nearest to the mean right-looking one."""
        left = self._looks_left(shapes, doubt)
        target = torch.where(left[:, None, None], self._mirrored(self.right_shape[None]), self.right_shape)
        inner = INNER[self.config.landmarks]
        normal = fit_similarity(shapes[:, inner], target[:, inner])
        middle = torch.full_like(normal.shift, (self.config.size - 1) / 2)
        centre = apply(invert(normal), middle[:, None])[:, 0]
        angle = -torch.atan2(normal.rotation[:, 1, 0], normal.rotation[:, 0, 0])
        return Frame(Crop(centre, self.config.size / normal.scale, angle, self.config.size), left)

    def _shaken_frame(self, shapes: Tensor) -> Frame:
        turn, zoom, x, y, doubt = torch.randn(5, len(shapes), device=shapes.device)
        crop, left = self._frame(shapes, doubt * self.frontal / 2)
        centre = crop.center + JITTER["shift"] * SPAN * crop.side[:, None] * torch.stack([x, y], 1)
        side, angle = crop.side * (JITTER["zoom"] * zoom).exp(), crop.angle + JITTER["turn"] * turn
        return Frame(Crop(centre, side, angle, crop.size), left)

    def _mirrored(self, points: Tensor) -> Tensor:
        """Points (B,L,2) of pictures mirrored left to right; `landmarks.mirror` in a form that can be exported."""
        return torch.stack([self.config.size - 1 - points[..., 0], points[..., 1]], -1)[:, self.mirror]

    def _into_frame(self, points: Tensor, frame: Frame) -> Tensor:
        inside = frame.crop.crop_from_image(points)
        return torch.where(frame.left[:, None, None], self._mirrored(inside), inside)

    def _from_frame(self, points: Tensor, frame: Frame) -> Tensor:
        return frame.crop.image_from_crop(torch.where(frame.left[:, None, None], self._mirrored(points), points))


def _flat(points: Tensor) -> Tensor:
    return torch.cat([points, torch.zeros_like(points[..., :1])], -1)


def _stable(config: PoseAwareConfig) -> list[int]:
    """The numbers of the stable landmarks in the scheme of the configuration."""
    if config.landmarks == 68:
        return sorted({*SEMIFACE, *config.extra})
    own = torch.eye(68)[list(config.extra)][..., None].expand(-1, -1, 2)  # an extra point is one of the 19 or is not
    return sorted({*SEMIFACE_19, *torch.nonzero(convert(own, "ibug68", "aflw19")[0][..., 0] == 1)[:, 1].tolist()})


def _turned_mean_heads(size: int, points: str) -> Tensor:
    """The shipped model's mean head (91,L,3) under yaws of -90 to 90 degrees: training shapes before any are seen."""
    yaw = np.deg2rad(np.linspace(-90, 90, 91))
    rotation = matrix_from_euler(np.stack([0 * yaw, yaw, 0 * yaw], -1), "aflw")
    head = np.repeat(MorphableModel.default().landmarks().astype(np.float64), len(yaw), 0)
    scale = np.full(len(yaw), 0.7 * size / np.ptp(head[0, :, 1]))
    placed = project(head - head.mean(1, keepdims=True), rotation, scale, np.full((len(yaw), 2), (size - 1) / 2))
    return torch.from_numpy(convert(placed, "ibug68", points)[0]).float()
