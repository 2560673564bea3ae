"""Losses: functions of a prediction and its truth that return one value per sample, (B,).

Each averages over every axis but the first, so that values do not depend on how many landmarks, pixels or
voxels there are; where a paper sums instead, its weight takes the number in. Where the truth is known in part, `known`
has 1 for what counts and 0 for the rest, over the leading axes of the values that are averaged: (B, L) for heatmaps
(B, L, H, W), say. None is all. A sample of which nothing is known has the loss 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from canthus.errors import LandmarkError


def mse(prediction: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean squared difference (B,) of two tensors (B, ...)."""
    return mean((prediction - truth) ** 2, known)


def smooth_l1(prediction: Tensor, truth: Tensor, beta: float = 1.0, known: Tensor | None = None) -> Tensor:
    """Mean (B,) of |d| - beta/2, or d^2 / (2 beta) for |d| < beta, d the difference of two (B, ...).

    `beta` has the unit of d. Girshick, "Fast R-CNN", ICCV 2015, there with beta = 1.
    """
    return mean(functional.smooth_l1_loss(prediction, truth, reduction="none", beta=beta), known)


def wing(prediction: Tensor, truth: Tensor, omega: float, epsilon: float, known: Tensor | None = None) -> Tensor:
    """Mean (B,) of omega ln(1 + |d|/epsilon), or |d| - C from |d| = omega on, d as in `smooth_l1`.

    C makes the two meet at `omega`; both parameters have the unit of the coordinates. Feng et al., "Wing loss
    for robust facial landmark localisation with convolutional neural networks", CVPR 2018, which sums the
    coordinates instead of averaging them.
    """
    distance = (prediction - truth).abs()
    offset = omega - omega * math.log1p(omega / epsilon)
    return mean(torch.where(distance < omega, omega * torch.log1p(distance / epsilon), distance - offset), known)


def binary_cross_entropy(logits: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean cross-entropy (B,) of sigmoid(logits) with `truth` in [0, 1], both (B, ...).

    For heatmaps with soft targets, for masks and for the visibility of landmarks (B, L). With soft targets
    its least value is not 0 but `binary_cross_entropy_floor`.
    """
    return mean(functional.binary_cross_entropy_with_logits(logits, truth, reduction="none"), known)


def binary_cross_entropy_floor(truth: Tensor) -> Tensor:
    """The least value (B,) of `binary_cross_entropy` for `truth` (B, ...) in [0, 1]: its mean entropy.

    Log the loss less this floor. A Gaussian of peak 1 that lies well inside a map of H by W pixels has the
    floor (pi^3 / 3) sigma^2 / (H W).
    """
    return -mean(torch.xlogy(truth, truth) + torch.xlogy(1 - truth, 1 - truth))


def gaussian_nll(prediction: Tensor, log_sigma: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood (B,) per landmark of `truth` under Gaussians around `prediction`.

    Points are (B, L, 2 or 3), `log_sigma` is (B, L, 1 or 2): the log of the standard deviation of x and of y,
    which share one, and that of z, in the unit of the points. Kendall and Gal, NeurIPS 2017.
    """
    spread, distance = _standardised(prediction, log_sigma, truth)
    size = prediction.shape[-1]
    return mean(0.5 * (distance**2).sum(-1) + spread + 0.5 * size * math.log(2 * math.pi), known)


def laplace_nll(prediction: Tensor, log_sigma: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood (B,) per landmark of `truth` under Laplace densities around `prediction`.

    Takes what `gaussian_nll` takes, sigma again being the standard deviation along each axis, and minds
    outliers less. In the image plane the density is 3 / (2 pi sigma^2) exp(-sqrt(3) r / sigma) (Kumar et al.,
    "LUVLi face alignment", CVPR 2020), along z it is 1 / (sqrt(2) sigma) exp(-sqrt(2) |dz| / sigma).
    """
    spread, distance = _standardised(prediction, log_sigma, truth)
    loss = spread + math.sqrt(3) * distance[..., 0] + math.log(2 * math.pi / 3)
    if prediction.shape[-1] == 3:
        loss = loss + math.sqrt(2) * distance[..., 1] + math.log(2) / 2
    return mean(loss, known)


def _standardised(prediction: Tensor, log_sigma: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of log sigma over the coordinates (B, L); distance / sigma (B, L, 1 or 2) in plane and z."""
    if log_sigma.shape[-1] != prediction.shape[-1] - 1:
        raise LandmarkError(
            f"got points {tuple(prediction.shape)} with log sigma {tuple(log_sigma.shape)}, "
            "want points (B, L, 2) with (B, L, 1), or (B, L, 3) with (B, L, 2)"
        )
    difference = truth - prediction
    # The gradient of vector_norm at 0 is 0, where that of a square root would be NaN.
    plane = torch.linalg.vector_norm(difference[..., :2], dim=-1, keepdim=True)
    distance = torch.cat([plane, difference[..., 2:].abs()], dim=-1) * torch.exp(-log_sigma)
    return 2 * log_sigma[..., 0] + log_sigma[..., 1:].sum(-1), distance


def mean(values: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean (B,) of values (B, ...) over every axis but the first, of those that are `known` (see the module)."""
    if known is None:
        return values.flatten(1).mean(1)
    weights = known.to(values.dtype)
    if values.ndim > weights.ndim:
        values = values.flatten(weights.ndim).mean(-1)
    return (values * weights).flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1)
