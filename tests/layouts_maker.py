"""Small data sets in the layouts of the real ones, of made-up faces; no picture shows anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from made_up_face import face
from PIL import Image

from canthus.face.landmarks import convert
from canthus.geometry.rotation import matrix_from_euler

SIZE = (260, 240)
YAWS = (5.0, -29.0, 31.0, -45.0, 75.0, -88.0)  # degrees, two a bin


def turned(yaw: float, width: float = 120.0) -> np.ndarray:
    """`face` (68,3) under pitch 3, `yaw`, roll -4 degrees in the middle of a picture: 0-based pixels, mean z zero."""
    points = (face() * [1, -1, 1]) @ matrix_from_euler(np.deg2rad([3.0, yaw, -4.0]), "aflw").T * [1, -1, 1]
    points *= width / np.ptp(points[:, :2], axis=0).max()
    return points - [0, 0, points[:, 2].mean()] + [130, 120, 0]


def shapes() -> list[np.ndarray]:
    """One face a yaw of `YAWS`."""
    return [turned(yaw) for yaw in YAWS]


def picture(path: Path) -> None:
    """A grey picture of `SIZE`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (90, 90, 90)).save(path)


def pts(path: Path, points: np.ndarray) -> None:
    """A PTS file, 1-based."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{x:.6f} {y:.6f}\n" for x, y in points[:, :2] + 1)
    path.write_text(f"version: 1\nn_points:  {len(points)}\n{{\n{lines}}}\n")


def aflw2000(folder: Path, second: bool = False) -> Path:
    """NAME.jpg and NAME.mat; with `second`, labels 1 px to the right as a re-annotation, and AFLW's yaws (all 40)."""
    from scipy.io import savemat

    for k, (yaw, points) in enumerate(zip(YAWS, shapes())):
        picture(folder / f"image{k:05d}.jpg")
        pose = np.deg2rad([3.0, yaw, -4.0])
        mat = {"pt3d_68": (points + [1, 1, 50]).T, "Pose_Para": np.array([[*pose, 0, 0, 0, 1]])}
        savemat(folder / f"image{k:05d}.mat", mat)
    if second:
        kit = folder / "test.configs"
        kit.mkdir()
        np.save(kit / "AFLW2000-3D-Reannotated.pts68.npy", np.stack([(p[:, :2] + [2, 1]).T for p in shapes()]))
        np.save(kit / "AFLW2000-3D-new.pose.npy", np.full(len(YAWS), 40.0))
    return folder


def lp300w(folder: Path, landmarks: bool = False) -> Path:
    """300W-LP: pt2d without depth; with `landmarks`, the mesh points (shifted by 1 px) in landmarks/AFW."""
    from scipy.io import savemat

    for k, points in enumerate(shapes()[:2]):
        picture(folder / "AFW" / f"AFW_{k}.jpg")
        mat = {"pt2d": (points[:, :2] + 1).T, "Pose_Para": np.array([[*np.deg2rad([3, YAWS[k], -4]), 0, 0, 0, 1]])}
        savemat(folder / "AFW" / f"AFW_{k}.mat", mat)
        if landmarks:
            (folder / "landmarks" / "AFW").mkdir(parents=True, exist_ok=True)
            savemat(folder / "landmarks" / "AFW" / f"AFW_{k}_pts.mat", {"pts_3d": points[:, :2] + [2, 1]})
    return folder


def w300(folder: Path) -> Path:
    """300-W: two faces of the common test set, one of the challenging, one for training."""
    for place, points in zip(("helen/testset/a", "lfpw/testset/b", "ibug/c", "afw/d"), shapes()):
        pts(folder / f"{place}.pts", points)
        picture(folder / f"{place}.png")
    return folder


def vw300(folder: Path, frames: int = 6) -> Path:
    """300-VW: one video whose face moves by 2 px a frame."""
    for k in range(frames):
        pts(folder / "001" / "annot" / f"{k + 1:06d}.pts", turned(5.0) + [2 * k, 0, 0])
        picture(folder / "001" / "imgs" / f"{k + 1:06d}.jpg")
    return folder


