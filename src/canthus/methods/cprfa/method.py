"""cprfa: a U-Net paints each pixel of a face with the code of the vertex it shows; convolutional networks read the
relations between the vertices found there, and update shape and pose of a morphable model one after the other.

Wu, Ha, Xu, Kakadiaris, "Convolutional point-set representation: a convolutional bridge between a densely annotated
image and 3D face alignment", arXiv 1803.06542. The representations are in `pointset`, the face model in `linear_face`,
what the paper leaves open in docs/methods/cprfa.md.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from canthus.data.sample import FaceBatch
from canthus.errors import RecipeError
from canthus.face.faces import Alignment
from canthus.face.landmarks import scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import tight_boxes
from canthus.geometry.projection import fit_weak_perspective
from canthus.geometry.rotation import euler_from_matrix
from canthus.inference.predictor import Predictor, points_within
from canthus.inference.runtime import OnnxAligner
from canthus.methods.cprfa import pointset
from canthus.methods.cprfa.linear_face import LinearFace, normalised, pixels
from canthus.methods.cprfa.losses import dense_loss, round_loss
from canthus.methods.cprfa.pncc import lookup_forward, lookup_reverse, lookup_soft
from canthus.methods.cprfa.unet import UNet
from canthus.methods.cprfa.updates import Round, Sample, Streams, UpdateConfig
from canthus.training.aligner import WEIGHTS_FILE, Aligner, AlignerConfig, Stage
from canthus.weights import find

HELD_OUT = 100  # the last of so many faces is no training face, but shows which vertices are found


@dataclass(frozen=True)
class CprfaConfig(UpdateConfig, AlignerConfig):
    """The paper's configuration, where the paper says."""

    size: int = 256
    crop_scale: float = 1.375
    model: str = ""  # file of a `MorphableModel`; none: the default head
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)  # of the U-Net
    depths: tuple[int, ...] = ()  # residual blocks of each width on its way down; none: the printed convolutions
    code_loss: Literal["all", "foreground"] = "all"  # pixels whose codes are learnt
    lookup: Literal["forward", "reverse", "soft"] = "forward"  # from pixels to vertices, or from vertices to pixels
    threshold: float = 0.01  # of codes that match
    softness: float = 0.05  # of the soft lookup: how unlike the codes of pixels may be that place a vertex together
    spacing: float = 0.0  # between chosen vertices, in the model's unit
    share: float = 0.1  # kappa: of the vertices, those that reprojection errors are measured on
    solver: Literal["pnp-sparse", "pnp-dense", "cpr", "cpr-fused", "cpr-capu", "cpr-fused-capu"] = "cpr-fused-capu"
    sparse: str = "swift"  # weights of the detector of 68 points that is fused
    fits: int = 0  # of the head to the fused points, where the updates begin; none: the mean head from the front
    sparse_noise: float = 0.02  # standard deviation of what stands in for it in training, in face sizes
    detected: float = 0.0  # share of training faces for which nothing stands in
    lost: float = 0.0  # share of training faces that lack some of the sparse points, one in five of these all
    shaken: float = 0.0  # deviation of what training adds to the pose before round 2: radians, shares, half crops
    regression: Literal["parameters", "vertices"] = "parameters"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depths and len(self.depths) != len(self.widths):
            raise RecipeError(f"`depths` is {self.depths}; as many as `widths`, which is {self.widths}, are wanted")
        self.want_multiple(2 ** (len(self.widths) - (0 if self.depths else 1)))
        self.want_positive("vertices", "recurrences", "samples", "hidden")


