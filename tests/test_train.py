"""The training loop: going on after a stop, frozen parts, the log, what a checkpoint is made of."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from small import config, recipe  # noqa: E402

from canthus.aligner import Stage, build  # noqa: E402
from canthus.methods.swift import Swift  # noqa: E402
from canthus.train import CHECKPOINT, LOG, Recipe, train  # noqa: E402

TERMS = {"distance": 20.0, "points": 0.05, "visible": 0.3, "rotation": 2.0}


@pytest.fixture
def plan(made_shards: Path) -> Recipe:
    """Six steps with all augmentation, over two epochs of the 24 faces, a checkpoint every third."""
    small = config("swift", size=32)
    return recipe("swift", made_shards, config=small, augment={}, steps=6, batch=8, warm_up=2, save_every=3, bf16=True)


def steps(plan: Recipe, out: Path, count: int) -> list[dict[str, float]]:
    """The next `count` steps of a run, which is then stopped."""
    running = train(plan, out)
    rows = [row for _, row in zip(range(count), running, strict=False)]
    running.close()  # type: ignore[attr-defined]  # a generator
    return rows


def lines(out: Path) -> list[list[str]]:
    with open(out / LOG, newline="") as log:
        return list(csv.reader(log))


def test_three_steps_and_three_more_are_six_to_the_last_bit(plan, tmp_path):
    once = list(train(plan, tmp_path / "once"))
    stopped = steps(plan, tmp_path / "twice", 3)
    stopped += list(train(plan, tmp_path / "twice"))
    assert stopped == once
    assert [row["step"] for row in once] == [1, 2, 3, 4, 5, 6]
    for name in (CHECKPOINT, "weights/model.safetensors"):
        expected, got = load_file(tmp_path / "once" / name), load_file(tmp_path / "twice" / name)
        assert expected.keys() == got.keys()
        for key in expected:
            assert torch.equal(expected[key], got[key]), key
    assert lines(tmp_path / "once") == lines(tmp_path / "twice")


def test_a_stop_loses_no_more_than_the_steps_since_the_last_checkpoint(plan, tmp_path):
    reached = 0
    for ran, again in ((2, 0), (4, 3), (2, 3), (3, 6)):  # 2 steps: no checkpoint yet; 4: one after the third; ...
        rows = steps(plan, tmp_path, ran)
        assert [row["step"] for row in rows] == list(range(reached + 1, reached + ran + 1))
        reached = again
    assert list(train(plan, tmp_path)) == []  # all six are done


def test_a_save_that_was_cut_off_leaves_the_last_checkpoint(plan, tmp_path):
    steps(plan, tmp_path, 3)
    (tmp_path / "checkpoint.part").write_bytes(b"half of it")
    assert steps(plan, tmp_path, 1)[0]["step"] == 4


def test_the_log_has_a_header_and_one_line_a_step(plan, tmp_path):
    # Stopped at 2 (before any checkpoint), at 5 (two after one), then to the end.
    rows: dict[int, dict[str, float]] = {}
    for count in (2, 5, 6):
        rows |= {int(row["step"]): row for row in steps(plan, tmp_path, count)}
    header, *body = lines(tmp_path)
    assert header == ["step", "loss", "points", "distance", "visible", "rotation"]
    assert [int(line[0]) for line in body] == [1, 2, 3, 4, 5, 6]
    for line in body:
        assert [float(v) for v in line] == pytest.approx([rows[int(line[0])][name] for name in header], rel=1e-5)


def test_a_line_that_was_cut_off_goes(plan, tmp_path):
    steps(plan, tmp_path, 4)
    with open(tmp_path / LOG, "ab") as log:
        log.write(b"1")  # a power cut may leave half a line; read as a number it would be step 1
    list(train(plan, tmp_path))
    assert [line[0] for line in lines(tmp_path)] == ["step", "1", "2", "3", "4", "5", "6"]


def test_nothing_is_pickled(plan, tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a pickle")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load"), (torch, "save")):
        monkeypatch.setattr(module, name, refuse)
    steps(plan, tmp_path, 3)
    list(train(plan, tmp_path))
    # safetensors: eight bytes of length, then that many bytes of JSON that says where each tensor lies
    data = (tmp_path / CHECKPOINT).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert {"step", "model.out.weight", "average.out.weight", "optimizer.0.exp_avg"} <= header.keys()
    assert int(load_file(tmp_path / CHECKPOINT)["step"]) == 6
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    weights = {f"weights/{name}" for name in ("card.json", "config.json", "model.safetensors")}
    assert files == {CHECKPOINT, LOG, "recipe.json"} | weights


def test_what_a_stage_does_not_train_stays_as_it_was(plan, tmp_path, monkeypatch):
    stages = (Stage("head", TERMS, ("place", "look", "out")), Stage("all", TERMS))
    monkeypatch.setattr(Swift, "stages", lambda self: stages)
    torch.manual_seed(plan.seed)
    start = build(plan.method, plan.config).state_dict()
    trunk = [name for name in start if name.startswith("trunk.")]
    assert any("running_var" in name for name in trunk)  # batch statistics are frozen as well

    steps(plan, tmp_path, 3)  # half of six: the end of the first stage
    half = load_file(tmp_path / CHECKPOINT)
    for name in trunk:
        assert torch.equal(half[f"model.{name}"], start[name]), name
    for name in ("out.weight", "look.weight", "place.0.0.weight", "place.0.1.running_var"):
        assert not torch.equal(half[f"model.{name}"], start[name]), name

    list(train(plan, tmp_path))
    end = load_file(tmp_path / CHECKPOINT)
    for name in trunk:
        assert not torch.equal(end[f"model.{name}"], start[name]), name


def test_terms_that_a_stage_does_not_name_do_not_count(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(Swift, "stages", lambda self: (Stage("pose", {"rotation": 3.0}),))
    row = steps(plan, tmp_path, 1)[0]
    assert row["loss"] == pytest.approx(3 * row["rotation"])


def test_the_rate_rises_then_falls_to_a_hundredth(plan):
    from canthus.train import _Run

    run = _Run(build(plan.method, plan.config), recipe("swift", Path("x"), steps=110, warm_up=10, rate=1.0))
    rates = {}
    for run.step in range(110):
        rates[run.step] = run.rate()
    # Warm-up in tenths; at step 10 the cosine starts from the peak; halfway down (step 60) (1 + 0.01) / 2.
    assert [rates[k] for k in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert rates[60] == pytest.approx(0.505)
    assert rates[109] == pytest.approx(0.01, abs=1e-3)


def test_batches_go_once_through_all_faces_an_epoch(made_shards, monkeypatch):
    from canthus.data.augment import Augmentation, Augmenter
    from canthus.data.datasets import StoredFaces
    from canthus.train import _batch

    faces, plan = StoredFaces([made_shards]), recipe("swift", made_shards, batch=8)
    taken: list[list[int]] = []
    take = faces.take

    def watched(index):
        taken.append(index.tolist())
        return take(index)

    monkeypatch.setattr(faces, "take", watched)
    augmenter = Augmenter(Augmentation(), 32, 1.4)
    for step in range(6):
        _batch(faces, augmenter, plan, step, 8)
    for epoch in (taken[:3], taken[3:]):
        assert sorted(sum(epoch, [])) == list(range(24))
    assert taken[:3] != taken[3:]
