"""The rounds of updates that turn a point set into shape and pose, one group of parameters after another.

Wu et al., "Convolutional point-set representation", arXiv 1803.06542, sections 2.3 to 2.5. A state is (coefficients,
rx, ry, rz, s, tx, ty), as `LinearFace` has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from canthus.methods.cprfa.linear_face import LinearFace
from canthus.methods.cprfa.method import pointset
from canthus.nn.linear import zero_linear


@dataclass(frozen=True)
class UpdateConfig:
    """What the updates are made of; the defaults are the paper's where it says."""

    vertices: int = 512  # C
    in_plane: pointset.InPlane = "edge_axis"  # kernel of the in-plane rotation
    known: bool = False  # matrices come with masks of what is known
    cpr_widths: tuple[int, ...] = (32, 64, 128, 256, 256, 256)  # L1 to L6
    hidden: int = 256
    recurrences: int = 3  # Q
    samples: int = 5  # M: half the number of reprojection errors on a path
    path_errors: Literal["raw", "relative"] = "raw"
    order: Literal["sequential", "interleaved", "joint"] = "sequential"


class Stream(NamedTuple):
    """One point set in the layout of a CPR: three rows of N points."""

    observed: Tensor  # (B,3,N,2)
    found: Tensor  # (B,3,N)
    ids: Tensor  # (3,N) points of the face model


class Sample(NamedTuple):
    """A random share of the vertices, on which reprojection errors are measured where they are found."""

    observed: Tensor  # (B,P,2)
    found: Tensor  # (B,P)
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

    Two streams cross after the sixth layer (Fig. 4c). With `errors` there is one more network a stream, which turns
    that many reprojection errors into a weight 0..2 (eq. 7).
    """

    def __init__(self, channels: int, outputs: int, streams: int, errors: int, config: UpdateConfig):
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
            self.outs.append(zero_linear(hidden, outputs))
            if errors:
                rest = [nn.Linear(errors, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), zero_linear(32, 1)]
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

    def __init__(self, coefficients: int, streams: int, weighed: bool, config: UpdateConfig):
        super().__init__()
        self.config, self.weighed = config, weighed
        self.groups = parameter_groups(coefficients, config.order == "joint")
        if weighed:
            self.groups = {
                name: g._replace(begin=max(g.begin, coefficients))
                for name, g in self.groups.items()
                if g.end > coefficients
            }
        errors = 2 * config.samples + (config.path_errors == "relative") if weighed else 0
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

    def forward(self, face: LinearFace, state: Tensor, streams: list[Stream], sample: Sample) -> tuple[Tensor, Tensor]:
        """A state (B,K+6) -> the last one, and those after each update (B,U,K+6), eq. 4, 5 and 8."""
        trail: list[Tensor] = []
        memory: dict[str, list[Tensor]] = {}
        for name, _ in self.schedule:
            projected = [face.project(face.shape(state, s.ids), state[:, None])[..., :2] for s in streams]
            if name == "translation":
                state = torch.cat([state[:, :-2], state[:, -2:] + _shift(projected, streams)], dim=1)
                continue
            group = self.groups[name]
            update: Update = self.updates[name]  # type: ignore[assignment]
            matrices = [self.matrices(group, p, s) for p, s in zip(projected, streams)]
            before = memory.get(name) or [state.new_zeros(state.shape[0], self.config.hidden) for _ in streams]
            changes, memory[name] = update(matrices, before)
            if self.weighed:
                weights = update.weight([self.path_errors(face, state, group, c, sample) for c in changes])
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

    def path_errors(self, face: LinearFace, state: Tensor, group: Group, change: Tensor, sample: Sample) -> Tensor:
        """Mean reprojection errors (B,2M) on the path to twice the change, eq. 6; relative ones (B,2M+1) are told as
        shares of the error at its start, and end in the logarithm of that."""
        m = self.config.samples
        way = torch.arange(2 * m + 1, device=change.device, dtype=change.dtype) / m
        poses = _add(state[:, None].expand(-1, 2 * m + 1, -1), group, way[:, None] * change[:, None])
        projected = face.project(face.shape(state, sample.ids)[:, None], poses)[..., :2]
        apart = torch.linalg.vector_norm(projected - sample.observed[:, None], dim=-1)
        errors = (apart * sample.found[:, None]).sum(-1) / sample.found.sum(1, keepdim=True).clamp(min=1)
        if self.config.path_errors == "raw":
            return errors[:, 1:]
        first = errors[:, :1].clamp(min=pointset.CLOSE)
        return torch.cat([errors[:, 1:] / first, first.log()], dim=1)


def _add(state: Tensor, group: Group, change: Tensor) -> Tensor:
    """States (...,K+6) with the change (...,end-begin) of a group added."""
    begin, end = group.begin, group.end
    return torch.cat([state[..., :begin], state[..., begin:end] + change, state[..., end:]], dim=-1)


def _shift(projected: list[Tensor], streams: list[Stream]) -> Tensor:
    """The least-squares shift (B,2) over the points of all streams: the mean of the known entries of Lambda_t."""
    ours = torch.cat([p.flatten(1, 2) for p in projected], 1)
    theirs = torch.cat([s.observed.flatten(1, 2) for s in streams], 1)
    return pointset.shift(theirs, ours, torch.cat([s.found.flatten(1) for s in streams], 1))
