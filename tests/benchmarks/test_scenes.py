"""What benchmarks/scenes.py counts, on faces that are placed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapes import made_up_faces

pytest.importorskip("scipy")

from canthus.face.faces import TrackedFaces  # noqa: E402


@pytest.fixture
def scenes(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import scenes

    return scenes


def test_switches_shared_numbers_missed_and_false_faces(scenes):
    face = made_up_faces([(0.0, 0.0, 0.0)])
    points, size = face.xyz[0].astype(float), float(face.sizes[0])

    def at(x):
        return points + [x * size, 0, 0]

    def said(*faces):  # number and place of each
        found = replace(made_up_faces([(0.0, 0.0, 0.0)] * len(faces)), xyz=np.stack([at(x) for _, x in faces]))
        return TrackedFaces(found, np.array([n for n, _ in faces]), np.ones(len(faces), bool))

    result, truth = scenes.Result(), scenes.Truth
    there = [truth(0, at(0), True), truth(1, at(3), True)]
    result.add(0, said((0, 0.0), (1, 3.1)), there)
    result.add(1, said((1, 0.1), (2, 3.0)), there)  # 0 -> 1 and 1 -> 2; 1 is now of both
    result.add(2, said((1, 0.0), (7, 9.0)), there)  # the second person is missed, and nobody is at 9
    result.add(3, said((1, 0.0)), [truth(0, at(0), True), truth(1, at(3), False)])  # nobody is missed who is hidden
    row = result.row()
    assert (row["switches"], row["shared"], row["missed"], row["false"]) == (2, 1, 1, 1)
    assert row["NME"] == pytest.approx(100 * (0.1 + 0.1) / 6, rel=1e-4)  # six faces, two of them a tenth off


def test_what_trails_by_two_frames_has_a_lag_of_two(scenes):
    time = np.arange(200.0)
    true, late = (np.sin(2 * np.pi * (time - d) / 60)[:, None, None] for d in (0, 2))
    a, b = scenes.trailing(late + 0.3 - true, true)
    # the sine's error is -2 of its motion but for the second order: 2 sin(w) / w, w = 2 pi / 60 * 2 / 2
    assert -a / b == pytest.approx(2, rel=0.02)
