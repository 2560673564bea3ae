"""Trained swift weights whose predicted errors fit photos: sigma becomes factor * sigma^power.

    python tools/calibrate.py runs/swift/weights PHOTOS --out calibrated

Weights that learnt from rendered faces are surer of photos than they should be. PHOTOS are pairs in the layout of
AFLW2000-3D. Their points are put in tenths by the predicted mean error; factor and power are the line that lies
nearest to the logarithms of predicted and measured error. Prints measured / predicted of the tenths on the half of the
faces that the line was not taken from, both ways round, then takes it from all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from canthus.evaluation.protocols import protocol
from canthus.evaluation.scores import tenths
from canthus.face.uncertainty import MEAN_RADIUS
from canthus.geometry.crop import Crop, tight_boxes
from canthus.methods.swift import Swift
from canthus.training.aligner import Aligner


def line(said: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Factor and power, from predicted and measured errors (N,68)."""
    x, y = np.log(tenths(said.ravel(), measured.ravel())).T
    power, shift = np.polyfit(x, y, 1)
    # of mean errors; sigma is MEAN_RADIUS times smaller on both sides
    return float(np.exp(shift) * MEAN_RADIUS ** (power - 1)), float(power)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    aligner = Aligner.load(given.weights)
    if not isinstance(aligner, Swift):
        raise SystemExit(f"'{given.weights}' holds {aligner.card.method}, which predicts no sigma; swift is wanted")
    samples = list(protocol("aflw2000").faces(given.photos))
    labels = np.stack([s.points for s in samples])
    boxes = tight_boxes(labels)
    faces = aligner.predict_many([s.image for s in samples], list(boxes))
    side = Crop.around_boxes(boxes, aligner.card.crop_scale, 1).side[:, None]  # the unit of the network's sigma
    sigma = np.concatenate([f.sigma for f in faces]) / side
    measured = np.linalg.norm(np.concatenate([f.xy for f in faces]) - labels[..., :2], axis=2) / side

    def fitted(factor: float, power: float) -> np.ndarray:
        return MEAN_RADIUS * factor * sigma**power

    mixed = np.random.default_rng(0).permutation(len(samples))
    for one, other in (mixed[::2], mixed[1::2]), (mixed[1::2], mixed[::2]):
        factor, power = line(MEAN_RADIUS * sigma[one], measured[one])
        said, found = np.transpose(tenths(fitted(factor, power)[other].ravel(), measured[other].ravel()))
        print(f"factor {factor:.2f}, power {power:.2f}; the other half: {np.round(found / said, 2).tolist()}")
    factor, power = line(MEAN_RADIUS * sigma, measured)
    aligner.scale_sigma(factor, power)
    aligner.save(given.out)
    print(f"factor {factor:.3f}, power {power:.3f}: {given.out}")


if __name__ == "__main__":
    main()
