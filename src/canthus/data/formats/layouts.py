"""Which data set a folder holds, told by the names of its files, and its faces for training."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from canthus.data.formats.face import PICTURES, FaceSample, Faults
from canthus.data.formats.files import (
    ARRAYS,
    read_array_pairs,
    read_coco,
    read_dlib_xml,
    read_pts,
    read_pts_pairs,
    scheme_of,
)
from canthus.data.formats.fitted import LandmarkModel, read_300wlp, read_aflw2000
from canthus.data.formats.marked import (
    read_300vw,
    read_300w,
    read_aflw21,
    read_aflw_full,
    read_cofw29,
    read_cofw68,
    read_wflw,
)
from canthus.data.formats.rendered import read_clips, read_renders
from canthus.data.formats.spatial import is_shape, read_3dfaw, read_biwi, read_menpo3d
from canthus.decode import decoding, read_json
from canthus.decode.mat import read_mat
from canthus.errors import LandmarkError
from canthus.io.shards import shards_in

Read = Callable[[Path, Faults | None], Iterator[FaceSample]]
SETS_OF_300W = {"afw", "helen", "ibug", "lfpw", "01_indoor", "02_outdoor"}
LOOKED_INTO = 20  # files of each ending, where the name does not tell


@dataclass
class Files:
    """The files of a folder and below: all names in lower case, and the first paths of each ending, in order."""

    folder: Path
    names: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    ending: dict[str, list[Path]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Files:
        """Look through a folder."""
        files = cls(folder)
        for place, below, names in os.walk(folder):
            below.sort()
            files.folders |= {name.lower() for name in below}
            files.names |= {name.lower() for name in names}
            for name in sorted(names):
                found = files.ending.setdefault(Path(name).suffix.lower(), [])
                if len(found) < LOOKED_INTO:
                    found.append(Path(place) / name)
        return files

    def first(self, ending: str) -> Path | None:
        """The first file with an ending."""
        return next(iter(self.ending.get(ending, ())), None)


@dataclass(frozen=True)
class Layout:
    """A data set's way to lay out its files. title: of the set, and which part of it is read. `read`: its faces."""

    title: str
    fits: Callable[[Files], bool]
    read: Read


