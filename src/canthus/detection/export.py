"""The trained detector as ONNX: uint8 pictures of any size in multiples of 32 in, `Cells` out, parity checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canthus.detection.network import STRIDES, DetectorNetwork, load_network
from canthus.errors import WeightsError
from canthus.io.card import CARD_FILE, sha256
from canthus.io.outputs import atomic_write, make_folder
from canthus.io.session import MODEL_FILE, Session
from canthus.training import monitor
from canthus.training.export import OPSET, strip
from canthus.training.metadata import detector_metadata, with_metadata

NAME = "detector"
PARITY = 1e-2  # px, and of scores; more between torch and ONNX is a fault


class _Graph(nn.Module):
    """`Cells` with scores 0..1 and sigma instead of their logits and logarithms."""

    def __init__(self, network: DetectorNetwork):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        cells = self.network(pictures)
        return cells.score.sigmoid(), cells.box, cells.upright, cells.up, cells.log_sigma.clamp(-6, 2).exp()


OUTPUTS = ("score", "box", "upright", "up", "sigma")


def export_detector(weights: str | Path, out: str | Path, recipe: str = "") -> None:
    """Write the network of a file that training wrote as an ONNX folder, whose card names the recipe and leaves open
    what the weights may be used for. Raises `WeightsError` for a damaged file and where ONNX says something else than
    torch, `OutputError`."""
    graph = _Graph(load_network(weights)).eval()
    out = make_folder(out)
    last = STRIDES[-1]
    rows, columns = torch.export.Dim("rows", max=512), torch.export.Dim("columns", max=512)
    program = torch.onnx.export(
        graph, (torch.zeros((2, 2 * last, 3 * last, 3), dtype=torch.uint8),), input_names=["pictures"],
        output_names=list(OUTPUTS), dynamic_shapes=({0: torch.export.Dim("batch"), 1: last * rows, 2: last * columns},),
        opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    card: dict[str, Any] = {
        "name": NAME, "version": "trained", "licence": "", "commercial_use": False, "training_data": "",
        "recipe": recipe, "commit": monitor.commit(),
    }  # fmt: skip
    data = with_metadata(strip(program.model_proto).SerializeToString(), detector_metadata(card))
    atomic_write(out / MODEL_FILE, data)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4 * last, 3 * last, 3), np.uint8)
    with torch.inference_mode():
        ours = graph(torch.from_numpy(pictures))
    theirs = Session(out / MODEL_FILE).run(list(OUTPUTS), {"pictures": pictures})
    worst = max(float(np.abs(a.numpy() - b).max()) for a, b in zip(ours, theirs))
    if not worst <= PARITY:
        raise WeightsError(f"the exported detector differs from torch by {worst:.2g}; at most {PARITY} is wanted")
    card["files"] = {MODEL_FILE: sha256(out / MODEL_FILE)}
    atomic_write(out / CARD_FILE, (json.dumps(card, indent=2) + "\n").encode())
