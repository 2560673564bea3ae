"""Trained swift weights whose predicted errors fit photos: one factor on every sigma.

    python tools/calibrate.py runs/swift/weights PHOTOS --out calibrated

Weights that learnt from rendered faces are surer of photos than they should be. PHOTOS are pairs in the layout of
AFLW2000-3D. Their points are put in tenths by the predicted mean error, and the factor is the geometric mean of what
is measured over what is predicted. Prints these ratios on the half of the faces that the factor was not taken from,
both ways round, then takes it from all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from canthus.aligner import Aligner
from canthus.benchmark.protocols import protocol
from canthus.benchmark.scores import Scores, score
from canthus.evaluate import predict
from canthus.methods.swift import Swift

PROTOCOL = "aflw2000"


def ratios(scores: Scores) -> np.ndarray:
    """Measured / predicted error (10,) of the tenths."""
    table = scores.table("error by tenths").rows
    return np.array(table["measured"]) / np.array(table["predicted"])


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
    rules = protocol(PROTOCOL)
    samples = list(rules.faces(given.photos))
    answers = predict(PROTOCOL, given.photos, aligner)
    mixed = np.random.default_rng(0).permutation(len(samples))

    def of(index: np.ndarray) -> np.ndarray:
        some = [samples[k] for k in index]
        return ratios(score(rules, some, answers.of([s.name for s in some])))

    for one, other in (mixed[::2], mixed[1::2]), (mixed[1::2], mixed[::2]):
        factor = np.exp(np.log(of(one)).mean())
        print(f"factor {factor:.2f}; the other half's tenths: {np.round(of(other) / factor, 2).tolist()}")
    factor = float(np.exp(np.log(of(np.arange(len(samples)))).mean()))
    aligner.scale_sigma(factor)
    aligner.save(given.out)
    print(f"factor {factor:.3f}: {given.out}")


if __name__ == "__main__":
    main()