class Cprfa(Aligner):
    """See the module's docstring."""

    Config = CprfaConfig
    stage_names = ("dense", "round_1", "round_2")
    needs = dict.fromkeys(("codes", "mask", "points", *stage_names[1:]), ("depth", "points"))
    config: CprfaConfig
    unrolled = True
    parity = 0.1  # where two pixels match a vertex alike, the last digit decides between them (not in a soft lookup)
    layout: Tensor
    sparse_layout: Tensor
    picked: Tensor
    steps: Tensor
    seen: Tensor
    found: Tensor
    closeness: Tensor

    def __init__(self, config: CprfaConfig):
        super().__init__(config)
        model = MorphableModel.load(config.model) if config.model else MorphableModel.default()
        self.face = LinearFace(model, config.crop_scale)
        if not config.model:  # see `_dense_truth`
            terms = ("codes", "mask", *self.stage_names[1:])
            self.without = dict.fromkeys(terms, ("vertices", "by fits to the landmarks"))
        self.unet = UNet(config.widths, 5, config.depths)  # three codes, background and face
        self.fused = "fused" in config.solver or config.solver == "pnp-sparse"
        self.starter = config.sparse if self.fused else None
        streams = 2 if self.fused else 1
        if config.solver.startswith("cpr"):
            self.round_1 = Round(self.face.coefficients, streams, False, config)
        self.weighed = config.solver.endswith("capu")  # the second round weighs its steps by errors on their path
        if self.weighed:
            self.round_2 = Round(self.face.coefficients, streams, True, config)
        count, n = len(self.face.region), config.vertices // 2
        # the chosen vertices of the region; how many counts there were; how many faces were looked at by yaw, on how
        # many of these each vertex of the region was found, how near to the truth
        self.register_buffer("layout", torch.zeros(3, n, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("found", torch.zeros(3, count))
        self.register_buffer("closeness", torch.zeros(count))
        self._choose(torch.rand(count, generator=torch.Generator().manual_seed(0)))
        ids, right = torch.arange(68), self.face.mean[-68:, 0] < 0
        midline = torch.tensor(scheme("ibug68").mirror) == ids
        rows = [ids[right | midline], ids[~right | midline], ids]
        self.register_buffer("sparse_layout", pointset.repeated_layout(rows, n))
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        self.register_buffer("picked", order[: math.ceil(config.share * count)], persistent=False)

    def forward(self, crops: Tensor, start: Tensor | None = None) -> Alignment:
        """See `Aligner.forward`. `start`: the 68 points that are fused; without, `config.sparse` finds them.

        maps: codes and mask logits (B,5,s,s) at three scales, then the states after the updates of each round.
        """
        if self.fused and start is None:
            start = self.sparse_points(crops)
        return self.align(self.unet(crops), start)

    def align(self, maps: tuple[Tensor, ...], start: Tensor | None) -> Alignment:
        """What follows the U-Net: `maps` are its answers, `start` as for `forward` but needed; points of it that are
        NaN are not there."""
        with torch.autocast(maps[-1].device.type, enabled=False):
            return self.updated(maps, *self._observe(maps[-1], start))

    def updated(
        self, maps: tuple[Tensor, ...], streams: Streams, sample: Sample, state: Tensor, rounds: int = 2
    ) -> Alignment:
        """The first one or two rounds from a state (B,K+6) on, or what takes their place."""
        if self.config.solver.startswith("pnp"):
            state = self._pnp(streams)
        steps: list[Tensor] = []
        for part in list(self.rounds().values())[:rounds]:
            if steps and self.training:
                state = state + self.config.shaken * functional.pad(
                    torch.randn_like(state[:, -6:]), (state.shape[1] - 6, 0)
                )
            state, trail = part(self.face, state, streams, sample)
            maps = (*maps, trail)
            steps.append(self.landmarks(state))
        return Alignment(
            xyz=self.landmarks(state),
            rotation=self.face.rotation(state),
            coefficients=state[:, :-6] * self.face.spread,
            placement=self._placement(state),
            steps=tuple(steps[:-1]),
            maps=maps,
        )

    def _placement(self, state: Tensor) -> Tensor:
        """Pixels a unit of the model, and where its origin is (B,3)."""
        origin = -state.new_tensor([self.face.centre]) / self.face.unit
        scale = state[:, -3:-2] * (self.config.size / 2 / self.face.unit)
        return torch.cat([scale, pixels(self.face.flat(origin, state)[:, 0], self.config.size)], dim=1)

    def rounds(self) -> dict[str, Round]:
        """The rounds by name."""
        return {name: module for name, module in self.named_children() if isinstance(module, Round)}

    def landmarks(self, state: Tensor) -> Tensor:
        """The 68 landmarks (B,68,3) of states (B,K+6), in crop pixels with a mean z of 0."""
        xyz = pixels(self.face.project(self.face.shape(state, slice(-68, None)), state), self.config.size)
        return xyz - functional.pad(xyz[..., 2:].mean(1, keepdim=True), (2, 0))

    @torch.no_grad()
    def look_up(self, answer: Tensor, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """Where (B,P,2), in half crops, some of the region's vertices (P,) are by the codes of an answer (B,5,S,S) of
        the U-Net, and whether they are found (B,P), section 2.1."""
        codes, mask = answer[:, :3].sigmoid(), answer[:, 4] > answer[:, 3]
        own = self.face.codes[self.face.region]
        if self.config.lookup == "forward":
            points, found = (a[:, vertices] for a in lookup_forward(codes, mask, own, self.config.threshold))
        elif self.config.lookup == "reverse":
            points, found = lookup_reverse(codes, mask, own[vertices], self.config.threshold)
        else:
            points, found = lookup_soft(codes, mask, own[vertices], self.config.threshold, self.config.softness)
        return normalised(points, answer.shape[-1]), found

    def _observe(self, answer: Tensor, start: Tensor | None) -> tuple[Streams, Sample, Tensor]:
        """What `arranged` makes of an answer of the U-Net and of the sparse points; in training another sample each
        time, and an empty one where no round weighs its steps by it."""
        picked = self.picked if self.weighed else self.picked[:0]
        if self.training:
            picked = torch.randperm(len(self.face.region), device=picked.device)[: len(picked)]
        return self.arranged(*self.look_up(answer, torch.cat([self.layout.flatten(), picked])), start, picked)

    def arranged(
        self, points: Tensor, found: Tensor, start: Tensor | None, picked: Tensor
    ) -> tuple[Streams, Sample, Tensor]:
        """The chosen vertices and, where they are fused, the sparse points (B,68,3) in crop pixels as streams, the
        vertices `picked` (P,) as a sample, and the state (B,K+6) that updates begin at.

        points (B,3N+P,2), in half crops, and found (B,3N+P): of the vertices of the layout, then of those picked.
        Normalised errors are measured on the fused points as well, which weigh as much as the rest of the sample.
        """
        region, ours, shape = self.face.region, self.layout.numel(), self.layout.shape
        streams = Streams(
            points[:, :ours].unflatten(1, shape), found[:, :ours].unflatten(1, shape), region[self.layout]
        )
        sample = Sample(points[:, ours:], found[:, ours:].float(), region[picked])
        state = self.face.start(points.shape[0])  # len would fix the batch in an export
        if not self.fused or start is None:
            return streams, sample, state
        sparse = normalised(start.float(), self.config.size)
        there = ~sparse.isnan().any(-1)
        sparse = torch.where(there[..., None], sparse, torch.zeros_like(sparse))
        for _ in range(self.config.fits):
            state = self.face.fitted(state, sparse, there)
        sparse = sparse[..., :2]
        ids = torch.arange(self.face.vertices, self.face.vertices + 68, device=region.device)
        added = sparse[:, self.sparse_layout], there[:, self.sparse_layout], ids[self.sparse_layout]
        streams = Streams(*(torch.cat(both, dim) for both, dim in zip(zip(streams, added), (1, 1, 0))))
        if self.config.path_errors == "normalised":
            weight = there * (len(picked) / 68)
            sample = Sample(*(torch.cat(both, d) for both, d in zip(zip(sample, (sparse, weight, ids)), (1, 1, 0))))
        return streams, sample, state

    @torch.no_grad()
    def sparse_points(self, crops: Tensor) -> Tensor:
        """The 68 points (B,68,3) that `config.sparse` finds on crops (B,3,S,S), in their pixels."""
        pictures = (crops.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        found = points_within(_detector(self.config.sparse), pictures, self.config.crop_scale)
        return torch.as_tensor(found).to(crops.device)

    def _pnp(self, streams: Streams) -> Tensor:
        """The pose of the mean face alone on the last stream, rows C-1 and C-2; unseen points barely count where they
        started."""
        state = self.face.start(streams.observed.shape[0])
        points, found = streams.observed[:, -3:].flatten(1, 2), streams.found[:, -3:].flatten(1)
        shape = self.face.shape(state, streams.ids[-3:].flatten())
        points = torch.where(found[..., None], points, shape[..., :2])
        down = points.new_tensor([1.0, -1.0])
        rotation, scale, shift = fit_weak_perspective(shape, points * down, torch.where(found, 1.0, 1e-6))
        return self.face.pose(rotation, scale, shift * down, state[:, :-6])

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """codes: L1, summed over three scales. mask: cross-entropy, likewise. round_1, round_2: see `round_loss`.
        points: mean distance of the 68 landmarks / crop side."""
        state = self.true_state(truth)
        terms = self._dense_loss(alignment.maps[:3], self._true_vertices(truth, state))
        return {**terms, **self.pose_loss(alignment, truth.xyz, state)}

    def training_terms(self, truth: FaceBatch, stage: Stage) -> dict[str, Tensor]:
        """See `Aligner.training_terms`: the U-Net alone and the choice of vertices in the first stage, the rounds on
        what the finished U-Net says in the others, with the sparse points of `_training_start`. Terms are 0 for faces
        that are held out."""
        dense = "unet" in stage.trains
        held = torch.zeros(len(truth.xyz), dtype=torch.bool, device=truth.xyz.device)
        if truth.number is not None:
            held = truth.number % HELD_OUT == HELD_OUT - 1
        with torch.set_grad_enabled(dense):
            maps = self.unet(truth.crops)
        with torch.autocast(truth.crops.device.type, enabled=False):
            state = self.true_state(truth)
            if dense:
                vertices = self._true_vertices(truth, state)
                if held.any():
                    self._count(maps[-1].detach(), truth, vertices, held)
                terms = self._dense_loss(maps, vertices)
            else:
                seen = self._observe(maps[-1], self._training_start(truth) if self.fused else None)
                rounds = list(self.rounds()).index(stage.trains[0]) + 1
                terms = self.pose_loss(self.updated(maps, *seen, rounds), truth.xyz, state)
            return {name: term.masked_fill(held, 0.0) for name, term in terms.items()}

    @torch.no_grad()
    def _training_start(self, truth: FaceBatch) -> Tensor:
        """Sparse points (B,68,3) for training: the detector's, or true ones with noise; some are missing (NaN)."""
        true, config = truth.xyz, self.config
        points = true + config.sparse_noise * torch.randn_like(true) * _sizes(truth)[:, None, None]
        chance = torch.rand(3, len(true), device=true.device)
        if config.detected:
            own = chance[0] < config.detected
            points = torch.where(own[:, None, None], self.sparse_points(truth.crops), points)
        gone = (chance[1] < config.lost)[:, None] & (torch.rand_like(true[..., 0]) < 1.25 * chance[2][:, None])
        return points.masked_fill(gone[..., None], torch.nan)

    def stages(self) -> tuple[Stage, ...]:
        """The U-Net, then each round on the answers of those before it."""
        stages = [Stage("dense", {"codes": 1.0, "mask": 1.0}, ("unet",))]
        for name, share in zip(self.rounds(), (0.5, 0.25)):
            stages.append(Stage(name, {name: 1.0, "points": 4.0}, (name,), share))
        return tuple(stages)

    def _dense_truth(self, truth: FaceBatch) -> Tensor | None:
        return None if self.config.model else truth.vertices  # those of the default head

    def true_state(self, truth: FaceBatch) -> Tensor:
        """Coefficients and pose (B,K+6): from vertices and landmarks; where vertices are not known, of a head of one's
        own, the coefficients of the labels; else from the landmarks. Raises `RecipeError` for labels of another head.

        No state has just these vertices and landmarks: of rendered heads, which are not of the model, the vertices
        alone leave landmarks off by 1.3 % of the face, jaw and brows by 2.
        """
        vertices, points = self._dense_truth(truth), normalised(truth.xyz, self.config.size)
        if vertices is not None:
            both = torch.cat([normalised(vertices, self.config.size), points], dim=1)
            return self.face.solve(both, truth.rotation)
        state = self.face.solve(points, truth.rotation)
        if truth.modes is None or not self.config.model:
            return state
        if truth.modes.shape[1] != self.face.coefficients:
            got = f"{truth.modes.shape[1]} coefficients, the head in '{self.config.model}' {self.face.coefficients}"
            raise RecipeError(f"the labels have {got}; the head of the labels is wanted in `config.model`")
        labelled = truth.modes.isfinite().all(1, keepdim=True)
        return torch.where(labelled, self.face.laid(points, truth.rotation, truth.modes.nan_to_num()), state)

    def _true_vertices(self, truth: FaceBatch, state: Tensor) -> Tensor:
        """The model's vertices in crop pixels (B,V,3)."""
        vertices = self._dense_truth(truth)
        if vertices is None:
            shape = self.face.shape(state, slice(0, self.face.vertices))
            vertices = pixels(self.face.project(shape, state), self.config.size)
        return vertices

    def _dense_loss(self, maps: tuple[Tensor, ...], vertices: Tensor) -> dict[str, Tensor]:
        return dense_loss(self.face, maps, vertices, self.config.size, self.config.code_loss == "foreground")

    def pose_loss(self, alignment: Alignment, xyz: Tensor, state: Tensor) -> dict[str, Tensor]:
        """The terms of the rounds, given true landmarks (B,68,3) in crop pixels and states (B,K+6)."""
        states = [drawn for drawn in alignment.maps if drawn.ndim == 3]  # the others are pictures
        chosen = self.face.region[self.layout[:2].flatten()] if self.config.regression == "vertices" else None
        terms = {
            name: round_loss(self.face, part, trail, state, chosen)
            for (name, part), trail in zip(self.rounds().items(), states)
        }
        apart = torch.linalg.vector_norm(alignment.xyz - xyz, dim=-1).mean(1)
        return {**terms, "points": apart / self.config.size}

    @torch.no_grad()
    def _count(self, answer: Tensor, truth: FaceBatch, vertices: Tensor, held: Tensor) -> None:
        """Count what is found on the faces of a batch that are held out (B,) and how well, and choose the vertices.

        The choice is by all counts, a count by the square of its number: what the U-Net finds at the end of its
        training decides.
        """
        size, answer = self.config.size, answer[held]
        points, found = self.look_up(answer, torch.arange(len(self.face.region), device=answer.device))
        true = normalised(vertices[held][:, self.face.region, :2], size)
        error = torch.linalg.vector_norm(points - true, dim=-1) / (_sizes(truth)[held, None] * 2 / size)
        yaw = euler_from_matrix(truth.rotation[held], "aflw")[:, 1].abs()
        bins = functional.one_hot((yaw / (math.pi / 6)).long().clamp(max=2), 3).float()
        keep = self.steps / (self.steps + 2)
        self.seen.mul_(keep).add_(bins.sum(0))
        self.found.mul_(keep).add_(bins.T @ found.float())
        self.closeness.mul_(keep).add_((found * torch.exp(-error / 0.03)).sum(0))
        self.steps += 1
        self.choose_vertices()

    def choose_vertices(self) -> None:
        """Lay out the vertices that are best by what has been counted so far."""
        self._choose(pointset.vertex_scores(self.seen, self.found, self.closeness))

    def _choose(self, scores: Tensor) -> None:
        """Lay out the best of the region's vertices."""
        face, config = self.face, self.config
        sides = pointset.select_vertices(scores, face.mean[face.region], config.vertices, config.spacing / face.unit)
        self.layout.copy_(pointset.layout(*sides))


@functools.cache
def _detector(weights: str) -> Predictor:
    folder = Path(find(weights))
    return Aligner.load(folder) if (folder / WEIGHTS_FILE).is_file() else OnnxAligner(folder)


def _sizes(truth: FaceBatch) -> Tensor:
    """Face sizes (B,), px."""
    boxes = tight_boxes(truth.xyz)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
