"""Single annotation files: menpo's PTS and LJSON, MATLAB, COCO keypoints, dlib's XML. All give 0-based pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from canthus.data.formats.face import FaceSample, Faults, checked, name_of, noting, picture_of, some
from canthus.data.formats.folders import files_in
from canthus.decode import decoding, fits, numbers, read_bytes, read_json, read_npy, read_npz, read_text
from canthus.decode.mat import read_mat
from canthus.errors import LandmarkError, amount
from canthus.face.landmarks import scheme as find_scheme
from canthus.face.landmarks import scheme_names

ARRAYS = (".npz", ".npy", ".mat")
MAT_POINTS = ("pts", "points", "Points", "landmarks", "lms", "pt2d", "pt3d", "pt3d_68", "pts_2d", "pts_3d")


def read_pts(path: str | Path, count: int | None = None) -> np.ndarray:
    """Points (L,2) of a PTS file, whose pixels count from 1. Raises `LandmarkError`."""
    with decoding(LandmarkError, f"'{path}' is no PTS file (version, n_points, {{, lines of x and y, }})"):
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        if "{" not in lines or "}" not in lines:
            raise ValueError("a line with a brace of its own is missing")
        head, body = lines[: lines.index("{")], lines[lines.index("{") + 1 : lines.index("}")]
        announced = next(int(line.split(":")[1]) for line in head if line.startswith("n_points"))
        points = np.array([[float(v) for v in line.split()[:2]] for line in body]) - 1.0
        if np.isinf(points).any():
            raise ValueError("a coordinate is infinite")
    if points.shape != (announced, 2) or count not in (None, announced):
        raise LandmarkError(
            f"'{path}' has {amount(len(points), 'point')} and says {announced}; {count or announced} are wanted"
        )
    return points


def read_ljson(path: str | Path, group: str | None = None) -> np.ndarray:
    """Points (L,2 or 3) as x, y, z of an LJSON file of version 2 or 3, NaN where missing.

    Files hold (y, x) or (y, x, z), from 0. `group` names one of several groups. Raises `LandmarkError`.
    """
    with decoding(LandmarkError, f"'{path}' is no LJSON file (landmarks: points)"):
        document = read_json(path)
        groups = document.get("groups", document)
        if "landmarks" not in groups:
            if group is None and len(groups) != 1:
                raise LandmarkError(f"'{path}' has the groups {sorted(groups)}; say which one is wanted")
            groups = groups[group or next(iter(groups))]
        listed = groups["landmarks"]["points"]
        points = np.array([numbers(point, (None,), unknown=True) for point in listed])
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise LandmarkError(f"'{path}' has points of shape {points.shape}; (L, 2 or 3) is wanted")
    return points[:, [1, 0, 2][: points.shape[1]]]


def load_mat(path: Path, wanted: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The variables `wanted` of a MATLAB file, versions 5 to 7, and of `optional` those that it has. Raises
    `LandmarkError` if it is damaged or lacks one of `wanted`."""
    with decoding(LandmarkError, f"'{path}' cannot be read"):
        mat: dict[str, Any] = read_mat(path, (*wanted, *optional))
    missing = [key for key in wanted if key not in mat]
    if missing:
        raise LandmarkError(f"'{path}' lacks {missing}")
    return mat


