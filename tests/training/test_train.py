"""The training loop: going on after a stop, frozen parts, the log, what a checkpoint is made of."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import canthus

torch = pytest.importorskip("torch")

from faces_maker import write_shards  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from small import STILL, config, recipe  # noqa: E402

from canthus.errors import OutputError, RecipeError  # noqa: E402
from canthus.io.outputs import PART  # noqa: E402
from canthus.methods.swift import Swift  # noqa: E402
from canthus.training.aligner import Stage, build  # noqa: E402
from canthus.training.recipe import as_json  # noqa: E402
from canthus.training.train import CHECKPOINT, LOG, Recipe, move_average, optimizer_of, train  # noqa: E402

TERMS = {"distance": 20.0, "points": 0.05, "visible": 0.3, "rotation": 2.0}


@pytest.fixture
def plan(made_shards: Path) -> Recipe:
    """Six steps with all augmentation, over two epochs of the 24 faces, a checkpoint every third."""
    small = config("swift", size=32) | {"details": False}  # two stages of three steps
    return recipe(
        "swift", made_shards, config=small, augment={}, steps=6, batch=8, warmup_steps=2, save_every=3, float32=False
    )


def steps(plan: Recipe, out: Path, count: int) -> list[dict[str, Any]]:
    """The next `count` steps of a run, which is then stopped."""
    running = train(plan, out)
    rows = [row for _, row in zip(range(count), running, strict=False)]
    running.close()  # type: ignore[attr-defined]  # a generator
    return rows


def lines(out: Path) -> list[list[str]]:
    with open(out / LOG, newline="") as log:
        return list(csv.reader(log))


SGD_THEN_RMSPROP = {
    "regression": {"optimizer": "sgd", "lr": 1e-3, "batch": 5},
    "likelihood": {"optimizer": "rmsprop", "schedule": "exponential"},
}


@pytest.mark.parametrize(
    ("kind", "stop"),
    [("plain", 3), ("stages", 2), ("stages", 3), ("stages", 4), ("weights", 3), ("chance", 3)],  # a stage ends at 3
)
def test_three_steps_and_three_more_are_six_to_the_last_bit(plan, made_shards, tmp_path, monkeypatch, kind, stop):
    plan = replace(plan, save_every=stop, picture_every=1)  # looking on must not change anything
    if kind == "stages":
        plan = replace(plan, stages=SGD_THEN_RMSPROP)
    if kind == "weights":
        other = write_shards(tmp_path / "other", count=5, size=48, seed=3)
        plan = replace(plan, faces={str(made_shards): 3, str(other): 1})
    if kind == "chance":  # a network that throws dice, as dropout does
        plain = Swift.forward
        monkeypatch.setattr(Swift, "forward", lambda self, x, start=None: plain(self, x * (torch.rand(()) + 0.5)))
    once = list(train(plan, tmp_path / "once"))
    stopped = steps(plan, tmp_path / "twice", stop)
    stopped += list(train(plan, tmp_path / "twice"))
    assert stopped == once
    assert [row["step"] for row in once] == [1, 2, 3, 4, 5, 6]
    for name in (CHECKPOINT, "weights/model.safetensors"):
        expected, got = load_file(tmp_path / "once" / name), load_file(tmp_path / "twice" / name)
        assert expected.keys() == got.keys()
        for key in expected:
            assert torch.equal(expected[key], got[key]), key
    assert lines(tmp_path / "once") == lines(tmp_path / "twice")


@pytest.mark.parametrize(
    ("flags", "bf16"),
    [("avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx2", False), ("avx512f avx512bw", False)],
)
def test_bfloat16_is_used_only_where_the_processor_computes_it(plan, tmp_path, monkeypatch, flags, bf16):
    monkeypatch.setattr("canthus.training.train._cpu_flags", lambda: {"fpu", *flags.split()})
    used = []
    plain = Swift.forward

    def forward(self, crops, start=None):
        used.append(torch.is_autocast_enabled("cpu"))
        return plain(self, crops, start)

    monkeypatch.setattr(Swift, "forward", forward)
    steps(replace(plan, picture_every=0), tmp_path / "auto", 1)
    steps(replace(plan, picture_every=0, float32=True), tmp_path / "float32", 1)
    assert used == [bf16, False]
    assert [json.loads((tmp_path / k / "starts.json").read_text())[0]["bf16"] for k in ("auto", "float32")] == used


def test_a_run_of_another_version_is_refused(plan, tmp_path):
    steps(plan, tmp_path, 3)
    began = tmp_path / "recipe.json"
    began.write_text(json.dumps({**json.loads(began.read_text()), "rate": 1e-3}))
    with pytest.raises(RecipeError, match="another version of canthus.*`rate`"):
        next(train(plan, tmp_path))


def test_a_stop_loses_no_more_than_the_steps_since_the_last_checkpoint(plan, tmp_path):
    reached = 0
    for ran, again in ((2, 0), (4, 3), (2, 3), (3, 6)):  # 2 steps: no checkpoint yet; 4: one after the third; ...
        rows = steps(plan, tmp_path, ran)
        assert [row["step"] for row in rows] == list(range(reached + 1, reached + ran + 1))
        reached = again
    assert list(train(plan, tmp_path)) == []  # all six are done


def test_a_save_that_was_cut_off_leaves_the_last_checkpoint(plan, tmp_path):
    steps(plan, tmp_path, 3)
    left = tmp_path / PART.format(123, "abc")
    left.write_bytes(b"half of it")
    assert steps(plan, tmp_path, 1)[0]["step"] == 4
    assert not left.exists()


def test_the_log_has_a_header_and_one_line_a_step(plan, tmp_path):
    # Stopped at 2 (before any checkpoint), at 5 (two after one), then to the end.
    rows: dict[int, dict[str, Any]] = {}
    for count in (2, 5, 6):
        rows |= {int(row["step"]): row for row in steps(plan, tmp_path, count)}
    header, *body = lines(tmp_path)
    terms = ["distance", "points", "visible", "rotation", "regressed", "heatmaps", "modelled"]
    assert header == ["step", "stage", "lr", "loss", *terms]
    assert [int(line[0]) for line in body] == [1, 2, 3, 4, 5, 6]
    assert [line[1] for line in body] == ["regression"] * 3 + ["likelihood"] * 3
    for line in body:
        numbers = [float(v) for v in line[:1] + line[2:]]
        assert numbers == pytest.approx([rows[int(line[0])][name] for name in header if name != "stage"], rel=1e-5)


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
    assert {"step", "model.out.weight", "ema.out.weight", "optimizer.0.exp_avg"} <= header.keys()
    assert int(load_file(tmp_path / CHECKPOINT)["step"]) == 6
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    weights = {f"weights/{name}" for name in ("card.json", "config.json", "model.safetensors")}
    assert files == {CHECKPOINT, LOG, "recipe.json", "starts.json", "curve.png", "pictures/step-000006.png"} | weights


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


def test_a_parameter_of_the_aligner_itself_is_frozen_too(plan, tmp_path, monkeypatch):
    class Scaled(Swift):
        def __init__(self, config):
            super().__init__(config)
            self.gain = torch.nn.Parameter(torch.ones(1))

        def forward(self, crops, start=None):
            return super().forward(crops * self.gain)

        def stages(self):
            return (Stage("head", TERMS, ("place", "look", "out")), Stage("gain", TERMS, ("gain",)))

    monkeypatch.setattr("canthus.training.train.build", lambda method, values: Scaled(Scaled.Config(**values)))
    steps(plan, tmp_path, 3)
    half = load_file(tmp_path / CHECKPOINT)
    assert half["model.gain"] == half["ema.gain"] == 1
    steps(plan, tmp_path, 3)
    end = load_file(tmp_path / CHECKPOINT)
    assert end["model.gain"] != 1
    changed = {k for k in end if k.startswith("model.") and not torch.equal(end[k], half[k])}
    assert changed == {"model.gain"}  # a running mean would be another


def test_terms_that_a_stage_does_not_name_do_not_count(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(Swift, "stages", lambda self: (Stage("pose", {"rotation": 3.0}),))
    row = steps(plan, tmp_path, 1)[0]
    assert row["loss"] == pytest.approx(3 * row["rotation"])


def test_a_stage_of_its_own_begins_with_a_fresh_optimiser(plan, tmp_path):
    plan = replace(plan, save_every=1, stages={"likelihood": {"optimizer": "sgd", "lr": 1e-3, "warmup_steps": 0}})
    names = []
    for count in (3, 1):
        rows = steps(plan, tmp_path, count)
        names.append({key.split(".")[-1] for key in load_file(tmp_path / CHECKPOINT) if key.startswith("optimizer.")})
    assert names == [{"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}]
    assert rows[0]["lr"] == 1e-3 and rows[0]["stage"] == "likelihood"


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "rmsprop", "sgd"])
def test_each_optimiser_does_what_its_paper_says_in_the_first_step(plan, made_shards, tmp_path, optimizer):
    # From nothing, with gradient g: adam and adamw move by the rate against the sign of g (their two means are g and
    # g^2 exactly, once corrected), rmsprop by ten times the rate (it takes 1 % of g^2 and does not correct), sgd by
    # rate times g, and the gradient's norm is clipped at 5.
    one_stage = {"likelihood": {"share": 0}}
    plan = replace(plan, optimizer=optimizer, weight_decay=0.0, warmup_steps=0, lr=1e-4, steps=1, stages=one_stage)
    plan = replace(plan, float32=True, picture_every=0)
    list(train(plan, tmp_path))
    tensors = load_file(tmp_path / CHECKPOINT)
    torch.manual_seed(plan.seed)
    start = dict(build(plan.method, plan.config).named_parameters())
    moved = {name: tensors[f"model.{name}"] - value.detach() for name, value in start.items()}
    typical = moved["out.bias"].abs().median()
    if optimizer == "sgd":
        norm = torch.cat([m.flatten() for m in moved.values()]).norm()
        assert 0 < norm <= 1.001 * 5 * 1e-4
        return
    assert typical == pytest.approx({"rmsprop": 1e-3}.get(optimizer, 1e-4), rel=0.01)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 1e-3}, "`lr` 0.004, now 0.001"),
        ({"augment": {"scale": 0.3}}, r"`augment\.scale` not given, now 0.3"),
        ({"stages": {"regression": {"lr": 0.1}}}, r"`stages\.regression`"),
        ({"steps": 5}, "`steps` 6, now 5; fewer"),
    ],
)
def test_a_run_does_not_go_on_with_another_recipe(plan, tmp_path, changes, said):
    steps(plan, tmp_path, 3)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(RecipeError, match=said):
        next(train(replace(plan, **changes), tmp_path))
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_run_may_go_on_for_more_steps(plan, tmp_path):
    list(train(plan, tmp_path))
    more = list(train(replace(plan, steps=8, save_every=2, picture_every=0), tmp_path))
    assert [row["step"] for row in more] == [7, 8]
    assert [line[0] for line in lines(tmp_path)[1:]] == [str(k) for k in range(1, 9)]


def test_a_stage_that_the_method_does_not_have_is_named(plan, tmp_path):
    with pytest.raises(RecipeError, match="'likelyhood'; 'likelihood'"):
        next(train(replace(plan, stages={"likelyhood": {"lr": 0.1}}), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_the_weights_of_another(plan, tmp_path):
    list(train(replace(plan, steps=2), tmp_path / "first"))
    first = load_file(tmp_path / "first" / "weights" / "model.safetensors")
    # with a rate of zero what it starts from is what it ends with, but for statistics of batches
    list(train(replace(plan, steps=2, lr=0.0, weights=str(tmp_path / "first" / "weights")), tmp_path / "second"))
    second = load_file(tmp_path / "second" / "weights" / "model.safetensors")
    learnt = [name for name, _ in build(plan.method, plan.config).named_parameters()]
    assert learnt and all(torch.equal(first[name], second[name]) for name in learnt)


def test_a_run_goes_on_without_the_weights_it_started_from(plan, tmp_path):
    list(train(replace(plan, steps=2), tmp_path / "first"))
    begun = replace(plan, steps=4, save_every=2, weights=str(tmp_path / "first" / "weights"))
    running = train(begun, tmp_path / "second")
    next(running), next(running), next(running)
    running.close()
    shutil.rmtree(tmp_path / "first")
    assert [row["step"] for row in train(begun, tmp_path / "second")] == [3, 4]


def test_weights_of_another_config_are_refused(plan, tmp_path):
    list(train(replace(plan, steps=2), tmp_path / "first"))
    wider = plan.config | {"features": 2 * plan.config["features"]}
    other = replace(plan, config=wider, weights=str(tmp_path / "first" / "weights"))
    with pytest.raises(RecipeError, match=r"first.*do not fit"):
        next(train(other, tmp_path / "second"))


def test_a_full_disk_leaves_the_last_checkpoint(plan, tmp_path):
    resource = pytest.importorskip("resource")
    plan = replace(plan, save_every=2, picture_every=0)
    running = train(plan, tmp_path)
    next(running), next(running), next(running)
    kept = (tmp_path / CHECKPOINT).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match="checkpoint"):
            next(running)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / CHECKPOINT).read_bytes() == kept
    assert not list(tmp_path.glob(".*"))  # no half of a file is left
    assert [row["step"] for row in train(plan, tmp_path)] == [3, 4, 5, 6]


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_run_folder_that_cannot_be_made_is_one_sentence(plan, tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not make the folder '.*file.*': (Not a directory|File exists)"):
        next(train(plan, tmp_path / name))


def test_a_loss_that_is_no_number_ends_the_run(plan, tmp_path, monkeypatch):
    steps(plan, tmp_path, 3)
    kept = (tmp_path / CHECKPOINT).read_bytes()
    monkeypatch.setattr(Swift, "stages", lambda self: (Stage("regression", {"rotation": float("nan")}),))
    with pytest.raises(RecipeError, match="loss of step 4 is nan"):
        list(train(plan, tmp_path))
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


def test_the_run_folder_says_what_it_ran_on(plan, tmp_path):
    steps(plan, tmp_path, 3)
    steps(plan, tmp_path, 1)
    starts = json.loads((tmp_path / "starts.json").read_text())
    assert [s["step"] for s in starts] == [0, 3] and starts[0]["faces"] == 24
    assert starts[0]["versions"]["torch"] == torch.__version__
    assert json.loads((tmp_path / "recipe.json").read_text())["batch"] == 8


def test_pictures_show_true_points_green_and_predicted_ones_red_and_the_maps(plan, tmp_path, monkeypatch):
    plain = Swift.forward
    place = torch.zeros(1, 68, 16, 16)
    place[:, :, 4, 12] = 1.0  # of 16 cells: a quarter down, three quarters right

    def forward(self, crops, start=None):
        out = plain(self, crops, start)
        return replace(out, maps=(place.expand(len(crops), -1, -1, -1),))

    monkeypatch.setattr(Swift, "forward", forward)
    steps(replace(plan, picture_every=2), tmp_path, 2)
    with Image.open(tmp_path / "pictures" / "step-000002.png") as image:
        assert image.size == (8 * 192, 2 * 192)
        pixels = np.asarray(image).astype(int)
    faces, maps = pixels[:192], pixels[192:, :192, 0]
    for colour in ((60, 210, 90), (235, 60, 50)):
        assert (np.abs(faces - colour).sum(2) < 10).sum() > 8 * 20
    y, x = np.unravel_index(maps.argmax(), maps.shape)
    assert abs(y - 4.5 * 12) < 12 and abs(x - 12.5 * 12) < 12  # 192 / 16 = 12 px a cell


def test_tensorboard_gets_every_step_once(plan, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plan = replace(plan, tensorboard=True)
    steps(plan, tmp_path, 4)
    list(train(plan, tmp_path))  # from step 3
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


def test_faces_are_drawn_by_the_methods_weights(plan, tmp_path, monkeypatch):
    from canthus.data.datasets import StoredFaces

    drawn = []
    take = StoredFaces.take

    def watched(self, index):
        drawn.append(index.tolist())
        return take(self, index)

    monkeypatch.setattr(StoredFaces, "take", watched)
    monkeypatch.setattr(Swift, "sampling_weights", lambda self, xyz: torch.arange(len(xyz)) % 3 == 0)
    steps(plan, tmp_path, 3)
    assert all(k % 3 == 0 for index in drawn for k in index)
    assert len({k for index in drawn for k in index}) == 8  # of 24


@pytest.mark.slow
def test_two_processes_train_one_network(plan, tmp_path):
    code = """
