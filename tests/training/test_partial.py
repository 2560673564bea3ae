"""What a log says of faces whose truth lacks something that a method learns from."""

from __future__ import annotations

import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from faces_maker import make_faces  # noqa: E402
from painted_sets import w300  # noqa: E402
from small import config  # noqa: E402

from canthus.data.sources import FaceMix  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.expressions import EXPRESSIONS  # noqa: E402
from canthus.training.aligner import build  # noqa: E402
from canthus.training.partial import counted, learnable  # noqa: E402


def warned(caplog, aligner, *folders) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        learnable(aligner, FaceMix([str(f) for f in folders], 64, 1.4, 0))
    return [record.message for record in caplog.records]


def test_each_need_names_the_terms_it_costs(tmp_path, caplog):
    photos = w300(tmp_path / "photos", count=2)  # points in 2D alone
    swift = build("swift", config("swift", 64))
    assert warned(caplog, swift, photos) == [
        "no face has depth: distance, regressed, heatmaps in the image plane alone",
        "no face has a rotation: rotation off",
        "no face has expression coefficients: expression, expression_square off",
    ]
    assert warned(caplog, build("jvcr", config("jvcr", 64)), photos) == [
        "no face has depth: voxel, coordinate in the image plane alone"
    ]
    lost = warned(caplog, build("part_heatmap", config("part_heatmap", 64)), photos)
    assert lost == ["no face has depth: depth off", "no stage depth: none of its terms can be learnt"]
    with pytest.raises(RecipeError, match="cprfa learns from depth, which none of the faces has"):
        learnable(build("cprfa", config("cprfa", 64)), FaceMix([str(photos)], 64, 1.4, 0))


def renders(folder) -> None:
    """Three renders, of which one tells its expression."""
    fields = make_faces(3, 96)
    fields["expression"] = np.full((3, len(EXPRESSIONS)), 0.5, np.float32)
    folder.mkdir()
    np.savez(folder / "shard-00001.npz", **{name: values[2:] for name, values in fields.items()})
    del fields["expression"]
    np.savez(folder / "shard-00000.npz", **{name: values[:2] for name, values in fields.items()})


def test_shares_count_the_faces_that_have_it(tmp_path, caplog):
    renders(tmp_path / "renders")
    photos = w300(tmp_path / "photos", count=1)
    messages = warned(caplog, build("swift", config("swift", 64)), tmp_path / "renders", photos)
    assert "not every face has a rotation: rotation for 75%" in messages
    assert "not every face has expression coefficients: expression, expression_square for 25%" in messages


def test_faces_without_what_a_term_needs_count_nothing(tmp_path):
    renders(tmp_path / "renders")
    (batch,) = FaceMix([str(tmp_path / "renders")], 64, 1.4, 0).fetch(0, 3, 0)
    told = (batch.expression == 0.5).all(1)
    assert told.sum() == 1
    assert torch.equal(counted(torch.ones(3), batch, ("expression",)), told.float())
    assert torch.equal(counted(torch.ones(3), batch, ("depth", "rotation", "points")), torch.ones(3))