def vw300_84(folder: Path, frames: int = 6) -> Path:
    """The same with 84 points."""
    for k in range(frames):
        pts(folder / "001" / "annot" / f"{k + 1:06d}.pts", menpo84(turned(5.0) + [2 * k, 0, 0]))
        picture(folder / "001" / "imgs" / f"{k + 1:06d}.jpg")
    return folder


def cofw(folder: Path, annotations68: bool = False, part: str = "test") -> Path:
    """COFW_test_color.mat with two faces, the second grey; point 3 hidden. With COFW-68's files on demand."""
    import h5py
    from scipy.io import savemat

    def rows() -> list[np.ndarray]:
        points = [convert(p[:, :2], "ibug68", "cofw29")[0] for p in shapes()[:2]]
        points = [np.where(np.isnan(p), 100.0, p) + 1 for p in points]
        return [np.concatenate([p[:, 0], p[:, 1], np.arange(29) == 3]) for p in points]

    folder.mkdir(parents=True, exist_ok=True)
    end = {"test": "T", "train": "Tr"}[part]
    with h5py.File(folder / f"COFW_{part}_color.mat", "w") as file:
        file[f"phis{end}"] = np.stack(rows()).T
        file[f"bboxes{end}"] = np.array([[61.0, 51, 100, 110]] * 2).T
        colour = np.full((240, 260, 3), (10, 20, 30), np.uint8)
        pictures = [colour, np.full((240, 260), 77, np.uint8)]
        references = []
        for k, p in enumerate(pictures):
            file[f"#refs#/{k}"] = p.T
            references.append(file[f"#refs#/{k}"].ref)
        file.create_dataset(f"Is{end}", data=np.array([references], dtype=h5py.ref_dtype))
    if annotations68:
        place = folder / "COFW68_Data" / "test_annotations"
        place.mkdir(parents=True)
        for k, points in enumerate(shapes()[:2]):
            mat = {"Points": points[:, :2] + 1, "Occ": (np.arange(68) < 17).astype(float)[:, None]}
            savemat(place / f"{k + 1}_points.mat", mat)
    return folder


def wflw98(points: np.ndarray) -> np.ndarray:
    """(98,2) whose `convert` to 68 gives `points` (68,2); the rest lie between or on neighbours."""
    out = np.full((98, 2), np.nan)
    chosen = [*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60)]
    chosen += [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75, *range(76, 96)]
    out[chosen] = points[:, :2]
    out[1:32:2] = (out[0:31:2] + out[2:33:2]) / 2
    out[96], out[97] = points[36:42, :2].mean(0), points[42:48, :2].mean(0)
    for k in np.flatnonzero(np.isnan(out[:, 0])):
        out[k] = out[k - 1]
    return out


def wflw(folder: Path, part: str = "test") -> Path:
    """WFLW: two faces in one picture, the second with a large pose and blurred."""
    lists = folder / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    lists.mkdir(parents=True, exist_ok=True)
    lines = []
    for points, flags in zip(shapes()[:2], ("0 0 0 0 0 0", "1 0 0 0 0 1")):
        numbers = " ".join(f"{v:.6f}" for v in wflw98(points).ravel())
        lines.append(f"{numbers} 60 50 200 190 {flags} 5--Car/a.jpg\n")
    (lists / f"list_98pt_rect_attr_{part}.txt").write_text("".join(lines))
    picture(folder / "WFLW_images" / "5--Car" / "a.jpg")
    return folder


