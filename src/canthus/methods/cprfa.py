"""cprfa: a U-Net paints each pixel of a face with the code of the vertex it shows; convolutional networks read the
relations between the vertices found there, and update shape and pose of a morphable model one after the other.

Wu, Ha, Xu, Kakadiaris, "Convolutional point-set representation: a convolutional bridge between a densely annotated
image and 3D face alignment", arXiv 1803.06542. The representations are in `codecs.pointset`, the face model in
`nn.linear_face`, what the paper leaves open in docs/methods/cprfa.md.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.aligner import WEIGHTS_FILE, Aligner, AlignerConfig, Stage
from canthus.codecs import lookup_forward, lookup_reverse, pointset
from canthus.crop import Crop
from canthus.data.augment import tight_boxes, warp_batch
from canthus.data.sample import FaceBatch
from canthus.errors import LandmarkError
from canthus.faces import Alignment
from canthus.geometry.projection import fit_weak_perspective
from canthus.geometry.rotation import euler_from_matrix
from canthus.inference import Predictor
from canthus.landmarks import scheme
from canthus.losses import binary_cross_entropy
from canthus.morphable import MorphableModel
from canthus.nn.linear_face import LinearFace, normalised, pixels
from canthus.nn.unet import UNet
from canthus.runtime import OnnxAligner
from canthus.synth.raster import rasterise
from canthus.weights import find

FORGET = 0.998  # of what was counted for choosing vertices, a step: a memory of 500 steps
LOOKED_AT = 2  # faces of a batch counted for choosing vertices
"""The stages of training and, below, the columns of a state after the coefficients: rx, ry, rz, s, tx, ty."""


@dataclass(frozen=True)
class CprfaConfig(AlignerConfig):
    """The paper's configuration, where the paper says; lengths in half crops."""

    size: int = 256
    crop_scale: float = 1.375
    model: str = ""  # file of a `MorphableModel`; none: the default head
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)  # of the U-Net
    code_loss: Literal["all", "foreground"] = "all"  # pixels whose codes are learnt
    lookup: Literal["forward", "reverse"] = "forward"  # from pixels to vertices, or from vertices to pixels
    threshold: float = 0.01  # of codes that match
    vertices: int = 512  # C
    spacing: float = 0.0  # between chosen vertices, in the model's unit
    in_plane: pointset.InPlane = "edge_axis"  # kernel of the in-plane rotation
    known: bool = False  # matrices come with masks of what is known
    cpr_widths: tuple[int, ...] = (32, 64, 128, 256, 256, 256)  # L1 to L6
    hidden: int = 256
    recurrences: int = 3  # Q
    samples: int = 5  # M: half the number of reprojection errors on a path
    share: float = 0.1  # kappa: of the vertices found, those that errors are measured on
    path_errors: Literal["raw", "relative"] = "raw"
    order: Literal["sequential", "interleaved", "joint"] = "sequential"
    solver: Literal["pnp-sparse", "pnp-dense", "cpr", "cpr-fused", "cpr-capu", "cpr-fused-capu"] = "cpr-fused-capu"
    sparse: str = "swift"  # weights of the detector of 68 points that is fused
    sparse_noise: float = 0.02  # standard deviation of what stands in for it in training, in face sizes
    regression: Literal["parameters", "vertices"] = "parameters"


class Observed(NamedTuple):
    """What has been seen of B faces."""

    points: Tensor  # (B,R,2) of the vertices of the face region
    found: Tensor  # (B,R)
    sparse: Tensor | None  # (B,68,2)


class Stream(NamedTuple):
    """One point set in the layout of a CPR: three rows of N points."""

    observed: Tensor  # (B,3,N,2)
    found: Tensor  # (B,3,N)
    ids: Tensor  # (3,N) points of the face model


class Group(NamedTuple):
    """Parameters that are updated together: columns begin..end-1 of a state, and the matrices that tell of them."""

    begin: int
    end: int
    kernels: tuple[str, ...]


