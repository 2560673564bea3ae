"""Builds src/canthus/face/schemes/surface.npz: where the points of other landmark schemes lie on the shipped head.

    python tools/build_surface.py FOLDER ANSWERS

WFLW 98 and LaPa 106 are made by rule, from what their authors say of the points and from the head's own 68 landmarks:
lids are cubics through these, with points at equal distances; lower edges of brows lie a share of the brow's length
below the upper ones; pupils are the foremost points of the eyeballs. The points of MediaPipe, of which most have no
definition but the network, are measured: FOLDER holds shards of rendered heads (`canthus synth --set dense=true`),
ANSWERS what MediaPipe says of their pictures (`tools/ask_mediapipe.py`). Each point is the place on the skin that is
nearest, over all the heads and their mirror images, to where the network saw it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from canthus.face.landmarks import _load_maps, scheme
from canthus.face.morphable import MorphableModel
from canthus.geometry.mesh import VertexNormals
from canthus.geometry.rotation import euler_from_matrix
from canthus.io.shards import read_shard, shards_in

FILE = Path(__file__).parents[1] / "src" / "canthus" / "face" / "schemes" / "surface.npz"
IRIS = 6.2  # mm on the mean head, whose eyeballs are larger than life
THICKNESS = (0.2, 0.2, 0.17, 0.12)  # of brows, in their lengths: inner end, then outwards
MAX_YAW = 30.0  # degrees, of heads that MediaPipe is measured on


class Head:
    """The mean head, and the nearest place on it."""

    def __init__(self) -> None:
        self.model = MorphableModel.default()
        self.mean = self.model.mean.astype(np.float64)
        self.points = self.model.landmarks()[0].astype(np.float64)
        self.parts = {name: self.model.triangles[part] for name, part in self.model.parts.items()}

    def landmark(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and weights of one of the 68."""
        return self.model.landmark_ids[number], self.model.landmark_weights[number]

    def place(self, point: np.ndarray, part: str = "skin") -> tuple[np.ndarray, np.ndarray]:
        """Ids and weights of the place of a part that is nearest to a point."""
        near = self.parts[part]
        corners = self.mean[near]
        near = near[np.argsort(np.linalg.norm(corners - point, axis=2).min(1))[:60]]
        found = [(weights, triangle) for triangle in near for weights in shares(self.mean[triangle], point)]
        weights, triangle = min(found, key=lambda f: ((f[0] @ self.mean[f[1]] - point) ** 2).sum())
        return triangle, weights

    def line(self, numbers: list[int], count: int) -> np.ndarray:
        """`count` points at equal distances on the cubic through landmarks, both ends included."""
        t, knots = np.linspace(0, 1, 400), np.linspace(0, 1, len(numbers))
        basis = [np.prod([(t - k) / (i - k) for k in knots if k != i], axis=0) for i in knots]
        curve = np.stack(basis, 1) @ self.points[numbers]
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
        at = np.linspace(0, along[-1], count)
        return np.stack([np.interp(at, along, curve[:, axis]) for axis in range(3)], 1)

    def eye(self, side: int) -> tuple[np.ndarray, float]:
        """Centre and radius of the eyeball at x of the sign `side`."""
        ball = self.mean[np.unique(self.parts["eyes"])]
        ball = ball[ball[:, 0] * side > 0]
        middle = (ball.min(0) + ball.max(0)) / 2
        return middle, float(np.ptp(ball[:, 1]) / 2)


def shares(corners: np.ndarray, point: np.ndarray) -> list[np.ndarray]:
    """Weights of the nearest point of a triangle (3,3), among its inside, its edges and its corners."""
    found = []
    for kept in ([0, 1, 2], [0, 1], [1, 2], [2, 0], [0], [1], [2]):
        edges = (corners[kept[1:]] - corners[kept[0]]).T
        rest = np.linalg.lstsq(edges, point - corners[kept[0]], rcond=None)[0] if len(kept) > 1 else np.zeros(0)
        weights = np.zeros(3)
        weights[kept] = [1 - rest.sum(), *rest]
        if (weights >= -1e-9).all():
            found.append(weights)
    return found


