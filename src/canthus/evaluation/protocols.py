"""The protocols by name: which faces, which errors.

What the labels allow (bins of yaw, subsets, pose, depth) is printed side by side for all of them, because published
tables differ in exactly that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np

from canthus.data import formats
from canthus.data.formats import FaceSample
from canthus.errors import CanthusError
from canthus.evaluation import metrics, pairs
from canthus.evaluation.pairs import Error

BOX: dict[str, Error] = {"NME box": pairs.nme_box}
EYES: dict[str, Error] = {"inter-ocular": pairs.interocular, "inter-pupil": pairs.interpupil}
DEPTH: dict[str, Error] = {
    "NME 3D": pairs.nme_3d, "GTE": pairs.gte, "CVGTCE": pairs.cvgtce, "GTE xy": partial(pairs.gte, axes=(0, 1)),
    "GTE x": partial(pairs.gte, axes=(0,)), "GTE y": partial(pairs.gte, axes=(1,)),
    "GTE z": partial(pairs.gte, axes=(2,)),
}  # fmt: skip
SECOND: dict[str, Error] = {
    "NME box, second labels": pairs.nme_relabelled,
    "first to second labels": pairs.labels_apart,
}


BETWEEN: dict[str, Error] = {
    "NME box, interpolated labels": pairs.nme_relabelled,
    "truth to interpolated labels": pairs.labels_apart,
}


@dataclass(frozen=True)
class Protocol:
    """How a data set is measured.

    title: the set and its labels. read: folder -> faces. errors: name -> errors as fractions; the first is the one of
    curves and sweeps. limits: for area under the curve and failure rate. only: the groups whose faces count (any of
    them), all faces if empty. video: faces are frames in order, and tracks are measured too. free: everybody may see
    the pictures, so that reports may show them. lids_move: whether the labels show how far eyes are open; fits
    of a head model that cannot close its eyes, as in AFLW2000-3D and 300W-LP, do not. full_set: table of yaws ->
    how many faces of the full set are in its three bins, for means that weight the bins so.
    """

    title: str
    read: Callable[[Path], Iterable[FaceSample]]
    errors: Mapping[str, Error]
    limits: tuple[float, ...] = (0.07, 0.08, 0.10)
    only: frozenset[str] = frozenset()
    video: bool = False
    free: bool = False
    lids_move: bool = True
    full_set: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def faces(self, folder: str | Path) -> list[FaceSample]:
        """The faces that count. Raises `LandmarkError`."""
        faces = [s for s in self.read(Path(folder)) if not self.only or s.groups & self.only]
        if not faces:
            wanted = " or ".join(sorted(self.only))
            raise CanthusError(f"no face in '{folder}' is of the part {wanted}: the root of the whole set is wanted")
        return faces


HALVES = ("half A", "half B")


def in_halves(faces: Iterable[FaceSample]) -> list[FaceSample]:
    """The faces, each in one of two halves: what is chosen on half A is reported on half B.

    Within each bin of the fitted yaw, by the CRC-32 of the name: the first, third, ... are half A.
    """
    found = list(faces)
    bins = metrics.yaw_bins([np.asarray(s.angles)[1] for s in found])
    half: dict[str, str] = {}
    for b in range(3):
        here = sorted((s.name for s, k in zip(found, bins) if k == b), key=lambda name: (crc32(name.encode()), name))
        half |= {name: HALVES[rank % 2] for rank, name in enumerate(here)}
    return [replace(s, groups=s.groups | {half[s.name]}) for s in found]


DIAGONAL: dict[str, Error] = {"NME diagonal": pairs.nme_diagonal}
PUPILS = {name: EYES[name] for name in ("inter-pupil", "inter-ocular")}
OWN_BOX: dict[str, Error] = {"NME set's box": pairs.nme_own_box}
INNER: dict[str, Error] = {"inter-ocular, without jaw": pairs.interocular_inner}
INNER_BOX: dict[str, Error] = {"NME box, without jaw": pairs.nme_box_inner}
CHALLENGE = {name: DEPTH[name] for name in ("GTE", "CVGTCE", "GTE xy", "GTE x", "GTE y", "GTE z")}

PROTOCOLS: dict[str, Protocol] = {
    "aflw2000": Protocol(
        "AFLW2000-3D, 68 points, original labels",
        lambda folder: in_halves(formats.read_aflw2000(folder)),
        BOX | DEPTH | SECOND | DIAGONAL,
        lids_move=False,
        # of the 2,000, by the yaws that 3DDFA distributes: AFLW2000-3D.pose.npy, and -new.pose.npy ("same as paper")
        full_set={"yaw of the pose": (1312, 383, 305), "labelled yaw": (1306, 462, 232)},
    ),
    "300wlp": Protocol("300W-LP, 68 points", formats.read_300wlp, BOX | DEPTH, lids_move=False),
    "3dfaw": Protocol("3DFAW, 66 points", partial(formats.read_3dfaw, part="test"), CHALLENGE | BOX),
    "menpo3d": Protocol("Menpo-3D, 84 points", formats.read_menpo3d, BOX | DIAGONAL | EYES | DEPTH),
    "300w": Protocol("300-W, 68 points", formats.read_300w, EYES | INNER | BOX, only=frozenset({"full", "private"})),
    "cofw": Protocol("COFW, 29 points", formats.read_cofw29, PUPILS | BOX),
    "cofw68": Protocol("COFW-68", formats.read_cofw68, PUPILS | BOX | INNER | INNER_BOX),
    "wflw": Protocol("WFLW, 98 points", formats.read_wflw, EYES | BOX),
    "aflw21": Protocol("AFLW by 3DDFA's protocol, visible ones of 21 points", formats.read_aflw21, OWN_BOX | BOX),
    "aflw19": Protocol("AFLW-Full, 19 points", formats.read_aflw_full, OWN_BOX | BOX),
    "biwi": Protocol("BIWI, pose", formats.read_biwi, {}),
    "300vw": Protocol("300-VW, 68 points, video", formats.read_300vw, BOX | EYES | DIAGONAL, video=True),
    "300vw84": Protocol(
        "300-VW, 84 points, video", partial(formats.read_300vw, scheme="menpo84"), BOX | EYES | DIAGONAL, video=True
    ),
    "renders": Protocol("rendered faces, 68 points, exact", formats.read_renders, BOX | DEPTH | DIAGONAL, free=True),
    "clips": Protocol(
        "rendered clips, 68 points, exact", formats.read_clips, BOX | DEPTH | BETWEEN | DIAGONAL, video=True, free=True
    ),
}


def protocol(name: str) -> Protocol:
    """The protocol called `name`. Raises `CanthusError` for an unknown one."""
    if name not in PROTOCOLS:
        raise CanthusError(f"no protocol '{name}': one of {', '.join(PROTOCOLS)} is wanted")
    return PROTOCOLS[name]
