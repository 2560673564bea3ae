"""What an ONNX file says about itself: `metadata_props` that name its inputs and outputs with their units, the rule of
its crop, its landmarks, its licence and its card, for programs without the package.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import onnx

from canthus.face.expressions import EXPRESSIONS
from canthus.face.landmarks import scheme
from canthus.inference.detect import REFINER_CONTEXT, REFINER_SIZE
from canthus.io.card import Card

IMAGE = "uint8, RGB, rows from the top, 0 to 255"
CROP_FRAME = "crop: x right, y down, z towards the camera; (0, 0) is the centre of its top left pixel"
PICTURE_FRAME = "picture: x right, y down, z towards the camera; (0, 0) is the centre of its top left pixel"
CROP_RULE = (
    "a square around the centre (cx, cy) of the tight box (x0, y0, x1, y1) of the landmarks, of side S = scale * "
    "max(x1 - x0, y1 - y0), resampled to size R: pixel (u, v) of the crop is the picture at (x, y) = (cx, cy) + S / R "
    "* rot(a) ((u, v) - (R - 1) / 2), a the roll of the crop, rot(a) = [cos a, -sin a; sin a, cos a]; outside the "
    "picture it is black; where S / R is 2 or more the picture is averaged over blocks of floor(S / R) pixels first"
)
LEFT_OUT = ("files", "measured", "limits")  # of the card: checksums, and what may be found out later


def _outputs(unit: str, frame: str, z_origin: str) -> dict[str, dict[str, str]]:
    """What the fields of `Alignment` mean where points are in pixels of `frame`."""
    axes = "camera from head; right-handed, y up: head x to the subject's left, z out of the face; camera x right"
    return {
        "xyz": {"what": "landmarks", "unit": unit, "frame": frame, "z origin": z_origin},
        "sigma": {"what": "standard deviation of the error along x, and the same along y", "unit": unit},
        "visible": {"what": "probability that the point can be seen", "unit": "0 to 1"},
        "rotation": {"what": "rotation matrix of the head", "unit": "1", "frame": axes},
        "coefficients": {"what": "identity, then expression, of the method's own head model", "unit": "1"},
        "placement": {"what": "pixels a unit of that model, and x and y of its origin", "unit": unit},
        "score": {"what": "the method's own confidence, not calibrated", "unit": "0 to 1"},
        "expression": {"what": "coefficients in the order of `expressions`", "unit": "0 at rest, 1 fully done"},
        "expression_sigma": {"what": "standard deviation of the error of each", "unit": "as the coefficient's"},
    }


def network_metadata(card: Card, outputs: Iterable[str]) -> dict[str, str]:
    """Of a network that `canthus.load` runs: crops in, the fields of `Alignment` named `outputs` out."""
    size = card.crop_size
    inputs = {"crops": {"what": "crops", "shape": ["B", size, size, 3], "values": IMAGE}}
    if card.start is not None:
        what = f"points to start from, as the weights '{card.start}' find them"
        inputs["start"] = {"what": what, "shape": ["B", 68, 3], "values": f"float32, crop pixels; {CROP_FRAME}"}
    known = _outputs("crop pixel", CROP_FRAME, "none: only differences count")
    return _written(card, inputs, {name: known[name] for name in outputs})


def picture_metadata(card: Card, outputs: Iterable[str]) -> dict[str, str]:
    """Of `picture_graph`: a picture, a box and a roll in, the same in pixels of the picture out."""
    inputs = {
        "picture": {"what": "picture", "shape": ["H", "W", 3], "values": IMAGE},
        "box": {
            "what": "tight box x0, y0, x1, y1 of the landmarks",
            "shape": [4],
            "values": f"float32; {PICTURE_FRAME}",
        },
        "roll": {"what": "turn of the crop, from right towards down", "shape": [1], "values": "float32, radians"},
    }
    known = _outputs("pixel", PICTURE_FRAME, "the mean of the landmarks")
    return _written(card, inputs, {name: known[name] for name in outputs})


def _written(card: Card, inputs: Any, outputs: Any) -> dict[str, str]:
    about = {name: value for name, value in asdict(card).items() if name not in LEFT_OUT}
    values = {
        "name": card.name,
        "version": card.version,
        "licence": card.licence,
        "inputs": inputs,
        "outputs": outputs,
        "crop": {"size": card.crop_size, "scale": card.crop_scale, "rule": CROP_RULE},
        "landmarks": {"scheme": card.scheme, "count": scheme(card.scheme).count},
        "card": about,
    }
    if "expression" in outputs:
        values["expressions"] = list(EXPRESSIONS)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def detector_metadata(card: Mapping[str, Any]) -> dict[str, str]:
    """Of a detector that `canthus train-detector` wrote."""
    pixels = f"pixel; {PICTURE_FRAME}"
    inputs = {"pictures": {"what": "pictures", "shape": ["B", "32 n", "32 m", 3], "values": IMAGE}}
    outputs = {
        "score": {"what": "of each cell, that a face is there", "unit": "0 to 1"},
        "box": {"what": "tight box x0, y0, x1, y1 of its landmarks", "unit": pixels},
        "upright": {"what": "centre x, y and side of the tight square along the head's axes", "unit": pixels},
        "up": {"what": "the head's upward axis in the picture, x right, y down", "unit": "1"},
        "sigma": {"what": "standard deviation of the error of `upright`", "unit": "its sides"},
    }
    return _of_detector(card, inputs, outputs)


def refiner_metadata(card: Mapping[str, Any]) -> dict[str, str]:
    """Of the same detector's second network."""
    size = REFINER_SIZE
    rule = f"squares around candidates, {REFINER_CONTEXT} times as large, along the upward axes of their heads"
    inputs = {"crops": {"what": rule, "shape": ["B", size, size, 3], "values": IMAGE}}
    side = "the candidate's side"
    outputs = {
        "score": {"what": "that a face is there", "unit": "0 to 1"},
        "move": {"what": "to the square of the face: right, down, logarithm of the ratio of sides", "unit": side},
        "up": {"what": "the head's upward axis in the crop, x right, y down", "unit": "1"},
        "sigma": {"what": "standard deviation of the error of `move`", "unit": side},
    }
    return _of_detector(card, inputs, outputs)


def _of_detector(card: Mapping[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, str]:
    about = {name: value for name, value in card.items() if name not in LEFT_OUT}
    values = {"name": card["name"], "version": card["version"], "licence": card["licence"]}
    return values | {k: json.dumps(v) for k, v in {"inputs": inputs, "outputs": outputs, "card": about}.items()}


def with_metadata(data: bytes, values: Mapping[str, str]) -> bytes:
    """The bytes of an ONNX file with these `metadata_props` in place of its own, at the end: the network before them
    stays as it is, byte for byte, where the file had none."""
    model = onnx.ModelProto.FromString(data)
    if model.metadata_props:
        model.ClearField("metadata_props")
        data = model.SerializeToString()
    notes = onnx.ModelProto()
    for name, value in values.items():
        notes.metadata_props.add(key=name, value=value)
    return data + notes.SerializeToString()
