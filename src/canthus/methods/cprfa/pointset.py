"""Convolutional point-set representations: the relations of points to one another, written as matrices.

Wu et al., "Convolutional point-set representation", arXiv 1803.06542, section 2.2. Every matrix compares projected
points of a face model with observed ones, both (..., N, 2) with y up, of which `found` (..., N) says which have been
observed. What involves a missing point is 0, as is a perfect match. Each kernel is blind to what is estimated later:

    out_of_plane    shift, scale, in-plane rotation
    in_plane        shift, scale
    distance        shift, in-plane rotation
    translation     nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

CLOSE = 1e-4
"""Shorter edges have no direction; in the unit of the points, half a crop."""
SHORT = 0.01
"""Shorter observed edges have no useful ratio."""

NOTHING = 1e-10
"""Distance between a point and itself."""

InPlane = Literal["edge_axis", "cross", "literal"]


def unit_edges(points: Tensor) -> tuple[Tensor, ...]:
    """Unit vectors from each point j to each point i of (..., N, D), as D coordinates (..., N, N); 0 where the two are
    one. Coordinates apart are several times faster than sums over a last dimension of two."""
    return _unit(_edges(points))


def _edges(points: Tensor) -> tuple[Tensor, ...]:
    return tuple(c - c.transpose(-1, -2) for c in points.split(1, -1))


def _unit(vectors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    length = _length(vectors, CLOSE)
    return tuple(c / length for c in vectors)


def _length(vectors: tuple[Tensor, ...], least: float) -> Tensor:
    """Lengths, and `least` of shorter vectors; the square root of 0 would have no gradient."""
    return sum(c**2 for c in vectors).clamp(min=least**2).sqrt()  # type: ignore[union-attr]


def pairs(found: Tensor) -> Tensor:
    """Which entries (..., N, N) are known: both points found, and not the same one."""
    order = torch.arange(found.shape[-1], device=found.device)
    # not `eye`: ONNX has no boolean EyeLike
    return found[..., :, None] & found[..., None, :] & (order[:, None] != order)


def triplets(found: Tensor) -> Tensor:
    """Which entries (..., N, N) of `out_of_plane` are known: points i, j and the partner of j."""
    return pairs(found) & found.roll(-1, -1)[..., None, :]


def translation(observed: Tensor, projected: Tensor, found: Tensor) -> Tensor:
    """The matrices (..., D, N, N) of observed point i less projected point j.

    The mean of the known entries is the shift that least squares would choose, `shift`: both are the mean offset of
    the found points.
    """
    apart = observed[..., :, None, :] - projected[..., None, :, :]
    both = found[..., :, None] & found[..., None, :]
    return (apart * both[..., None]).movedim(-1, -3)


def shift(observed: Tensor, projected: Tensor, weight: Tensor) -> Tensor:
    """The least-squares shift (..., D) of projected onto observed points (..., N, D) of weights (..., N), which may be
    `found`; 0 where all are 0."""
    weight = weight[..., None].to(observed.dtype)
    return ((observed - projected) * weight).sum(-2) / weight.sum(-2).clamp(min=NOTHING)


def distance(points: Tensor) -> Tensor:
    """The kernel of scale: distances (..., N, N) between points (..., N, D)."""
    return _length(_edges(points), NOTHING)


def in_plane(points: Tensor, kernel: InPlane = "edge_axis") -> Tensor:
    """The kernel of in-plane rotation (..., N, N) of points (..., N, 2).

    edge_axis: signed sine of the angle from the x axis to each edge, what the paper's words ask for.
    literal: unsigned sine of the angle between two points as seen from the origin, what the paper's formula says. It
    is the same under any rotation about the origin and so says nothing of it.
    """
    if kernel == "literal":
        x, y = points[..., 0], points[..., 1]
        crossed = x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]
        length = torch.linalg.vector_norm(points, dim=-1).clamp(min=CLOSE)
        return crossed.abs() / (length[..., :, None] * length[..., None, :])
    return unit_edges(points)[1]


def out_of_plane(points: Tensor) -> Tensor:
    """The kernel of out-of-plane rotation and of shape (..., N, N) of points (..., N, 2 or 3): the cosine between the
    edges from j to i and from k to j. The paper leaves k open; it is j + 1 here, the last one's partner the first."""
    onwards = (points - points.roll(-1, -2)).transpose(-1, -2).split(1, -2)  # (..., 1, N) each, from j's partner to j
    return sum(a * b for a, b in zip(unit_edges(points), _unit(onwards)))  # type: ignore[return-value]


