"""Files that hold faces: JSON (see `faces.schema.json`), menpo PTS, OpenFace CSV; OBJ, PLY and GLB meshes.

Of a video there is one JSON object a line, or one row of CSV a face and frame.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from canthus.decode import decoding, fits, numbers, parse_json, read_bytes
from canthus.errors import CanthusError, LandmarkError, OutputError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import FaceMeshes, Faces, Pose, TrackedFaces
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

_FRAME = {
    "name": "image",
    "unit": "pixel",
    "origin": "centre of the top left pixel",
    "x": "right",
    "y": "down",
    "z": "towards the camera",
    "z_origin": "mean of the landmarks of the face",
    "camera": "weak perspective",
}
_POSE_FRAME = {
    "matrix": "camera from head",
    "quaternion": "w, x, y, z",
    "head": "x to the subject's left, y up, z out of the face",
    "camera": "x right, y up, z towards the camera",
}

_COLUMNS = ["frame", "face_id", "timestamp", "confidence", "success", "pose_Rx", "pose_Ry", "pose_Rz"]
_COLUMNS += [f"{axis}_{point}" for axis in "xy" for point in range(68)]  # OpenFace's names


class TrackedFrame(NamedTuple):
    """One frame of a video: its number from 0, seconds from the start of the video, and the faces in it."""

    number: int
    time: float
    tracked: TrackedFaces


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
        raise _unwritten(path, error) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except CanthusError:  # of the block, such as a video that cannot be read
        raise
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        Path(file.name).unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder, to write files into, that becomes `path` when the block ends, and is gone if it ends by an error.

    Raises `OutputError` as `atomic_write`; name and lock are as of `atomic_open`.
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
        os.replace(part, path)
    except CanthusError:
        raise
    except OSError as error:
        raise _unwritten(path, error) from error
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


def _unwritten(path: str | os.PathLike[str], error: OSError | ValueError) -> OutputError:
    return OutputError(f"could not write {os.fspath(path)!r}: {reason(error)}")


def to_json(
    faces: Faces,
    *,
    mesh: FaceMeshes | None = None,
    image: str | Source | None = None,
    reduction: int = 1,
    files: Sequence[str] | None = None,
) -> dict[str, Any]:
    """`faces` as plain data that `json` can write, described by `faces.schema.json` of this package.

    `mesh` adds the identity and expression coefficients of `faces.mesh()`. `image` is the image's name, or also its
    path, length and SHA-256. `reduction` is `images.Picture.reduction`. `files` are the names of other files that hold
    results of this image. Angles are in degrees, numbers that are not known are null. Pixels are rounded to 3 decimals.
    Raises `LandmarkError` if `mesh` has another number of faces.
    """
    if mesh is not None and len(mesh) != len(faces):
        raise LandmarkError(f"got {len(mesh)} meshes for {len(faces)} faces, want one a face")
    records = [_face(face) for face in faces]
    if mesh is not None:
        for record, identity, expression in zip(records, mesh.identity, mesh.expression, strict=True):
            record["identity"] = _rounded(identity, 5)
            if "expression" not in record:  # the network gives none
                record["expression"] = dict(zip(mesh.expression_names, _rounded(expression, 5), strict=True))
    named = {"name": Path(image.path).name, **image._asdict()} if isinstance(image, Source) else {"name": image}
    width, height = faces.image_size
    return {
        "schema": SCHEMA,
        "image": {**named, "width": width, "height": height, **({"reduction": reduction} if reduction > 1 else {})},
        **({} if files is None else {"files": list(files)}),
        "frame": dict(_FRAME),
        "pose_frame": dict(_POSE_FRAME),
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


def json_line(frame: TrackedFrame, video: str | None = None) -> bytes:
    """One frame of `video`, a name, as a line of JSON: `to_json` with the frame and the faces' numbers added."""
    number, time, tracked = frame
    document = to_json(tracked.faces, image=video)
    document["video"] = {"frame": number, "time": round(time, 6)}
    for record, number, followed in zip(document["faces"], tracked.ids, tracked.followed, strict=True):
        record["id"], record["followed"] = int(number), bool(followed)
    return json.dumps(document, allow_nan=False).encode() + b"\n"


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[TrackedFrame]:
    """The frames of a file of `json_line`s. Raises `LandmarkError` as `read_json`."""
    with decoding(LandmarkError, f"got a file {os.fspath(path)} that cannot be read, want lines of a tracked video"):
        lines = read_bytes(path).splitlines()
    for count, line in enumerate(lines, start=1):
        with decoding(LandmarkError, f"got other JSON in line {count} of {os.fspath(path)}, want a tracked video's"):
            document, faces = _parse_faces(line)
            video, records = document["video"], document["faces"]
            if not (fits(video, dict[str, float]) and fits(video["frame"], int)):
                raise ValueError(f"the number and time of the frame are {video}")
            if not all(fits(face["id"], int) and fits(face["followed"], bool) for face in records):
                raise ValueError("a face has no number, or does not say whether it was followed")
            ids = np.array([face["id"] for face in records], int)
            followed = np.array([face["followed"] for face in records], bool)
            frame = TrackedFrame(video["frame"], video["time"], TrackedFaces(faces, ids, followed))
        yield frame


