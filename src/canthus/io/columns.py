"""The columns of tables of faces, one row a face and image: names, types, units, and the arrays that go into them.

Photos and frames of videos have the same columns. CSV and Parquet files (`io.tables`) hold exactly these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from canthus.errors import LandmarkError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.face.measures import brow_height, eye_aspect_ratio, mouth_opening
from canthus.face.placement import HeadPoses, assumed_focal_length, head_poses, head_scales
from canthus.face.pose import Pose
from canthus.geometry.rotation import euler_from_matrix, matrix_from_quaternion

LANDMARKS = 68


class ImageFaces(NamedTuple):
    """The faces of one image, of a photo or a frame of a video.

    image: the name or path of the photo or video. frame: its number from 0; 0 for a photo. time: seconds from the start
    of the video; 0 for a photo. faces: the N faces. ids: (N,) int, their numbers, through a whole video the same.
    followed: (N,) bool, whether a face was followed from the frame before; None where that is not known, as in photos.
    blinking: (N,2) bool, whether the right and left eye are in a blink; None where that is not known.
    """

    image: str
    frame: int
    time: float
    faces: Faces
    ids: np.ndarray
    followed: np.ndarray | None = None
    blinking: np.ndarray | None = None


class Column(NamedTuple):
    """One column. kind: "str", "int" (32 bits), "bool", "float" (32 bits) or "double". unit: empty where there is none.
    decimals: in CSV files."""

    name: str
    kind: str
    unit: str
    about: str
    decimals: int = 4


class Camera(NamedTuple):
    """What decides about millimetres and angles. focal_length: pixels, of all images; None: assumed as by
    `placement.assumed_focal_length`. The image's middle is on the camera's axis. euler: set of the three angles."""

    focal_length: float | None = None
    euler: str = "aflw"

    def about(self) -> dict[str, Any]:
        """As plain data, for the metadata of files."""
        assumed = "500 px at 640 x 480 px and in proportion (assumed)"
        return {
            "euler": self.euler,
            "focal_length": assumed if self.focal_length is None else self.focal_length,
            "axis": "middle of the image",
            "translation": "of the head model's origin; x right, y up, z towards the camera",
            "head": "as large as the mean head of the default model",
        }

    def head_poses(self, faces: Faces, sizes: np.ndarray, head: np.ndarray | None = None) -> HeadPoses:
        """The N heads in the camera's frame, of faces in images of `sizes` (N,2), width and height in px; `head` as of
        `placement.head_poses`."""
        return head_poses(faces, self.focal_lengths(sizes), (sizes - 1) / 2, head)

    def focal_lengths(self, sizes: np.ndarray) -> np.ndarray:
        """Focal lengths (N,) in px for images of `sizes` (N,2)."""
        assumed = [assumed_focal_length(*size) if self.focal_length is None else self.focal_length for size in sizes]
        return np.array(assumed, np.float64).reshape(len(sizes))


ASSUMED = Camera()


def _points(name: str, unit: str, about: str, decimals: int = 3) -> list[Column]:
    return [Column(f"{name}_{k}", "float", unit, about, decimals) for k in range(LANDMARKS)]


COLUMNS = (
    Column("image", "str", "", "name or path of the photo or video"),
    Column("width", "int", "px", "of the image"),
    Column("height", "int", "px", "of the image"),
    Column("frame", "int", "", "number of the frame, from 0; 0 for a photo"),
    Column("time", "double", "s", "from the start of the video; 0 for a photo", 6),
    Column("id", "int", "", "number of the face, the same through a video; empty where the image has no face"),
    Column("followed", "bool", "", "whether the face was followed from the frame before; empty in photos"),
    Column("confidence", "float", "", "mean probability that a point lies within 5 % of the face's size, 0..1"),
    Column("detection_score", "float", "", "confidence of the detector, 0..1; empty where it did not look"),
    *(Column(f"box_{side}", "float", "px", "tight box around the landmarks", 3) for side in ("x0", "y0", "x1", "y1")),
    *(Column(a, "float", "degree", "rotation of the head as its crop shows it, of the Euler set named in the metadata")
      for a in ("pitch", "yaw", "roll")),
    *(Column(f"quaternion_{a}", "float", "", "the same rotation, camera from head", 6) for a in "wxyz"),
    *(Column(f"translation_{a}", "float", "mm", "place of the head: x right, y up, z towards the camera", 2)
      for a in "xyz"),
    *(Column(f"eye_aspect_ratio_{side}", "float", "", "opening of the eye over its width") for side in
      ("right", "left")),
    Column("mouth_opening", "float", "", "distance of the inner lips over the width of the mouth"),
    *(Column(f"brow_height_{side}", "float", "", "over the eye, in widths between the outer eye corners")
      for side in ("right", "left")),
    *(Column(f"blink_{side}", "bool", "", "whether the eye is in a blink; empty in photos") for side in
      ("right", "left")),
    *(Column(name, "float", "", "expression coefficient, 0 at rest, 1 fully done") for name in EXPRESSIONS),
    *(Column(f"{name}_sigma", "float", "", "standard deviation of the coefficient's error") for name in EXPRESSIONS),
    *_points("x", "px", "image, to the right from the centre of the top left pixel"),
    *_points("y", "px", "image, downwards from the centre of the top left pixel"),
    *_points("z", "px", "towards the camera; mean 0 over the face"),
    *_points("sigma", "px", "standard deviation of the point's error along x and along y"),
    *_points("visible", "", "probability that the point can be seen, 0..1"),
)  # fmt: skip
"""What `rows` gives, in this order. Left and right are the subject's."""