def recognise(folder: str | Path, model: str = "") -> Layout:
    """The layout of a folder; `read` of it gives the faces to train on.

    That is the training part where the set has one. `model`: folder of the head model of 300W-LP's labels, for depth.
    Raises `LandmarkError` where the folder is not there or has no layout that is known.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LandmarkError(f"there is no folder '{folder}'")
    files = Files.of(folder)
    for layout in LAYOUTS:
        if layout.fits(files):
            if layout is LP300W and model:
                return Layout(f"{layout.title}, depth by the head model", layout.fits, _with_model(model))
            return layout
    kinds = ", ".join(sorted(e for e in files.ending if e)[:12]) or "no file"
    raise LandmarkError(
        f"'{folder}' is in no layout that is known ({kinds} found); shards of `canthus synth` or one of "
        f"{', '.join(dict.fromkeys(layout.title.partition(',')[0] for layout in LAYOUTS[1:]))} is wanted"
    )


def _with_model(folder: str) -> Read:
    def read(data: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
        return read_300wlp(data, faults, LandmarkModel(folder))

    return read


def _beside_a_picture(files: Files, endings: Sequence[str]) -> Path | None:
    """The first file with one of the endings that has a picture beside it."""
    for ending in endings:
        for path in files.ending.get(ending, ()):
            if any(path.with_suffix(picture).is_file() for picture in PICTURES):
                return path
    return None


def _has_pose(files: Files) -> bool:
    path = _beside_a_picture(files, [".mat"])
    return path is not None and bool(_mat_keys(path) & {"Pose_Para"})


def _mat_keys(path: Path) -> set[str]:
    try:
        with decoding(LandmarkError, f"'{path}' cannot be read"):
            return set(read_mat(path, ("Pose_Para", "pt3d_68")))
    except LandmarkError:  # the reader will say so
        return set()


def _is_aflw2000(files: Files) -> bool:
    path = _beside_a_picture(files, [".mat"])
    return path is not None and path.parent == files.folder and _mat_keys(path) >= {"Pose_Para", "pt3d_68"}


def _read_300w_training(folder: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """The training faces; all, where there are no others."""
    faces = list(read_300w(folder, faults))
    yield from [face for face in faces if "train" in face.groups] or faces


def _read_300vw(folder: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """Of the scheme that the first file has."""
    first = min(folder.glob("*/annot/*.pts"), default=None)
    scheme = "ibug68" if first is None else scheme_of(len(read_pts(first)), first)
    return read_300vw(folder, faults, scheme)


def _is_coco(path: Path) -> bool:
    try:
        with decoding(LandmarkError, f"'{path}' is another JSON"):
            return {"images", "annotations"} <= read_json(path).keys()
    except LandmarkError:
        return False


def _read_coco_files(folder: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """The faces of the JSON files for training, or of all; pictures lie beside the file or in a folder below."""
    paths = [path for path in sorted(folder.rglob("*.json")) if _is_coco(path)]
    for path in _for_training(paths):
        images = read_json(path)["images"]
        first = str(images[0].get("file_name", "")) if images and isinstance(images[0], dict) else ""
        places = [path.parent, folder, *(p for p in sorted(folder.rglob("*")) if p.is_dir())]
        yield from read_coco(path, None, next((p for p in places if (p / first).is_file()), None), faults)


def _read_dlib_files(folder: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    for path in _for_training([path for path in sorted(folder.rglob("*.xml")) if _is_dlib(path)]):
        yield from read_dlib_xml(path, faults=faults)


def _is_dlib(path: Path) -> bool:
    with open(path, "rb") as file:
        return b"<dataset" in file.read(4096)


def _for_training(paths: list[Path]) -> list[Path]:
    """Those that say "train" in their names, else those that do not say "test" or "val", else all."""
    training = [p for p in paths if "train" in p.stem.lower()]
    return training or [p for p in paths if not {"test", "val"} & set(_words(p.stem))] or paths


def _words(name: str) -> list[str]:
    return "".join(c if c.isalpha() else " " for c in name.lower()).split()


def _is_3dfaw(files: Files) -> bool:
    paths = files.ending.get(".csv", []) + files.ending.get(".txt", [])
    return any(is_shape(path) for path in paths)


def _named(*names: str) -> Callable[[Files], bool]:
    return lambda files: not set(names).isdisjoint(files.names)


LP300W = Layout("300W-LP", _has_pose, read_300wlp)
LAYOUTS = (
    Layout("rendered shards", lambda files: bool(shards_in(files.folder)), read_renders),
    Layout("rendered clips", _named("truth.npz"), read_clips),
    Layout("AFLW-Full, training part", _named("aflwinfo_release.mat"), functools.partial(read_aflw_full, part="train")),
    Layout("AFLW by 3DDFA", _named("aflw_gt_crop.list"), read_aflw21),
    Layout("COFW, training part", _named("cofw_train_color.mat"), functools.partial(read_cofw29, part="train")),
    Layout(
        "COFW-68, test part",
        lambda files: "cofw_test_color.mat" in files.names and "test_annotations" in files.folders,
        read_cofw68,
    ),
    Layout("COFW, test part", _named("cofw_test_color.mat"), read_cofw29),
    Layout("WFLW, training part", _named("list_98pt_rect_attr_train.txt"), functools.partial(read_wflw, part="train")),
    Layout("WFLW, test part", _named("list_98pt_rect_attr_test.txt"), read_wflw),
    Layout("BIWI", _named("rgb.cal"), read_biwi),
    Layout("300-VW", lambda files: "annot" in files.folders and ".pts" in files.ending, _read_300vw),
    Layout("Menpo-3D", lambda files: ".ljson" in files.ending, read_menpo3d),
    Layout("AFLW2000-3D", _is_aflw2000, read_aflw2000),
    LP300W,
    Layout(
        "300-W, training part",
        lambda files: ".pts" in files.ending and not SETS_OF_300W.isdisjoint(files.folders),
        _read_300w_training,
    ),
    Layout("pictures with .pts", lambda files: ".pts" in files.ending, read_pts_pairs),
    Layout("3DFAW", _is_3dfaw, read_3dfaw),
    Layout("COCO keypoints", lambda files: any(map(_is_coco, files.ending.get(".json", ()))), _read_coco_files),
    Layout("dlib XML", lambda files: any(map(_is_dlib, files.ending.get(".xml", ()))), _read_dlib_files),
    Layout(
        "pictures with arrays of points", lambda files: _beside_a_picture(files, ARRAYS) is not None, read_array_pairs
    ),
)
"""In the order in which they are tried: what only one set has comes first."""
