"""Rendered faces as pictures with .pts files whose jaw is the outline that is seen, as 300-W marks it.

    python tools/outline_labels.py data/synth --out data/outlines [--part 01_Indoor]

`canthus train pose_aware-small-synth --faces data/outlines --set config.jaw=soft` learns from them; in the folder
`01_Indoor` they count as 300-W's own test faces: `canthus evaluate 300w data/outlines --all`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from canthus.io.outputs import as_pts, atomic_write, make_folder
from canthus.io.shards import jpeg, open_shard, shards_in

JAW = 17


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="helen/trainset", help="folder of 300-W that the faces stand in")
    given = parser.parse_args()
    folder = make_folder(given.out / given.part)
    for path in shards_in(given.shards):
        faces = open_shard(path).read(["image", "xyz", "contour"])
        for k, (image, points, outline) in enumerate(zip(faces["image"], faces["xyz"], faces["contour"])):
            seen = np.concatenate([outline[:, :2], points[JAW:, :2]])
            atomic_write(folder / f"{path.stem}-{k:04d}.jpg", jpeg(image))
            atomic_write(folder / f"{path.stem}-{k:04d}.pts", as_pts(seen))


if __name__ == "__main__":
    main()
