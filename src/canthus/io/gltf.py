"""Heads as glTF 2.0 in one file (GLB): a mesh with named morph targets for each face, moving or still.

Lengths are metres, y is up. The frame of moving heads is the camera's: x right, z towards the camera, which stands at
the origin and looks along -z. A still head stands at the origin and looks along +z.
https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from canthus.errors import OutputError
from canthus.face.morphable import MorphableModel
from canthus.io.head_parts import Part, parts_of

_FLOAT, _UINT = 5126, 5125
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_VERTICES, _INDICES = 34962, 34963  # what a buffer view is for
_METRES = {"um": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0}
_ROUGHNESS = {"eyes": 0.2, "teeth": 0.3, "tongue": 0.4}


@dataclass(frozen=True, eq=False)
class HeadMotion:
    """One head over time.

    name: of its node. identity: (K,) of the model. frames: (T,) numbers of the frames, rising, T > 0. times: (T,)
    seconds. rotation: (T,4) quaternions (w, x, y, z) camera from head. translation: (T,3) mm. expression: (T,E) weights
    of the model's expressions. there: (first, last) seconds of each stretch in which it is seen; outside it has no
    size.
    """

    name: str
    identity: np.ndarray
    frames: np.ndarray
    times: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    there: Sequence[tuple[float, float]]


def metres(model: MorphableModel) -> float:
    """A model's unit of length. Raises `OutputError` for one whose length is not known."""
    if model.unit not in _METRES:
        raise OutputError(f"got a head model in {model.unit!r}, want one in {', '.join(_METRES)}")
    return _METRES[model.unit]


