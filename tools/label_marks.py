"""Full labels for photos in which people marked some points: training faces for research weights.

    python tools/label_marks.py AFLW_KIT --renders data/held --out data/aflw

AFLW_KIT is what `data.formats.read_aflw21` reads: 21 points a face, hidden ones missing. Trained weights place all 68
points, by four views; the marks then correct them. Errors of the weights are taken for Gaussian, with the covariance S
that they have on rendered faces (--renders, exact truth; 68 points x, y, z in units of the face's size), GROWTH times
as large on photos. A mark is M (p + e) + d + n: the map M from 68 points to 21, the prediction p with its error e, the
offset d of AFLW's points from ours, the same in every head, and noise n. The label is p + E[e | marks] (a Kalman
update), so a mark corrects its neighbours as far as their errors go together. Faces that their marks still contradict
are left out.

Writes shards for `canthus train`, and how well marks that were held back are met: before, after.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import canthus
from canthus.data.datasets import StoredFaces
from canthus.data.formats import FaceSample, read_aflw21
from canthus.face.landmarks import convert, scheme
from canthus.geometry.crop import box_sizes, tight_boxes
from canthus.inference.predictor import Predictor
from canthus.io.images import read_image
from canthus.io.shards import shard_path, write_shard

GROWTH, NOISE = 3.0, 0.02  # of the covariance; of a mark, in face sizes. Marks held back are met best around here
WORST = 0.08  # mean distance of a face's marks from its label, in face sizes
HELD_BACK = 0.3  # of the marks, for the figure printed
SHARD = 256
FACE = 0.7  # longer side of a face / side of its picture, in AFLW's crops


def parts(count: int, size: int = 64) -> Iterator[np.ndarray]:
    """The numbers 0 to count in parts."""
    return (np.arange(k, min(k + size, count)) for k in range(0, count, size))


def places(predictor: Predictor, pictures: list[np.ndarray], boxes: list[np.ndarray]) -> list[canthus.Faces]:
    """Faces from rough boxes: looked at twice, the second time where the first look found them."""
    first = predictor.predict_many(pictures, boxes)
    return predictor.predict_many(pictures, [f.boxes for f in first])


def sizes(xyz: np.ndarray) -> np.ndarray:
    """Root of the area of the tight boxes of (N,68,3), as (N,1,1)."""
    return box_sizes(tight_boxes(xyz))[:, None, None]


def covariance(predictor: Predictor, folder: Path) -> np.ndarray:
    """S (204,204) of the errors on rendered faces and on their mirror images."""
    stored = StoredFaces([folder])
    errors = []
    for index in parts(len(stored)):
        pictures = list(stored.take(index).images.permute(0, 2, 3, 1).numpy())
        boxes = list(tight_boxes(stored.xyz[index])[:, None])
        found = np.concatenate([f.xyz for f in places(predictor, pictures, boxes)])
        errors.append((stored.xyz[index] - found) / sizes(found))
    e = np.concatenate(errors)
    e = np.concatenate([e, e[:, scheme("ibug68").mirror] * [-1, 1, 1]]).reshape(-1, 204)
    e = e[np.sqrt((e**2).mean(1)) < 0.1]  # lost faces say nothing of how errors go together
    return e.T @ e / len(e)


def selection() -> np.ndarray:
    """M (21,68); rows of zeros for points that the map only comes near to."""
    columns, qualities = zip(*(convert(np.eye(68)[:, k : k + 2], "ibug68", "aflw21") for k in range(0, 68, 2)))
    return np.concatenate(columns, 1) * np.isin(qualities[0], ("exact", "average"))[:, None]


def corrected(xyz: np.ndarray, marks: np.ndarray, used: np.ndarray, m: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Labels (N,68,3) from predictions and marks (N,21,2), of which `used` (N,21) count."""
    out = xyz.astype(float).copy()
    lever = np.kron(m, np.eye(3)[:2])  # (42,204)
    for k, (points, size) in enumerate(zip(xyz.astype(float), sizes(xyz)[:, 0, 0])):
        rows = np.repeat(used[k], 2)
        miss = ((marks[k] - m @ points[:, :2]) / size).reshape(-1)[rows]
        a = lever[rows]
        gain = GROWTH * s @ a.T @ np.linalg.inv(GROWTH * a @ s @ a.T + NOISE**2 * np.eye(len(a)))
        out[k] += size * (gain @ miss).reshape(68, 3)
    out[..., 2] -= out[..., 2].mean(1, keepdims=True)
    return out


