"""benchmarks/fitting.py: it runs on whatever weights there are, and its damage is what it says."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy.io")

import layouts_maker as make  # noqa: E402
from faces_maker import write_shards  # noqa: E402
from small import config  # noqa: E402

from canthus.training.aligner import Aligner, build  # noqa: E402

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def fitting(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for module in ("common", "accuracy", "fitting"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return importlib.import_module("fitting")


def untrained(method: str, folder: Path, **changes) -> Path:
    torch.manual_seed(0)
    return build(method, {**config(method), **changes}).save(folder)


@pytest.mark.slow
def test_the_whole_command(fitting, tmp_path, monkeypatch):
    weights = [
        untrained("pose_aware", tmp_path / "pose"),
        untrained("cprfa", tmp_path / "fused", solver="cpr-fused-capu", recurrences=1),
        untrained("cprfa", tmp_path / "cpr", solver="cpr", recurrences=1),
        untrained("pose_aware", tmp_path / "one", second="none"),
    ]
    make.aflw2000(tmp_path / "data" / "aflw2000-3d-dev")
    write_shards(tmp_path / "held", count=6, size=96)
    written = {}
    monkeypatch.setattr(fitting.common, "write", lambda what, results: written.update(results) or tmp_path / "out.json")
    monkeypatch.setattr(fitting, "PICTURES", tmp_path)
    monkeypatch.setattr(fitting, "DAMAGE", {name: (unit, steps[:2]) for name, (unit, steps) in fitting.DAMAGE.items()})
    given = [f"--data={tmp_path / 'data'}", f"--held={tmp_path / 'held'}", f"--pose-aware={weights[0]}"]
    given += [f"--cprfa={weights[1]}", "--against", "swift", "--faces=3"]
    monkeypatch.setattr(sys, "argv", ["fitting", *given])
    fitting.main()
    json.dumps(written, allow_nan=True)
    baselines = {"PnP + swift", "head fitted to swift", "one round", "two rounds, steps not weighed"}
    for title in ("rendered", "photos"):
        assert written[title]["errors"].keys() == {"pose", "network 1 of pose", "fused", "swift"} | baselines
    assert written["annotation"].keys() == {"swift, 68 points"} | {
        f"annotation, {which} vertices" for which in ("68", "all", "chosen")
    }
    assert written["annotation"]["swift, 68 points"]["NME"]["0-30"] is not None
    assert written["damage"]["faces"] == 3
    assert all(len(r["strengths"]) == 2 for name, r in written["damage"].items() if name != "faces")
    names = {"PnP", "PnP + swift", "head fitted to swift", "CPR, sparse points kept away", "CPR + swift", "whole"}
    assert written["damage"]["occlusion"]["NME"].keys() == names
    assert {p.name for p in tmp_path.glob("*.png")} == {"fitting-yaw.png", "fitting-damage.png"}
    written.clear()
    monkeypatch.setattr(sys, "argv", ["fitting", *given, f"--cpr={weights[2]}", f"--one-stage={weights[3]}"])
    fitting.main()
    names = {"PnP", "PnP + swift", "head fitted to swift", "CPR", "CPR + swift", "whole"}
    assert written["damage"]["occlusion"]["NME"].keys() == names
    assert "pose below one network, alone" in written["photos"]


def test_steps_that_are_not_weighed_have_the_weight_one(fitting, tmp_path):
    aligner = Aligner.load(untrained("cprfa", tmp_path / "two", solver="cpr-fused-capu", recurrences=1))
    with torch.no_grad():
        for parameter in aligner.round_2.parameters():
            parameter.add_(0.1)
    other = fitting.unweighed(aligner, "other")
    for name, update in other.round_2.updates.items():
        errors = torch.rand(2, 2, update.weights[0][0].in_features)
        assert torch.equal(update.weight(errors), torch.ones(2, 2, 1))
        assert torch.equal(update.outs[0].weight, aligner.round_2.updates[name].outs[0].weight)


def test_one_network_says_what_the_first_of_two_says(fitting, tmp_path):
    two = Aligner.load(untrained("pose_aware", tmp_path / "two"))
    one = fitting.variant(two, "one", second="none")
    crops = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(one(crops).xyz, two.eval()(crops).steps[0])
    assert one.card.name == "one" and one.card.completion == two.card.completion


def test_damage_grows_and_is_what_it_says(fitting):
    rng = torch.Generator().manual_seed(0)
    answer = torch.randn(5, 32, 32, generator=rng)
    answer[3], answer[4] = 0, -1
    answer[4, 4:28, 6:26] = 1
    inside = answer[4] > 0
    whole = answer.clone()
    for what in ("missing regions", "wrong codes"):
        before = torch.zeros(32, 32, dtype=torch.bool)
        for percent in (0, 20, 60):
            spoilt = fitting.damaged(what, percent, 7, answer)
            assert torch.equal(answer, whole)
            assert torch.equal(spoilt, fitting.damaged(what, percent, 7, answer))
            if what == "missing regions":
                touched = inside & (spoilt[4] < spoilt[3])
                assert torch.equal(spoilt[:3], answer[:3])
            else:
                touched = (spoilt[:3] != answer[:3]).all(0)
                assert torch.equal(spoilt[3:], answer[3:])
                assert np.isin(spoilt[:3, inside].numpy(), answer[:3, inside].numpy()).all()
            assert (before <= touched).all() and (touched <= inside).all()  # more of the same
            # a disc of 0.12 sqrt(480) = 2.6 px takes up to 21 of 480 pixels more; a pixel may get its own code again
            assert percent - 1 <= 100 * float(touched.sum() / inside.sum()) < percent + 5
            before = touched
    assert not torch.equal(fitting.damaged("wrong codes", 20, 7, answer), fitting.damaged("wrong codes", 20, 8, answer))


def test_a_row_of_the_annotation_by_hand(fitting):
    errors, detected = np.array([0.02, 0.04, np.nan, 0.2]), np.array([0.5, 0.3, 0.0, 0.05])
    row = fitting.error_row(errors, detected, np.array([0, 0, 1, 2]))
    assert row["NME"]["0-30"] == pytest.approx(3) and row["NME"]["60-90"] == pytest.approx(20)
    assert row["NME"]["30-60"] == 100 and row["detected"]["30-60"] == 0  # as the paper counts a face without a vertex
    assert row["NME"]["std"] == pytest.approx(np.std([3, 100, 20]))
    assert row["detected"]["0-30"] == pytest.approx(40) and row["failed"] == 50  # nothing found; too far and too few
