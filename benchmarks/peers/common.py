"""What the peers share: the faces of a protocol in, a file of predictions out.

Each peer runs in a process of its own, by its own recommended call and with its own detector; of several faces the one
nearest to the true one counts.

    pip install 'canthus[formats]' PEER
    python benchmarks/peers/PEER.py aflw2000 FOLDER --out peer.npz
    canthus evaluate aflw2000 FOLDER --predictions peer.npz --report --out out/peer
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from canthus.benchmark.boxes import nearest
from canthus.benchmark.collect import picture_of, true_boxes
from canthus.benchmark.predictions import Predictions
from canthus.benchmark.protocols import PROTOCOLS, protocol
from canthus.landmarks import convert

Answer = Callable[[np.ndarray], list[np.ndarray]]  # an RGB image -> points (L,2 or 3) of each face found


def options(what: str, needs_model: str = "") -> argparse.Namespace:
    """The command line of a peer; `needs_model` says which file it wants besides its package."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("protocol", choices=[*PROTOCOLS])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="file of predictions, .npz or .jsonl")
    if needs_model:
        parser.add_argument("--model", type=Path, required=True, help=needs_model)
    return parser.parse_args()


def run(chosen: argparse.Namespace, system: str, scheme: str, answer: Answer) -> None:
    """Ask a peer for all faces of a protocol and write the file."""
    samples = protocol(chosen.protocol).faces(chosen.data)
    names, found, boxes = [], [], []
    for sample, true in zip(samples, true_boxes(samples)):
        shapes = answer(picture_of(sample))
        around = [convert(s.astype(np.float64), scheme, "ibug68")[0][:, :2] for s in shapes]
        tight = np.array([[*s.min(0), *s.max(0)] for s in around]).reshape(-1, 4)
        which = nearest(tight, true)
        if which is not None:
            names.append(sample.name)
            found.append(shapes[which])
            boxes.append(tight[which])
    if not found:
        raise SystemExit(f"{system} found no face")
    Predictions(names, np.stack(found), np.stack(boxes), scheme=scheme, system=system).write(chosen.out)
    print(f"{len(found)} of {len(samples)} faces in {chosen.out}")
