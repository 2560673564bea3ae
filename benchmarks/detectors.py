"""Face detectors beside each other, in one run: what they find on photos, how well their boxes lie, and false alarms.

    pip install 'mediapipe<0.10.30' dlib-bin        # beside them, if they are there
    python benchmarks/detectors.py --data DATA --empty PICTURES_WITHOUT_FACES

DATA holds aflw2000-3d-dev (300 images), and if there are any aflw (the kit of `data.formats.read_aflw21`) and crowds
(pictures NAME-COUNT.jpg with so many faces). Every detector takes all its looks at a picture, on one thread. A face is
found if a box has its centre within half the longer side of the true box of the true centre. Where the landmarks agree,
the default weights confirmed what the detector found (`canthus.load(detector=...)`). Writes
results/<version>/detectors.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
from PIL import Image, ImageFilter
from rich.progress import track

import canthus
from canthus.data.formats import read_aflw21, read_aflw2000
from canthus.evaluation.boxes import tight_box
from canthus.geometry.crop import box_centres, tight_boxes
from canthus.inference.detect import Detector, FunctionDetector, PyramidDetector
from canthus.inference.predictor import Predictor
from canthus.inference.retinaface import RetinaFaceDetector
from canthus.weights import DETECTOR, ROOT

OWN = ROOT / DETECTOR
CANVAS = 512  # side of the pictures on which faces of chosen sizes stand, px
SIDES = (8, 10, 12, 16, 24, 40, 80, 160, 300, 500, 800)  # longer side of the tight box, px
GAINS = (0.5, 0.25, 0.12, 0.06, 0.03)  # light, as a factor on linear values
BLURS = (0.01, 0.02, 0.04, 0.06, 0.1)  # standard deviation, in longer sides of the face
BINS = ((0, 30), (30, 60), (60, 90))  # of the absolute yaw, degrees
EMPTY_SIDES = (512, 1280)  # longer side of pictures without faces, px


class Face(NamedTuple):
    """A picture (H,W,3) of one face: its tight box (4,), yaw in degrees, and its head's upward axis (2,), y down."""

    image: np.ndarray
    box: np.ndarray
    yaw: float
    up: np.ndarray

    @property
    def side(self) -> float:
        """Longer side of the tight box, px."""
        return float((self.box[2:] - self.box[:2]).max())

    def away(self, boxes: np.ndarray) -> np.ndarray:
        """How far the centres of boxes (N,4) are from that of the true one, (N,) px."""
        return np.linalg.norm(box_centres(boxes) - box_centres(self.box[None]), axis=1)


def development(folder: Path) -> list[Face]:
    """The development images."""
    faces = []
    for sample in read_aflw2000(folder):
        assert sample.rotation is not None and sample.angles is not None
        up = np.array([sample.rotation[0, 1], -sample.rotation[1, 1]])
        yaw = math.degrees(sample.angles[1])
        faces.append(Face(canthus.read_image(sample.image), tight_boxes(sample.points[None, :, :2])[0], yaw, up))
    return faces


def upside_down(face: Face) -> Face:
    """The same picture, turned by half a turn."""
    height, width = face.image.shape[:2]
    low, high = face.box[:2], face.box[2:]
    box = np.concatenate([[width - 1, height - 1] - high, [width - 1, height - 1] - low])
    return Face(np.ascontiguousarray(face.image[::-1, ::-1]), box, face.yaw, -face.up)


def sized(face: Face, side: float) -> Face:
    """The picture with the face `side` px long, cut to CANVAS if it is larger, on a grey canvas if it is smaller."""
    zoom = side / face.side
    size = max(round(face.image.shape[1] * zoom), 1), max(round(face.image.shape[0] * zoom), 1)
    small = Image.fromarray(face.image).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    canvas_side = max(CANVAS, math.ceil(1.3 * side))
    canvas = Image.new("RGB", (canvas_side, canvas_side), (128, 128, 128))
    centre = box_centres(face.box[None])[0] * zoom
    x, y = (round(canvas_side / 2 - c) for c in centre)
    canvas.paste(small, (x, y))
    box = (face.box + 0.5) * zoom - 0.5 + [x, y, x, y]
    return Face(np.asarray(canvas), box, face.yaw, face.up)


def darkened(face: Face, gain: float) -> Face:
    """As a camera sees it in `gain` times as much light: with noise of photons and of reading."""
    rng = np.random.default_rng(0)
    light = (face.image / 255.0) ** 2.2 * gain * 2000
    seen = np.clip((light + rng.normal(0, 1, light.shape) * np.sqrt(light + 4)) / 2000, 0, 1)
    return face._replace(image=(seen ** (1 / 2.2) * 255).astype(np.uint8))