def _parse_faces(text: bytes) -> tuple[dict[str, Any], Faces]:
    """The document that `to_json` made, and its faces. Raises anything for other texts."""
    document = parse_json(text)
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}")
    records, size = document["faces"], [document["image"][side] for side in ("width", "height")]
    if not (fits(records, list[dict]) and fits(size, list[int])):
        raise ValueError("its faces or the size of its image are of another type")
    if document["scheme"] != "ibug68" or not fits(document["weights"], str):
        raise ValueError(f"its scheme is {document['scheme']!r}, its weights {document['weights']!r}")
    count = len(records)

    def column(name: str, *shape: int, unknown: bool = True) -> np.ndarray:
        return numbers([face[name] for face in records], (count, *shape), unknown)

    of_network = count > 0 and all("expression_sigma" in face for face in records)

    def coefficients(name: str) -> np.ndarray | None:
        if not of_network:
            return None
        return numbers([[face[name][e] for e in EXPRESSIONS] for face in records], (count, len(EXPRESSIONS)), True)

    return document, Faces(
        xyz=column("landmarks", 68, 3, unknown=False),
        detection_scores=column("detection_score"),
        sigma=column("sigma", 68),
        visible=column("visible", 68),
        pose=Pose(numbers([face["pose"]["matrix"] for face in records], (count, 3, 3))),
        image_size=(size[0], size[1]),
        scheme=document["scheme"],
        weights=document["weights"],
        expression=coefficients("expression"),
        expression_sigma=coefficients("expression_sigma"),
    )


def write_pts(path: str | os.PathLike[str], faces: Faces, face: int = 0) -> None:
    """Write one face as menpo PTS: x and y in 1-based pixels with 3 decimals. Raises `OutputError`."""
    points = faces.xy[face] + 1.0
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points)
    atomic_write(path, f"version: 1\nn_points:  {len(points)}\n{{\n{lines}}}\n".encode())


def write_csv(
    path: str | os.PathLike[str],
    frames: Faces | Sequence[Faces],
    *,
    timestamps: Sequence[float] | None = None,
    face_ids: Sequence[Sequence[int]] | None = None,
) -> None:
    """Write a table with the column names of OpenFace, one row a face.

    `frames` is one `Faces` a frame, or that of a single image; `timestamps` is the second of each frame (0 if
    not given), `face_ids` the number of each face of each frame (its place in the frame if not given).
    `frame` counts from 1. A frame without a face gets one row with success 0 and empty cells, as do unknown
    numbers.

    confidence: mean of `Faces.scores`. pose_Rx, Ry, Rz: pitch, yaw, roll of the "openface" convention,
    radians. x_i, y_i: image pixels, 0-based. OpenFace's X_i, Y_i, Z_i and pose_Tx, Ty, Tz are millimetres
    from the camera, which a weak perspective camera cannot give; they are left out, as are gaze and action
    units.
    Raises `OutputError`.
    """
    frames = [frames] if isinstance(frames, Faces) else frames
    timestamps = [0.0] * len(frames) if timestamps is None else timestamps
    face_ids = [range(len(faces)) for faces in frames] if face_ids is None else face_ids
    rows = [csv_rows(n, *frame) for n, frame in enumerate(zip(frames, timestamps, face_ids, strict=True), start=1)]
    atomic_write(path, csv_header() + b"".join(rows))


def csv_header() -> bytes:
    """The first line of `write_csv`, for writers that go frame by frame."""
    return _csv([_COLUMNS])


def csv_rows(number: int, faces: Faces, second: float, ids: Sequence[int] | np.ndarray) -> bytes:
    """The rows of `write_csv` for one frame; `number` counts from 1."""
    if not len(faces):
        return _csv([[number, "", f"{second:.3f}", 0, 0] + [""] * (len(_COLUMNS) - 5)])
    angles, confidence = np.deg2rad(faces.pose.euler("openface")), faces.scores.mean(1)
    rows = []
    for index, face_id in zip(range(len(faces)), ids, strict=True):
        cells = [_cell(confidence[index]), 1, *(f"{angle:.4f}" for angle in angles[index])]
        cells += [f"{value:.3f}" for value in faces.xy[index].T.ravel()]
        rows.append([number, face_id, f"{second:.3f}", *cells])
    return _csv(rows)


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def write_mesh(path: str | os.PathLike[str], meshes: FaceMeshes, face: int = 0) -> None:
    """Write one face of `faces.mesh()` as .obj, .ply or .glb, by the suffix of `path`.

    The file's frame is the image's with y turned up, so that the face stands upright in viewers: x right, y
    up, z towards the camera, right-handed, in pixels, origin at the centre of the image's top left pixel.
    Raises `OutputError`, also for another suffix.
    """
    import trimesh  # slow to import

    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("obj", "ply", "glb"):
        raise OutputError(f"got a mesh file {os.fspath(path)!r}, want one that ends in .obj, .ply or .glb")
    vertices, triangles, visual = meshes.vertices[face] * [1, -1, 1], meshes.triangles, None
    if meshes.uv is not None and meshes.uv_triangles is not None:
        # The formats want one texture coordinate a vertex: a vertex on a seam becomes two.
        corners = np.stack([triangles, meshes.uv_triangles], axis=-1).reshape(-1, 2)
        pairs, numbers = np.unique(corners, axis=0, return_inverse=True)
        vertices, triangles = vertices[pairs[:, 0]], numbers.reshape(-1, 3)
        visual = trimesh.visual.TextureVisuals(uv=meshes.uv[pairs[:, 1]])
    mesh = trimesh.Trimesh(vertices, triangles, visual=visual, process=False)
    data: Any = mesh.export(file_type=kind)
    if kind == "obj":  # trimesh names a material file, which is not there: there is no texture image
        lines = (line for line in data.splitlines() if not line.startswith(("mtllib", "usemtl")))
        data = ("\n".join(lines) + "\n").encode()
    atomic_write(path, data)


def _face(face: Faces) -> dict[str, Any]:
    """The record of a single face."""
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
    }


def _rounded(values: np.ndarray, decimals: int) -> Any:
    """`values` as nested lists of rounded numbers, None for NaN."""
    rounded = np.round(np.asarray(values, np.float64), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    return np.where(np.isnan(rounded), np.array(None), rounded.astype(object)).tolist()


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"