class Places:
    """The points of a scheme, one after the other."""

    def __init__(self, name: str, head: Head):
        self.head, self.count = head, scheme(name).count
        self.ids = np.zeros((self.count, 3), np.int32)
        self.weights = np.full((self.count, 3), np.nan)
        self.landmark = np.full(self.count, -1, np.int32)

    def own(self, target: int, number: int, exact: bool = True) -> None:
        """A point at one of the 68 landmarks; `exact`: by the same definition."""
        self.ids[target], self.weights[target] = self.head.landmark(number)
        self.landmark[target] = number if exact else -1

    def at(self, target: int, point: np.ndarray, part: str = "skin") -> None:
        """A point at the place nearest to `point`."""
        self.ids[target], self.weights[target] = self.head.place(point, part)

    def exact_of(self, name: str) -> None:
        """The points that the map to the 68 calls exact, the other way round."""
        for number, row in enumerate(_load_maps()[name, "ibug68"]):
            if row.quality == "exact":
                self.own(next(iter(row.weights)), number)

    def finished(self) -> dict[str, np.ndarray]:
        """What is stored. Every point must have been given a place."""
        assert np.isfinite(self.weights).all(), np.flatnonzero(np.isnan(self.weights[:, 0]))
        return {"ids": self.ids, "weights": self.weights.astype(np.float32), "landmark": self.landmark}