def motions_glb(
    model: MorphableModel,
    heads: Sequence[HeadMotion],
    view: tuple[float, float],
    end: float,
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """A GLB file with a node, a mesh and an animation for each head, and a camera. The clip is `end` seconds long.

    The mesh is the neutral head of a person; its morph targets have the names of the model's expressions, in
    `mesh.extras.targetNames`, where viewers, Blender and engines look for them. All heads share the targets, as the
    model is linear. view: what the camera sees, from top to bottom in radians, and its width over its height. about:
    plain data for `extras` of the scene. Raises `OutputError` for a model that is not in millimetres, as motions are.
    """
    if model.unit != "mm":
        raise OutputError(f"got a head model in {model.unit!r}, want one in mm")
    file, unit = _File(), metres(model)
    shape = _Shape(file, model, parts_of(model) if heads else [])
    meshes, nodes, channels, samplers = [], [], list[Any](), list[Any]()
    for number, head in enumerate(heads):
        meshes.append(shape.mesh(head.name, head.identity, np.zeros(len(model.expression))))
        nodes.append({"name": head.name, "mesh": number})
        edges, sizes = _presence(head, end)
        times = file.add(head.times, bounds=True)
        moved = {
            "translation": (times, unit * head.translation, "LINEAR"),
            "rotation": (times, _continuous(head.rotation)[:, [1, 2, 3, 0]], "LINEAR"),
            "weights": (times, head.expression.ravel(), "LINEAR"),
            "scale": (file.add(edges, bounds=True), np.repeat(sizes[:, None], 3, axis=1), "STEP"),
        }
        for what, (when, values, between) in moved.items():
            channels.append({"sampler": len(samplers), "target": {"node": number, "path": what}})
            samplers.append({"input": when, "output": file.add(values), "interpolation": between})
    camera = {"type": "perspective", "perspective": {"yfov": view[0], "aspectRatio": view[1], "znear": 0.01}}
    nodes.append({"name": "camera", "camera": 0})
    document: dict[str, Any] = {"nodes": nodes, "cameras": [camera]}
    if heads:
        document["meshes"] = meshes
        document["animations"] = [{"name": "faces", "channels": channels, "samplers": samplers}]
    return file.glb(document, model, about)


def head_glb(
    model: MorphableModel,
    parts: Sequence[Part],
    identity: np.ndarray,
    expression: np.ndarray,
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """A GLB file with one still head, of identity (K,) and expression (E,), upright at the origin.

    The mesh is the neutral head, and the weights of its morph targets are the expression. parts: as of `head_parts`.
    about: plain data for `extras` of the node. Raises `OutputError` as `metres`.
    """
    file = _File()
    mesh = _Shape(file, model, parts).mesh("head", identity, expression)
    return file.glb({"nodes": [{"name": "head", "mesh": 0, "extras": dict(about or {})}], "meshes": [mesh]}, model)


class _Shape:
    """What the heads of one model in a file have in common."""

    def __init__(self, file: _File, model: MorphableModel, parts: Sequence[Part]) -> None:
        self.file, self.model, self.unit = file, model, metres(model)
        self.parts = [(part, self._shared(part)) for part in parts]

    def _shared(self, part: Part) -> dict[str, Any]:
        """A primitive without its places."""
        add, moves = self.file.add, self.unit * self.model.expression[:, part.vertex]
        texture = {} if part.uv is None else {"TEXCOORD_0": add(part.uv, _VERTICES)}
        return {
            "attributes": texture,
            "indices": add(part.corners.ravel().astype(np.uint32), _INDICES),
            "targets": [{"POSITION": add(mode, _VERTICES, bounds=True)} for mode in moves],
            "material": self.file.add_material(part),
        }

    def mesh(self, name: str, identity: np.ndarray, expression: np.ndarray) -> dict[str, Any]:
        """A mesh of the neutral head, a primitive for each part."""
        neutral = self.model.vertices(np.asarray(identity, np.float32)[None])[0]
        normals, primitives = _normals(neutral, self.model.triangles), []
        for part, shared in self.parts:
            places = self.file.add(self.unit * neutral[part.vertex], _VERTICES, bounds=True)
            around = {"POSITION": places, "NORMAL": self.file.add(normals[part.vertex], _VERTICES)}
            primitive = {**shared, "attributes": around | shared["attributes"]}
            if not primitive["targets"]:
                del primitive["targets"]
            primitives.append(primitive)
        mesh: dict[str, Any] = {"name": name, "primitives": primitives}
        if len(expression):
            mesh |= {"weights": expression.tolist(), "extras": {"targetNames": list(self.model.expression_names)}}
        return mesh


@dataclass(eq=False)
class _File:
    """The binary part of a GLB, the views into it, and the materials."""

    parts: list[bytes] = field(default_factory=list)
    length: int = 0
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)
    materials: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)

    def add(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """The number of a new accessor with these values (n,) or (n,k): uint32, and all else as float32."""
        whole = values.dtype == np.uint32
        array = np.ascontiguousarray(values, np.uint32 if whole else np.float32)
        accessor = {
            "bufferView": self._add_view(array.tobytes(), {} if target is None else {"target": target}),
            "componentType": _UINT if whole else _FLOAT,
            "count": len(array),
            "type": _KINDS[1 if array.ndim == 1 else array.shape[1]],
        }
        if bounds:
            accessor |= {"min": np.atleast_1d(array.min(0)).tolist(), "max": np.atleast_1d(array.max(0)).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def add_material(self, part: Part) -> int:
        """The number of a new material for a part."""
        look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": _ROUGHNESS.get(part.name, 0.7)}
        png = part.png
        if png is None:
            colour = np.array(part.colour) ** 2.2  # factors are linear
            look["baseColorFactor"] = [*colour.round(4).tolist(), 1.0]
        else:
            look["baseColorTexture"] = {"index": len(self.images)}
            view = self._add_view(png)
            self.images.append({"name": part.name, "mimeType": "image/png", "bufferView": view})
        self.materials.append({"name": part.name, "pbrMetallicRoughness": look})
        return len(self.materials) - 1

    def _add_view(self, data: bytes, more: Mapping[str, int] | None = None) -> int:
        self.views.append({"buffer": 0, "byteOffset": self.length, "byteLength": len(data), **(more or {})})
        padded = data + b"\0" * (-len(data) % 4)
        self.parts.append(padded)
        self.length += len(padded)
        return len(self.views) - 1

    def glb(self, parts: dict[str, Any], model: MorphableModel, about: Mapping[str, Any] | None = None) -> bytes:
        """The whole file: header, JSON, binary; lengths are multiples of four. about: for `extras` of the scene."""
        scene: dict[str, Any] = {"nodes": list(range(len(parts["nodes"])))}
        document = {
            "asset": {"version": "2.0", "generator": "canthus", "copyright": f"head model: {model.licence}"},
            "scene": 0,
            "scenes": [{**scene, "extras": dict(about)} if about else scene],
            **parts,
        }
        lists = {
            "materials": self.materials,
            "textures": [{"source": number} for number in range(len(self.images))],
            "images": self.images,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": self.length}] * (self.length > 0),
        }
        document |= {name: values for name, values in lists.items() if values}  # empty lists are not allowed
        text = json.dumps(document, allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        binary = b"".join(self.parts)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        if binary:
            chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals (V,3), area-weighted."""
    a, b, c = (vertices[triangles[:, k]].astype(np.float64) for k in range(3))
    across = np.cross(b - a, c - a)
    total = np.zeros((len(vertices), 3))
    for k in range(3):
        np.add.at(total, triangles[:, k], across)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])


def _continuous(quaternions: np.ndarray) -> np.ndarray:
    """The same rotations (T,4), each of the sign that is nearer to the one before, so that nothing turns round."""
    flips = np.sign((quaternions[1:] * quaternions[:-1]).sum(1))
    return quaternions * np.cumprod([1.0, *np.where(flips < 0, -1.0, 1.0)])[:, None]


def _presence(head: HeadMotion, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds from 0 to `end` at which a head comes and goes, rising, and its scale from there on, 1 or 0."""
    edges, sizes = [], []
    for first, last in head.there:
        edges += [first, last + 1e-3]
        sizes += [1.0, 0.0]
    if edges[-1] > end:  # it stays
        del edges[-1], sizes[-1]
    if edges[-1] < end:
        edges, sizes = [*edges, end], [*sizes, sizes[-1]]
    if edges[0] > 0:
        edges, sizes = [0.0, *edges], [0.0, *sizes]
    return np.array(edges), np.array(sizes)