def parameter_groups(coefficients: int, joint: bool) -> dict[str, Group]:
    """The groups in the order of eq. 4; translation, which is solved, is none of them."""
    k = coefficients
    if joint:
        return {"joint": Group(0, k + 4, ("out_of_plane", "in_plane", "scale"))}
    return {
        "shape": Group(0, k, ("out_of_plane",)),
        "out_of_plane": Group(k, k + 2, ("out_of_plane",)),
        "in_plane": Group(k + 2, k + 3, ("in_plane",)),
        "scale": Group(k + 3, k + 4, ("scale",)),
    }


class Update(nn.Module):
    """The network of one group (Fig. 4b): six convolutions, a full and a recurrent layer, a change for each stream.

    Two streams cross after the sixth layer (Fig. 4c). With `errors` there is one more network a stream, which turns
    that many reprojection errors into a weight 0..2 (eq. 7).
    """

    def __init__(self, channels: int, outputs: int, streams: int, errors: int, config: CprfaConfig):
        super().__init__()
        widths, hidden, side = config.cpr_widths, config.hidden, config.vertices // 2
        for _ in widths:
            side = (side + 1) // 2
        self.trunks, self.cross, self.full, self.cells, self.outs, self.weights = (nn.ModuleList() for _ in range(6))
        for _ in range(streams):
            layers: list[nn.Module] = []
            for i, o in zip((channels, *widths), widths):
                layers += [nn.Conv2d(i, o, 3, 2, 1), nn.GroupNorm(8, o), nn.ReLU()]
            self.trunks.append(nn.Sequential(*layers))
            if streams > 1:
                self.cross.append(nn.Conv2d(streams * widths[-1], widths[-1], 1))
            self.full.append(nn.Sequential(nn.Flatten(), nn.Linear(widths[-1] * side**2, hidden), nn.ReLU()))
            self.cells.append(nn.GRUCell(hidden, hidden))
            self.outs.append(_zero(nn.Linear(hidden, outputs)))
            if errors:
                rest = [nn.Linear(errors, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), _zero(nn.Linear(32, 1))]
                self.weights.append(nn.Sequential(*rest))

    def forward(self, matrices: list[Tensor], memory: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Matrices (B,C,N,N) and memories (B,hidden) of the streams -> changes (B,outputs) and new memories."""
        maps = [trunk(m) for trunk, m in zip(self.trunks, matrices)]
        if len(self.cross):
            maps = [cross(torch.cat([own, other], 1)) for cross, own, other in zip(self.cross, maps, maps[::-1])]
        memory = [cell(full(m), h) for cell, full, m, h in zip(self.cells, self.full, maps, memory)]
        return [out(h) for out, h in zip(self.outs, memory)], memory

    def weight(self, errors: list[Tensor]) -> list[Tensor]:
        """Weights beta (B,1) of the changes, from the errors on their paths (B,errors)."""
        return [2 * torch.sigmoid(net(e)) for net, e in zip(self.weights, errors)]


class Round(nn.Module):
    """One round of updates (Fig. 1d); the second one leaves the shape alone and weighs its steps."""

    def __init__(self, face: LinearFace, config: CprfaConfig, weighed: bool):
        super().__init__()
        self.config, self.weighed = config, weighed
        k, joint = face.coefficients, config.order == "joint"
        self.groups = parameter_groups(k, joint)
        if weighed:
            self.groups = {n: g._replace(begin=max(g.begin, k)) for n, g in self.groups.items() if g.end > k}
        errors = 2 * config.samples + (config.path_errors == "relative") if weighed else 0
        streams = 2 if "fused" in config.solver else 1
        channels = 6 if config.known else 3
        self.updates = nn.ModuleDict(
            {
                name: Update(channels * len(g.kernels), g.end - g.begin, streams, errors, config)
                for name, g in self.groups.items()
            }
        )
        times = range(config.recurrences)
        if config.order == "interleaved":
            self.schedule = [(name, q) for q in times for name in (*self.groups, "translation")]
        else:
            self.schedule = [(name, q) for name in self.groups for q in times] + [("translation", 0)]

    def forward(self, face: LinearFace, state: Tensor, streams: list[Stream], seen: Observed) -> tuple[Tensor, Tensor]:
        """A state (B,K+6) -> the last one, and those after each update (B,U,K+6), eq. 4, 5 and 8."""
        trail: list[Tensor] = []
        memory: dict[str, list[Tensor]] = {}
        for name, _ in self.schedule:
            projected = [face.project(face.shape(state, s.ids), state[:, None])[..., :2] for s in streams]
            if name == "translation":
                state = torch.cat([state[:, :-2], state[:, -2:] + _shift(projected, streams)], dim=1)
                continue
            group, update = self.groups[name], self.updates[name]
            matrices = [self.matrices(group, p, s) for p, s in zip(projected, streams)]
            before = memory.get(name) or [state.new_zeros(len(state), self.config.hidden) for _ in streams]
            changes, memory[name] = update(matrices, before)
            if self.weighed:
                points = self.sampled(face, state, seen)
                weights = update.weight([self.path_errors(face, state, group, c, *points) for c in changes])
                changes = [w * c for w, c in zip(weights, changes)]
            state = _add(state, group, sum(changes[1:], changes[0]))
            trail.append(state)
        return state, torch.stack(trail, dim=1)

    def matrices(self, group: Group, projected: Tensor, stream: Stream) -> Tensor:
        """What the network of a group sees (B,C,N,N): projected (B,3,N,2) compared with observed points."""
        shown = []
        for kernel in group.kernels:
            arguments = projected, stream.observed, stream.found
            if kernel == "in_plane":
                shown.append(pointset.compare_in_plane(*arguments, self.config.in_plane))
            else:
                compare = pointset.compare_scale if kernel == "scale" else pointset.compare_out_of_plane
                shown.append(compare(*arguments))
            if self.config.known:
                known = pointset.triplets if kernel == "out_of_plane" else pointset.pairs
                shown.append(known(stream.found).to(projected.dtype))
        return torch.cat(shown, dim=1)

    def sampled(self, face: LinearFace, state: Tensor, seen: Observed) -> tuple[Tensor, Tensor, Tensor]:
        """A random share of the vertices found: their shape (B,P,3), where they are (B,P,2), which count (B,P).

        In training they are drawn anew each time, later always in the same order.
        """
        count = max(1, math.ceil(self.config.share * seen.found.shape[1]))
        rng = None if self.training else torch.Generator(seen.found.device).manual_seed(0)
        shape = seen.found.shape if self.training else seen.found.shape[1:]
        draw = torch.rand(shape, generator=rng, device=seen.found.device)
        index = torch.where(seen.found, draw, -1.0).topk(count, dim=1).indices
        wanted = (self.config.share * seen.found.sum(1, keepdim=True)).ceil()
        counted = torch.arange(count, device=index.device) < wanted
        pick = index[..., None]
        shape_points = face.shape(state, face.region).gather(1, pick.expand(-1, -1, 3))
        return shape_points, seen.points.gather(1, pick.expand(-1, -1, 2)), counted

    def path_errors(
        self, face: LinearFace, state: Tensor, group: Group, change: Tensor, shape: Tensor, places: Tensor, counted: Tensor
    ) -> Tensor:
        """Mean reprojection errors (B,2M) on the path to twice the change, eq. 6; relative ones (B,2M+1) are told as
        shares of the error at its start, and end in the logarithm of that."""
        m = self.config.samples
        way = torch.arange(2 * m + 1, device=change.device, dtype=change.dtype) / m
        poses = _add(state[:, None].expand(-1, 2 * m + 1, -1), group, way[:, None] * change[:, None])
        apart = torch.linalg.vector_norm(face.project(shape[:, None], poses)[..., :2] - places[:, None], dim=-1)
        errors = (apart * counted[:, None]).sum(-1) / counted.sum(1, keepdim=True).clamp(min=1)
        if self.config.path_errors == "raw":
            return errors[:, 1:]
        first = errors[:, :1].clamp(min=pointset.CLOSE)
        return torch.cat([errors[:, 1:] / first, first.log()], dim=1)


class Cprfa(Aligner):
    """See the module's docstring."""

    Config = CprfaConfig
    config: CprfaConfig

    def __init__(self, config: CprfaConfig):
        super().__init__(config)
        model = MorphableModel.load(config.model) if config.model else MorphableModel.default()
        self.face = LinearFace(model, config.crop_scale)
        self.unet = UNet(config.widths, outputs=5)  # three codes, background and face
        if config.solver.startswith("cpr"):
            self.round_1 = Round(self.face, config, weighed=False)
        if config.solver.endswith("capu"):
            self.round_2 = Round(self.face, config, weighed=True)
        count = len(self.face.region)
        self.layout: Tensor  # (3,N) of the region's vertices
        self.register_buffer("layout", torch.zeros(3, config.vertices // 2, dtype=torch.int64))
        self.register_buffer("looks", torch.zeros((), dtype=torch.int64))
        # how many faces were looked at by yaw, how many vertices were found on them, how near to the truth
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("found", torch.zeros(3, count))
        self.register_buffer("closeness", torch.zeros(count))
        self._choose(torch.rand(count, generator=torch.Generator().manual_seed(0)))
        ids = torch.arange(68)
        midline = torch.tensor(scheme("ibug68").mirror) == ids
        right = self.face.mean[-68:, 0] < 0
        rows = [ids[right | midline], ids[~right | midline], ids]
        n = config.vertices // 2
        sparse_layout = torch.stack([row[torch.arange(n) * len(row) // n] for row in rows])
        self.sparse_layout: Tensor
        self.register_buffer("sparse_layout", sparse_layout, persistent=False)

    def forward(self, crops: Tensor, start: Tensor | None = None) -> Alignment:
        """See `Aligner.forward`. `start`: the 68 points that are fused; without, `config.sparse` finds them.

        maps: codes and mask logits (B,5,s,s) at three scales, then the states after the updates of each round.
        """
        maps = self.unet(crops)
        with torch.autocast(crops.device.type, enabled=False):
            return self._align(maps, self._observe(maps[-1], self._sparse(crops, start)))

    def _align(self, maps: tuple[Tensor, ...], seen: Observed) -> Alignment:
        """The two rounds, or what takes their place."""
        state, steps = self.face.start(len(seen.points)), []
        streams = self._streams(seen)
        if self.config.solver.startswith("pnp"):
            state = self._pnp(seen)
        for part in self._rounds():
            state, trail = part(self.face, state, streams, seen)
            maps = (*maps, trail)
            steps.append(self._landmarks(state))
        return Alignment(
            xyz=self._landmarks(state),
            rotation=self.face.rotation(state),
            coefficients=state[:, :-6] * self.face.spread,
            steps=tuple(steps[:-1]),
            maps=maps,
        )

    def _rounds(self) -> list[nn.Module]:
        return [module for name, module in self.named_children() if name.startswith("round")]

    def _landmarks(self, state: Tensor) -> Tensor:
        xyz = pixels(self.face.project(self.face.shape(state, slice(-68, None)), state), self.config.size)
        return xyz - nn.functional.pad(xyz[..., 2:].mean(1, keepdim=True), (2, 0))

    @torch.no_grad()
    def _observe(self, answer: Tensor, sparse: Tensor | None) -> Observed:
        """Look the vertices up in the codes of the finest scale (B,5,S,S), section 2.1."""
        lookup = lookup_forward if self.config.lookup == "forward" else lookup_reverse
        codes = self.face.codes[self.face.region]
        mask = answer[:, 4] > answer[:, 3]
        points, found = lookup(answer[:, :3].sigmoid(), mask, codes, self.config.threshold)
        return Observed(normalised(points, self.config.size), found, sparse)

    def _streams(self, seen: Observed) -> list[Stream]:
        streams = [Stream(seen.points[:, self.layout], seen.found[:, self.layout], self.face.region[self.layout])]
        if "fused" in self.config.solver and seen.sparse is not None:
            rows = self.sparse_layout
            everything = torch.ones_like(seen.sparse[:, rows][..., 0], dtype=torch.bool)
            streams.append(Stream(seen.sparse[:, rows], everything, self.face.vertices + rows))
        return streams

    @torch.no_grad()
    def _sparse(self, crops: Tensor, start: Tensor | None) -> Tensor | None:
        """The 68 points that are fused (B,68,2), where the solver uses them."""
        if "fused" not in self.config.solver and self.config.solver != "pnp-sparse":
            return None
        if start is None:
            start = sparse_points(self.config.sparse, crops, self.config.crop_scale)
        return normalised(start[..., :2].float(), self.config.size)

    def _pnp(self, seen: Observed) -> Tensor:
        """The pose of the mean face alone, rows C-1 and C-2; unseen vertices barely count where they started."""
        state = self.face.start(len(seen.points))
        if seen.sparse is not None:
            points, found = seen.sparse, torch.ones_like(seen.sparse[..., 0], dtype=torch.bool)
            ids = self.face.vertices + torch.arange(68, device=points.device)
        else:
            chosen = self.layout[:2].flatten()
            points, found, ids = seen.points[:, chosen], seen.found[:, chosen], self.face.region[chosen]
        shape = self.face.shape(state, ids)
        points = torch.where(found[..., None], points, shape[..., :2])
        weights = torch.where(found, 1.0, 1e-6)
        down = points.new_tensor([1.0, -1.0])
        rotation, scale, moved = fit_weak_perspective(shape, points * down, weights)
        return self.face.pose(rotation, scale, moved * down, state[:, :-6])

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """codes: L1, summed over three scales. mask: cross-entropy, likewise. round_1, round_2: see `_round_loss`.
        points: mean distance of the 68 landmarks / crop side."""
        dense, rest = alignment.maps[:3], alignment.maps[3:]
        state = self._true_state(truth)
        terms = self._dense_loss(dense, self._true_vertices(truth, state))
        for number, (part, trail) in enumerate(zip(self._rounds(), rest), 1):
            terms[f"round_{number}"] = self._round_loss(part, trail, state)
        apart = torch.linalg.vector_norm(alignment.xyz - truth.xyz, dim=-1).mean(1)
        return {**terms, "points": apart / self.config.size}

    def training_terms(self, truth: FaceBatch, stage: Stage) -> dict[str, Tensor]:
        """See `Aligner.training_terms`: the U-Net alone and the choice of vertices in the first stage, the rounds on
        what the finished U-Net says in the others, with true landmarks and noise for the sparse detector's."""
        if stage.name == "dense":
            maps = self.unet(truth.crops)
            with torch.autocast(truth.crops.device.type, enabled=False):
                vertices = self._true_vertices(truth, self._true_state(truth))
                self._look(maps[-1].detach()[:LOOKED_AT], truth, vertices)
                return self._dense_loss(maps, vertices)
        xy = truth.xyz[..., :2]
        noise = self.config.sparse_noise * torch.randn_like(xy) * _sizes(truth)[:, None, None]
        return self.loss(self(truth.crops, xy + noise), truth)

    def stages(self) -> tuple[Stage, ...]:
        """The U-Net, then each round on the answers of those before it."""
        stages = [Stage("dense", {"codes": 1.0, "mask": 1.0}, ("unet",))]
        for name in [n for n, _ in self.named_children() if n.startswith("round")]:
            stages.append(Stage(name, {name: 1.0, "points": 1.0}, (name,), 0.5))
        return tuple(stages)

    def _true_state(self, truth: FaceBatch) -> Tensor:
        """Coefficients and pose (B,K+6), from the vertices or, where these are not known, from the landmarks."""
        dense = truth.vertices is not None and not self.config.model  # vertices are the default head's
        points = truth.vertices if dense else truth.xyz
        return self.face.solve(normalised(points, self.config.size), truth.rotation)

    def _true_vertices(self, truth: FaceBatch, state: Tensor) -> Tensor:
        """The model's vertices in crop pixels (B,V,3)."""
        if truth.vertices is not None and not self.config.model:
            return truth.vertices
        ids = slice(0, self.face.vertices)
        return pixels(self.face.project(self.face.shape(state, ids), state), self.config.size)

    def _dense_loss(self, maps: tuple[Tensor, ...], vertices: Tensor) -> dict[str, Tensor]:
        codes, masks = [], []
        for answer in maps:
            true, mask = self._code_image(vertices, answer.shape[-1])
            apart = (answer[:, :3].sigmoid() - true).abs().mean(1)
            if self.config.code_loss == "foreground":
                codes.append((apart * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1))
            else:
                codes.append(apart.mean((1, 2)))
            # cross-entropy of two classes is that of their difference
            masks.append(binary_cross_entropy(answer[:, 4] - answer[:, 3], mask))
        return {"codes": torch.stack(codes).sum(0), "mask": torch.stack(masks).sum(0)}

    @torch.no_grad()
    def _code_image(self, vertices: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """True codes (B,3,size,size) and mask (B,size,size): the mesh seen at the pixel centres of this very scale."""
        stride = self.config.size / size
        placed = (vertices + 0.5 * vertices.new_tensor([1, 1, 0])) / stride - 0.5 * vertices.new_tensor([1, 1, 0])
        ids, weights = rasterise(placed, self.face.triangles, size)
        mask = (ids >= 0) & self.face.drawn[ids]
        corners = self.face.codes[self.face.triangles[ids]]
        codes = (corners * weights[..., None]).sum(-2) * mask[..., None]
        return codes.movedim(-1, 1), mask.float()

    def _round_loss(self, part: nn.Module, trail: Tensor, true: Tensor) -> Tensor:
        """Squared errors of the parameters that each update is after, or distances of points, weighted 0.5 to 1 from
        the first recurrence to the last.

        For the distances what is updated later is taken as true, so that each update minds its own errors alone;
        a tenth of the squared errors is added.
        """
        assert isinstance(part, Round)
        steps = [(part.groups[name], q) for name, q in part.schedule if name != "translation"]
        last = max(self.config.recurrences - 1, 1)
        weights = [0.5 + 0.5 * q / last if self.config.recurrences > 1 else 1.0 for _, q in steps]
        squares = [((trail[:, u] - true) ** 2)[:, g.begin : g.end].mean(1) for u, (g, _) in enumerate(steps)]
        terms = torch.stack(squares, dim=1)
        if self.config.regression == "vertices":
            states = torch.stack([torch.cat([trail[:, u, : g.end], true[:, g.end :]], 1) for u, (g, _) in enumerate(steps)], 1)
            terms = 0.1 * terms + self._distances(states, true)
        return (terms * terms.new_tensor(weights)).sum(1)

    def _distances(self, states: Tensor, true: Tensor) -> Tensor:
        """Mean distances (B,U) of the chosen vertices and the landmarks under states (B,U,K+6) from true ones."""
        chosen = self.face.region[self.layout[:2].flatten()]
        ids = torch.cat([chosen, self.face.vertices + torch.arange(68, device=chosen.device)])
        flat = states.flatten(0, 1)
        points = self.face.project(self.face.shape(flat, ids), flat).unflatten(0, states.shape[:2])
        apart = points - self.face.project(self.face.shape(true, ids), true)[:, None]
        return torch.linalg.vector_norm(apart, dim=-1).mean(-1)

    @torch.no_grad()
    def _look(self, answer: Tensor, truth: FaceBatch, vertices: Tensor) -> None:
        """Count what was found on some faces and how well, and choose the vertices by it now and then."""
        seen = self._observe(answer, None)
        size, count = self.config.size, len(answer)
        true = normalised(vertices[:count, self.face.region], size)[..., :2]
        error = torch.linalg.vector_norm(seen.points - true, dim=-1) / (_sizes(truth)[:count, None] * 2 / size)
        yaw = euler_from_matrix(truth.rotation[:count], "aflw")[:, 1].abs()
        bins = functional.one_hot((yaw / (math.pi / 6)).long().clamp(max=2), 3).float()
        found = seen.found.float()
        self.seen.mul_(FORGET).add_(bins.sum(0))
        self.found.mul_(FORGET).add_(bins.T @ found)
        self.closeness.mul_(FORGET).add_((found * torch.exp(-error / 0.03)).sum(0))
        if self.looks % 16 == 0:
            self._choose(pointset.vertex_scores(self.seen, self.found, self.closeness))
        self.looks += 1

    def _choose(self, scores: Tensor) -> None:
        """Lay out the best of the region's vertices."""
        face, config = self.face, self.config
        sides = pointset.select_vertices(scores, face.mean[face.region], config.vertices, config.spacing / face.unit)
        self.layout.copy_(pointset.layout(*sides))


def sparse_points(weights: str, crops: Tensor, crop_scale: float) -> Tensor:
    """The 68 points (B,68,3) that another aligner finds on crops (B,3,S,S) cut at `crop_scale`, in their pixels."""
    detector, size = _detector(weights), crops.shape[-1]
    card = detector.card
    inner = round(card.crop_size * crop_scale / card.crop_scale)
    small = functional.interpolate(crops.float(), size=(inner, inner), mode="bilinear", antialias=True)
    middle = small.new_full((len(small), 2), (inner - 1) / 2)
    crop = Crop(middle, small.new_full((len(small),), float(card.crop_size)), small.new_zeros(len(small)), card.crop_size)
    pictures = (warp_batch(small, crop).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    xyz = torch.as_tensor(detector.run(pictures.cpu().numpy()).xyz).to(crops.device)
    if xyz.shape[1:] != (68, 3):
        raise LandmarkError(f"the sparse detector '{weights}' gives points {tuple(xyz.shape)}, want (B, 68, 3)")
    half = xyz.new_tensor([0.5, 0.5, 0])
    return (crop.image_from_crop(xyz) + half) * (size / inner) - half


@functools.cache
def _detector(weights: str) -> Predictor:
    folder = Path(find(weights))
    return Aligner.load(folder) if (folder / WEIGHTS_FILE).is_file() else OnnxAligner(folder)


def _add(state: Tensor, group: Group, change: Tensor) -> Tensor:
    """States (...,K+6) with the change (...,end-begin) of a group added."""
    begin, end = group.begin, group.end
    return torch.cat([state[..., :begin], state[..., begin:end] + change, state[..., end:]], dim=-1)


def _shift(projected: list[Tensor], streams: list[Stream]) -> Tensor:
    """The least-squares shift (B,2) over the points of all streams: the mean of the known entries of Lambda_t."""
    ours = torch.cat([p.flatten(1, 2) for p in projected], 1)
    theirs = torch.cat([s.observed.flatten(1, 2) for s in streams], 1)
    return pointset.shift(theirs, ours, torch.cat([s.found.flatten(1) for s in streams], 1))


def _sizes(truth: FaceBatch) -> Tensor:
    """Face sizes (B,), px."""
    boxes = tight_boxes(truth.xyz)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