OPENFACE_COLUMNS = (
    Column("frame", "int", "", "number of the frame, from 1"),
    Column("face_id", "int", "", "number of the face"),
    Column("timestamp", "double", "s", "from the start of the video", 3),
    Column("confidence", "float", "", "mean probability that a point lies within 5 % of the face's size, 0..1"),
    Column("success", "int", "", "1; 0 where the image has no face"),
    *(Column(f"pose_T{a}", "float", "mm", "head from the camera; x right, y down, z forward", 1) for a in "xyz"),
    *(
        Column(f"pose_R{a}", "float", "rad", "pitch, yaw, roll of the set openface, in the camera's frame")
        for a in "xyz"
    ),
    *_points("x", "px", "image, to the right"),
    *_points("y", "px", "image, downwards"),
    *_points("X", "mm", "to the right of the camera", 1),
    *_points("Y", "mm", "below the camera", 1),
    *_points("Z", "mm", "in front of the camera", 1),
)
"""What `openface_rows` gives, in this order."""

FAILURE_COLUMNS = (
    Column("image", "str", "", "name or path of the photo"),
    Column("error", "str", "", "why it has no rows in the table of faces"),
)
"""Photos that could not be read."""

Rows = dict[str, Any]
"""A table: arrays of one length by column; floats that are not known are NaN, other columns are masked there."""


def rows(images: Sequence[ImageFaces], camera: Camera = ASSUMED) -> Rows:
    """One row a face and image in the columns COLUMNS; an image without a face is one row without numbers."""
    faces, at, base = _joined(images)
    ids = np.concatenate([np.zeros(0, int), *(image.ids for image in images)])
    count = len(faces)
    sizes = np.stack([base["width"], base["height"]], 1)[at]
    angles, quaternion = faces.pose.euler(camera.euler), faces.pose.quaternion
    table: Rows = {
        **base,
        "id": ids,
        "followed": _known([image.followed for image in images], images, ()),
        "confidence": faces.scores.mean(1),
        "detection_score": faces.detection_scores,
        **_named("box", ("x0", "y0", "x1", "y1"), faces.boxes),
        **dict(zip(("pitch", "yaw", "roll"), angles.T)),
        **_named("quaternion", "wxyz", quaternion),
        **_named("translation", "xyz", camera.head_poses(faces, sizes).translation),
        **_named("eye_aspect_ratio", ("right", "left"), eye_aspect_ratio(faces.xyz)),
        "mouth_opening": mouth_opening(faces.xyz),
        **_named("brow_height", ("right", "left"), brow_height(faces.xyz)),
        **_named("blink", ("right", "left"), _known([image.blinking for image in images], images, (2,))),
        **dict(zip(EXPRESSIONS, faces.expression.T)),
        **{f"{name}_sigma": values for name, values in zip(EXPRESSIONS, faces.expression_sigma.T)},
        **_named("x", range(LANDMARKS), faces.xyz[..., 0]),
        **_named("y", range(LANDMARKS), faces.xyz[..., 1]),
        **_named("z", range(LANDMARKS), faces.xyz[..., 2]),
        **_named("sigma", range(LANDMARKS), faces.sigma),
        **_named("visible", range(LANDMARKS), faces.visible),
    }
    return _spread(table, COLUMNS, base, at, count)


