"""Where the landmarks lie on the heads that training pictures are rendered of.

    python tools/slide_landmarks.py HEAD_ASSETS PHOTOS --weights FOLDER

Labels of AFLW2000-3D are points of a fitted model, and fits of another model to them leave open by 0.75 cm where on
the cheek the jaw points lie (docs/data.md). Photos tell: weights that learnt from renders with one choice find its
points on PHOTOS (pairs in the layout of AFLW2000-3D), and what the labels there differ by is, in the frame of the
head, the same for every face. That mean difference d of each point, left and right made equal, is carried to the mesh,
and the surface point nearest to it is the new one. Eyes and the ridge of the nose stay: they were found well.

HEAD_ASSETS/landmarks68_bfm.json holds the points to begin with, on both meshes; the weights must have learnt those.
Writes the points on the ICT mesh for `canthus.synth` and on the MakeHuman mesh for tools/build_head.py; prints what
moving the predictions by d does to the error on faces that were left out when d was taken (ten folds).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from build_head import landmarks_of
from label_marks import plane, sizes

import canthus
from canthus.evaluation.protocols import protocol
from canthus.face.landmarks import scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import box_sizes, tight_boxes
from canthus.synth.dense import DenseHead
from canthus.synth.heads import ICT_FROM_HEAD, LANDMARKS, SKIN_PARTS, HeadAssets

MAKEHUMAN = Path(__file__).with_name("landmarks68_makehuman.json")
PARTS = {"jaw": np.arange(17), "brows": np.arange(17, 27), "nose base": np.arange(31, 36), "mouth": np.arange(48, 68)}
MOVED = np.concatenate(list(PARTS.values()))
PRIOR = 20  # faces that say d = 0
FOLDS = 10
ALIKE = 0.3  # cosine of the angle between the normals of old and new place, at least
ABOUT = (
    "The 68 iBUG landmarks as used by 300W-LP, placed as photos show them (tools/slide_landmarks.py), each as "
    "three vertex ids of {} and their barycentric weights."
)


def mean_difference(labels: np.ndarray, points: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """d (68,3) in the frame of the head, in face sizes, that moves points (N,68,3) in the plane nearest to labels."""
    apart = (labels - points)[..., :2] / sizes(labels)
    flat = plane(rotation)
    normal = np.einsum("nij,nik->jk", flat, flat) + PRIOR * np.eye(3)
    d = np.linalg.solve(normal, np.einsum("nij,npi->jp", flat, apart)).T
    return (d + d[scheme("ibug68").mirror] * [-1, 1, 1]) / 2


def moved(points: np.ndarray, rotation: np.ndarray, d: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Points (N,68,2) with those of PARTS moved by d."""
    out = points[..., :2].copy()
    out[:, MOVED] += sizes(labels) * np.einsum("nij,pj->npi", plane(rotation), d[MOVED])
    return out