def load_npy(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """An array of numbers whose sides are `shape` (None: any). Raises `LandmarkError`."""
    with decoding(LandmarkError, f"'{path}' cannot be read"):
        array = read_npy(path)
        if array.dtype.kind not in "iuf":
            raise ValueError(f"it holds {array.dtype}; numbers are wanted")
    if array.ndim != len(shape) or any(w not in (None, n) for n, w in zip(array.shape, shape)):
        raise LandmarkError(f"'{path}' has the shape {array.shape}; {shape} is wanted")
    return array.astype(np.float64)


def read_coco(
    path: str | Path, scheme: str | None = None, pictures: str | Path | None = None, faults: Faults | None = None
) -> Iterator[FaceSample]:
    """The faces of a JSON file of keypoints in the style of COCO; pictures lie in its folder or in `pictures`.

    A point of visibility 0 is not annotated; 1 is annotated and hidden in COCO itself, but just annotated in most files
    for faces, so `visible` stays unknown. `bbox` is x, y, width, height. Annotations without keypoints are passed over.
    Without a `scheme` it is the one with as many points. Raises `LandmarkError`.
    """
    path = Path(path)
    folder = Path(pictures) if pictures else path.parent
    with decoding(LandmarkError, f"'{path}' is no JSON of COCO keypoints (images, annotations)"):
        document = read_json(path)
        files = {image["id"]: image["file_name"] for image in document["images"]}
        if not all(fits(file, str) and Path(file).name for file in files.values()):
            raise ValueError("a file name is no text")
        names = {image: Path(file).with_suffix("").as_posix() for image, file in files.items()}
        faces = [a for a in document["annotations"] if a.get("keypoints") and a.get("num_keypoints") != 0]
        times, before = Counter(names.get(a.get("image_id")) for a in faces), Counter[str]()
    for annotation in faces:
        with noting(faults):
            image = annotation.get("image_id")
            if image not in files:
                which = f"'{path}', annotation {annotation.get('id', 'without an id')}"
                raise LandmarkError(f"{which}, has the image_id {image!r}; that of one of its images is wanted")
            file, name = files[image], names[image]
            before[name] += 1
            own = name if times[name] == 1 else f"{name}#{before[name] - 1}"
            where = f"{path}, {file}"
            with decoding(LandmarkError, f"'{where}' has keypoints or a bbox that cannot be read"):
                values, bbox = numbers(annotation["keypoints"], (None,)), annotation.get("bbox")
                box = None if bbox is None else numbers(bbox, (4,)) + [0, 0, *bbox[:2]]
            if len(values) % 3:
                raise LandmarkError(f"'{where}' has {len(values)} keypoint numbers; three a point are wanted")
            values = values.reshape(-1, 3)
            points = np.where(values[:, 2:] > 0, values[:, :2], np.nan)
            of = scheme or scheme_of(len(points), where)
            yield checked(FaceSample(folder / file, points, scheme=of, name=own, box=box), where)


def read_dlib_xml(path: str | Path, scheme: str | None = None, faults: Faults | None = None) -> Iterator[FaceSample]:
    """The faces of an XML file of dlib's imglab: pictures with boxes and parts, whose names are point numbers.

    Parts that are not there are NaN. Boxes that are to be ignored, or have no parts, are passed over. Without a
    `scheme` it is the one with as many points as the highest number of a part says. Raises `LandmarkError`.
    """
    path = Path(path)
    with decoding(LandmarkError, f"'{path}' is no XML file of dlib"):
        images = ElementTree.fromstring(read_bytes(path)).findall("./images/image")
    if not images:
        raise LandmarkError(f"'{path}' has no images: <dataset><images><image file=...> is wanted")
    if scheme is None:
        parts = (part.get("name", "") for image in images for part in image.findall("box/part"))
        scheme = scheme_of(max((int(name) for name in parts if name.isdecimal()), default=-1) + 1, path)
    count = find_scheme(scheme).count
    for image in images:
        file = image.get("file", "")
        boxes = [box for box in image.findall("box") if box.find("part") is not None and box.get("ignore") != "1"]
        for k, box in enumerate(boxes):
            with noting(faults):
                if not Path(file).name:
                    raise LandmarkError(f"'{path}' has an image without a file; <image file=...> is wanted")
                where = f"{path}, {file}"
                points = np.full((count, 2), np.nan)
                with decoding(LandmarkError, f"'{where}' has a box or part without numbers"):
                    for part in box.findall("part"):
                        number = int(part.get("name", ""))
                        if not 0 <= number < count:
                            raise LandmarkError(f"'{where}' has a part {number}; 0 to {count - 1} are wanted")
                        points[number] = float(part.get("x", "")), float(part.get("y", ""))
                    left, top, width, height = (float(box.get(key, "")) for key in ("left", "top", "width", "height"))
                name = Path(file).with_suffix("").as_posix() + (f"#{k}" if len(boxes) > 1 else "")
                corners = np.array([left, top, left + width, top + height])
                yield checked(FaceSample(path.parent / file, points, scheme=scheme, name=name, box=corners), where)


def read_pts_pairs(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """NAME.pts beside NAME.jpg or .png, in the folder or below it, of the scheme that has as many points. Raises
    `LandmarkError`."""
    folder = Path(folder)
    for path in some(files_in(folder, "**/*.pts"), ".pts files", folder):
        with noting(faults):
            points = read_pts(path)
            of = scheme_of(len(points), path)
            yield checked(FaceSample(picture_of(path), points, scheme=of, name=name_of(path, folder)), path)


def read_array_pairs(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """NAME.npz, .npy or .mat beside NAME.jpg or .png, in the folder or below it, whose one array of points is
    (L,2 or 3) or (2 or 3,L): LS3D-W and similar sets.

    In .mat files it has a name of `MAT_POINTS`. Pixels of .mat files count from 1, of the others from 0. z is nearer =
    larger. The scheme is the one with as many points. Raises `LandmarkError`.
    """
    folder = Path(folder)
    files = files_in(folder, *(f"**/*{ending}" for ending in ARRAYS))
    for path in some(files, "files of points (.npz, .npy, .mat)", folder):
        with noting(faults):
            points = _array_points(path)
            of = scheme_of(len(points), path)
            yield checked(FaceSample(picture_of(path), points, scheme=of, name=name_of(path, folder)), path)


def _array_points(path: Path) -> np.ndarray:
    """The only array of a file that has the shape of points, as (L,2 or 3), 0-based, z of mean zero."""
    with decoding(LandmarkError, f"'{path}' cannot be read"):
        if path.suffix == ".npy":
            arrays = {"": read_npy(path)}
        else:
            arrays = dict(read_npz(path)) if path.suffix == ".npz" else read_mat(path, MAT_POINTS)
    found = []
    for array in arrays.values():
        if isinstance(array, np.ndarray) and array.dtype.kind in "iuf":
            array = np.squeeze(array)
            if array.ndim == 2 and min(array.shape) in (2, 3) and max(array.shape) > 3:
                found.append(array if array.shape[1] in (2, 3) else array.T)
    if len(found) != 1:
        raise LandmarkError(f"'{path}' has {len(found)} arrays of points, (L, 2 or 3) or (2 or 3, L); one is wanted")
    points = found[0].astype(np.float64) - (1 if path.suffix == ".mat" else 0)
    return points - [0, 0, np.nanmean(points[:, 2])] if points.shape[1] == 3 else points


def scheme_of(count: int, where: str | Path) -> str:
    """The name of the landmark scheme with `count` points. Raises `LandmarkError`."""
    counts = {find_scheme(name).count: name for name in scheme_names()}
    if count not in counts:
        known = ", ".join(map(str, sorted(counts)))
        raise LandmarkError(
            f"'{where}' has {amount(count, 'point')}, of which no landmark scheme is known; {known} are wanted"
        )
    return counts[count]
