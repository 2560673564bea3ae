"""What the detector's cells should say, and how far they are from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from canthus.detection.network import STRIDES, Cells, cell_centres

# Longer sides of the faces that the cells of each stride answer for, px; a face between two is learnt by both.
RANGES = ((0.0, 46.0), (30.0, 112.0), (76.0, float("inf")))
CENTRAL, NEAR = 0.25, 1.3  # a cell learns a face if it is as near to its centre: in sides of the face, in strides
LEAST_QUALITY = 0.5  # the least score that a cell should give to its face, whatever its box is worth


class FacesTruth(NamedTuple):
    """The faces of B pictures, padded to F; fields as of `composites.FaceTruth`. there: (B,F) False for padding."""

    box: Tensor
    upright: Tensor
    up: Tensor
    wanted: Tensor
    there: Tensor


class Assignment(NamedTuple):
    """face: (B,A) number of the face that a cell learns, or -1. free: (B,A) True where its score is not judged."""

    face: Tensor
    free: Tensor


def assign(faces: FacesTruth, height: int, width: int) -> Assignment:
    """Which cell of pictures of that size learns which face; the smallest of those that lie there."""
    box, sides = faces.box, (faces.box[..., 2:] - faces.box[..., :2]).amax(-1)
    centre = (box[..., :2] + box[..., 2:]) / 2
    numbers, free = [], []
    for stride, (low, high) in zip(STRIDES, RANGES):
        cells = cell_centres(height // stride, width // stride, stride, box)
        distance = (cells[None, :, None] - centre[:, None]).abs().amax(-1)  # (B,A,F)
        near = distance < torch.clamp(CENTRAL * sides, min=NEAR * stride)[:, None]
        here = near & ((sides >= low) & (sides < high) & faces.wanted & faces.there)[:, None]
        smallest = torch.where(here, sides[:, None], torch.inf).min(-1)
        numbers.append(torch.where(here.any(-1), smallest.indices, -1))
        inside = (cells[None, :, None] > box[:, None, :, :2]) & (cells[None, :, None] < box[:, None, :, 2:])
        free.append((inside.all(-1) & (faces.there & ~faces.wanted)[:, None]).any(-1))
    face = torch.cat(numbers, 1)
    return Assignment(face, torch.cat(free, 1) & (face < 0))


def loss_terms(cells: Cells, faces: FacesTruth, height: int, width: int) -> dict[str, Tensor]:
    """Means over the cells that learn a face: `score` (quality focal loss), `box` (1 - generalised IoU), `upright`
    (Laplace likelihood of centre and log side, in sides) and `up` (squared distance of unit vectors)."""
    face, free = assign(faces, height, width)
    learns = face >= 0
    count = learns.sum().clamp(min=1)
    owner, number = learns.nonzero()[:, 0], face[learns]
    box, true_box = cells.box[learns], faces.box[owner, number]
    overlap, generalised = overlaps(box, true_box)
    quality = torch.zeros_like(cells.score)
    quality[learns] = overlap.detach().clamp(min=LEAST_QUALITY)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(cells.score, quality, reduction="none")
    score = (entropy * (cells.score.sigmoid() - quality).abs() ** 2)[~free].sum()
    upright, true = cells.upright[learns], faces.upright[owner, number]
    side = true[:, 2:]
    error = torch.cat([(upright[:, :2] - true[:, :2]) / side, torch.log(upright[:, 2:] / side)], 1).abs()
    log_sigma = cells.log_sigma[learns].clamp(-6, 2)
    likelihood = (error * torch.exp(-log_sigma)[:, None]).sum(1) + 3 * log_sigma
    up = ((cells.up[learns] - faces.up[owner, number]) ** 2).sum(1)
    return {
        "score": score / count, "box": (1 - generalised).sum() / count,
        "upright": likelihood.sum() / count, "up": up.sum() / count,
    }  # fmt: skip


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and the generalised one (Rezatofighi et al., CVPR 2019), of boxes (N,4) pairwise."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    total = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    overlap = shared / total.clamp(min=1e-6)
    return overlap, overlap - (hull - total) / hull.clamp(min=1e-6)
