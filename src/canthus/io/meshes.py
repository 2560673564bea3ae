"""Files that hold head meshes: OBJ, PLY and GLB of one face, and sequences of OBJ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from canthus.errors import OutputError
from canthus.face.meshes import FaceMeshes
from canthus.face.morphable import MorphableModel
from canthus.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix
from canthus.io.gltf import HeadMotion, head_glb, metres
from canthus.io.head_parts import parts_of, photo_parts, split_seams
from canthus.io.images import ImageLike, as_image
from canthus.io.outputs import atomic_write

CHUNK = 64  # frames whose vertices are computed together


def write_mesh(
    path: str | os.PathLike[str],
    meshes: FaceMeshes,
    face: int = 0,
    image: ImageLike | None = None,
    placed: FaceMeshes | None = None,
) -> None:
    """Write one face of `faces.mesh()` as .obj, .ply or .glb, by the suffix of `path`.

    An .obj or .ply holds the head as it is in the image, in the image's frame with y turned up, so that the face stands
    upright in viewers: x right, y up, z towards the camera, right-handed, in pixels, origin at the centre of the
    image's top left pixel. A .glb holds the head as an asset: in metres, upright at the origin, neutral, with the
    expressions as morph targets and those of the face as their weights (`gltf.head_glb`).
    image: the photo, as `predict` takes it, in whose pixels the meshes are: a .glb shows it on the parts of the head
    that can be seen (`head_parts.photo_parts`). placed: the meshes in pixels of another picture, of which a .glb then
    says where in it the head is; None: `meshes`.
    Raises `OutputError`, also for another suffix, for an image with another one than .glb or of another size than the
    faces', and for a face that is not there.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("obj", "ply", "glb"):
        raise OutputError(f"got a mesh file {os.fspath(path)!r}, want one that ends in .obj, .ply or .glb")
    if image is not None and kind != "glb":
        raise OutputError(f"got an image for {os.fspath(path)!r}, want one only for .glb, which holds textures")
    if not 0 <= face < len(meshes):
        raise OutputError(f"got face {face} of {len(meshes)} for {os.fspath(path)!r}, want one from 0 on")
    model, vertices = meshes.model, meshes.vertices[face] * [1, -1, 1]
    if kind == "obj":
        data = Obj(model).text(vertices, "pixels of the image: x right, y up, z towards the camera", 3)
    elif kind == "ply":
        data = _ply(model, vertices)
    else:
        parts = parts_of(model) if image is None else photo_parts(meshes, face, _photo(meshes, image))
        data = head_glb(model, parts, meshes.identity[face], meshes.expression[face], _camera(placed or meshes, face))
    atomic_write(path, data)


def _photo(meshes: FaceMeshes, image: ImageLike) -> np.ndarray:
    photo = as_image(image)
    size = photo.shape[1], photo.shape[0]
    if size != meshes.image_size:
        raise OutputError(f"got an image of {size} px, want the {meshes.image_size} px of the meshes")
    return photo


def _ply(model: MorphableModel, vertices: np.ndarray) -> Any:
    import trimesh  # slow to import

    triangles, visual = model.triangles, None
    if model.uv is not None and model.uv_triangles is not None:
        vertex, triangles, uv = split_seams(triangles, model.uv, model.uv_triangles)
        vertices, visual = vertices[vertex], trimesh.visual.TextureVisuals(uv=uv)
    data: Any = trimesh.Trimesh(vertices, triangles, visual=visual, process=False).export(file_type="ply")
    return data


def _camera(meshes: FaceMeshes, face: int) -> dict[str, Any]:
    """Where the head is in its photo, as plain data."""
    camera = meshes.camera
    return {
        "rotation": quaternion_from_matrix(camera.rotation[face]).round(6).tolist(),  # w, x, y, z; camera from head
        "pixels_per_metre": round(float(camera.scale[face]) / metres(meshes.model), 3),
        "origin_in_photo": camera.shift[face].round(3).tolist(),  # px, x right, y down
    }


class Obj:
    """Writes heads of one model as OBJ: vertices as the model numbers them, so that all files have one topology,
    texture coordinates where the model has them, and its parts as groups."""

    def __init__(self, model: MorphableModel):
        corners = model.triangles + 1
        line = "f %d %d %d\n"
        self._uv = ""
        if model.uv is not None and model.uv_triangles is not None:
            self._uv = "vt %.5f %.5f\n" * len(model.uv) % tuple(model.uv.ravel().tolist())
            corners = np.stack([corners, model.uv_triangles + 1], axis=-1).reshape(-1, 6)
            line = "f %d/%d %d/%d %d/%d\n"
        self._faces = ""
        for name, part in model.parts.items():
            chosen = corners[part]
            self._faces += f"g {name}\ns 1\n" + line * len(chosen) % tuple(chosen.ravel().tolist())

    def text(self, vertices: np.ndarray, about: str, decimals: int) -> bytes:
        """A head with its vertices (V,3), after a comment."""
        places = f"v %.{decimals}f %.{decimals}f %.{decimals}f\n" * len(vertices) % tuple(vertices.ravel().tolist())
        return f"# canthus: {about}\n{places}{self._uv}{self._faces}".encode()


def write_obj_sequence(folder: Path, model: MorphableModel, head: HeadMotion) -> None:
    """Write a head in each frame in which it is seen as NAME.FRAME.obj, with its name and six digits for the number of
    the frame.

    Frame and unit are those of `gltf.motions_glb`: the camera's, metres. Every file has the same vertices in the
    same order. Raises `OSError`, and `OutputError` for a model that is not in millimetres, as motions are.
    """
    if model.unit != "mm":
        raise OutputError(f"got a head model in {model.unit!r}, want one in mm")
    obj, unit = Obj(model), metres(model)
    person = model.of_person(head.identity)
    for start in range(0, len(head.times), CHUNK):
        part = slice(start, start + CHUNK)
        turned = person.vertices(None, head.expression[part].astype(np.float32)) @ np.swapaxes(
            matrix_from_quaternion(head.rotation[part]), 1, 2
        )
        places = unit * (turned + head.translation[part, None])
        for frame, time, vertices in zip(head.frames[part].tolist(), head.times[part].tolist(), places):
            about = f"{head.name}, frame {frame}, {time:.3f} s; metres, from the camera: x right, y up, z towards it"
            (folder / f"{head.name}.{frame:06d}.obj").write_bytes(obj.text(vertices, about, 6))
