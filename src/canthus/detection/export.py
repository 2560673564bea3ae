"""The trained detector as ONNX: uint8 pictures of any size in multiples of 32 in, `Cells` out, parity checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canthus.detection.network import STRIDES, DetectorNetwork, load_network
from canthus.detection.refiner import RefinerNetwork, load_refiner
from canthus.errors import WeightsError
from canthus.inference.detect import LOOKS, OUTPUTS, REFINER_FILE, REFINER_SIZE
from canthus.io.card import CARD_FILE, sha256
from canthus.io.outputs import atomic_write, make_folder
from canthus.io.session import MODEL_FILE, Session
from canthus.training import monitor
from canthus.training.export import OPSET, strip
from canthus.training.metadata import detector_metadata, refiner_metadata, with_metadata

NAME = "detector"
WEIGHTS_FILE, REFINER_WEIGHTS = "detector.safetensors", "refiner.safetensors"
PARITY = 1e-2  # px, and of scores; more between torch and ONNX is a fault


class _Graph(nn.Module):
    """`Cells` or `Looks` with scores 0..1 and sigma instead of their logits and logarithms."""

    def __init__(self, network: DetectorNetwork | RefinerNetwork):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        score, *rest, log_sigma = self.network(pictures)
        return score.sigmoid(), *rest, log_sigma.clamp(-6, 2).exp()


def export_detector(weights: str | Path, out: str | Path, recipe: str = "") -> None:
    """Write the two networks of a folder that training wrote as an ONNX folder, whose card names the recipe and leaves
    open what the weights may be used for. Raises `WeightsError` for damaged files and where ONNX says something else
    than torch, `OutputError`."""
    weights, out, last = Path(weights), make_folder(out), STRIDES[-1]
    card: dict[str, Any] = {
        "name": NAME, "version": "trained", "licence": "", "commercial_use": False, "training_data": "",
        "recipe": recipe, "commit": monitor.commit(),
    }  # fmt: skip
    batch, rows, columns = (
        torch.export.Dim("batch"),
        torch.export.Dim("rows", max=512),
        torch.export.Dim("columns", max=512),
    )
    rng = np.random.default_rng(0)
    graph = _Graph(load_network(weights / WEIGHTS_FILE)).eval()
    pictures = rng.integers(0, 256, (2, 4 * last, 3 * last, 3), np.uint8)
    dynamic = {0: batch, 1: last * rows, 2: last * columns}
    whole = _network(graph, {"pictures": pictures}, list(OUTPUTS), dynamic, detector_metadata(card))
    closer = _Graph(load_refiner(weights / REFINER_WEIGHTS)).eval()
    crops = rng.integers(0, 256, (2, REFINER_SIZE, REFINER_SIZE, 3), np.uint8)
    near = _network(closer, {"crops": crops}, list(LOOKS), {0: batch}, refiner_metadata(card))
    atomic_write(out / MODEL_FILE, whole)
    atomic_write(out / REFINER_FILE, near)
    card["files"] = {name: sha256(out / name) for name in (MODEL_FILE, REFINER_FILE)}
    atomic_write(out / CARD_FILE, (json.dumps(card, indent=2) + "\n").encode())


def _network(
    graph: nn.Module,
    given: dict[str, np.ndarray],
    outputs: list[str],
    dynamic: dict[int, Any],
    metadata: dict[str, str],
) -> bytes:
    """One network as ONNX, compared with torch on what is given."""
    ((name, values),) = given.items()
    program = torch.onnx.export(
        graph, (torch.from_numpy(values),), input_names=[name], output_names=outputs, dynamic_shapes=(dynamic,),
        opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    data = with_metadata(strip(program.model_proto).SerializeToString(), metadata)
    with torch.inference_mode():
        ours = graph(torch.from_numpy(values))
    theirs = Session(data).run(outputs, given)
    worst = max(float(np.abs(a.numpy() - b).max()) for a, b in zip(ours, theirs))
    if not worst <= PARITY:
        raise WeightsError(f"the exported detector differs from torch by {worst:.2g}; at most {PARITY} is wanted")
    return data