import json, os, sys
from pathlib import Path
from canthus.training.recipe import Recipe
from canthus.training.train import leave_processes, train
rows = list(train(Recipe(**json.loads(Path(sys.argv[1]).read_text())), sys.argv[2]))
leave_processes()
Path(sys.argv[1]).with_name(f"rank{os.environ['RANK']}.json").write_text(json.dumps(rows))
"""
    script, values = tmp_path / "both.py", tmp_path / "recipe.json"
    script.write_text(code)
    plan = replace(plan, augment=STILL, float32=True, steps=2, save_every=1)
    values.write_text(as_json(plan))
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(canthus.__file__).parents[1]), *sys.path])
    out = subprocess.run([*call, str(values), str(tmp_path / "run")], env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    together = [row["loss"] for row in first]
    alone = [row["loss"] for row in train(plan, tmp_path / "alone")]
    # batch norm sees four faces instead of eight, no more than that is different
    assert together == pytest.approx(alone, rel=0.1)
    assert [line[0] for line in lines(tmp_path / "run")] == ["step", "1", "2"]
    assert (tmp_path / "run" / "weights" / "model.safetensors").exists()


def test_the_average_keeps_its_share_of_itself():
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = {"weight": torch.zeros(1, 1)}
    move_average(average, network, 0.9)
    assert average["weight"].item() == pytest.approx(0.1)


def test_matrices_alone_decay():
    settings = SimpleNamespace(optimizer="sgd", lr=0.1, weight_decay=0.2)
    groups = optimizer_of(torch.nn.Linear(1, 1), settings).param_groups
    told = [(group["weight_decay"], group["momentum"], [p.ndim for p in group["params"]]) for group in groups]
    assert told == [(0.2, 0.9, [2]), (0.0, 0.9, [1])]
