"""Which data set a folder holds, told by the names of its files, and its faces for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from canthus.data.formats.face import FaceSample, Faults, noting, picture_at
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
from canthus.data.formats.folders import files_in, walk
from canthus.data.formats.marked import (
    FRAMES,
    groups_of_300w,
    read_300vw,
    read_300w,
    read_aflw21,
    read_aflw_full,
    read_cofw29,
    read_cofw68,
    read_wflw,
)
from canthus.data.formats.rendered import read_clips, read_renders
from canthus.data.formats.spatial import is_shape, is_training, read_3dfaw, read_biwi, read_menpo3d
from canthus.decode import decoding, read_json
from canthus.decode.mat import read_mat
from canthus.errors import LandmarkError, NoFilesError
from canthus.io.shards import shards_in

Read = Callable[[Path, Faults | None], Iterator[FaceSample]]
SETS_OF_300W = {"afw", "helen", "ibug", "lfpw", "01_indoor", "02_outdoor"}
LOOKED_INTO = 20  # files of each ending, where the name does not tell


@dataclass
class Files:
    """The files of a folder and below: all names in lower case, and the first paths of each ending, in order.

    places: ending -> paths, below the folder, of the folders that hold files with it.
    """

    folder: Path
    names: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    ending: dict[str, list[Path]] = field(default_factory=dict)
    places: dict[str, set[Path]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Files:
        """Look through a folder."""
        files = cls(folder)
        for place, below, names in walk(folder):
            files.folders |= {name.lower() for name in below}
            files.names |= {name.lower() for name in names}
            for name in names:
                ending = Path(name).suffix.lower()
                files.places.setdefault(ending, set()).add(place.relative_to(folder))
                found = files.ending.setdefault(ending, [])
                if len(found) < LOOKED_INTO:
                    found.append(place / name)
        return files

    def first(self, ending: str) -> Path | None:
        """The first file with an ending."""
        return next(iter(self.ending.get(ending, ())), None)


@dataclass(frozen=True)
class Layout:
    """A data set's way to lay out its files. name: of the set. part: which part of it is read, where it has several."""

    name: str
    fits: Callable[[Files], bool]
    reader: Read
    part: Literal["", "training", "test"] = ""

    @property
    def title(self) -> str:
        """The name, and the part."""
        return f"{self.name}, {self.part} part" if self.part else self.name

    def read(self, folder: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
        """The faces. Raises `LandmarkError`; `NoFilesError` where the files do not lie in the folder as they should."""
        try:
            yield from self.reader(folder, faults)
        except NoFilesError as error:
            where = f"'{folder}' was recognised as {self.name}"
            raise NoFilesError(f"{where}: {error}; the set's own folder is wanted") from error


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
                return replace(layout, name=f"{layout.name}, depth by the head model", reader=_with_model(model))
            return layout
    for path in files.ending.get(".json", ()):
        _is_coco(path)  # raises where a file is broken
    kinds = ", ".join(sorted(e for e in files.ending if e)[:12]) or "no file"
    raise LandmarkError(
        f"'{folder}' is in no layout that is known ({kinds} found); shards of `canthus synth` or one of "
        f"{', '.join(dict.fromkeys(layout.name for layout in LAYOUTS[1:]))} is wanted"
    )


def _with_model(folder: str) -> Read:
    def read(data: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
        return read_300wlp(data, faults, LandmarkModel(folder))

    return read


def _beside_a_picture(files: Files, endings: Sequence[str]) -> Path | None:
    """The first file with one of the endings that has a picture beside it."""
    for ending in endings:
        for path in files.ending.get(ending, ()):
            if picture_at(path):
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


def _read_300vw(folder: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """Of the scheme that the first sound file has."""
    schemes = (_scheme_in(path) for path in files_in(folder, FRAMES))
    return read_300vw(folder, faults, next(filter(None, schemes), "ibug68"))


def _scheme_in(path: Path) -> str | None:
    with suppress(LandmarkError):  # the reader will say so
        return scheme_of(len(read_pts(path)), path)
    return None


def _is_300w(files: Files) -> bool:
    return ".pts" in files.ending and not SETS_OF_300W.isdisjoint(files.folders | {files.folder.resolve().name.lower()})


def _is_300w_training(files: Files) -> bool:
    return _is_300w(files) and any("train" in groups_of_300w(files.folder / p) for p in files.places[".pts"])


def _is_coco(path: Path) -> bool:
    """Raises `LandmarkError` for a broken file."""
    with decoding(LandmarkError, f"'{path}' is broken JSON"):
        document = read_json(path)
    return isinstance(document, dict) and {"images", "annotations"} <= document.keys()


def _holds_coco(files: Files) -> bool:
    for path in files.ending.get(".json", ()):
        with suppress(LandmarkError):  # the reader will say so
            if _is_coco(path):
                return True
    return False


def _read_coco_files(folder: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """The faces of the JSON files for training, or of all; pictures lie beside the file or in a folder below."""
    paths = []
    for path in files_in(folder, "**/*.json"):
        with noting(faults):
            if _is_coco(path):
                paths.append(path)
    for path in _for_training(paths):
        with noting(faults):
            yield from read_coco(path, None, _pictures_of(path, folder), faults)


def _pictures_of(path: Path, folder: Path) -> Path | None:
    """The folder with the first picture that a COCO file names."""
    images = read_json(path)["images"]
    first = images[0] if isinstance(images, list) and images else None
    name = str(first.get("file_name", "")) if isinstance(first, dict) else ""
    places = [path.parent, *(place for place, *_ in walk(folder))]
    return next((place for place in places if (place / name).is_file()), None)


def _read_dlib_files(folder: Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    for path in _for_training([path for path in files_in(folder, "**/*.xml") if _is_dlib(path)]):
        with noting(faults):
            yield from read_dlib_xml(path, faults=faults)


def _is_dlib(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return b"<dataset" in file.read(4096)
    except OSError:
        return True  # its reader says what is wrong with it


def _for_training(paths: list[Path]) -> list[Path]:
    """Those that say "train" in their names, else those that do not say "test" or "validation", else all."""
    training = [p for p in paths if "train" in p.stem.lower()]
    return training or [p for p in paths if not {"test", "testing", "val", "validation"} & set(_words(p.stem))] or paths


def _words(name: str) -> list[str]:
    return "".join(c if c.isalpha() else " " for c in name.lower()).split()


def _is_3dfaw(files: Files) -> bool:
    paths = files.ending.get(".csv", []) + files.ending.get(".txt", [])
    return any(is_shape(path) for path in paths)


def _is_3dfaw_training(files: Files) -> bool:
    places = files.places.get(".csv", set()) | files.places.get(".txt", set())
    return _is_3dfaw(files) and any(map(is_training, places))


def _is_3dfaw_test(files: Files) -> bool:
    return _is_3dfaw(files) and any(name.startswith(("valid", "test")) for name in files.folders)


def _named(*names: str) -> Callable[[Files], bool]:
    return lambda files: not set(names).isdisjoint(files.names)


LP300W = Layout("300W-LP", _has_pose, read_300wlp)
LAYOUTS = (
    Layout("rendered shards", lambda files: bool(shards_in(files.folder)), read_renders),
    Layout("rendered clips", _named("truth.npz"), read_clips),
    Layout("AFLW-Full", _named("aflwinfo_release.mat"), partial(read_aflw_full, part="train"), "training"),
    Layout("AFLW by 3DDFA", _named("aflw_gt_crop.list"), read_aflw21),
    Layout("COFW", _named("cofw_train_color.mat"), partial(read_cofw29, part="train"), "training"),
    Layout(
        "COFW-68",
        lambda files: "cofw_test_color.mat" in files.names and "test_annotations" in files.folders,
        read_cofw68,
        "test",
    ),
    Layout("COFW", _named("cofw_test_color.mat"), read_cofw29, "test"),
    Layout("WFLW", _named("list_98pt_rect_attr_train.txt"), partial(read_wflw, part="train"), "training"),
    Layout("WFLW", _named("list_98pt_rect_attr_test.txt"), read_wflw, "test"),
    Layout("BIWI", _named("rgb.cal"), read_biwi),
    Layout("300-VW", lambda files: "annot" in files.folders and ".pts" in files.ending, _read_300vw),
    Layout("Menpo-3D", lambda files: ".ljson" in files.ending, read_menpo3d),
    Layout("AFLW2000-3D", _is_aflw2000, read_aflw2000),
    LP300W,
    Layout("300-W", _is_300w_training, partial(read_300w, part="train"), "training"),
    Layout("300-W", _is_300w, read_300w, "test"),
    Layout("pictures with .pts", lambda files: ".pts" in files.ending, read_pts_pairs),
    Layout("3DFAW", _is_3dfaw_training, partial(read_3dfaw, part="train"), "training"),
    Layout("3DFAW", _is_3dfaw_test, read_3dfaw, "test"),
    Layout("3DFAW", _is_3dfaw, read_3dfaw),
    Layout("COCO keypoints", _holds_coco, _read_coco_files),
    Layout("dlib XML", lambda files: any(map(_is_dlib, files.ending.get(".xml", ()))), _read_dlib_files),
    Layout(
        "pictures with arrays of points", lambda files: _beside_a_picture(files, ARRAYS) is not None, read_array_pairs
    ),
)
"""In the order in which they are tried: what only one set has comes first."""