def blurred(face: Face, share: float) -> Face:
    """Out of focus by `share` of the face."""
    blur = ImageFilter.GaussianBlur(share * face.side)
    return face._replace(image=np.asarray(Image.fromarray(face.image).filter(blur)))


def look(detector: Detector, face: Face) -> dict[str, float]:
    """What is said of one face; errors are NaN if it was not found."""
    found = detector(face.image)
    away = face.away(found.boxes)
    near = np.flatnonzero(away < face.side / 2)
    row = {"yaw": abs(face.yaw), "found": float(len(near) > 0), "centre": np.nan, "size": np.nan, "roll": np.nan}
    if len(near):
        best = near[found.scores[near].argmax()]
        box, angle = found.boxes[best], found.squares[best, 3]
        apart = angle - math.atan2(face.up[0], -face.up[1])
        row["centre"] = away[best] / face.side
        row["size"] = math.log(float((box[2:] - box[:2]).max()) / face.side)
        row["roll"] = abs(math.degrees((apart + math.pi) % (2 * math.pi) - math.pi))
    return row


def recall(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Found faces in % and the errors of their boxes, in bins of yaw and over all."""
    yaw = np.array([row["yaw"] for row in rows])
    parts = {f"{low}-{high}": (yaw >= low) & (yaw < high) for low, high in BINS} | {"all": np.ones(len(yaw), bool)}
    return {name: _summary([row for row, here in zip(rows, part) if here]) for name, part in parts.items()}


def _summary(rows: list[dict[str, float]]) -> dict[str, float]:
    found = [row for row in rows if row["found"]]
    size = np.array([row["size"] for row in found])
    return {
        "faces": len(rows), "found %": round(100 * len(found) / max(len(rows), 1), 1),
        "centre off, % of the face": round(100 * float(np.mean([row["centre"] for row in found])), 1),
        "too large, %": round(100 * float(size.mean()), 1),
        "size, standard deviation, %": round(100 * float(size.std()), 1),
        "roll off, degrees, median": round(float(np.median([row["roll"] for row in found])), 1),
    } if found else {"faces": len(rows), "found %": 0.0}  # fmt: skip


def share(detector: Detector, faces: Iterable[Face]) -> float:
    """Found faces in %."""
    return round(100 * float(np.mean([look(detector, face)["found"] for face in faces])), 1)


def false_faces(find: Callable[[np.ndarray], int], pictures: list[Path]) -> dict[str, Any]:
    """Faces in pictures without any, by the longer side of the picture."""
    counts = {}
    for side in EMPTY_SIDES:
        faces = []
        for path in pictures:
            image = Image.open(path).convert("RGB")
            image.thumbnail((side, side))
            faces.append(find(np.asarray(image)))
        counts[f"{side} px"] = {
            "pictures": len(faces), "faces": int(np.sum(faces)),
            "pictures with faces, of 1,000": round(1000 * float(np.mean(np.array(faces) > 0)), 1),
        }  # fmt: skip
    return counts


def pictures_in(folder: Path | None) -> list[Path]:
    """Pictures in a folder and below; of several links to one file, one."""
    if folder is None:
        return []
    paths = [p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}]
    return sorted({p.resolve() for p in paths if p.resolve().is_file()})


def mediapipe_detector() -> FunctionDetector:
    """MediaPipe's full-range face detector."""
    import mediapipe

    model = mediapipe.solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.5)

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        faces = model.process(image).detections or []
        boxes = [face.location_data.relative_bounding_box for face in faces]
        corners = [
            (b.xmin * width, b.ymin * height, (b.xmin + b.width) * width, (b.ymin + b.height) * height) for b in boxes
        ]
        return np.array(corners).reshape(-1, 4), np.array([face.score[0] for face in faces])

    return FunctionDetector(find)


def dlib_detector() -> FunctionDetector:
    """dlib's frontal face detector, on the picture doubled."""
    import dlib

    model = dlib.get_frontal_face_detector()

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, scores, _ = model.run(image, 1, 0.0)
        boxes = np.array([(b.left(), b.top(), b.right(), b.bottom()) for b in found]).reshape(-1, 4)
        return boxes, 1 / (1 + np.exp(-np.array(scores)))  # distances from a plane

    return FunctionDetector(find)


