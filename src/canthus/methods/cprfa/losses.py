"""What cprfa learns by: the codes of pixels, and what each update of shape and pose leaves wrong."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from canthus.geometry.raster import rasterise
from canthus.methods.cprfa.linear_face import LinearFace
from canthus.methods.cprfa.updates import Group, Round
from canthus.training.losses import binary_cross_entropy

COEFFICIENTS = 0.002
"""Weight of squared errors of coefficients, in deviations, beside distances in half crops. Most coefficients show in no
landmark: at 0.1 their errors, 4.8 on average, were nine tenths of the loss."""


def dense_loss(
    face: LinearFace, maps: tuple[Tensor, ...], vertices: Tensor, crop_size: int, foreground: bool
) -> dict[str, Tensor]:
    """The terms `codes` and `mask` (B,) of the answers (B,5,s,s) of the U-Net, each scale's added; true vertices
    (B,V,3) in crop pixels. foreground: only pixels of the face learn codes."""
    codes, masks = [], []
    for answer in maps:
        true, mask = code_image(face, vertices, crop_size, answer.shape[-1])
        apart = (answer[:, :3].sigmoid() - true).abs().mean(1)
        if foreground:
            codes.append((apart * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1))
        else:
            codes.append(apart.mean((1, 2)))
        # cross-entropy of two classes is that of their difference
        masks.append(binary_cross_entropy(answer[:, 4] - answer[:, 3], mask))
    return {"codes": torch.stack(codes).sum(0), "mask": torch.stack(masks).sum(0)}


@torch.no_grad()
def code_image(face: LinearFace, vertices: Tensor, crop_size: int, size: int) -> tuple[Tensor, Tensor]:
    """True codes (B,3,size,size) and mask (B,size,size): the mesh seen at the pixel centres of this very scale."""
    stride = crop_size / size
    placed = (vertices + 0.5 * vertices.new_tensor([1, 1, 0])) / stride - 0.5 * vertices.new_tensor([1, 1, 0])
    ids, weights = rasterise(placed, face.triangles, size)
    mask = (ids >= 0) & face.drawn[ids]
    corners = face.codes[face.triangles[ids]]
    codes = (corners * weights[..., None]).sum(-2) * mask[..., None]
    return codes.movedim(-1, 1), mask.float()


def round_loss(face: LinearFace, part: Round, trail: Tensor, true: Tensor, chosen: Tensor | None) -> Tensor:
    """What the updates of a round leave wrong (B,): squared errors of the parameters that each is after, or, with
    `chosen` vertices (P,), distances of these and the landmarks; weighted up to 1 at the last recurrence.

    trail (B,U,K+6): the states after the updates; true (B,K+6). To distances (see `distances`) `COEFFICIENTS` times the
    squared errors of the coefficients are added.
    """
    updates = [(part.groups[name], q) for name, q in part.schedule if name != "translation"]
    groups = [group for group, _ in updates]
    steps = list(zip(trail.unbind(1), groups))
    if chosen is None:
        terms = torch.stack([((s - true) ** 2)[:, g.begin : g.end].mean(1) for s, g in steps], dim=1)
    else:
        k = face.coefficients
        wrong = [((s - true) ** 2)[:, : min(g.end, k)].mean(1) * (g.begin < k) for s, g in steps]
        terms = COEFFICIENTS * torch.stack(wrong, dim=1) + distances(face, chosen, groups, trail, true)
    last = max(q for _, q in updates)
    weights = [0.5 + 0.5 * (q + 1) / (last + 1) for _, q in updates]
    return (terms * terms.new_tensor(weights)).sum(1)


def distances(face: LinearFace, chosen: Tensor, groups: list[Group], states: Tensor, true: Tensor) -> Tensor:
    """Mean distances (B,U) of the chosen vertices and the landmarks under the states (B,U,K+6) after updates of U
    groups from true ones.

    What is updated later is as it would be at best, so that each update minds its own errors alone: the pose for
    the shape is the true one, and other points are moved, scaled and turned in the plane onto the true ones. So
    near a profile, where rx and rz are one, no update has to tell them apart.
    """
    k = face.coefficients
    part = face.part(torch.cat([chosen, face.vertices + torch.arange(68, device=chosen.device)]))
    ends = torch.tensor([group.end for group in groups], device=true.device)[:, None]
    states = torch.cat([states[..., :k], torch.where(ends > k, states[..., k:], true[:, None, k:])], dim=-1)
    flat = states.flatten(0, 1)
    points = face.project(part.shape(flat), flat).unflatten(0, states.shape[:2])
    wanted = face.project(part.shape(true), true)[:, None]
    middle = functional.pad(wanted[..., :2].mean(-2, keepdim=True), (0, 1))
    x, y, z = (points - functional.pad(points[..., :2].mean(-2, keepdim=True), (0, 1))).unbind(-1)
    u, v, w = (wanted - middle).unbind(-1)
    length = (x**2 + y**2).sum(-1, keepdim=True)
    along, across = ((x * u + y * v).sum(-1, keepdim=True) / length, (x * v - y * u).sum(-1, keepdim=True) / length)
    along = torch.where((ends > k) & (ends < k + 4), along, 1.0)
    across = torch.where((ends > k) & (ends < k + 3), across, 0.0)
    grown = (along**2 + across**2).sqrt() * z
    turned = torch.stack([along * x - across * y, along * y + across * x, grown], -1)
    return torch.linalg.vector_norm(turned - torch.stack([u, v, w], -1), dim=-1).mean(-1)