def openface_rows(images: Sequence[ImageFaces], camera: Camera = ASSUMED) -> Rows:
    """One row a face and image in the columns OPENFACE_COLUMNS, the names of OpenFace's tables.

    Gaze and action units are left out: nothing here measures them. pose_R is the rotation in the camera's frame
    (`placement.head_poses`), as there. X, Y, Z and pose_T are in millimetres from the camera, x right, y down, z
    forward; each point lies on the ray of its pixel, so that x = f X / Z + the middle.
    """
    faces, at, base = _joined(images)
    sizes = np.stack([base["width"], base["height"]], 1)[at]
    focal, heads = camera.focal_lengths(sizes), camera.head_poses(faces, sizes)
    depth = focal[:, None] / head_scales(faces)[:, None] * (1 - faces.xyz[..., 2] / focal[:, None])
    x, y = np.moveaxis((faces.xy - (sizes[:, None] - 1) / 2) / focal[:, None, None], -1, 0)
    table: Rows = {
        "frame": base["frame"] + 1,
        "face_id": np.concatenate([np.zeros(0, int), *(image.ids for image in images)]),
        "timestamp": base["time"],
        "confidence": faces.scores.mean(1),
        "success": np.array([int(len(image.faces) > 0) for image in images]),
        **_named("pose_T", "xyz", heads.translation * [1, -1, -1], ""),
        **_named("pose_R", "xyz", euler_from_matrix(heads.rotation, "openface"), ""),
        **_named("x", range(LANDMARKS), faces.xyz[..., 0]),
        **_named("y", range(LANDMARKS), faces.xyz[..., 1]),
        **_named("X", range(LANDMARKS), x * depth),
        **_named("Y", range(LANDMARKS), y * depth),
        **_named("Z", range(LANDMARKS), depth),
    }
    per_image = {name: table[name] for name in ("frame", "timestamp", "success")}
    return _spread(table, OPENFACE_COLUMNS, per_image, at, len(faces))


class Layout(NamedTuple):
    """The layout of a table: its columns, and the function that fills them."""

    columns: tuple[Column, ...]
    rows: Callable[[Sequence[ImageFaces], Camera], Rows]


CANTHUS, OPENFACE = Layout(COLUMNS, rows), Layout(OPENFACE_COLUMNS, openface_rows)


def images_of(table: Rows, weights: str = "") -> Iterator[ImageFaces]:
    """The images that `rows` made rows of, in the order of the rows; those of one image must be beside each other.

    Raises `LandmarkError` and the like for numbers that are no faces, and anything for columns of other types.
    """
    keys = list(zip(table["image"].tolist(), table["frame"].tolist()))
    starts = [k for k, key in enumerate(keys) if not k or key != keys[k - 1]]
    known = ~np.ma.getmaskarray(table["id"])
    for start, end in zip(starts, [*starts[1:], len(keys)]):
        part = slice(start, end) if known[start] else slice(start, start)
        if not known[part].all():
            raise LandmarkError(f"got rows with and without faces of {keys[start]}, want the one or the other")
        size = int(table["width"][start]), int(table["height"][start])
        key = str(table["image"][start]), int(table["frame"][start]), float(table["time"][start])
        at = {name: values[part] for name, values in table.items()}
        followed, blinking = _flags(at, "followed"), _flags(at, "blink_right", "blink_left")
        yield ImageFaces(
            *key, _faces(at, size, weights), np.ma.getdata(at["id"]).astype(int),
            None if followed is None else followed[:, 0], blinking,
        )  # fmt: skip


