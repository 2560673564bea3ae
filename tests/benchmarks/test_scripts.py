"""The scripts in benchmarks/: what they write, on sets of a few made-up faces."""

from __future__ import annotations

import importlib
import json
import sys
from math import nan
from pathlib import Path
from types import ModuleType

import layouts_maker as make
import pytest

pytest.importorskip("scipy.io")

import canthus  # noqa: E402
from canthus.io.card import CARD_FILE, Card  # noqa: E402

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A function: import a script so that its results go to `tmp_path`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("common", "accuracy", "cards", "report", "beside", "throughput", "many", "overlay"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def load(name: str) -> ModuleType:
        module = importlib.import_module(name)
        monkeypatch.setattr(importlib.import_module("common"), "RESULTS", tmp_path / "results")
        monkeypatch.setattr(sys.modules["common"].subprocess, "check_output", lambda *a, **k: "0" * 40)
        return module

    return load


def arguments(monkeypatch, *given: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, given)])


def test_all_weights_are_found_and_those_for_tracking_told_apart(tmp_path, monkeypatch, script):
    common = script("common")
    values = json.loads((common.find("swift") / CARD_FILE).read_text())
    for name, shape in (("one-small", None), ("one-tracking-small", [[k / 68 - 0.5, k / 136] for k in range(68)])):
        (tmp_path / "weights" / name).mkdir(parents=True)
        card = Card(**values | {"name": name, "mean_shape": shape})
        (tmp_path / "weights" / name / CARD_FILE).write_text(card.to_json())
    monkeypatch.setattr(common, "RELEASED", tmp_path / "weights")
    found = common.weights()
    assert list(found) == ["swift", "swift-int8", "one-small", "one-tracking-small"]
    assert [common.tracks_for(folder) for folder in found.values()] == [None, None, None, "one-small"]
    monkeypatch.undo()
    released = {p.parent.name for p in (BENCHMARKS.parent / "weights").glob(f"*/{CARD_FILE}")}
    assert released <= set(importlib.import_module("common").weights())


def test_one_command_reports_every_set(tmp_path, monkeypatch, script):
    report = script("report")
    monkeypatch.setattr("canthus.evaluation.report.SWEPT", 2)
    make.aflw2000(tmp_path / "data" / "aflw2000-3d-dev")
    held, clips = make.renders(tmp_path / "held"), make.clips(tmp_path / "clips", frames=4)
    out = tmp_path / "out"
    arguments(monkeypatch, "--data", tmp_path / "data", "--held", held, "--clips", clips, "--out", out,
              "--weights", "swift")  # fmt: skip
    report.main()
    place = tmp_path / "results" / canthus.__version__ / "swift"
    for protocol in ("aflw2000", "renders", "clips"):
        written = json.loads((place / protocol / "report.json").read_text())
        assert written["results"]["seconds"] > 0 and written["commit"] == "0" * 40
        assert (out / "swift" / protocol / "report.html").exists()
        assert ("sweeps" in written["results"]) == (protocol != "clips")
        assert protocol == "clips" or report.row(written["results"])["lost"] == 0
    assert {p.suffix for p in place.rglob("*.*")} == {".json"}  # pages and pictures stay outside


def test_a_card_takes_nothing_that_was_measured_with_another_version(script):
    cards, common = script("cards"), script("common")
    row = {"0-30": 1.0, "30-60": 2.0, "60-90": 3.0, "mean of bins": 2.0, "missed": 0}
    steps = {"network": {"median": 1.5}, "photo to faces": {"median": 5.0}}
    common.write("accuracy", {"swift, true boxes": row}, {"swift": "2.0"})
    common.write("speed", {"steps_ms": {"swift, 1 threads": steps}}, {"swift": "1.0"})
    new, old = cards.rows("swift", "2.0"), cards.rows("swift", "1.0")
    assert [r["protocol"] for r in new] == [cards.PROTOCOLS["true boxes"]] and new[0]["mean of bins"] == 2.0
    assert [r.get("network, one face") for r in old] == [1.5]
    assert cards.rows("swift", "3.0") == cards.rows("jvcr-small", "2.0") == []


def test_other_weights_keep_their_rows_and_versions(tmp_path, monkeypatch, script):
    accuracy, common = script("accuracy"), script("common")
    before = {"swift, true boxes": {"mean of bins": 9.0}, "gone, true boxes": {"mean of bins": 5.0}}
    common.write("accuracy", before, {"swift": "0.0", "gone": "0.7"})
    faces = make.renders(tmp_path / "held")
    sets = ("--held", faces, "--expressions", faces, "--extremes", faces)
    arguments(monkeypatch, "--data", tmp_path, *sets, "--only", "swift-int8")
    accuracy.main()
    record = common.record("accuracy")
    assert record["weights"] == {"swift": "0.0", "gone": "0.7", "swift-int8": common.versions()["swift-int8"]}
    assert before.items() <= record["results"].items()
    assert record["results"]["swift-int8, renders, true boxes"]["faces"] == 6


def test_without_the_photos_the_rest_is_measured(tmp_path, monkeypatch, script, capsys):
    accuracy = script("accuracy")
    common = sys.modules["common"]
    monkeypatch.setattr(common, "weights", lambda: {"swift": common.find("swift")})
    held = make.renders(tmp_path / "held")
    sets = ("--held", held, "--expressions", held, "--extremes", held)
    arguments(monkeypatch, "--data", tmp_path / "nowhere", *sets)
    accuracy.main()
    assert "they are left out" in capsys.readouterr().out
    written = json.loads((tmp_path / "results" / canthus.__version__ / "accuracy.json").read_text())["results"]
    kinds = ("renders, true boxes", "expressions", "extremes")
    assert (
        list(written) == [f"{a}, {b}" for a in ("swift", "swift high") for b in kinds]
        and written["swift, renders, true boxes"]["faces"] == 6
    )


