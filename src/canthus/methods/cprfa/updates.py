"""The rounds of updates that turn a point set into shape and pose, one group of parameters after another.

Wu et al., "Convolutional point-set representation", arXiv 1803.06542, sections 2.3 to 2.5. A state is (coefficients,
rx, ry, rz, s, tx, ty), as `LinearFace` has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from canthus.methods.cprfa import pointset
from canthus.methods.cprfa.linear_face import LinearFace
from canthus.nn.linear import zero_linear

FAR = 0.1
"""Reprojection errors above this, in half crops, hardly tell one step from another when they are normalised."""


@dataclass(frozen=True)
class UpdateConfig:
    """What the updates are made of; the defaults are the paper's where it says."""

    vertices: int = 512  # C
    in_plane: pointset.InPlane = "edge_axis"  # kernel of the in-plane rotation
    known: bool = False  # matrices come with masks of what is known
    cpr_widths: tuple[int, ...] = (32, 64, 128, 256, 256, 256)  # L1 to L6
    hidden: int = 256
    norm: bool = True  # group norm after each convolution, which hides how large the differences are
    recurrences: int = 3  # Q
    samples: int = 5  # M: half the number of reprojection errors on a path
    path_errors: Literal["raw", "normalised"] = "raw"
    order: Literal["sequential", "interleaved", "joint"] = "sequential"
    bounded: bool = False  # coefficients stay within what heads have
    trust: float = 1.0  # weight of a vertex in the shift beside that of a fused sparse point


class Streams(NamedTuple):
    """The point sets of S streams in the layout of a CPR: three rows of N points each, one stream after the other."""

    observed: Tensor  # (B,3S,N,2)
    found: Tensor  # (B,3S,N)
    ids: Tensor  # (3S,N) points of the face model


class Sample(NamedTuple):
    """Points on which reprojection errors are measured: a random share of the vertices, where they are found."""

    observed: Tensor  # (B,P,2)
    weight: Tensor  # (B,P) of each in the mean, 0 where it is not found
    ids: Tensor  # (P,)


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

    Two streams, whose layers are groups of the same convolutions, cross after the sixth layer (Fig. 4c). With `errors`
    there is one more network a stream, which turns that many reprojection errors into a weight 0..2 (eq. 7).
    """

    def __init__(self, channels: int, outputs: int, streams: int, errors: int, config: UpdateConfig):
        super().__init__()
        widths, hidden, side = config.cpr_widths, config.hidden, config.vertices // 2
        layers: list[nn.Module] = []
        for i, o in zip((channels, *widths), widths):
            convolution = nn.Conv2d(streams * i, streams * o, 3, 2, 1, groups=streams)
            norms = [nn.GroupNorm(8 * streams, streams * o)] if config.norm else []
            layers += [convolution, *norms, nn.ReLU()]
            if not norms:  # differences keep their size on the way
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                convolution.bias.data.zero_()  # type: ignore[union-attr]
            side = (side + 1) // 2
        self.trunk = nn.Sequential(*layers)
        last = streams * widths[-1]
        self.cross = nn.Conv2d(last, last, 1) if streams > 1 else nn.Identity()
        self.full = nn.Sequential(nn.Conv2d(last, streams * hidden, side, groups=streams), nn.Flatten(), nn.ReLU())
        self.cells, self.outs, self.weights = (nn.ModuleList() for _ in range(3))
        for _ in range(streams):
            self.cells.append(nn.GRUCell(hidden, hidden))
            self.outs.append(zero_linear(hidden, outputs))
            if errors:
                rest = [nn.Linear(errors, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), zero_linear(32, 1)]
                self.weights.append(nn.Sequential(*rest))

    def forward(self, matrices: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Matrices (B,S C,N,N), stream after stream, and memories (B,hidden) of the streams -> changes (B,S,outputs)
        and new memories."""
        read = self.full(self.cross(self.trunk(matrices))).chunk(len(self.cells), dim=1)
        memory = [cell(r, h) for cell, r, h in zip(self.cells, read, memory)]
        return torch.stack([out(h) for out, h in zip(self.outs, memory)], dim=1), memory

    def weight(self, errors: Tensor) -> Tensor:
        """Weights beta (B,S,1) of the changes, from the errors (B,S,errors) on their paths."""
        return 2 * torch.sigmoid(torch.stack([net(e) for net, e in zip(self.weights, errors.unbind(1))], dim=1))


