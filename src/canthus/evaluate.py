"""Measuring an aligner on annotated photos, by the protocol of the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canthus import metrics
from canthus.data.formats import FaceSample, read_300wlp
from canthus.geometry.rotation import euler_from_matrix
from canthus.inference import Predictor


@dataclass(frozen=True)
class Evaluation:
    """Errors as fractions: NME in the image plane by sqrt(w h) of the true box, GTE by the 3D outer eye distance.

    nme, gte, yaw: (N,) per face; yaw in degrees from the fitted pose. pose_error: (N,) geodesic degrees.
    score_error: (N,68) distances / size beside scores (N,68), for calibration.
    """

    nme: np.ndarray
    gte: np.ndarray
    yaw: np.ndarray
    pose_error: np.ndarray
    distance: np.ndarray
    scores: np.ndarray

    def row(self) -> dict[str, float]:
        """Percent by bin of |yaw| (0-30, 30-60, 60-90), the mean of the bins, the mean over images, GTE, pose."""
        row = metrics.table_row(self.nme, metrics.yaw_bins(np.deg2rad(self.yaw)))
        near, half, far = (100 * float(b) for b in row.bins)
        return {
            "0-30": near, "30-60": half, "60-90": far, "mean of bins": 100 * float(row.mean_of_bins),
            "mean of images": 100 * float(row.mean_of_images), "gte": 100 * float(self.gte.mean()),
            "pose_degrees": float(self.pose_error.mean()), "faces": len(self.nme),
        }  # fmt: skip


def evaluate_aflw2000(
    predictor: Predictor, folder: str | Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Evaluation:
    """AFLW2000-3D, original labels, boxes from the true landmarks; bins by the yaw of the fitted pose."""
    samples: list[FaceSample] = list(read_300wlp(folder))
    found, scores, rotations = [], [], []
    for k, sample in enumerate(samples):
        truth = sample.xyz
        box = np.concatenate([truth[:, :2].min(0), truth[:, :2].max(0)])
        faces = predictor.predict(sample.image, boxes=box)
        found.append(faces.xyz[0])
        scores.append(faces.scores[0])
        rotations.append(faces.pose.matrix[0])
        progress(k + 1, len(samples))
    truth, xyz = np.stack([s.xyz for s in samples]), np.stack(found).astype(np.float64)
    rotation = np.stack([s.rotation for s in samples])
    extent = truth[..., :2].max(1) - truth[..., :2].min(1)
    distance = np.linalg.norm(xyz[..., :2] - truth[..., :2], axis=-1) / np.sqrt(extent.prod(-1))[:, None]
    return Evaluation(
        nme=metrics.nme_box(xyz, truth),
        gte=metrics.gte(xyz, truth),
        yaw=np.rad2deg(euler_from_matrix(rotation, "aflw")[:, 1]),
        pose_error=np.rad2deg(metrics.geodesic(np.stack(rotations), rotation)),
        distance=distance,
        scores=np.stack(scores),
    )