def aflw21(folder: Path, fitted: bool = True) -> Path:
    """3DDFA's kit for AFLW: crops of 120 px of the square (70, 60, 190, 180), point 12 hidden."""
    kit = folder / "test.configs"
    kit.mkdir(parents=True)
    points = np.stack([convert(p[:, :2], "ibug68", "aflw21")[0] for p in shapes()])
    points[:, 12] = -1
    np.save(kit / "AFLW_GT_pts21.npy", points.transpose(0, 2, 1))
    np.save(kit / "AFLW_GT_crop_roi_box.npy", np.array([[70.0, 60, 190, 180]] * len(points)))
    np.save(kit / "AFLW_GT_crop_yaws.npy", np.array(YAWS))
    if fitted:
        np.save(kit / "AFLW_GT_pts68.npy", np.stack([p[:, :2].T for p in shapes()]))
    names = [f"face{k}.jpg" for k in range(len(points))]
    (folder / "AFLW_GT_crop.list").write_text("\n".join(names))
    for name in names:
        (folder / "AFLW_GT_crop").mkdir(exist_ok=True)
        Image.new("RGB", (120, 120)).save(folder / "AFLW_GT_crop" / name)
    return folder


def aflw_full(folder: Path) -> Path:
    """AFLW-Full: 20,000 rows for training, all one face, then two for testing, the second with a hidden point."""
    from scipy.io import savemat

    points = [convert(p[:, :2], "ibug68", "aflw19")[0] + 1 for p in shapes()[:2]]
    data = np.stack([p.T.ravel() for p in points])
    names = np.empty((2, 1), object)
    names[:, 0] = ["0/a.jpg", "2/b.jpg"]
    mask = np.ones((2, 19))
    mask[1, 4] = 0
    order = np.concatenate([np.ones(20000, int), [1, 2]])
    box = np.array([[61.0, 201, 51, 191]] * 2)  # left, right, top, bottom
    folder.mkdir(parents=True, exist_ok=True)
    mat = {"data": data, "bbox": box, "mask_new": mask, "nameList": names, "ra": order[None]}
    savemat(folder / "AFLWinfo_release.mat", mat)
    for name in ("0/a.jpg", "2/b.jpg"):
        picture(folder / "data" / "flickr" / name)
    return folder


def fdaw3(folder: Path, part: str = "valid") -> Path:
    """A part of 3DFAW with z away from the camera."""
    for k, points in enumerate(shapes()[:3]):
        picture(folder / f"{part}_img" / f"{k}.jpg")
        (folder / f"{part}_lm").mkdir(exist_ok=True)
        values = convert(points, "ibug68", "3dfaw66")[0] * [1, 1, -1]
        lines = "".join(f"{x:.6f},{y:.6f},{z:.6f}\n" for x, y, z in values)
        (folder / f"{part}_lm" / f"{k}_lm.csv").write_text(lines)
    return folder


def menpo84(points: np.ndarray) -> np.ndarray:
    """(84,D) whose `convert` to 68 gives `points`."""
    out = np.empty((84, points.shape[1]))
    out[0:33:2], out[33:] = points[:17], points[17:]
    out[1:32:2] = (out[0:31:2] + out[2:33:2]) / 2
    return out


def menpo3d(folder: Path) -> Path:
    """Menpo-3D: LJSON with (y, x, z)."""
    for k, points in enumerate(shapes()[:2]):
        picture(folder / f"{k}.jpg")
        rows = menpo84(points)[:, [1, 0, 2]].tolist()
        document = {"version": 2, "labels": [], "landmarks": {"points": rows, "connectivity": []}}
        (folder / f"{k}.ljson").write_text(json.dumps(document))
    return folder


def pts_pairs(folder: Path) -> Path:
    """NAME.pts beside NAME.png: 68 points."""
    for k, points in enumerate(shapes()[:3]):
        pts(folder / f"{k}.pts", points)
        picture(folder / f"{k}.png")
    return folder


def coco(folder: Path) -> Path:
    """A JSON of keypoints in annotations/, pictures in images/; point 5 of the second face is not annotated."""
    images, annotations = [], []
    for k, points in enumerate(shapes()[:2]):
        picture(folder / "images" / f"{k}.jpg")
        flags = np.where((np.arange(68) == 5) & (k == 1), 0, 2)
        images.append({"id": k, "file_name": f"{k}.jpg"})
        flat = np.column_stack([points[:, :2], flags]).ravel().tolist()
        annotations.append({"image_id": k, "keypoints": flat, "bbox": [60, 50, 140, 140]})
    (folder / "annotations").mkdir()
    document = {"images": images, "annotations": annotations}
    (folder / "annotations" / "face_train.json").write_text(json.dumps(document))
    return folder