def contours(places: Places, eyes: tuple[int, int], pupils: tuple[int, int]) -> None:
    """What WFLW and LaPa have alike: jaw 0-32, brows 33-50 with both edges, eyes of 8 points, pupils."""
    head = places.head
    for k in range(33):  # the visible contour is found on the fitted head, see `landmarks_on_heads`
        if k % 2:
            places.at(k, head.line([k // 2, k // 2 + 1], 3)[1])
        else:
            places.own(k, k // 2, exact=False)
    for first, upper in ((33, range(17, 22)), (42, range(26, 21, -1))):  # each from its outer end
        length = np.linalg.norm(head.points[upper[-1]] - head.points[upper[0]])
        # the left brow is numbered from its inner end: 42-46 upper edge, 47-50 lower edge from the outer end back
        top = range(first, first + 5) if first == 33 else range(first + 4, first - 1, -1)
        low = range(first + 5, first + 9) if first == 33 else range(first + 8, first + 4, -1)
        for target, number in zip(top, upper):
            places.own(target, number, exact=False)
        for target, number, share in zip(low, upper[:0:-1], THICKNESS):
            places.at(target, head.points[number] - [0, share * length, 0])
    for first, corner, lids in ((eyes[0], 36, ([36, 37, 38, 39], [39, 40, 41, 36])),
                                (eyes[1], 42, ([42, 43, 44, 45], [45, 46, 47, 42]))):  # fmt: skip
        places.own(first, corner)
        places.own(first + 4, corner + 3)
        for start, lid in zip((first, first + 4), lids):
            for k, point in enumerate(head.line(lid, 5)[1:-1], start + 1):
                places.at(k, point)
    for pupil, side in zip(pupils, (-1, 1)):
        middle, radius = head.eye(side)
        places.at(pupil, middle + [0, 0, radius], "eyes")


def wflw(head: Head) -> Places:
    """WFLW 98: nose and mouth are those of the 68."""
    places = Places("wflw98", head)
    contours(places, (60, 68), (96, 97))
    places.exact_of("wflw98")
    return places


def lapa(head: Head) -> Places:
    """LaPa 106: beside WFLW's the outline of the nose from the inner corners of the eyes, and the middles of the eyes,
    which lie between the lids."""
    places = Places("lapa106", head)
    contours(places, (66, 75), (104, 105))
    places.exact_of("lapa106")
    points = head.points
    for number, target in enumerate(range(58, 63), 31):
        places.own(target, number, exact=False)
    for target, eye, other in ((74, 39, 36), (83, 42, 45)):
        places.at(target, (points[eye] + points[other]) / 2 + [0, 0, 8], "eyes")
    for side, targets, corner, wing in ((-1, (55, 56, 57), 39, 31), (1, (65, 64, 63), 42, 35)):
        places.at(targets[0], 0.5 * points[27] + 0.5 * points[corner])  # the side of the root
        places.at(targets[1], points[29] * [0, 1, 1] + [side * 13, 0, -12])  # where the side meets the cheek
        skin = head.mean[np.unique(head.parts["skin"])]
        low, high = points[33, 1], points[30, 1] + 2
        band = skin[(skin[:, 1] > low) & (skin[:, 1] < high) & (skin[:, 2] > points[wing, 2] - 8)]
        band = band[np.abs(band[:, 0]) < 22]
        places.at(targets[2], band[(side * band[:, 0]).argmax()])  # the wing, where it is widest
    return places


def mediapipe(head: Head, folder: Path, answers: Path) -> Places:
    """The 468 points measured, and rims of irises of the width that eyes have."""
    places, model = Places("mediapipe478", head), head.model
    shards = [read_shard(path) for path in shards_in(folder)]
    vertices, rotation = (np.concatenate([shard[key] for shard in shards]) for key in ("vertices", "rotation"))
    points, width = np.load(answers)["points"], shards[0]["image"].shape[2]
    yaw = np.rad2deg(euler_from_matrix(rotation, "aflw"))[:, 1]
    used = np.isfinite(points[:, 0, 0]) & (np.abs(yaw) < MAX_YAW)
    flip = scheme("mediapipe478").mirror
    mirrored = [vertices[used][:, model.mirror, :2], points[used][:, flip[:468], :2]]
    mirrored = [xy * [-1, 1] + [width - 1, 0] for xy in mirrored]
    heads = np.concatenate([vertices[used, :, :2], mirrored[0]]).astype(np.float64)
    seen = np.concatenate([points[used, :468, :2], mirrored[1]]).astype(np.float64)
    scale = 1 / np.sqrt(np.ptp(heads[..., 0], axis=1) * np.ptp(heads[..., 1], axis=1))
    seen, heads = seen * scale[:, None, None], heads * scale[:, None, None]
    skin = np.unique(head.parts["skin"])
    front = skin[(head.mean[skin, 2] > -90) & (head.mean[skin, 1] > -85) & outside(head)[skin]]
    for k in range(468):
        off = ((heads[:, front] - seen[:, k, None]) ** 2).sum(-1).mean(0)
        nearest = front[off.argsort()[:3]]
        about = head.parts["skin"][np.isin(head.parts["skin"], nearest).any(1)]
        best, least = None, np.inf
        for triangle in about:
            corners = heads[:, triangle]  # (F,3,2): least squares over all heads
            edges = (corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1).reshape(-1, 2)
            rest = np.linalg.lstsq(edges, (seen[:, k] - corners[:, 0]).ravel(), rcond=None)[0].clip(0, 1)
            rest = rest / max(1.0, rest.sum())
            weights = np.array([1 - rest.sum(), *rest])
            error = ((np.einsum("fjc,j->fc", corners, weights) - seen[:, k]) ** 2).sum(-1).mean()
            if error < least:
                best, least = (triangle, weights), error
        places.ids[k], places.weights[k] = best
    for first, side in ((468, -1), (473, 1)):  # centre, image right, top, image left, bottom
        middle, radius = head.eye(side)
        depth = np.sqrt(radius**2 - IRIS**2)
        places.at(first, middle + [0, 0, radius], "eyes")
        for target, (x, y) in enumerate(((1, 0), (0, 1), (-1, 0), (0, -1)), first + 1):
            places.at(target, middle + [IRIS * x, IRIS * y, depth], "eyes")
    places.exact_of("mediapipe478")
    return places


def outside(head: Head) -> np.ndarray:
    """Vertices (V,) of the mean head whose normal points forward: not the insides of mouth and nose."""
    normals = VertexNormals(head.parts["skin"].astype(np.int64), len(head.mean))(head.mean)
    return normals[:, 2] > -0.2


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=Path)
    given, head = parser.parse_args(), Head()
    made = {"wflw98": wflw(head), "lapa106": lapa(head)}
    made["mediapipe478"] = mediapipe(head, given.folder, given.answers)
    stored = {f"{name}/{key}": array for name, places in made.items() for key, array in places.finished().items()}
    np.savez_compressed(FILE, **stored)


if __name__ == "__main__":
    main()
