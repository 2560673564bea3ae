"""Compact volumes: all landmarks of a face in one voxel grid, where the largest of their Gaussians stands.

Zhang, Li and Sun, "Joint voxel and coordinate regression for accurate 3D facial landmark localization", ICPR
2018, eq. 1-2. The volume does not say which landmark is which, so its decoder is a network; `crop_from_voxel`
undoes the frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from canthus.codecs.heatmaps import crop_from_map, map_from_crop

REACH = 3
"""Voxels to each side of the nearest one that a landmark writes to."""


def voxel_from_crop(points: Tensor, crop: int, size: int, depth: int, z_range: float = 1.0) -> Tensor:
    """Landmarks (..., L, 3) in pixels of a square crop of `crop` px -> (x, y, z) in voxels (..., L, 3).

    The grid is `size` voxels wide and high and `depth` deep. `z_range` is the span of z that the depth
    covers, in crop sides (1.3 holds nearly every face of AFLW2000-3D, 1.0 two in three); slice 0 is the one
    nearest the camera. z must have zero mean over the landmarks. Voxel centres are integers, and coordinates
    outside the grid are kept.
    """
    xy = map_from_crop(points[..., :2], crop / size)
    z = depth * (0.5 - points[..., 2:] / (z_range * crop)) - 0.5
    return torch.cat([xy, z], dim=-1)


def crop_from_voxel(voxels: Tensor, crop: int, size: int, depth: int, z_range: float = 1.0) -> Tensor:
    """Voxel coordinates (..., L, 3) -> crop pixels (..., L, 3); undoes `voxel_from_crop`."""
    xy = crop_from_map(voxels[..., :2], crop / size)
    z = (0.5 - (voxels[..., 2:] + 0.5) / depth) * (z_range * crop)
    return torch.cat([xy, z], dim=-1)


@torch.no_grad()
def encode_volume(voxels: Tensor, size: int, depth: int) -> Tensor:
    """The largest of the landmarks' Gaussians at each voxel: (B, depth, size, size) from `voxels` (B, L, 3).

    The Gaussians have a standard deviation of 1 voxel and a peak of 1 at the real-valued (x, y, z), which
    `voxel_from_crop` gives; each is cut to the 7 by 7 by 7 voxels around its own. Parts outside the grid are
    lost. A target: no gradient flows.
    """
    batch = voxels.shape[0]
    offsets = torch.arange(-REACH, REACH + 1, device=voxels.device)
    cells = voxels.round().long()[..., None] + offsets  # (B, L, 3, 7)
    limits = torch.tensor([size, size, depth], device=voxels.device)[:, None]
    values = torch.exp(-0.5 * (cells - voxels[..., None]) ** 2) * ((cells >= 0) & (cells < limits))
    cells = torch.minimum(cells.clamp(min=0), limits - 1)  # a clamped cell carries the value 0
    x, y, z = cells.unbind(dim=2)
    gx, gy, gz = values.unbind(dim=2)
    index = (z[..., :, None, None] * size + y[..., None, :, None]) * size + x[..., None, None, :]
    value = gz[..., :, None, None] * gy[..., None, :, None] * gx[..., None, None, :]
    volume = voxels.new_zeros(batch, depth * size * size)
    volume.scatter_reduce_(1, index.reshape(batch, -1), value.reshape(batch, -1), "amax")
    return volume.reshape(batch, depth, size, size)