def dlib_xml(folder: Path) -> Path:
    """An XML of imglab with a face a picture; part 3 is left out."""
    lines = []
    for k, points in enumerate(shapes()[:2]):
        picture(folder / f"{k}.jpg")
        parts = "".join(
            f'<part name="{n:02d}" x="{x:.3f}" y="{y:.3f}"/>' for n, (x, y, _) in enumerate(points) if n != 3
        )
        box = f'<box top="50" left="60" width="140" height="140">{parts}</box>'
        lines.append(f'<image file="{k}.jpg">{box}</image>')
    text = f"<?xml version='1.0'?><dataset><images>{''.join(lines)}</images></dataset>"
    (folder / "labels_train.xml").write_text(text)
    return folder


def arrays(folder: Path) -> Path:
    """An array beside each picture: .npz (68,3), .mat (2,68) from 1, .npy (68,2)."""
    from scipy.io import savemat

    for k, points in enumerate(shapes()[:3]):
        picture(folder / f"{k}.jpg")
        if k == 0:
            np.savez(folder / "0.npz", points=points)
        elif k == 1:
            savemat(folder / "1.mat", {"pts": points[:, :2].T + 1})
        else:
            np.save(folder / "2.npy", points[:, :2])
    return folder


def biwi(folder: Path) -> Path:
    """BIWI: person 01 under `YAWS`, one metre away."""
    for k, yaw in enumerate(YAWS):
        rotation = matrix_from_euler(np.deg2rad([3.0, yaw, -4.0]), "aflw")
        turned = np.diag([1, -1, -1]) @ rotation @ np.diag([1, -1, -1])
        lines = [" ".join(f"{v:.8f}" for v in row) for row in turned]
        picture(folder / "01" / f"frame_{k:05d}_rgb.png")
        (folder / "01" / f"frame_{k:05d}_pose.txt").write_text("\n".join([*lines, "", "10 20 1000"]) + "\n")
    calibration = "500 0 130\n0 500 120\n0 0 1\n\n0 0 0 0\n\n1 0 0\n0 1 0\n0 0 1\n\n0 0 0\n\n260 240\n"
    (folder / "01" / "rgb.cal").write_text(calibration)
    return folder


def truths() -> dict[str, np.ndarray]:
    """The truth of `shapes` as `canthus synth` stores it; the jaw is hidden."""
    rotation = [matrix_from_euler(np.deg2rad([3.0, yaw, -4.0]), "aflw") for yaw in YAWS]
    visible = np.tile(np.arange(68) >= 17, (len(YAWS), 1))
    return {"xyz": np.stack(shapes()).astype(np.float32), "visible": visible, "rotation": np.stack(rotation)}


def renders(folder: Path) -> Path:
    """Two shards of three faces each."""
    from canthus.io.shards import shard_path, write_shard

    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate((slice(0, 3), slice(3, 6))):
        faces = {key: values[part] for key, values in truths().items()}
        image = np.full((3, SIZE[1], SIZE[0], 3), 90, np.uint8)
        write_shard(shard_path(folder, number), {"image": image, **faces}, 3 * number, "npz")
    return folder


def clips(folder: Path, frames: int = 21) -> Path:
    """Two clips of one face that moves by a growing step: 0.1 k (k + 1) px to the right in frame k."""
    for number in range(2):
        truth = {key: np.repeat(values[[number]], frames, 0) for key, values in truths().items()}
        k = np.arange(frames)
        truth["xyz"] = truth["xyz"] + (0.1 * k * (k + 1))[:, None, None] * [1, 0, 0]
        for frame in range(frames):
            picture(folder / f"clip-{number:05d}" / f"frame-{frame:05d}.jpg")
        np.savez(folder / f"clip-{number:05d}" / "truth.npz", **truth)
    return folder