class Round(nn.Module):
    """One round of updates (Fig. 1d); the second one leaves the shape alone and weighs its steps."""

    def __init__(self, coefficients: int, streams: int, weighed: bool, config: UpdateConfig):
        super().__init__()
        self.config, self.weighed, self.streams = config, weighed, streams
        self.groups = parameter_groups(coefficients, config.order == "joint")
        if weighed:
            self.groups = {
                name: g._replace(begin=max(g.begin, coefficients))
                for name, g in self.groups.items()
                if g.end > coefficients
            }
        errors = 2 * config.samples + 2 * (config.path_errors == "normalised") if weighed else 0
        channels = 6 if config.known else 3
        self.updates = nn.ModuleDict(
            {
                name: Update(channels * len(g.kernels), g.end - g.begin, streams, errors, config)
                for name, g in self.groups.items()
            }
        )
        for name, g in self.groups.items():
            columns = torch.eye(coefficients + 6)[g.begin : g.end]
            self.register_buffer(f"{name}_columns", columns, persistent=False)
        times = range(config.recurrences)
        if config.order == "interleaved":
            self.schedule = [(name, q) for q in times for name in (*self.groups, "translation")]
        else:
            self.schedule = [(name, q) for name in self.groups for q in times] + [("translation", 0)]

    def forward(self, face: LinearFace, state: Tensor, streams: Streams, sample: Sample) -> tuple[Tensor, Tensor]:
        """A state (B,K+6) -> the last one, and those after each update (B,U,K+6), eq. 4, 5 and 8."""
        observation = pointset.Observation(streams.observed, streams.found, self.config.in_plane)
        weights = streams.found.to(state.dtype)
        if self.streams > 1:  # vertices come first
            weights = torch.cat([self.config.trust * weights[:, :3], weights[:, 3:]], dim=1)
        part = face.part(streams.ids)
        shape = part.shape(state)
        sampled = face.part(sample.ids).shape(state) if self.weighed else None  # whose shape such a round leaves alone
        trail: list[Tensor] = []
        memory: dict[str, list[Tensor]] = {}
        nothing = [state.new_zeros(state.shape[0], self.config.hidden)] * self.streams
        for name, _ in self.schedule:
            projected = face.flat(shape, state[:, None])
            if name == "translation":
                ours, theirs = (points.flatten(1, 2) for points in (projected, streams.observed))
                moved = state[:, -2:] + pointset.shift(theirs, ours, weights.flatten(1))
                state = torch.cat([state[:, :-2], moved], dim=1)
                continue
            group = self.groups[name]
            update: Update = self.updates[name]  # type: ignore[assignment]
            before = memory.get(name, nothing)
            changes, memory[name] = update(self.matrices(group, projected, observation), before)
            if sampled is not None:
                changes = update.weight(self.path_errors(face, sampled, state, name, changes, sample)) * changes
            state = self._changed(state, name, changes.sum(1))
            trail.append(state)
            if group.begin < face.coefficients:
                if self.config.bounded:
                    state = face.bounded(state)
                shape = part.shape(state)
        return state, torch.stack(trail, dim=1)

    def _changed(self, state: Tensor, name: str, change: Tensor) -> Tensor:
        """States (...,K+6) with the change (...,end-begin) of a group added."""
        return state + change @ self.get_buffer(f"{name}_columns")

    def matrices(self, group: Group, projected: Tensor, observation: pointset.Observation) -> Tensor:
        """What the network of a group sees (B,S C,N,N): projected (B,3S,N,2) compared with observed points."""
        shown = []
        for kernel in group.kernels:
            shown.append(getattr(observation, kernel)(projected))
            if self.config.known:
                shown.append(observation.known(kernel))
        return torch.cat([matrix.unflatten(1, (self.streams, 3)) for matrix in shown], dim=2).flatten(1, 2)

    def path_errors(
        self, face: LinearFace, shape: Tensor, state: Tensor, name: str, changes: Tensor, sample: Sample
    ) -> Tensor:
        """Mean reprojection errors (B,S,2M) of the sample, whose shape is (B,P,3), on the path to twice each stream's
        change (B,S,end-begin) of the group `name`, eq. 6.

        Normalised ones (B,S,2M+2) are robust against points that were found in a wrong place, and tell how the error
        changes along the path: from its start, as a share of its range. Their logarithms of the error at the start and
        of the range say what that is worth.
        """
        m = self.config.samples
        way = torch.arange(2 * m + 1, device=changes.device, dtype=changes.dtype) / m
        poses = self._changed(state[:, None, None], name, way[:, None] * changes[:, :, None])
        projected = face.flat(shape[:, None, None], poses)
        apart = torch.linalg.vector_norm(projected - sample.observed[:, None, None], dim=-1)
        if self.config.path_errors == "normalised":
            apart = apart * FAR / (apart + FAR)
        weight = sample.weight[:, None, None]
        errors = (apart * weight).sum(-1) / weight.sum(-1).clamp(min=1)
        if self.config.path_errors == "raw":
            return errors[..., 1:]
        first, extent = errors[..., :1], (errors.amax(-1) - errors.amin(-1))[..., None].clamp(min=pointset.CLOSE)
        told = (errors[..., 1:] - first) / extent, first.clamp(min=pointset.CLOSE).log(), extent.log()
        return torch.cat(told, dim=-1)
