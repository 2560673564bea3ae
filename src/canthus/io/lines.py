"""The faces of a video as lines of JSON: one that says what holds for all frames, then one a frame.

`face/video.schema.json` describes both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from canthus.decode import decoding, fits, parse_json, read_bytes
from canthus.errors import LandmarkError
from canthus.face.expressions import EXPRESSIONS
from canthus.io.columns import ImageFaces
from canthus.io.outputs import FRAME, POSE_FRAME, face_record, faces_of

SCHEMA = "canthus.video/1"
LACK = {"missing", "problems"}  # keys of the last line of a service's answer, where frames are missing
_COEFFICIENTS = ("expression", "expression_sigma")


def header_line(video: str, weights: Sequence[str], scheme: str = "ibug68") -> bytes:
    """The first line: what all frames of the video of this name have in common. weights: titles, each once."""
    document = {
        "schema": SCHEMA,
        "video": video,
        "frame": FRAME,
        "pose_frame": POSE_FRAME,
        "scheme": scheme,
        "weights": ", ".join(dict.fromkeys(weights)),
        "expressions": list(EXPRESSIONS),
    }
    return _line(document)


def frame_line(image: ImageFaces) -> bytes:
    """One frame as a line. The coefficients of expressions are lists in the order of the first line's names."""
    records = []
    for k, face in enumerate(image.faces):
        record = {"id": int(image.ids[k]), **face_record(face)}
        if image.followed is not None:
            record["followed"] = bool(image.followed[k])
        if image.blinking is not None:
            record["blinking"] = dict(zip(("right", "left"), image.blinking[k].tolist()))
        record |= {name: list(record[name].values()) for name in _COEFFICIENTS if name in record}
        records.append(record)
    width, height = image.faces.image_size
    frame = {"frame": image.frame, "time": round(image.time, 6), "width": width, "height": height}
    return _line({**frame, "faces": records})


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[ImageFaces]:
    """The frames of a file that begins with a `header_line`; it may end with a line of LACK. Raises `LandmarkError` for
    a file that cannot be read or is no such file."""
    with decoding(LandmarkError, f"got a file {os.fspath(path)} that cannot be read, want lines of a tracked video"):
        lines = read_bytes(path).splitlines()
    with decoding(LandmarkError, f"got a file {os.fspath(path)} that is not {SCHEMA}, want lines of a tracked video"):
        header = parse_json(lines[0]) if lines else {}
        if (
            header.get("schema") != SCHEMA
            or not fits(header["video"], str)
            or not fits(header["expressions"], list[str])
        ):
            raise ValueError(f"its first line has the schema {header.get('schema')!r}")
    for count, line in enumerate(lines[1:], start=2):
        with decoding(LandmarkError, f"got other JSON in line {count} of {os.fspath(path)}, want a tracked video's"):
            document = parse_json(line)
            if set(document) == LACK and count == len(lines):
                return
            frame = _frame(document, header)
        yield frame


def _frame(document: dict[str, Any], header: dict[str, Any]) -> ImageFaces:
    records = document["faces"]
    if not (fits(document["frame"], int) and fits(document["time"], float)):
        raise ValueError(f"the number and time of the frame are {document['frame']} and {document['time']}")
    if not (fits(records, list[dict]) and all(fits(face["id"], int) for face in records)):
        raise ValueError("a face has no number")
    if not all(fits(face.get(name, []), list) for face in records for name in _COEFFICIENTS):
        raise ValueError("the coefficients of a face are no list")

    def flags(name: str, kind: Any) -> list[Any] | None:
        values = [face.get(name) for face in records]
        if not values or None in values:
            return None
        if not fits(values, list[kind]):
            raise ValueError(f"{name} of a face is no truth value")
        return values

    named = [
        face
        | {name: dict(zip(header["expressions"], face[name], strict=True)) for name in _COEFFICIENTS if name in face}
        for face in records
    ]
    followed, blinking = flags("followed", bool), flags("blinking", dict[str, bool])
    return ImageFaces(
        header["video"],
        document["frame"],
        document["time"],
        faces_of(named, (document["width"], document["height"]), header["scheme"], header["weights"]),
        np.array([face["id"] for face in records], int),
        None if followed is None else np.array(followed, bool),
        None if blinking is None else np.array([[b["right"], b["left"]] for b in blinking], bool),
    )


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False).encode() + b"\n"
