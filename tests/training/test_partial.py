"""What a log says of faces whose truth lacks something that a method learns from."""

from __future__ import annotations

import logging

import layouts_maker
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from faces_maker import make_faces, write_shards  # noqa: E402
from painted_sets import w300  # noqa: E402
from small import config, recipe  # noqa: E402

from canthus.data.sources import FaceMix  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.expressions import EXPRESSIONS  # noqa: E402
from canthus.io.card import Card  # noqa: E402
from canthus.training.aligner import build  # noqa: E402
from canthus.training.partial import counted, learnable  # noqa: E402
from canthus.training.train import train  # noqa: E402


def warned(caplog, aligner, *folders) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        learnable(aligner, FaceMix([str(f) for f in folders], 64, 1.4, 0))
    return [record.message for record in caplog.records]


def test_each_need_names_the_terms_it_costs(tmp_path, caplog):
    photos = w300(tmp_path / "photos", count=2)  # points in 2D alone
    swift = build("swift", config("swift", 64))
    assert warned(caplog, swift, photos) == [
        "no face has depth: distance, regressed, heatmaps, modelled in the image plane alone",
        "no face has a rotation: rotation off",
        "no face has marks of visible points: visible by which way each point faces",
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


def test_a_term_that_is_off_is_named_once(tmp_path, caplog):
    pytest.importorskip("h5py")
    messages = warned(caplog, build("jvcr", config("jvcr", 64)), layouts_maker.cofw(tmp_path, part="train"))
    assert messages[:2] == [
        "no face has depth: coordinate in the image plane alone", "no face has all 68 points: voxel off"
    ]  # fmt: skip


def test_the_method_that_learns_from_vertices_says_who_has_them(tmp_path, caplog):
    dense = write_shards(tmp_path / "dense", 3, size=96)
    sparse = write_shards(tmp_path / "sparse", 1, size=96, dense=False)
    cprfa = build("cprfa", config("cprfa", 64))
    terms, fitted = "codes, mask, round_1, round_2", "by fits to the landmarks"
    assert warned(caplog, cprfa, dense) == []
    assert warned(caplog, cprfa, sparse) == [
        f"no face has vertices of the head: codes, mask, round_1, round_2 {fitted}"
    ]
    assert warned(caplog, cprfa, dense, sparse) == [
        f"not every face has vertices of the head: {terms} {fitted} in batches where one has none"
    ]
    assert not any("vertices" in line for line in warned(caplog, build("jvcr", config("jvcr", 64)), sparse))


def test_a_training_on_a_test_part_is_warned_of(tmp_path, caplog):
    folder = layouts_maker.wflw(tmp_path)
    swift = build("swift", config("swift", 64))
    said = f"{folder}: WFLW, test part, there is no other: what learns from it must not be measured on it"
    assert warned(caplog, swift, folder)[0] == said
    layouts_maker.wflw(tmp_path, "train")
    assert not any("WFLW" in line for line in warned(caplog, swift, folder))


def test_faces_without_what_a_term_needs_count_nothing(tmp_path):
    renders(tmp_path / "renders")
    (batch,) = FaceMix([str(tmp_path / "renders")], 64, 1.4, 0).fetch(0, 3, 0)
    told = (batch.expression == 0.5).all(1)
    assert told.sum() == 1
    assert torch.equal(counted(torch.ones(3), batch, ("expression",)), told.float())
    assert torch.equal(counted(torch.ones(3), batch, ("depth", "rotation", "points")), torch.ones(3))


def test_the_card_tells_what_was_not_learnt(tmp_path):
    plan = recipe("jvcr", w300(tmp_path / "photos", count=2), steps=8, batch=2)
    list(train(plan, tmp_path / "run"))
    (limit,) = Card.read(tmp_path / "run" / "weights").limits
    assert limit == "In training no face has depth: voxel, coordinate in the image plane alone."


def test_the_card_tells_which_stage_was_left_out(tmp_path):
    plan = recipe("part_heatmap", w300(tmp_path / "photos", count=2), steps=8, batch=2)
    list(train(plan, tmp_path / "run"))
    limits = Card.read(tmp_path / "run" / "weights").limits
    assert limits[1:] == ["In training no stage depth: none of its terms can be learnt."]
