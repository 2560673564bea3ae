"""Files that hold faces: JSON (see `faces.schema.json`) and menpo PTS; writing of files whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from canthus.decode import decoding, fits, numbers, parse_json, read_bytes
from canthus.errors import CanthusError, LandmarkError, OutputError, amount
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.face.landmarks import scheme as find_scheme
from canthus.face.meshes import FaceMeshes
from canthus.face.morphable import MorphableModel
from canthus.face.pose import Pose
from canthus.geometry.rotation import EULER_CONVENTIONS
from canthus.io.inputs import Source, reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PART = ".canthus-{}-{}.part"
"""Name of an unfinished file: the number of the process and a random one. It is short, so that the finished file's own
name may be as long as the file system takes."""

SCHEMA = "canthus.faces/1"

FRAME = {
    "name": "image",
    "unit": "pixel",
    "origin": "centre of the top left pixel",
    "x": "right",
    "y": "down",
    "z": "towards the camera",
    "z_origin": "mean of the landmarks of the face",
    "camera": "weak perspective",
}
POSE_FRAME = {
    "matrix": "camera from head",
    "quaternion": "w, x, y, z",
    "head": "x to the subject's left, y up, z out of the face",
    "camera": "x right, y up, z towards the camera",
}


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Raises `OutputError` with the path and the reason.
    """
    with atomic_open(path) as file:
        file.write(data)


@contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file, to write and to seek in, that becomes `path` when the block ends, and is gone if it ends by an
    error. Raises `OutputError` as `atomic_write`.

    Until then its name is PART with the process's number in it. The process holds a lock on it, which tells
    `remove_leftovers` that it is in use.
    """
    try:
        file = _new_part(Path(path).with_name("x").parent)
    except (OSError, ValueError) as error:  # ValueError: no file name, or a zero byte in it
        raise unwritten(path, error) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except CanthusError:  # of the block, such as a video that cannot be read
        raise
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        Path(file.name).unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder, to write files into, that becomes `path` when the block ends, and is gone if it ends by an error.

    An older folder there is removed then. Raises `OutputError` as `atomic_write`; name and lock are as of
    `atomic_open`.
    """
    part = Path(path).with_name(PART.format(os.getpid(), uuid.uuid4().hex[:12]))
    lock = None
    try:
        part.mkdir()
        if fcntl is not None:
            lock = os.open(part, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
        if Path(path).is_dir():  # only an empty one would be replaced
            older = Path(path).with_name(PART.format(os.getpid(), uuid.uuid4().hex[:12]))
            os.replace(path, older)
            os.replace(part, path)
            shutil.rmtree(older, ignore_errors=True)
        else:
            os.replace(part, path)
    except CanthusError:
        raise
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(part, ignore_errors=True)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """The folder `path`, made with its parents if it is missing. Raises `OutputError`."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"could not make the folder {os.fspath(path)!r}: {reason(error)}") from error
    return Path(path)


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files and folders that killed processes have left in `folder`; those of living ones stay."""
    for path in folder.glob(PART.format("*", "*")):
        with suppress(OSError):  # what cannot be removed takes space, and that is all
            if path.is_dir():
                if fcntl is not None:
                    lock = os.open(path, os.O_RDONLY)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(path)
                    finally:
                        os.close(lock)
            elif fcntl is None:
                path.unlink()  # Windows removes no file that is open
            else:
                with open(path, "r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _new_part(folder: Path) -> BinaryIO:
    while True:
        file = open(folder / PART.format(os.getpid(), uuid.uuid4().hex[:12]), "xb")
        if fcntl is None:
            return file
        with suppress(OSError):  # a file system without locks; or, for a moment, `remove_leftovers` in between
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # taken for a leftover


def unwritten(path: str | os.PathLike[str], error: OSError | ValueError) -> OutputError:
    """What tells that a file could not be written."""
    return OutputError(f"could not write {os.fspath(path)!r}: {reason(error)}")


def to_json(
    faces: Faces,
    *,
    mesh: FaceMeshes | None = None,
    image: str | os.PathLike[str] | Source | None = None,
    reduction: int = 1,
    files: Sequence[str] | None = None,
    min_face: float | None = None,
) -> dict[str, Any]:
    """`faces` as plain data that `json` can write, described by `faces.schema.json` of this package.

    `mesh` adds the identity and expression coefficients of `faces.mesh()`. `image` is the image's name, or also its
    path, length and SHA-256. `reduction` is `images.Picture.reduction`. `files` are the names of other files that hold
    results of this image, `min_face` is the detector's. Angles are in degrees, numbers that are not known are null.
    Pixels are rounded to 3 decimals.
    Raises `LandmarkError` if `mesh` has another number of faces.
    """
    if mesh is not None and len(mesh) != len(faces):
        raise LandmarkError(
            f"got {amount(len(mesh), 'mesh', 'meshes')} for {amount(len(faces), 'face')}, want one a face"
        )
    records = [face_record(face) for face in faces]
    if mesh is not None:
        for record, identity, expression in zip(records, mesh.identity, mesh.expression, strict=True):
            record["identity"] = _rounded(identity, 5)
            if "expression" not in record:  # the network gives none
                record["expression"] = dict(zip(mesh.expression_names, _rounded(expression, 5), strict=True))
    if isinstance(image, Source):
        named = {"name": Path(image.path).name, **image._asdict()}
    else:
        named = {"name": None if image is None else os.fspath(image)}
    width, height = faces.image_size
    return {
        "schema": SCHEMA,
        "image": {**named, "width": width, "height": height, **({"reduction": reduction} if reduction > 1 else {})},
        **({} if min_face is None else {"min_face": min_face}),
        **({} if files is None else {"files": list(files)}),
        "frame": dict(FRAME),
        "pose_frame": dict(POSE_FRAME),
        "scheme": faces.scheme,
        "weights": faces.weights,
        "faces": records,
    }


def write_json(path: str | os.PathLike[str], faces: Faces, **details: Any) -> None:
    """Write `to_json` of the same arguments to `path`. Raises `OutputError`."""
    atomic_write(path, json.dumps(to_json(faces, **details), allow_nan=False).encode() + b"\n")


def read_json(path: str | os.PathLike[str]) -> Faces:
    """The `Faces` that `write_json` wrote, to the rounding of the file; coefficients of a mesh are left out.

    Raises `LandmarkError` for a file that cannot be read or is not such JSON.
    """
    return read_document(path)[1]


def read_document(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Faces]:
    """What `read_json` reads, with the plain data that it was made of. Raises as `read_json`."""
    with decoding(LandmarkError, f"got a file {os.fspath(path)} that is not {SCHEMA} JSON, want one by write_json"):
        return _parse_faces(read_bytes(path))


def _parse_faces(text: bytes) -> tuple[dict[str, Any], Faces]:
    """The document that `to_json` made, and its faces. Raises anything for other texts."""
    document = parse_json(text)
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}")
    size = document["image"]["width"], document["image"]["height"]
    return document, faces_of(document["faces"], size, document["scheme"], document["weights"])


def faces_of(records: Any, size: tuple[Any, Any], scheme: Any, weights: Any) -> Faces:
    """The faces of records that `face_record` made, of an image of `size` (width, height). Raises anything for plain
    data of other types."""
    if not (fits(records, list[dict]) and fits(size, tuple[int, int])):
        raise ValueError("its faces or the size of its image are of another type")
    if not fits([scheme, weights], list[str]):
        raise ValueError(f"its scheme is {scheme!r}, its weights {weights!r}")
    count, points = len(records), find_scheme(scheme).count

    def column(name: str, *shape: int, unknown: bool = True) -> np.ndarray:
        return numbers([face[name] for face in records], (count, *shape), unknown)

    of_network = count > 0 and all("expression_sigma" in face for face in records)

    def coefficients(name: str) -> np.ndarray | None:
        if not of_network:
            return None
        return numbers([[face[name][e] for e in EXPRESSIONS] for face in records], (count, len(EXPRESSIONS)), True)

    def own_heads() -> np.ndarray | None:
        if not (count and all("own_head" in face for face in records)):
            return None
        heads = [face["own_head"] for face in records]
        return numbers([[h["scale"], *h["origin"], *h["coefficients"]] for h in heads], (count, None))

    return Faces(
        xyz=column("landmarks", points, 3, unknown=False),
        detection_scores=column("detection_score"),
        sigma=column("sigma", points),
        visible=column("visible", points),
        pose=Pose(numbers([face["pose"]["matrix"] for face in records], (count, 3, 3))),
        image_size=size,
        scheme=scheme,
        weights=weights,
        expression=coefficients("expression"),
        expression_sigma=coefficients("expression_sigma"),
        own_head=own_heads(),
    )


def write_pts(path: str | os.PathLike[str], faces: Faces, face: int = 0) -> None:
    """Write one face as menpo PTS: x and y in 1-based pixels with 3 decimals. Raises `OutputError`, also for a face
    that is not there."""
    if not 0 <= face < len(faces):
        raise OutputError(f"got face {face} of {len(faces)} for {os.fspath(path)!r}, want one from 0 on")
    atomic_write(path, as_pts(faces.xy[face]))


def as_pts(points: np.ndarray) -> bytes:
    """Points (L,2) in pixels from 0 as the content of a menpo PTS file."""
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points + 1.0)
    return f"version: 1\nn_points:  {len(points)}\n{{\n{lines}}}\n".encode()


