"""What the peers share: the faces of a protocol in, a file of predictions out.

Each peer runs in a process of its own, in an environment of its own if its packages want that, by its own recommended
call and with its own detector; of several faces the one nearest to the true one counts.

    pip install 'canthus[cpu,formats]' PEER
    python benchmarks/peers/PEER.py aflw2000 FOLDER --out peer.npz
    canthus evaluate aflw2000 FOLDER --predictions peer.npz --report --out out/peer

An adapter is a module with `MODULE`, what it imports, `SCHEME`, that of its points, and `load(model, threads)`,
which gives the system's title and a function from an RGB image to the points (L,2 or 3) of each face found. It imports
nothing of canthus when it is loaded: `cost.py` measures it alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from canthus.evaluation.boxes import nearest
from canthus.evaluation.collect import picture_of, true_boxes
from canthus.evaluation.predictions import Predictions
from canthus.evaluation.protocols import PROTOCOLS, protocol
from canthus.face.landmarks import convert

Answer = Callable[[np.ndarray], list[np.ndarray]]


def main(load: Callable[[Path | None, int | None], tuple[str, Answer]], scheme: str, needs_model: str = "") -> None:
    """Ask a peer for all faces of a protocol and write the file; `needs_model` says which file it wants besides its
    package."""
    parser = argparse.ArgumentParser(description=load.__doc__)
    parser.add_argument("protocol", choices=[*PROTOCOLS])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="file of predictions, .npz or .jsonl")
    parser.add_argument("--model", type=Path, required=bool(needs_model), help=needs_model or "not wanted here")
    chosen = parser.parse_args()
    system, answer = load(chosen.model, None)
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