def detectors(own: Path) -> dict[str, Detector]:
    """Those to compare, by name."""
    chosen: dict[str, Detector] = {"canthus": PyramidDetector(own, threads=1), "retinaface": RetinaFaceDetector(1)}
    for name, load in (("mediapipe", mediapipe_detector), ("dlib", dlib_detector)):
        if importlib.util.find_spec(name):
            chosen[name] = load()
    return chosen


def measured(name: str, detector: Detector, data: Path, empty: list[Path]) -> dict[str, Any]:
    """Everything of one detector."""
    faces = development(data / common.DEVELOPMENT)
    start = time.process_time()
    straight = [look(detector, face) for face in track(faces, f"{name}: development images")]
    taken = time.process_time() - start
    some = faces[::3]
    results: dict[str, Any] = {
        "300 images of AFLW2000-3D": recall(straight),
        "processor ms an image of 450 px": round(1e3 * taken / len(faces), 2),
        "150 of them upside down": recall([look(detector, upside_down(face)) for face in faces[::2]]),
        "100 of them by the size of the face, found %": {
            f"{side} px": share(detector, (sized(face, side) for face in some))
            for side in track(SIDES, f"{name}: sizes")
        },
        "by light, found %": {f"x {gain}": share(detector, (darkened(face, gain) for face in some)) for gain in GAINS},
        "by blur, found %": {f"{100 * b:.0f} %": share(detector, (blurred(face, b) for face in some)) for b in BLURS},
    }  # fmt: skip
    if (data / "aflw").is_dir():
        results["AFLW crops on canvases"] = {
            f"{side} px": by_yaw(detector, crops)
            for side in (120, 40)
            for crops in [aflw_on_canvases(data / "aflw", side)]
        }
    whole = canthus.load(detector=detector, threads=1)
    results["the 300, and the landmarks agree"] = confirmed(whole, faces)
    if empty:
        results["pictures without faces"] = false_faces(lambda image: len(detector(image).boxes), empty)
        results["the same, and the landmarks agree"] = false_faces(lambda image: len(whole.predict(image)), empty)
    crowds = pictures_in(data / "crowds" if (data / "crowds").is_dir() else None)
    for path in crowds:
        results.setdefault("crowds, and the landmarks agree", {})[path.name] = len(whole.predict(path))
    return results


def confirmed(whole: Predictor, faces: list[Face]) -> dict[str, float]:
    """Of the pictures' one face, how many were found, and how many other faces; processor time a picture."""
    start, found, others = time.process_time(), 0, 0
    for face in faces:
        answer = whole.predict(face.image)
        here = bool((face.away(answer.boxes) < face.side / 2).any())
        found, others = found + here, others + len(answer) - here
    return {
        "found": found,
        "others": others,
        "processor ms": round(1e3 * (time.process_time() - start) / len(faces), 2),
    }


def by_yaw(detector: Detector, faces: list[Face]) -> dict[str, float]:
    """Found faces in % by yaw."""
    return {f"{a}-{b}": share(detector, [f for f in faces if a <= abs(f.yaw) < b]) for a, b in BINS}


def aflw_on_canvases(folder: Path, side: int, count: int = 900) -> list[Face]:
    """Crops of AFLW, `side` px, on canvases of their mean colour; boxes of the mean head laid on the visible points."""
    faces = []
    samples = list(read_aflw21(folder))
    for number in np.random.default_rng(0).choice(len(samples), count, replace=False):
        sample = samples[number]
        image = canthus.read_image(sample.image)
        zoom = side / max(image.shape[:2])
        size = round(image.shape[1] * zoom), round(image.shape[0] * zoom)
        canvas = Image.new("RGB", (320, 320), tuple(int(v) for v in image.reshape(-1, 3).mean(0)))
        canvas.paste(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0), (100, 100))
        box = (tight_box(sample.points, sample.scheme) + 0.5) * zoom - 0.5 + 100
        assert sample.yaw is not None or sample.angles is not None
        yaw = sample.yaw if sample.yaw is not None else sample.angles[1]
        faces.append(Face(np.asarray(canvas), box, math.degrees(yaw), np.array([0.0, -1.0])))
    return faces


def main() -> None:
    """Measure all detectors that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--empty", type=Path, help="folder of pictures without faces")
    parser.add_argument("--own", type=Path, default=OWN, help="folder of canthus train-detector")
    chosen = parser.parse_args()
    empty = pictures_in(chosen.empty)
    results = {n: measured(n, d, chosen.data, empty) for n, d in detectors(chosen.own).items()}
    print(common.write("detectors", results))


if __name__ == "__main__":
    main()
