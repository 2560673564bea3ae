"""Single annotation files: menpo's PTS and LJSON, MATLAB, COCO keypoints, dlib's XML. All give 0-based pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from canthus.data.formats.face import FaceSample, checked
from canthus.errors import LandmarkError


def read_pts(path: str | Path, count: int | None = None) -> np.ndarray:
    """Points (L,2) of a PTS file, whose pixels count from 1. Raises `LandmarkError`."""
    try:
        lines = [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
        head, body = lines[: lines.index("{")], lines[lines.index("{") + 1 : lines.index("}")]
        said = next(int(line.split(":")[1]) for line in head if line.startswith("n_points"))
        points = np.array([[float(v) for v in line.split()[:2]] for line in body]) - 1.0
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise LandmarkError(
            f"'{path}' is no PTS file (version, n_points, {{, lines of x and y, }}): {error}"
        ) from error
    if points.shape != (said, 2) or count not in (None, said):
        raise LandmarkError(f"'{path}' has {len(points)} points and says {said}; {count or said} are wanted")
    return points


def read_ljson(path: str | Path, group: str | None = None) -> np.ndarray:
    """Points (L,2 or 3) as x, y, z of an LJSON file of any version, NaN where missing.

    Files hold (y, x) or (y, x, z), from 0. `group` names one of several groups. Raises `LandmarkError`.
    """
    try:
        document = json.loads(Path(path).read_bytes())
        groups = document.get("groups", document)
        if "landmarks" not in groups:
            if group is None and len(groups) != 1:
                raise LandmarkError(f"'{path}' has the groups {sorted(groups)}; say which one is wanted")
            groups = groups[group or next(iter(groups))]
        points = np.array(groups["landmarks"]["points"], dtype=float)
    except LandmarkError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LandmarkError(f"'{path}' is no LJSON file (landmarks: points): {error}") from error
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise LandmarkError(f"'{path}' has points of shape {points.shape}; (L, 2 or 3) is wanted")
    return points[:, [1, 0, 2][: points.shape[1]]]


def load_mat(path: Path, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The variables of a MATLAB file, versions 4 to 7. Raises `LandmarkError` if it lacks one of `wanted`."""
    from scipy.io import loadmat  # optional dependency of the formats extra

    try:
        mat = loadmat(path)
    except Exception as error:  # SciPy raises many unrelated classes for a damaged file
        raise LandmarkError(f"'{path}' cannot be read: {error}") from error
    missing = [key for key in wanted if key not in mat]
    if missing:
        raise LandmarkError(f"'{path}' lacks {missing}; it has {sorted(k for k in mat if not k.startswith('__'))}")
    return mat


def load_npy(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """An array of numbers whose sides are `shape` (None: any). Raises `LandmarkError`."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise LandmarkError(f"'{path}' cannot be read: {error}") from error
    if array.ndim != len(shape) or any(w not in (None, n) for n, w in zip(array.shape, shape)):
        raise LandmarkError(f"'{path}' has the shape {array.shape}; {shape} is wanted")
    return array.astype(np.float64)


def read_coco(path: str | Path, scheme: str, pictures: str | Path | None = None) -> Iterator[FaceSample]:
    """The faces of a JSON file of keypoints in the style of COCO; pictures lie in its folder or in `pictures`.

    A point of visibility 0 is not annotated; 1 is annotated and hidden in COCO itself, but just annotated in most files
    for faces, so `visible` stays unknown. `bbox` is x, y, width, height. Raises `LandmarkError`.
    """
    path = Path(path)
    folder = Path(pictures) if pictures else path.parent
    try:
        document = json.loads(path.read_bytes())
        files = {image["id"]: image["file_name"] for image in document["images"]}
        rows = [(files[a["image_id"]], a["keypoints"], a.get("bbox")) for a in document["annotations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LandmarkError(f"'{path}' is no JSON of COCO keypoints (images, annotations): {error}") from error
    names = [Path(file).with_suffix("").as_posix() for file, *_ in rows]
    for k, (file, flat, bbox) in enumerate(rows):
        where = f"{path}, {file}"
        if len(flat) % 3:
            raise LandmarkError(f"'{where}' has {len(flat)} keypoint numbers; three a point are wanted")
        values = np.array(flat, float).reshape(-1, 3)
        points = np.where(values[:, 2:] > 0, values[:, :2], np.nan)
        box = None if bbox is None else np.array(bbox, float) + [0, 0, *bbox[:2]]
        name = names[k] if names.count(names[k]) == 1 else f"{names[k]}#{names[:k].count(names[k])}"
        yield checked(FaceSample(folder / file, points, scheme=scheme, name=name, box=box), where)


def read_dlib_xml(path: str | Path, scheme: str) -> Iterator[FaceSample]:
    """The faces of an XML file of dlib's imglab: pictures with boxes and parts, whose names are point numbers.

    Parts that are not there are NaN. Raises `LandmarkError`.
    """
    from canthus.face.landmarks import scheme as find

    path, count = Path(path), find(scheme).count
    try:
        images = ElementTree.parse(path).getroot().findall("./images/image")
    except (OSError, ElementTree.ParseError) as error:
        raise LandmarkError(f"'{path}' is no XML file of dlib: {error}") from error
    if not images:
        raise LandmarkError(f"'{path}' has no images: <dataset><images><image file=...> is wanted")
    for image in images:
        file = image.get("file", "")
        boxes = image.findall("box")
        for k, box in enumerate(boxes):
            where = f"{path}, {file}"
            points = np.full((count, 2), np.nan)
            try:
                for part in box.findall("part"):
                    number = int(part.get("name", ""))
                    if not 0 <= number < count:
                        raise LandmarkError(f"'{where}' has a part {number}; 0 to {count - 1} are wanted")
                    points[number] = float(part.get("x", "")), float(part.get("y", ""))
                left, top, width, height = (float(box.get(key, "")) for key in ("left", "top", "width", "height"))
            except ValueError as error:
                raise LandmarkError(f"'{where}' has a box or part without numbers: {error}") from error
            name = Path(file).with_suffix("").as_posix() + (f"#{k}" if len(boxes) > 1 else "")
            corners = np.array([left, top, left + width, top + height])
            yield checked(FaceSample(path.parent / file, points, scheme=scheme, name=name, box=corners), where)
