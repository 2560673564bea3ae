"""Moving heads as glTF 2.0 in one file (GLB): a mesh with named morph targets and an animated node for each face.

The file's frame is the camera's: metres, x right, y up, z towards the camera, which stands at the origin and looks
along -z. https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canthus.errors import OutputError
from canthus.face.morphable import MorphableModel
from canthus.io.outputs import split_seams

_FLOAT, _UINT = 5126, 5125
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_VERTICES, _INDICES = 34962, 34963  # what a buffer view is for
_SKIN = {
    "pbrMetallicRoughness": {"baseColorFactor": [0.72, 0.55, 0.47, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
}
METRES = 1e-3  # of the models' millimetres


@dataclass(frozen=True, eq=False)
class HeadMotion:
    """One head over time.

    name: of its node. identity: (K,) of the model. times: (T,) seconds, rising, T > 0. rotation: (T,4) quaternions
    (w, x, y, z) camera from head. translation: (T,3) mm. expression: (T,E) weights of the model's expressions. there:
    (first, last) seconds of each stretch in which it is seen; outside it has no size.
    """

    name: str
    identity: np.ndarray
    times: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    there: Sequence[tuple[float, float]]


def motions_glb(model: MorphableModel, heads: Sequence[HeadMotion], field_of_view: float) -> bytes:
    """A GLB file with a node, a mesh and an animation for each head, and a camera.

    The mesh is the neutral head of a person; its morph targets have the names of the model's expressions, in
    `mesh.extras.targetNames`, where viewers, Blender and engines look for them. All heads share the targets, as the
    model is linear. field_of_view: the camera's, from top to bottom, radians. Raises `OutputError` for a model that is
    not in millimetres.
    """
    if model.unit != "mm":
        raise OutputError(f"got a head model in {model.unit!r}, want one in mm")
    file = _File()
    vertex, corners, texture = np.arange(len(model.mean)), model.triangles, dict[str, int]()
    if model.uv is not None and model.uv_triangles is not None:
        vertex, corners, uv = split_seams(model.triangles, model.uv, model.uv_triangles)
        texture["TEXCOORD_0"] = file.add(uv * [1, -1] + [0, 1], _VERTICES)
    indices = file.add(corners.ravel().astype(np.uint32), _INDICES)
    targets = [{"POSITION": file.add(METRES * mode[vertex], _VERTICES, bounds=True)} for mode in model.expression]
    meshes, nodes, channels, samplers = [], [], list[Any](), list[Any]()
    for number, head in enumerate(heads):
        neutral = model.vertices(np.asarray(head.identity, np.float32)[None])[0][vertex]
        attributes = {"POSITION": file.add(METRES * neutral, _VERTICES, bounds=True)}
        attributes |= {"NORMAL": file.add(_normals(neutral, corners, vertex), _VERTICES), **texture}
        primitive = {"attributes": attributes, "indices": indices, "targets": targets, "material": 0}
        names = {"targetNames": list(model.expression_names)}
        meshes.append({"name": head.name, "primitives": [primitive], "weights": [0.0] * len(targets), "extras": names})
        nodes.append({"name": head.name, "mesh": number})
        edges, sizes = _presence(head)
        times = file.add(head.times, bounds=True)
        moved = {
            "translation": (times, METRES * head.translation, "LINEAR"),
            "rotation": (times, _continuous(head.rotation)[:, [1, 2, 3, 0]], "LINEAR"),
            "weights": (times, head.expression.ravel(), "LINEAR"),
            "scale": (file.add(edges, bounds=True), np.repeat(sizes[:, None], 3, axis=1), "STEP"),
        }
        for what, (when, values, between) in moved.items():
            channels.append({"sampler": len(samplers), "target": {"node": number, "path": what}})
            samplers.append({"input": when, "output": file.add(values), "interpolation": between})
    camera = {"type": "perspective", "perspective": {"yfov": field_of_view, "znear": 0.01}}
    nodes.append({"name": "camera", "camera": 0})
    document = {
        "asset": {"version": "2.0", "generator": "canthus", "copyright": f"head model: {model.licence}"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "cameras": [camera],
        "materials": [{"name": "skin", **_SKIN}],
    }
    if heads:
        document["meshes"] = meshes
        document["animations"] = [{"name": "faces", "channels": channels, "samplers": samplers}]
    return file.glb(document)


class _File:
    """The binary part of a GLB and the views into it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """The number of a new accessor with these values (n,) or (n,k): uint32, and all else as float32."""
        whole = values.dtype == np.uint32
        array = np.ascontiguousarray(values, np.uint32 if whole else np.float32)
        data = array.tobytes()
        view = {"buffer": 0, "byteOffset": self.length, "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        self.parts.append(data)
        self.length += len(data)
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": _UINT if whole else _FLOAT,
            "count": len(array),
            "type": _KINDS[1 if array.ndim == 1 else array.shape[1]],
        }
        if bounds:
            accessor |= {"min": np.atleast_1d(array.min(0)).tolist(), "max": np.atleast_1d(array.max(0)).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def glb(self, document: dict[str, Any]) -> bytes:
        """The whole file: header, JSON, binary; lengths are multiples of four."""
        if self.parts:
            document |= {
                "bufferViews": self.views,
                "accessors": self.accessors,
                "buffers": [{"byteLength": self.length}],
            }
        text = json.dumps(document, allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        binary = b"".join(self.parts)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _normals(vertices: np.ndarray, corners: np.ndarray, vertex: np.ndarray) -> np.ndarray:
    """Unit normals (V,3), area-weighted; vertices that are one vertex of the model have one normal."""
    a, b, c = (vertices[corners[:, k]].astype(np.float64) for k in range(3))
    across = np.cross(b - a, c - a)
    total = np.zeros((vertex.max() + 1, 3))
    for k in range(3):
        np.add.at(total, vertex[corners[:, k]], across)
    normal = total[vertex]
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.where(length > 1e-12, normal / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])


def _continuous(quaternions: np.ndarray) -> np.ndarray:
    """The same rotations (T,4), each of the sign that is nearer to the one before, so that nothing turns round."""
    flips = np.sign((quaternions[1:] * quaternions[:-1]).sum(1))
    return quaternions * np.cumprod([1.0, *np.where(flips < 0, -1.0, 1.0)])[:, None]


def _presence(head: HeadMotion) -> tuple[np.ndarray, np.ndarray]:
    """Seconds at which a head comes and goes, rising from 0, and its scale from there on, 1 or 0."""
    edges, sizes = [], []
    for first, last in head.there:
        edges += [first, last + 1e-3]
        sizes += [1.0, 0.0]
    if edges[0] > 0:
        edges, sizes = [0.0, *edges], [0.0, *sizes]
    return np.array(edges), np.array(sizes)
