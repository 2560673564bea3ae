"""The rendered head in the topology of the head that canthus ships: dense truth for `MorphableModel.default()`.

MakeHuman's base mesh connects the two heads: the shipped one is cut from it, and the assets bind its skin to the ICT
head. Eyeballs, teeth and tongue are not bound; they follow their ICT counterparts rigidly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from canthus.face.morphable import MorphableModel
from canthus.geometry import similarity
from canthus.synth.heads import HeadAssets
from canthus.synth.shipped import ShippedHead

# Which vertices of MakeHuman's base mesh the shipped head keeps, in its order: first and one past the last of each run
# (`tools/build_head.py`, `BaseMesh.kept`).
RUNS = (
    (0, 759), (761, 773), (775, 779), (780, 816), (817, 822), (823, 931), (932, 1355), (1491, 1499), (3689, 3751),
    (4847, 4899), (5049, 5771), (6756, 7478), (7480, 7492), (7494, 7498), (7499, 7527), (7528, 7533), (7534, 7633),
    (7634, 8047), (8177, 8183), (10357, 10418), (11465, 11517), (11667, 12368), (13352, 13606), (14598, 14742),
    (14992, 15128),
)  # fmt: skip


def dense_head(assets: HeadAssets) -> Callable[[np.ndarray], np.ndarray]:
    """A function from the vertices (V,3) of a head to those of `MorphableModel.default()` (4828,3)."""
    if isinstance(assets, ShippedHead):
        count = len(MorphableModel.default().mean)
        return lambda vertices: vertices[:count]  # the rest are lashes
    return DenseHead(assets)


class DenseHead:
    """Turns vertices of the ICT head into vertices of the shipped head."""

    def __init__(self, assets: HeadAssets):
        model = MorphableModel.default()
        self.assets = assets
        self.ids = np.concatenate([np.arange(*run) for run in RUNS])
        rest = assets._makehuman_vertices(assets.mean)[self.ids]
        self.rest, self.parts = rest, []
        shipped = {name: np.unique(model.triangles[model.parts[name]]) for name in ("eyes", "teeth", "tongue")}
        ict = {name: np.unique(assets.surfaces[name].vertex) for name in assets.surfaces}
        drop = assets.expression[assets.expression_names.index("jawOpen")].reshape(-1, 3)
        falls = np.linalg.norm(drop, axis=1) > 1  # cm: what moves with the lower jaw
        for side, sclera in ((-1, ict["M_ScleraRight"]), (1, ict["M_ScleraLeft"])):
            eye = shipped["eyes"][rest[shipped["eyes"], 0] * side > 0]
            rest[eye] += _middle(assets.mean[sclera]) - _middle(rest[eye])
            self.parts.append((eye, sclera))
        teeth = ict["M_Teeth"]
        upper = rest[shipped["teeth"], 1] > np.median(rest[shipped["teeth"], 1])
        self.parts.append((shipped["teeth"][upper], teeth[~falls[teeth]]))
        self.parts.append((shipped["teeth"][~upper], teeth[falls[teeth]]))
        self.parts.append((shipped["tongue"], teeth[falls[teeth]]))

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        """Vertices (4828,3) of the shipped topology on the ICT head (26719,3), both in cm and the head frame."""
        out = self.assets._makehuman_vertices(vertices)[self.ids]
        for part, guide in self.parts:
            moved = similarity.fit_similarity(self.assets.mean[guide].astype(float), vertices[guide].astype(float))
            out[part] = similarity.apply(moved, self.rest[part].astype(float))
        return out


def _middle(points: np.ndarray) -> np.ndarray:
    return (points.min(0) + points.max(0)) / 2
