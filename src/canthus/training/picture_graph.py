"""One ONNX graph from a picture and a box to points in the picture: the crop of `io.images.crop_image` and the way back
of `Alignment.to_image` around an exported network, for programs without the package.

The crop does what Pillow does there, step by step: the part of the picture under the crop is averaged over whole blocks
of pixels and rounded, gets a black rim, and is read bilinearly. One byte in thousands differs, by 1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper

from canthus.decode import decoding, read_bytes
from canthus.errors import WeightsError
from canthus.geometry.crop import Crop
from canthus.inference.runtime import OnnxAligner
from canthus.io.card import CARD_FILE, Card, sha256
from canthus.io.images import crop_image
from canthus.io.outputs import atomic_write
from canthus.io.session import MODEL_FILE, Session
from canthus.training.metadata import picture_metadata, with_metadata
from canthus.training.picture_ops import bounded_of, crop_of, points_of, pose_of, scaled_of, seen_of, single_of

PICTURE_FILE = "picture.onnx"
PARITY = 0.01  # px, of points found on the same crop; more between the graph and the package is a fault


# Output of a network -> the function that takes it to the picture, and what else that is given.
_DECODERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "xyz": (points_of, ("centre", "zoom", "turn", "size")),
    "sigma": (scaled_of, ("zoom",)),
    "visible": (seen_of, ("xyz", "picture")),
    "rotation": (pose_of, ("turn",)),
    "score": (single_of, ()),
    "expression": (bounded_of, ()),
    "expression_sigma": (single_of, ()),
}
_DOMAIN = "canthus"
_CROPS = "network_crops"  # as the network, whose names get this prefix, calls its input


def picture_graph(model: onnx.ModelProto, card: Card) -> onnx.ModelProto:
    """The graph around a network: `picture` (H,W,3) uint8, `box` (4,) and `roll` (1,) in, its outputs of the one face,
    in pixels of the picture, out."""
    network = compose.add_prefix_graph(model.graph, "network_")
    known = [output for output in model.graph.output if output.name in _DECODERS]
    functions = [crop_of, *{id(f): f for f, _ in (_DECODERS[output.name] for output in known)}.values()]

    def call(function: Any, given: list[str], gives: list[str]) -> onnx.NodeProto:
        return helper.make_node(function.name, given, gives, name=f"{function.name}_{gives[0]}", domain=_DOMAIN)

    inputs = ["picture", "box", "roll", "scale", "size"]
    nodes = [call(crop_of, inputs, [_CROPS, "centre", "zoom", "turn"]), *network.node]
    outputs = []
    for output in known:
        function, given = _DECODERS[output.name]
        nodes.append(call(function, [f"network_{output.name}", *given], [output.name]))
        shape = [dim.dim_value for dim in output.type.tensor_type.shape.dim][1:]
        outputs.append(helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes, "picture",
        [
            helper.make_tensor_value_info("picture", onnx.TensorProto.UINT8, ["height", "width", 3]),
            helper.make_tensor_value_info("box", onnx.TensorProto.FLOAT, [4]),
            helper.make_tensor_value_info("roll", onnx.TensorProto.FLOAT, [1]),
        ],
        outputs,
        [
            *network.initializer,
            helper.make_tensor("scale", onnx.TensorProto.DOUBLE, [], [card.crop_scale]),
            helper.make_tensor("size", onnx.TensorProto.FLOAT, [], [card.crop_size]),
        ],
    )  # fmt: skip
    local = [function.to_function_proto() for function in functions]
    for function in local:
        function.domain = _DOMAIN
    opsets = {o.domain: o.version for o in model.opset_import} | {_DOMAIN: 1}
    return helper.make_model(
        graph, functions=[*model.functions, *local], ir_version=model.ir_version,
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets.items()],
    )  # fmt: skip


def export_picture(folder: str | Path) -> float:
    """Add the graph to an ONNX folder, as picture.onnx; returns the largest difference to the package, px.

    Raises `WeightsError` for weights that need more than their network, a head model or points to start from, and where
    the difference is more than PARITY.
    """
    folder = Path(folder)
    card = Card.read(folder)
    if card.start is not None or card.completion is not None:
        what = "points to start from" if card.start is not None else "a head model fitted to them"
        raise WeightsError(f"the points of '{card.title}' need {what}, which no graph has, want weights without")
    with decoding(WeightsError, f"'{folder / MODEL_FILE}' cannot be read"):
        model = onnx.ModelProto.FromString(read_bytes(card.checked(folder, MODEL_FILE)))
    made = picture_graph(model, card)
    names = [output.name for output in made.graph.output]
    atomic_write(folder / PICTURE_FILE, with_metadata(made.SerializeToString(), picture_metadata(card, names)))
    worst = _difference(folder, card, made)
    if not worst <= PARITY:
        raise WeightsError(f"the graph with the crop differs by {worst:.2g} px; at most {PARITY} px is wanted")
    card = replace(card, files={**card.files, PICTURE_FILE: sha256(folder / PICTURE_FILE)})
    atomic_write(folder / CARD_FILE, card.to_json().encode())
    return worst


def _difference(folder: Path, card: Card, made: onnx.ModelProto) -> float:
    """Between the graph and the package, px, on boxes from small to larger than the picture, upright and turned.

    The crops may differ by one grey level, and the package then gets those of the graph: what a network makes of a grey
    level on a picture without a face says nothing.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(made)
    size = card.crop_size
    shown.graph.output.append(helper.make_tensor_value_info(_CROPS, onnx.TensorProto.UINT8, [1, size, size, 3]))
    random, worst = np.random.default_rng(0), 0.0
    picture = random.integers(0, 256, (6, 9, 3), np.uint8).repeat(40, 0).repeat(40, 1)  # 240 x 360
    with TemporaryDirectory() as temporary:
        path = Path(temporary, PICTURE_FILE)
        path.write_bytes(shown.SerializeToString())
        aligner, session = OnnxAligner(folder), Session(path)
        for side, roll in ((20, 0.0), (90, 0.5), (200, 0.0), (300, -2.0), (700, 0.0)):
            corner = random.uniform(-0.2, 0.7, 2) * [360, 240]
            box = np.array([*corner, *(corner + [side, 0.9 * side])], np.float32)
            crop = Crop.around_boxes(box[None].astype(np.float64), card.crop_scale, size, roll)
            given = {"picture": picture, "box": box, "roll": np.array([roll], np.float32)}
            xyz, crops = session.run(["xyz", _CROPS], given)
            if np.abs(crops.astype(int) - crop_image(picture, crop)).max() > 1:
                return np.inf
            wanted = aligner.run(crops).to_image(crop, (360, 240), scheme=card.scheme)
            worst = max(worst, float(np.abs(xyz - wanted.xyz[0]).max()))
    return worst
