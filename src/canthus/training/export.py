"""Trained weights as ONNX: the graph takes uint8 pictures and gives the fields of `Alignment`, parity checked."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from canthus.decode import decoding, read_bytes
from canthus.errors import OutputError, WeightsError
from canthus.face.faces import ALIGNMENT_FIELDS
from canthus.geometry.crop import Crop, tight_boxes
from canthus.inference.runtime import OnnxAligner
from canthus.io.card import CARD_FILE, Card, sha256
from canthus.io.images import crop_image
from canthus.io.outputs import atomic_write, make_folder
from canthus.io.session import MODEL_FILE
from canthus.io.shards import open_shard
from canthus.training.aligner import WEIGHTS_FILE, Aligner
from canthus.training.metadata import network_metadata, with_metadata

OPSET = 18
MOST_OTHER = 0.01  # largest difference of rotations, visibilities, scores and coefficients to torch


class _Graph(nn.Module):
    """uint8 pictures in, and points to start from where the method needs them; the outputs of the method out."""

    def __init__(self, aligner: Aligner):
        super().__init__()
        self.aligner = aligner

    def forward(self, crops: Tensor, start: Tensor | None = None) -> dict[str, Tensor]:
        out = self.aligner(crops.permute(0, 3, 1, 2).float() / 255, start)
        return {name: value for name in ALIGNMENT_FIELDS if (value := getattr(out, name)) is not None}


def export_onnx(weights: str | Path, out: str | Path) -> float:
    """Write the aligner of folder `weights` as an ONNX folder; returns the largest difference to torch, px.

    Raises `WeightsError` if it is more than the method's `parity`, or if anything else differs, in which case nothing
    is written, and `OutputError`, also for a folder that holds weights as training writes them, whose card would no
    longer be theirs.
    """
    aligner = Aligner.load(weights)
    out = _folder(out)
    size = aligner.config.size
    inputs = {"crops": torch.zeros((2, size, size, 3), dtype=torch.uint8)}
    if aligner.starter is not None:
        inputs["start"] = torch.rand((2, 68, 3)) * size
    graph = _Graph(aligner).eval()
    with torch.inference_mode():
        names = list(graph(**inputs))
    model = _traced(graph, inputs, names) if aligner.unrolled else _exported(graph, inputs, names)
    card = replace(aligner.card, start=aligner.starter)
    data = strip(model).SerializeToString()
    pictures = np.random.default_rng(0).integers(0, 256, (16, size, size, 3), np.uint8)
    with TemporaryDirectory() as temporary:
        _write(Path(temporary), card, data)
        ours, theirs = aligner.answer(pictures), OnnxAligner(Path(temporary)).answer(pictures)
    worst = float(np.abs(ours.xyz - theirs.xyz).max())
    if not worst <= aligner.parity:
        raise WeightsError(
            f"the exported network differs from torch by {worst:.2g} px; at most {aligner.parity} px is wanted"
        )
    for name in ALIGNMENT_FIELDS:
        mine, its = getattr(ours, name), getattr(theirs, name)
        most = aligner.parity if name == "sigma" else MOST_OTHER
        if name != "xyz" and mine is not None and not np.allclose(mine, its, rtol=1e-3, atol=most, equal_nan=True):
            raise WeightsError(f"the exported network gives another {name} than torch, want one within {most}")
    _write(out, card, data)
    return worst


def _exported(graph: nn.Module, inputs: dict[str, Tensor], names: list[str]) -> Any:
    batch = {0: torch.export.Dim("batch")}  # shared by all inputs
    with _quiet():
        program = torch.onnx.export(
            graph, tuple(inputs.values()), input_names=list(inputs), output_names=names,
            dynamic_shapes=(batch,) * len(inputs), opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def _traced(graph: nn.Module, inputs: dict[str, Tensor], names: list[str]) -> Any:
    """The same by tracing: of thousands of nodes the newer exporter takes many minutes to make a graph, this one ten
    seconds."""
    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / MODEL_FILE
        torch.onnx.export(
            graph, tuple(inputs.values()), path, input_names=list(inputs), output_names=names,
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *names)}, opset_version=OPSET, dynamo=False,
            verbose=False,
        )  # fmt: skip
        return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of constants, of their own age and of torchvision, which nothing here needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def strip(model: Any) -> Any:
    """An ONNX model without what the exporter notes about every node, such as the paths of source files."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    return model