class Observation:
    """Observed points (..., N, 2), `found` (..., N) or not, and how projected points differ from them.

    What the matrices need of the observed points alone is computed once, when it is first asked for.
    """

    def __init__(self, points: Tensor, found: Tensor, kernel: InPlane = "edge_axis"):
        self.points, self.found, self.kernel = points, found, kernel

    @cached_property
    def pairs(self) -> Tensor:
        """See the function."""
        return pairs(self.found)

    @cached_property
    def triplets(self) -> Tensor:
        """See the function."""
        return triplets(self.found)

    def known(self, kernel: str) -> Tensor:
        """Which entries of the kernel's matrix are known, as numbers."""
        return self._known_triplets if kernel == "out_of_plane" else self._known_pairs

    @cached_property
    def _known_triplets(self) -> Tensor:
        return self.triplets.to(self.points.dtype)

    @cached_property
    def _known_pairs(self) -> Tensor:
        return self.pairs.to(self.points.dtype)

    @cached_property
    def _lengths(self) -> Tensor:
        return distance(self.points)

    @cached_property
    def _measurable(self) -> Tensor:
        return (self.pairs & (self._lengths >= SHORT)).to(self.points.dtype)

    @cached_property
    def _in_plane(self) -> tuple[Tensor, ...]:
        return unit_edges(self.points) if self.kernel == "cross" else (in_plane(self.points, self.kernel),)

    @cached_property
    def _out_of_plane(self) -> Tensor:
        return out_of_plane(self.points)

    def scale(self, projected: Tensor) -> Tensor:
        """Ratios of `distance` less 1, within -1..3; eq. 4 divides where it subtracts elsewhere."""
        ratio = (distance(projected) / self._lengths.clamp(min=SHORT)).clamp(0, 4) - 1
        return ratio * self._measurable

    def in_plane(self, projected: Tensor) -> Tensor:
        """Differences of `in_plane`; with "cross" the signed sine of the angle from each projected edge to the observed
        one, which is the same everywhere if the roll alone is wrong."""
        if self.kernel == "cross":
            (ax, ay), (bx, by) = unit_edges(projected), self._in_plane
            difference = ax * by - ay * bx
        else:
            difference = in_plane(projected, self.kernel) - self._in_plane[0]
        return difference * self._known_pairs

    def out_of_plane(self, projected: Tensor) -> Tensor:
        """Differences of `out_of_plane`."""
        return (out_of_plane(projected) - self._out_of_plane) * self._known_triplets


def layout(right: Tensor, left: Tensor, seed: int = 0) -> Tensor:
    """Rows (3, N) of vertex ids from those of either side (N,): right, left, and half of each; each row shuffled."""
    rng = torch.Generator().manual_seed(seed)
    both = torch.cat([right[::2], left[1::2]])
    return torch.stack([_shuffled(row, rng) for row in (right, left, both)])


def repeated_layout(rows: Sequence[Tensor], length: int, seed: int = 0) -> Tensor:
    """Rows (R, length) from rows of fewer ids: each is shuffled and then repeated as a whole, so that a point stands
    beside others, its partner included, and relations of a point to itself are as few as there can be."""
    rng = torch.Generator().manual_seed(seed)
    filled = []
    for row in rows:
        place = torch.arange(length) % len(row)
        place[-1] += length % len(row) == 1  # whose partner is the first
        filled.append(_shuffled(row, rng)[place])
    return torch.stack(filled)


def _shuffled(row: Tensor, rng: torch.Generator) -> Tensor:
    return row[torch.randperm(len(row), generator=rng)]


def vertex_scores(seen: Tensor, found: Tensor, closeness: Tensor) -> Tensor:
    """How good a vertex is, p1 p2 (V,): how often it is found times how near to the truth (section 2.2).

    seen (bins,): faces looked at, by bin of yaw. found (bins, V): on how many of these a vertex was found, so that p1
    counts profiles as much as frontal faces. closeness (V,): sum of exp(-error / 0.03) over the finds.
    """
    often = (found / seen.clamp(min=1e-6)[:, None]).sum(0) / (seen > 0).sum().clamp(min=1)
    return often * closeness / found.sum(0).clamp(min=1e-6)


def select_vertices(scores: Tensor, mean: Tensor, count: int, spacing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The `count` best vertices as ids (count/2,) of the subject's right and left, best first.

    scores (V,); mean (V, 3), x to the subject's left; spacing: the least distance between two chosen vertices of a
    side, in the unit of mean, as far as there are enough; equal scores go by id.
    """
    order = np.argsort(-scores.detach().cpu().double().numpy(), kind="stable")
    places = mean.detach().cpu().double().numpy()
    sides = []
    for side in (order[places[order, 0] < 0], order[places[order, 0] > 0]):
        chosen: list[int] = []
        crowded: list[int] = []
        for vertex in side:
            near = spacing > 0 and chosen and np.linalg.norm(places[chosen] - places[vertex], axis=1).min() < spacing
            (crowded if near else chosen).append(int(vertex))
            if len(chosen) == count // 2:
                break
        sides.append(torch.tensor((chosen + crowded)[: count // 2]))
    return sides[0], sides[1]
