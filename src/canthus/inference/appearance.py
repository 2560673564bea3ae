"""Coarse descriptors of a frame and of a face: enough to notice a cut, and to recognise a face a little later."""

from __future__ import annotations

import numpy as np

GRID = 9, 16  # cells of a frame, rows and columns
SAMPLES = 4  # pixels sampled per cell, each way

# Two frames of one shot have a correlation of 0.98 and more in the clips that this was written for, low light included,
# and those around a cut 0.2 and less. A face that jumps in front of a plain wall changes few cells.
MAX_CORRELATION = 0.5
MIN_CHANGED = 0.5  # of the cells
CHANGED = 0.25  # of a cell, in standard deviations of the picture's
MIN_CONTRAST = 2.0  # levels of 255; a frame with less is black, white or covered, and tells nothing

CELLS = 8  # of a crop of a face, each way; the outer ones show what is around it


def frame_descriptor(picture: np.ndarray) -> np.ndarray:
    """The colours of a picture (H,W,3) uint8 in 9 x 16 cells, less their mean: (9,16,3)."""
    y, x = (((np.arange(n * SAMPLES) + 0.5) * side / (n * SAMPLES)).astype(int) for n, side in zip(GRID, picture.shape))
    rows, columns = GRID
    cells = picture[y[:, None], x].reshape(rows, SAMPLES, columns, SAMPLES, 3).mean((1, 3))
    return cells - cells.mean((0, 1))


def has_contrast(descriptor: np.ndarray) -> bool:
    """Whether a `frame_descriptor` shows more than a uniform picture."""
    return float(descriptor.std()) >= MIN_CONTRAST


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two `frame_descriptor`s with contrast are of different shots. A change of brightness is no cut."""
    correlation = (before * after).sum() / np.sqrt((before**2).sum() * (after**2).sum())
    changed = (np.abs(after - before).max(2) > CHANGED * before.std()).mean()
    return bool(correlation < MAX_CORRELATION and changed > MIN_CHANGED)


def face_descriptors(crops: np.ndarray) -> np.ndarray:
    """The colours (N,6,6,3) of the cells of faces in crops (N,S,S,3) uint8, divided by their mean, so that the
    brightness of the light does not matter."""
    half = crops[:, ::2, ::2]  # enough, at a quarter of the time
    side = half.shape[1] // CELLS
    whole = half[:, : CELLS * side, : CELLS * side].reshape(-1, CELLS, side, CELLS, side, 3).mean((2, 4))
    inner = whole[:, 1:-1, 1:-1]
    return inner / np.maximum(inner.mean((1, 2, 3), keepdims=True), 1.0)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two face descriptors (6,6,3). Under 0.1 for one person in one light unless the head
    turns, mostly over 0.15 for two people."""
    return float(np.abs(one - other).mean())