def plane(rotation: np.ndarray) -> np.ndarray:
    """From the head's frame (y up) to the image's plane (y down), (N,2,3)."""
    return rotation[:, :2] * np.array([1.0, -1.0])[None, :, None]


def offsets(xyz: np.ndarray, rotation: np.ndarray, marks: np.ndarray, used: np.ndarray, m: np.ndarray) -> np.ndarray:
    """d (21,3) in the head's frame, face sizes: the least-squares mean of what marks and predictions differ by."""
    flat = plane(rotation)
    miss = (marks - m @ xyz[..., :2]) / sizes(xyz)
    d = np.zeros((21, 3))
    for p in np.flatnonzero(m.any(1)):
        faces = used[:, p]
        d[p] = np.linalg.lstsq(flat[faces].reshape(-1, 3), miss[faces, p].reshape(-1), rcond=None)[0]
    return (d + d[scheme("aflw21").mirror] * [-1, 1, 1]) / 2


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kit", type=Path)
    parser.add_argument("--renders", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="swift")
    given = parser.parse_args()
    predictor = canthus.load(given.weights, accuracy="high")
    samples: list[FaceSample] = list(read_aflw21(given.kit))
    pictures = [read_image(s.image) for s in samples]
    side = np.array([p.shape[1] for p in pictures], float)
    boxes = [np.array([[1 - FACE, 1 - FACE, 1 + FACE, 1 + FACE]]) * n / 2 for n in side]
    faces = [
        face for rows in parts(len(samples))
        for face in places(predictor, [pictures[k] for k in rows], [boxes[k] for k in rows])
    ]  # fmt: skip
    xyz = np.concatenate([f.xyz for f in faces]).astype(float)
    rotation = np.concatenate([f.pose.matrix for f in faces])
    m, s = selection(), covariance(predictor, given.renders)
    marks = np.stack([sample.points for sample in samples])
    used = np.isfinite(marks[..., 0]) & m.any(1)
    marks = np.nan_to_num(marks)
    d = offsets(xyz, rotation, marks, used, m)
    marks -= np.einsum("nij,pj->npi", plane(rotation), d) * sizes(xyz)

    def away(points: np.ndarray, which: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(marks - m @ points[..., :2], axis=2) / sizes(points)[..., 0]
        return np.where(which, distance, np.nan)

    back = used & (np.random.default_rng(0).random(used.shape) < HELD_BACK)
    before, after = away(xyz, back), away(corrected(xyz, marks, used & ~back, m, s), back)
    print(f"marks held back, % of the face: {100 * np.nanmean(before):.2f} before, {100 * np.nanmean(after):.2f} after")
    labels = corrected(xyz, marks, used, m, s)
    left = np.nanmean(np.where(used.any(1, keepdims=True), away(labels, used), 1.0), axis=1)
    keep = np.flatnonzero((left < WORST) & (used.sum(1) >= 4) & (side == np.median(side)))
    print(f"{len(keep)} of {len(samples)} faces kept")
    given.out.mkdir(parents=True, exist_ok=True)
    seen = np.concatenate([f.visible for f in faces]) > 0.5
    for number, rows in enumerate(parts(len(keep), SHARD)):
        index = keep[rows]
        columns = {
            "image": np.stack([pictures[k] for k in index]), "xyz": labels[index].astype(np.float32),
            "visible": seen[index], "rotation": rotation[index].astype(np.float32),
        }  # fmt: skip
        write_shard(shard_path(given.out, number), columns, number * SHARD, "npz")


if __name__ == "__main__":
    main()