def nearest_on_surface(
    point: np.ndarray, normal: np.ndarray, vertices: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertex ids (3,) and weights (3,) of the point of the surface nearest to `point`, where it faces as `normal`."""
    corners = vertices[triangles]
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    facing = np.cross(ab, ac)
    alike = facing @ normal > ALIKE * np.linalg.norm(facing, axis=1)
    triangles, a, ab, ac = triangles[alike], a[alike], ab[alike], ac[alike]
    ap = point - a
    aa, bb, mixed = (ab**2).sum(1), (ac**2).sum(1), (ab * ac).sum(1)
    u, v = (ap * ab).sum(1), (ap * ac).sum(1)
    area = aa * bb - mixed**2
    inside = np.stack([bb * u - mixed * v, aa * v - mixed * u], 1) / area[:, None]
    inside[(inside < 0).any(1) | (inside.sum(1) > 1)] = np.nan  # then the nearest is on an edge
    zero = np.zeros(len(a))
    along_ab, along_ac = np.clip(u / aa, 0, 1), np.clip(v / bb, 0, 1)
    bc = ac - ab
    along_bc = np.clip(((ap - ab) * bc).sum(1) / (bc**2).sum(1), 0, 1)
    choices = np.stack([inside, np.stack([along_ab, zero], 1), np.stack([zero, along_ac], 1),
                        np.stack([1 - along_bc, along_bc], 1)])  # fmt: skip
    away = np.linalg.norm(choices[..., :1] * ab + choices[..., 1:] * ac - ap, axis=-1)
    choice, triangle = np.unravel_index(np.nanargmin(away), away.shape)
    second, third = choices[choice, triangle]
    return triangles[triangle], np.array([1 - second - third, second, third])


def slide(
    which: np.ndarray,
    ids: np.ndarray,
    weights: np.ndarray,
    targets: np.ndarray,
    vertices: np.ndarray,
    triangles: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and weights (68,3) of the surface points nearest to targets (68,3); points other than `which` stay."""
    ids, weights = ids.copy(), weights.copy()
    facing = np.cross(*(vertices[triangles[:, k]] - vertices[triangles[:, 0]] for k in (1, 2)))
    for k in which:
        normal = facing[np.isin(triangles, ids[k]).any(1)].sum(0)
        ids[k], weights[k] = nearest_on_surface(targets[k], normal / np.linalg.norm(normal), vertices, triangles)
    return ids, weights


def write(path: Path, mesh: str, ids: np.ndarray, weights: np.ndarray) -> None:
    """A file of points, one a line."""
    rows = [json.dumps({"ids": i.tolist(), "weights": np.round(w, 6).tolist()}) for i, w in zip(ids, weights)]
    head = f' "about": {json.dumps(ABOUT.format(mesh))},\n "licence": "CC0-1.0",\n "points": [\n  '
    path.write_text("{\n" + head + ",\n  ".join(rows) + "\n ]\n}\n")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("assets", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", required=True)
    given = parser.parse_args()

    predictor = canthus.load(given.weights)
    samples = list(protocol("aflw2000").faces(given.photos))
    labels = np.stack([s.points for s in samples])
    faces = [predictor.predict(s.image, tight_boxes(s.points[None])) for s in samples]
    points = np.concatenate([f.xyz for f in faces]).astype(float)
    rotation = np.concatenate([f.pose.matrix for f in faces])
    after = np.zeros_like(points[..., :2])
    folds = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    for fold in range(FOLDS):
        d = mean_difference(*(a[folds != fold] for a in (labels, points, rotation)))
        out = folds == fold
        after[out] = moved(points[out], rotation[out], d, labels[out])
    for name, answer in (("before", points[..., :2]), ("after, of faces left out", after)):
        error = np.linalg.norm(answer - labels[..., :2], axis=2).mean(1) / box_sizes(tight_boxes(labels))
        print(f"error {name}: {100 * error.mean():.2f} %")
    d = mean_difference(labels, points, rotation)

    assets, model = HeadAssets(given.assets), MorphableModel.default()
    begin = json.loads((given.assets / "landmarks68_bfm.json").read_text())
    ids, weights = (np.array(begin["ict"][key]) for key in ("vertex_ids", "weights"))
    mean = assets.mean.astype(float)
    old = landmarks_of(mean, ids, weights)
    skin = np.concatenate([assets.surfaces[n].vertex[assets.surfaces[n].triangles] for n in SKIN_PARTS])
    d = box_sizes(tight_boxes(old[None])) * d @ ICT_FROM_HEAD.T
    ids, weights = slide(MOVED, ids, weights, old + d, mean, skin)
    new = landmarks_of(mean, ids, weights)
    way = np.linalg.norm(new - old, axis=1)
    print("cm (mean):", ", ".join(f"{part} {way[points].mean():.2f}" for part, points in PARTS.items()))
    write(LANDMARKS, "the ICT-FaceKit Light mesh (0-based)", ids, weights)

    # The shipped head's mesh, laid on the ICT head: its points are those nearest to the new ones, left as right.
    dense = DenseHead(assets)
    skin = model.triangles[slice(*model.card["triangle_ranges"]["skin"])]
    ids = np.searchsorted(dense.ids, np.array(begin["makehuman"]["vertex_ids"]))
    weights = np.array(begin["makehuman"]["weights"])
    ids, weights = slide(MOVED, ids, weights, new, dense(assets.mean).astype(float), skin)
    other = np.array(scheme("ibug68").mirror)
    left, middle = MOVED[other[MOVED] < MOVED], MOVED[other[MOVED] == MOVED]
    ids[left], weights[left] = model.mirror[ids[other[left]]], weights[other[left]]
    level = landmarks_of(model.mean, ids, weights) * [0, 1, 1]
    ids, weights = slide(middle, ids, weights, level, model.mean.astype(float), skin)
    write(MAKEHUMAN, "the MakeHuman hm08 base mesh (base.obj, 19158 vertices, 0-based)", dense.ids[ids], weights)


if __name__ == "__main__":
    main()