def quantise(folder: str | Path, shard: str | Path) -> None:
    """Turn the network of an ONNX folder into int8, ranges measured on faces of a shard.

    Every processor gives the same points: weights have 7 bits, so the sum of two products with 8-bit activations,
    which processors without VNNI keep in 16 bits, is at most 2 * 255 * 64 = 32,640 and cannot overflow. Convolutions
    that feed others are quantised; the last one of each network, which takes little time, and all other layers stay in
    float32.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folder = Path(folder)
    card = Card.read(folder)
    pictures = face_crops(shard, card, 256)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(np.array_split(pictures, 16))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.rest, None)
            return None if batch is None else {"crops": batch}

    with TemporaryDirectory() as temporary:
        prepared, result = Path(temporary, "prepared.onnx"), Path(temporary, "int8.onnx")
        # symbolic shapes are not known to every operator, and convolutions need none
        quant_pre_process(str(folder / MODEL_FILE), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(result), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
            op_types_to_quantize=["Conv"],  # ranges of these alone, as others may be NaN
            nodes_to_quantize=_inner_convolutions(onnx.load(str(prepared)).graph.node),
            calibrate_method=CalibrationMethod.Percentile,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        _write(folder, replace(card, name=f"{card.name}-int8"), result.read_bytes())


def _inner_convolutions(nodes: Sequence[Any]) -> list[str]:
    """The names of the convolutions among nodes, in the order of a graph, whose output reaches another one without
    passing a linear layer."""
    reaching, names = set[str](), []  # tensors from which a convolution is reached so
    for node in reversed(nodes):
        inner = reaching.intersection(node.output)
        if node.op_type == "Conv" and inner:
            names.append(node.name)
        if node.op_type == "Conv" or (inner and node.op_type not in ("Gemm", "MatMul")):
            reaching.update(node.input)
    return names[::-1]


def face_crops(shard: str | Path, card: Card, count: int) -> np.ndarray:
    """The first `count` faces of a shard, cropped as the network of `card` wants them: (N,S,S,3) uint8."""
    with decoding(WeightsError, f"the shard '{shard}' cannot be read"):
        faces = open_shard(Path(shard)).read(("image", "xyz"))
    images, xyz = faces["image"][:count], faces["xyz"][:count].astype(np.float64)
    crops = Crop.around_boxes(tight_boxes(xyz), card.crop_scale, card.crop_size)
    return np.concatenate([crop_image(image, crops[k : k + 1]) for k, image in enumerate(images)])


def copy_onnx(folder: Path, out: str | Path) -> None:
    """Rewrite an ONNX folder with this version's metadata in the file. Raises `WeightsError`,
    `OutputError`."""
    card = Card.read(folder)
    _write(_folder(out), card, read_bytes(card.checked(folder, MODEL_FILE)))


def _folder(out: str | Path) -> Path:
    if Path(out, WEIGHTS_FILE).exists():
        raise OutputError(f"got the folder '{out}', which holds the weights that training wrote, want another one")
    return make_folder(out)


def _write(folder: Path, card: Card, data: bytes) -> None:
    """Write a network, with metadata, and its card."""
    with decoding(WeightsError, f"the network of '{card.title}' cannot be read"):
        names = [output.name for output in onnx.ModelProto.FromString(data).graph.output]
        data = with_metadata(data, network_metadata(card, names))
    atomic_write(folder / MODEL_FILE, data)
    card = replace(card, files={MODEL_FILE: sha256(folder / MODEL_FILE)})
    atomic_write(folder / CARD_FILE, card.to_json().encode())
