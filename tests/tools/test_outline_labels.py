"""Renders as 300-W has its faces: the jaw on the outline, the rest as it is."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
from faces_maker import make_faces

from canthus.data.formats import read_300w

TOOL = Path(__file__).parents[2] / "tools" / "outline_labels.py"


def test_the_jaw_is_that_of_the_outline(tmp_path, monkeypatch):
    faces = make_faces(3, 96)
    outline = faces["xyz"][:, :17] + [5, 0, 0]
    (tmp_path / "shards").mkdir()
    np.savez(tmp_path / "shards" / "shard-00000.npz", **faces, contour=outline.astype(np.float32))
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(tmp_path / "shards"), "--out", str(out), "--part", "01_Indoor"])
    runpy.run_path(str(TOOL), run_name="__main__")
    found = sorted(read_300w(out), key=lambda face: face.name)
    assert [face.groups for face in found] == [{"private"}] * 3
    wanted = np.concatenate([outline, faces["xyz"][:, 17:]], axis=1)[..., :2]
    np.testing.assert_allclose([face.points for face in found], wanted, atol=1e-3)
