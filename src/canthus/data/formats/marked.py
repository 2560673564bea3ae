"""Sets whose points were marked by hand in the picture: 300-W, 300-VW, COFW, WFLW, AFLW."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from canthus.data.formats.face import (
    PICTURES,
    FaceSample,
    Faults,
    Part,
    checked,
    complete,
    interpolated,
    name_of,
    noting,
    picture_of,
    some,
)
from canthus.data.formats.files import load_mat, load_npy, read_pts
from canthus.data.formats.fitted import KIT
from canthus.data.formats.folders import files_in, walk
from canthus.decode import decoding, read_text
from canthus.errors import LandmarkError
from canthus.face.landmarks import scheme as find_scheme

FRAMES = "*/annot/*.pts"
WFLW_ATTRIBUTES = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")


def read_300w(folder: str | Path, faults: Faults | None = None, part: Part | None = None) -> Iterator[FaceSample]:
    """300-W: NAME.pts beside NAME.jpg or .png below afw, helen, lfpw, ibug, 01_Indoor and 02_Outdoor; 68 points.

    Groups: "common" (helen/testset, lfpw/testset), "challenge" (ibug), "full" (both), "private" (the challenge's own
    600), "train" (the rest). part: the faces for training or the others alone; else all. Raises `LandmarkError`.
    """
    folder = Path(folder)
    paths = some(files_in(folder, "**/*.pts"), ".pts files (300-W has them in helen, lfpw, ibug, ...)", folder)
    for path in paths:
        groups = groups_of_300w(path.parent)
        if part is not None and (part == "train") != ("train" in groups):
            continue
        with noting(faults):
            points = complete(read_pts(path, 68), path)
            sample = FaceSample(picture_of(path), points, name=name_of(path, folder), groups=groups)
            yield checked(sample, path)


def groups_of_300w(place: Path) -> frozenset[str]:
    """The groups of the faces in a folder of 300-W."""
    above, name = (part.lower() for part in place.resolve().parts[-2:])
    if name == "ibug":
        return frozenset({"challenge", "full"})
    if name == "testset" and above in ("helen", "lfpw"):
        return frozenset({"common", "full"})
    return frozenset({"private" if name in ("01_indoor", "02_outdoor") else "train"})


def read_300vw(folder: str | Path, faults: Faults | None = None, scheme: str = "ibug68") -> Iterator[FaceSample]:
    """300-VW: VIDEO/annot/NNNNNN.pts, one a frame, of 68 points or, as the 3D Menpo challenge has them, of 84
    ("menpo84"), x and y; frames as VIDEO/imgs/NNNNNN.jpg or .png.

    The frames of `vid.avi` have to be written out first. Faces come in the order of frames, `name` is VIDEO/NNNNNN.
    Frames without a PTS file that lie between two with one are labelled by linear interpolation; one whose file is
    faulty is left out. Groups: VIDEO, and "annotated" or "interpolated" where a set has such frames. Raises
    `LandmarkError`.
    """
    folder = Path(folder)
    videos: dict[Path, dict[int, Path]] = {}
    for path in some(files_in(folder, FRAMES), "VIDEO/annot/NNNNNN.pts files", folder):
        with noting(faults):
            videos.setdefault(path.parent.parent, {})[_number(path)] = path
    between = {video: _between(video, annotated) for video, annotated in videos.items() if annotated}
    sparse = any(between.values())
    for video in between:
        yield from _video(video, videos[video], between[video], sparse, scheme, faults)


def _video(
    video: Path,
    annotated: dict[int, Path],
    between: dict[int, Path],
    sparse: bool,
    scheme: str,
    faults: Faults | None,
) -> Iterator[FaceSample]:
    known, pictures = dict[int, np.ndarray](), dict[int, Path]()
    for k, path in sorted(annotated.items()):
        with noting(faults):
            known[k] = complete(read_pts(path, find_scheme(scheme).count), path)
            pictures[k] = picture_of(path, video / "imgs" / path.name)
    if not known:
        return
    pictures |= {k: picture for k, picture in between.items() if min(known) < k < max(known)}
    frames = np.array(sorted(pictures))
    for k, points in zip(frames, interpolated(frames, np.array([*known]), np.stack([*known.values()]))):
        groups = {video.name} | ({"annotated" if k in known else "interpolated"} if sparse else set())
        where = annotated.get(k, pictures[k])
        name = f"{video.name}/{where.stem}"
        with noting(faults):
            yield checked(FaceSample(pictures[k], points, None, scheme, name, groups=frozenset(groups)), where)


def _between(video: Path, annotated: dict[int, Path]) -> dict[int, Path]:
    """The pictures by number that lie between the first and the last annotated frame and are not annotated."""
    pictures = {_number(p): p for p in (video / "imgs").glob("*") if p.suffix in PICTURES and p.stem.isdigit()}
    return {k: p for k, p in pictures.items() if min(annotated) < k < max(annotated) and k not in annotated}


def _number(path: Path) -> int:
    if not path.stem.isdigit():
        raise LandmarkError(f"'{path}' has no frame number for its name; NNNNNN.pts is wanted")
    return int(path.stem)


def read_cofw29(folder: str | Path, faults: Faults | None = None, part: Part = "test") -> Iterator[FaceSample]:
    """COFW's 507 test faces, or 1,345 training faces, with 29 points, from `COFW_test_color.mat` or
    `COFW_train_color.mat` (MATLAB 7.3, pictures inside).

    `phisT` (N,87): x, y and whether hidden; `bboxesT` (N,4): x, y, width, height; pixels count from 1; for training
    `phisTr` and `bboxesTr`. Raises `LandmarkError`.
    """
    path = _cofw_file(Path(folder), part)
    for k, (image, row, box) in enumerate(_cofw(path, part)):
        with noting(faults):
            points = np.stack([row[:29], row[29:58]], axis=1) - 1
            corners = np.array([*(box[:2] - 1), *(box[:2] - 1 + box[2:])])
            sample = FaceSample(
                image, points, scheme="cofw29", name=f"{path.stem}/{k + 1}", box=corners, visible=row[58:] < 0.5
            )
            yield checked(sample, f"{path}, face {k + 1}")


def read_cofw68(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """The 68 points of COFW-68 for COFW's test faces: `test_annotations/K_points.mat` (`Points` (68,2), `Occ`) below
    the folder, and the pictures of `COFW_test_color.mat` in it, K from 1. Raises `LandmarkError`."""
    folder = Path(folder)
    found = (place / "test_annotations" for place, below, _ in walk(folder) if "test_annotations" in below)
    (place, *_) = some(found, "folder test_annotations of COFW-68", folder)
    for k, (image, _, _) in enumerate(_cofw(_cofw_file(folder, "test"), "test")):
        path = place / f"{k + 1}_points.mat"
        with noting(faults):
            mat = load_mat(path, ("Points", "Occ"))
            points = complete(np.asarray(mat["Points"], np.float64), path) - 1
            visible = np.asarray(mat["Occ"]).ravel() == 0
            if visible.shape != (68,):
                raise LandmarkError(f"'{path}' has Occ of shape {np.shape(mat['Occ'])}; 68 numbers are wanted")
            yield checked(FaceSample(image, points, name=f"COFW_test_color/{k + 1}", visible=visible), path)


def read_wflw(folder: str | Path, faults: Faults | None = None, part: Part = "test") -> Iterator[FaceSample]:
    """WFLW's 2,500 test faces, or 7,500 training faces: `list_98pt_rect_attr_test.txt` or `..._train.txt` below the
    folder, pictures in `WFLW_images`.

    A line has 196 coordinates, the face's rectangle, six attributes (0 or 1) and the picture. Groups: "full" and the
    attributes that are 1. Raises `LandmarkError`.
    """
    folder = Path(folder)
    name = f"list_98pt_rect_attr_{part}.txt"
    (path, *_) = some(files_in(folder, f"**/{name}"), name, folder)
    (pictures, *_) = some(filter(Path.is_dir, [folder / "WFLW_images"]), "folder WFLW_images", folder)
    with decoding(LandmarkError, f"'{path}' cannot be read"):
        lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with noting(faults):
                yield _wflw(line.split(), number, f"{path}, line {number}", pictures)


def _wflw(words: list[str], number: int, where: str, pictures: Path) -> FaceSample:
    if len(words) < 207:
        raise LandmarkError(f"'{where}' has {len(words)} words; 196 + 4 + 6 numbers and a picture are wanted")
    with decoding(LandmarkError, f"'{where}' has words where numbers are wanted"):
        values = np.array([float(w) for w in words[:206]])
    file = " ".join(words[206:])
    groups = {"full"} | {a for a, v in zip(WFLW_ATTRIBUTES, values[200:206]) if v}
    sample = FaceSample(
        pictures / file,
        complete(values[:196].reshape(98, 2), where),
        scheme="wflw98",
        name=f"{Path(file).with_suffix('').as_posix()}#{number}",
        box=values[196:200],
        groups=frozenset(groups),
    )
    return checked(sample, where)


def read_aflw21(folder: str | Path, faults: Faults | None = None) -> Iterator[FaceSample]:
    """AFLW by the protocol of 3DDFA: crops in `AFLW_GT_crop`, named by `AFLW_GT_crop.list`, and its arrays.

    `AFLW_GT_pts21.npy` (N,2,21) in pixels of the photos, -1 where hidden; `AFLW_GT_crop_roi_box.npy` (N,4), the square
    of each 120 px crop; `AFLW_GT_crop_yaws.npy` (N,) degrees; `AFLW_GT_pts68.npy` (N,2 or 3,68) where it is there gives
    `box`, by which the protocol divides. Points and box are given in pixels of the crops. Raises `LandmarkError`.
    """
    folder = Path(folder)
    (names, *_) = some(files_in(folder, "**/AFLW_GT_crop.list"), "AFLW_GT_crop.list", folder)
    with decoding(LandmarkError, f"'{names}' cannot be read"):
        files = read_text(names).split()
    count = len(files)
    points = load_npy(_kit_file(folder, "AFLW_GT_pts21.npy"), (count, 2, 21)).transpose(0, 2, 1)
    roi = load_npy(_kit_file(folder, "AFLW_GT_crop_roi_box.npy"), (count, 4))
    yaws = load_npy(_kit_file(folder, "AFLW_GT_crop_yaws.npy"), (count,))
    all68 = files_in(folder, "**/AFLW_GT_pts68.npy")
    fitted = load_npy(all68[0], (count, None, 68))[:, :2].transpose(0, 2, 1) if all68 else None
    for k, file in enumerate(files):
        zoom = 120 / (roi[k, 2:] - roi[k, :2])
        marked = np.where((points[k] == -1).any(1, keepdims=True), np.nan, (points[k] - roi[k, :2]) * zoom)
        box = None
        if fitted is not None:
            shape = (fitted[k] - roi[k, :2]) * zoom
            box = np.concatenate([shape.min(0), shape.max(0)])
        image = folder / "AFLW_GT_crop" / Path(file).name
        sample = FaceSample(
            image, marked, scheme="aflw21", name=image.stem, box=box,
            visible=np.isfinite(marked[:, 0]), yaw=float(np.deg2rad(yaws[k])),
        )  # fmt: skip
        with noting(faults):
            # four squares of the kit are not those of their faces; the protocol counts these faces
            yield checked(sample, f"{names}, {file}", reach=np.inf)


def read_aflw_full(folder: str | Path, faults: Faults | None = None, part: Part = "test") -> Iterator[FaceSample]:
    """AFLW-Full's 4,386 test faces, or 20,000 training faces, with 19 points, hidden ones too:
    `AFLWinfo_release.mat` and AFLW's photos.

    `data` (N,38): x, then y; `bbox` (N,4): left, right, top, bottom, the square by which the protocol divides;
    `mask_new` (N,19): 1 where visible; `nameList`; `ra`: an order, 1-based, whose first 20,000 are for training. Photos
    lie in data/flickr, flickr or the folder itself. Groups: "full", and "frontal" if all points are visible. Raises
    `LandmarkError`.
    """
    folder = Path(folder)
    (path, *_) = some(files_in(folder, "**/AFLWinfo_release.mat"), "AFLWinfo_release.mat", folder)
    mat = load_mat(path, ("data", "bbox", "mask_new", "nameList", "ra"))
    photos = next((p for p in (folder / "data" / "flickr", folder / "flickr") if p.is_dir()), folder)
    count = len(mat["data"])
    for key, shape in {
        "data": (count, 38),
        "bbox": (count, 4),
        "mask_new": (count, 19),
        "nameList": (count, 1),
    }.items():
        if mat[key].shape != shape or mat[key].dtype.kind not in ("O" if key == "nameList" else "iuf"):
            raise LandmarkError(
                f"'{path}' has {mat[key].dtype} of shape {mat[key].shape} in `{key}`; {shape} is wanted"
            )
    rows = mat["ra"].ravel()[slice(20000, None) if part == "test" else slice(20000)] - 1
    if mat["ra"].dtype.kind not in "iuf" or not np.isin(rows, np.arange(count)).all():
        raise LandmarkError(f"'{path}' has an order `ra` of other rows than 1 to {count}")
    for k in rows.astype(int):
        with noting(faults):
            row = np.asarray(mat["data"][k], np.float64)
            file = str(mat["nameList"][k, 0])
            left, right, top, bottom = np.asarray(mat["bbox"][k], np.float64)
            visible = mat["mask_new"][k] > 0
            sample = FaceSample(
                photos / file, complete(row.reshape(2, 19).T, f"{path}, {file}") - 1, scheme="aflw19",
                name=f"{Path(file).with_suffix('').as_posix()}#{k}", box=np.array([left, top, right, bottom]) - 1,
                visible=visible, groups=frozenset({"full", "frontal"} if visible.all() else {"full"}),
            )  # fmt: skip
            yield checked(sample, f"{path}, {file}")


def _kit_file(folder: Path, name: str) -> Path:
    return some(files_in(folder, name, f"{KIT}/{name}"), name, folder)[0]


def _cofw_file(folder: Path, part: Part) -> Path:
    name = f"COFW_{part}_color.mat"
    return some(files_in(folder, name), name, folder)[0]


def _cofw(path: Path, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pictures (H,W,3), rows (87,) and boxes (4,) of the faces. HDF5 holds MATLAB's arrays transposed."""
    import h5py  # optional dependency of the formats extra

    end = {"test": "T", "train": "Tr"}[part]
    with decoding(LandmarkError, f"'{path}' cannot be read"):
        with h5py.File(path, "r") as file:
            rows, boxes = np.asarray(file[f"phis{end}"], float).T, np.asarray(file[f"bboxes{end}"], float).T
            references = np.asarray(file[f"Is{end}"]).ravel()
            if rows.shape != (len(references), 87) or boxes.shape != (len(references), 4):
                shapes = f"phis{end} {rows.shape} and bboxes{end} {boxes.shape}"
                raise LandmarkError(f"'{path}' has {shapes}; (N, 87) and (N, 4) are wanted")
            for reference, row, box in zip(references, rows, boxes):
                picture = np.asarray(file[reference], np.uint8).T
                grey = picture.ndim == 2
                yield (np.repeat(picture[:, :, None], 3, axis=2) if grey else np.ascontiguousarray(picture)), row, box