def _faces(table: Rows, size: tuple[int, int], weights: str) -> Faces:
    """The faces in the rows of one image of `size`."""

    def points(name: str) -> np.ndarray:
        return _stacked(table, *(f"{name}_{k}" for k in range(LANDMARKS)))

    return Faces(
        xyz=np.stack([points(axis) for axis in "xyz"], axis=-1),
        detection_scores=table["detection_score"],
        sigma=points("sigma"),
        visible=points("visible"),
        pose=Pose(matrix_from_quaternion(_stacked(table, *(f"quaternion_{a}" for a in "wxyz")).astype(np.float64))),
        image_size=size,
        weights=weights,
        expression=_stacked(table, *EXPRESSIONS),
        expression_sigma=_stacked(table, *(f"{name}_sigma" for name in EXPRESSIONS)),
    )


def _stacked(table: Rows, *names: str) -> np.ndarray:
    return np.stack([np.ma.getdata(table[name]) for name in names], axis=-1)


def _flags(table: Rows, *names: str) -> np.ndarray | None:
    """Truth values (N,names); None where one is not known."""
    hidden = np.ma.getmaskarray(table[names[0]])
    return None if hidden.any() or not len(hidden) else _stacked(table, *names).astype(bool)


def _joined(images: Sequence[ImageFaces]) -> tuple[Faces, np.ndarray, Rows]:
    """All faces together, the image (N,) that each is in, and the columns that have one value an image."""
    parts = [image.faces.converted() for image in images]
    faces = Faces.concat(parts, parts[0].image_size if parts else (1, 1))
    at = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    sizes = np.array([part.image_size for part in parts], int).reshape(-1, 2)
    base = {
        "image": np.array([image.image for image in images], object),
        "width": sizes[:, 0],
        "height": sizes[:, 1],
        "frame": np.array([image.frame for image in images], int),
        "time": np.array([image.time for image in images], np.float64),
    }
    return faces, at, base


def _known(values: Sequence[np.ndarray | None], images: Sequence[ImageFaces], shape: tuple[int, ...]) -> Any:
    """Truth values of all faces together, masked in the images for which there are none."""
    empty = np.ma.masked_all((0, *shape), bool)
    columns = [np.ma.masked_all((len(image.faces), *shape), bool) if value is None else np.ma.asarray(value, bool)
               for value, image in zip(values, images)]  # fmt: skip
    return np.ma.concatenate([empty, *columns])


def _named(stem: str, names: Iterable[Any], values: Any, joint: str = "_") -> Rows:
    return {f"{stem}{joint}{name}": values[:, k] for k, name in enumerate(names)}


def _spread(table: Rows, columns: Sequence[Column], per_image: Rows, at: np.ndarray, count: int) -> Rows:
    """The columns in order, those of images spread over their faces, with a row for each image without a face."""
    alone = np.setdiff1d(np.arange(len(next(iter(per_image.values())))), at)
    image = np.concatenate([at, alone])
    order = np.argsort(image, kind="stable")
    face = np.concatenate([np.arange(count), np.full(len(alone), count)])[order]  # `count` is nobody

    def over_rows(column: Column) -> np.ndarray:
        if column.name in per_image:
            return per_image[column.name][image[order]]
        values = table[column.name]
        if column.kind == "float":
            return np.append(values, np.nan)[face]
        return np.ma.concatenate([values, np.ma.masked_all(1, values.dtype)])[face]

    return {column.name: over_rows(column) for column in columns}