def face_record(face: Faces) -> dict[str, Any]:
    """A single face as plain data, `face` in `faces.schema.json`."""
    euler = {name: face.pose.euler(name)[0] for name in EULER_CONVENTIONS}
    expressions = {
        name: dict(zip(EXPRESSIONS, _rounded(values[0], 4), strict=True))
        for name, values in (("expression", face.expression), ("expression_sigma", face.expression_sigma))
        if not np.isnan(values).all()
    }
    return {
        "box": _rounded(face.boxes[0], 3),
        "detection_score": _rounded(face.detection_scores[0], 4),
        "landmarks": _rounded(face.xyz[0], 3),
        "sigma": _rounded(face.sigma[0], 3),
        "score": _rounded(face.scores[0], 4),
        "visible": _rounded(face.visible[0], 4),
        "pose": {
            "matrix": _rounded(face.pose.matrix[0], 6),
            "quaternion": _rounded(face.pose.quaternion[0], 6),
            "euler_degrees": {
                name: dict(zip(("pitch", "yaw", "roll"), _rounded(angles, 3), strict=True))
                for name, angles in euler.items()
            },
        },
        **expressions,
        **({"own_head": _own_head(face.own_head[0])} if face.own_head.shape[1] else {}),
    }


def _own_head(values: np.ndarray) -> dict[str, Any]:
    """`Faces.own_head` of one face, (3+K,), as plain data."""
    model = MorphableModel.default()
    known = len(values) == 3 + len(model.identity) + len(model.expression)
    scale = float(f"{values[0]:.7g}")  # the unit of a model may be a micrometre
    return {
        "model": model.name if known else None, "scale": scale, "origin": _rounded(values[1:3], 3),
        "coefficients": _rounded(values[3:], 5),
    }  # fmt: skip


def _rounded(values: np.ndarray, decimals: int) -> Any:
    """`values` as nested lists of rounded numbers, None for NaN."""
    rounded = np.round(np.asarray(values, np.float64), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    return np.where(np.isnan(rounded), np.array(None), rounded.astype(object)).tolist()