def test_expressions_are_held_out_of_training_by_their_seed(script):
    common = script("common")
    from canthus.synth.recipe import SynthRecipe

    recipe, extremes = SynthRecipe.read(common.EXPRESSIONS), SynthRecipe.read(common.EXTREMES)
    seeds = [common.RENDERS_SEED, common.CLIPS_SEED, recipe.seed, extremes.seed]
    assert len(set(seeds)) == 4 and min(seeds) >= 9000
    assert extremes.extremes > SynthRecipe().extremes
    assert recipe.closed_eyes > SynthRecipe().closed_eyes and recipe.expressions > SynthRecipe().expressions


def test_the_row_of_a_set_names_what_was_told_of_faces(script):
    accuracy = script("accuracy")
    from canthus.evaluation.scores import Scores
    from canthus.evaluation.table import Table

    columns = ("correlation", "mean absolute error")
    tables = [
        Table("eyes, mouth and brows, in space", columns, {"eye aspect ratio": [0.9, 0.1], "brow height": [nan, 0.1]}),
        Table(
            "closed eyes (...)", ("predicted mean, closed", "predicted mean, open", "AUC, %"),
            {"eye aspect ratio": [0.05, 0.3, 99.0]},
        ),
        Table("expressions", columns, {"median, face": [0.7, 0.1], "eyeBlinkLeft": [0.8, 0.1],
                                       "eyeBlinkRight": [0.6, 0.1], "jawOpen": [0.5, 0.2]}),
    ]  # fmt: skip
    scores = Scores("renders", {}, tables, None, ())
    wanted = {
        "eye aspect ratio correlation": 0.9, "closed eyes AUC %": 99.0, "closed eyes mean": 0.05, "open eyes mean": 0.3,
        "expressions median correlation": 0.7,
        "eyeBlink correlation": 0.7, "jawOpen correlation": 0.5,
    }  # fmt: skip
    assert accuracy.movements(scores) == pytest.approx(wanted)


def test_the_size_of_a_package_holds_what_it_needs(script, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    cost = importlib.import_module("cost")
    assert cost.megabytes("canthus") > cost.megabytes("onnxruntime") > cost.megabytes("numpy") > 5
    sys.modules.pop("cost")


@pytest.mark.parametrize("way", ["one core, parquet", "2 lanes, parquet", "lanes, json"])
def test_throughput_counts_photos_and_bytes(script, tmp_path, monkeypatch, way):
    pytest.importorskip("pyarrow")
    throughput = script("throughput")
    monkeypatch.setattr(throughput, "FACES", 3)
    monkeypatch.setattr(throughput, "CHUNK", 1)  # one photo a lane to warm up
    (tmp_path / "shots").mkdir()
    throughput.picture((160, 120)).save(tmp_path / "shots" / "a.jpg")
    result = throughput.run(way, tmp_path / "shots", tmp_path)
    assert result["photos"] == 1 and result["photos_a_second"] > 0 and result["peak_mb"] > 50
    assert any((tmp_path / "out").rglob("part-00000.parquet" if "parquet" in way else "a.json"))
    found = throughput.sizes(tmp_path)
    assert found["json"] > 1000 and set(found) == {"parquet", "csv", "json"}


def test_the_speed_up_is_the_median_of_ratios_of_the_same_round(script, tmp_path, monkeypatch):
    throughput = script("throughput")
    monkeypatch.setattr(throughput, "ROUNDS", 3)
    monkeypatch.setattr(throughput, "cores", lambda: 2)
    rates = iter([10, 18, 16, 5, 9.5, 9, 8, 8, 12])  # of one lane, two lanes, two workers, round by round
    asked = []

    def apart(way, shots):
        asked.append(way)
        return {"photos_a_second": next(rates)}

    monkeypatch.setattr(throughput, "apart", apart)
    found = throughput.speed_up(tmp_path, 3)["speed_up"]
    assert asked == ["one core, parquet", "2 lanes, parquet", "2 workers, parquet"] * 3
    assert found["2 lanes"] == {"median": 1.8, "least": 1.0, "most": 1.9}
    assert found["2 workers"] == {"median": 1.6, "least": 1.5, "most": 1.8}


def test_memory_and_time_over_the_number_of_photos(script, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    many = script("many")
    monkeypatch.setattr(many, "DIFFERENT", 3)
    monkeypatch.setattr(many, "FOLDER", 2)
    shots = many.fill(tmp_path, 5)
    assert sorted(path.name for path in shots.rglob("*.jpg")) == [f"{k:07}.jpg" for k in range(5)]
    assert len(list(shots.iterdir())) == 3 and many.fill(tmp_path, 5) == shots
    found = many.run(shots, tmp_path / "out", 60)
    assert found["whole"] and found["photos"] == 5 and found["faces"] == 2  # one in eight of three
    assert found["curve"][-1][1] > found["start_mb"] / 2 and many.listing(shots) > 0
    again = many.run(shots, tmp_path / "out", 60)  # nothing is left to do
    assert again["whole"] and not again["photos"]


def test_times_of_the_overlay_are_printed(tmp_path, monkeypatch, script, capsys):
    pytest.importorskip("av")
    from photos import photo
    from PIL import Image

    path = tmp_path / "clip.gif"
    Image.fromarray(photo()).save(path, save_all=True, append_images=[Image.fromarray(photo()[::-1])])
    overlay = script("overlay")
    arguments(monkeypatch, path, "--frames", 2, "--rounds", 1)
    overlay.main()
    assert "faces a frame: drawing" in capsys.readouterr().out
