"""The recipes of the papers learn, by their own optimisers, rates and loss scales, on the data sets they name; narrow
networks and faces that are painted. And every ablation of the papers is one key of a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")
pytest.importorskip("scipy")

from paper_recipes import METHODS, NARROW, SETS, losses, paper_recipe, stages_of_equal_length  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from canthus.cli import app  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.training.aligner import build, method_class  # noqa: E402
from canthus.training.packaged import packaged  # noqa: E402
from canthus.training.recipe import Recipe  # noqa: E402
from canthus.training.schedule import plan  # noqa: E402
from canthus.training.train import train  # noqa: E402


@pytest.mark.parametrize("method", [pytest.param(m, marks=pytest.mark.slow) if m == "cprfa" else m for m in METHODS])
def test_ten_steps_of_a_paper_s_recipe_have_finite_losses_in_every_stage(method, tmp_path):
    recipe = paper_recipe(method, tmp_path / "set", steps=10, batch=4, stages=stages_of_equal_length(method))
    rows = list(train(recipe, tmp_path / "run"))
    assert len(rows) == 10 and all(np.isfinite(row["loss"]) for row in rows)
    names = [stage.name for stage in build(method, recipe.config).stages()]
    assert list(dict.fromkeys(row["stage"] for row in rows)) == names


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_fifty_steps_of_a_paper_s_recipe_lower_the_loss_of_every_stage(method, tmp_path):
    learnt, unmoved = (losses(method, tmp_path, learns) for learns in (True, False))
    assert learnt.keys() == stages_of_equal_length(method).keys()
    for name, values in learnt.items():
        still = unmoved[name]
        if name == next(iter(learnt)):
            assert values[0] == pytest.approx(still[0])
        assert np.mean(values[-5:]) < np.mean(still[-5:]), (name, values, still)


# ---- ablations

LOCAL_GLOBAL = {  # tables 1, 2 and 4
    "arch": ["resnet18"], "stem": ["7x7"], "deconv": ["k2", "dw4", "nearest"], "after": ["linear"],
    "head": ["module1", "module2", "module3"], "heatmap_loss": ["mse"], "finetune": ["none", "offset"],
    "decode": ["dark"], "shape_aligned": [True], "landmarks": [84],
}  # fmt: skip
PART_HEATMAP = {
    "xy_from": ["detection"], "z_input": ["rgb", "redrawn"], "z_maps": [True], "z_loss": ["sides"],
    "training": ["separate", "end_to_end"], "disc_rule": ["fixed"], "det_head": ["deconv256_conv"], "deconv": [4],
    "last_deconv": [8], "flip_test": [False], "landmarks": [68], "decode": ["dark"], "depth_shortcut": ["raw"],
}  # fmt: skip
POSE_AWARE = {
    "second": ["none", "all"], "bins": [1], "extra": [[], [22, 35, 45, 54, *range(9)]], "jaw": ["fixed"],
    "landmarks": [19], "evidence": [0.05],
}  # fmt: skip
JVCR = {
    "training": ["separate"], "depths": [[64], [1, 64], [64, 64, 64, 64], [1, 1, 1, 16]], "landmarks": [66, 71],
    "voxel_loss": ["weighted", "bce"], "z_range": [1.3], "balance": [1.0],
}  # fmt: skip
CPRFA = {
    "solver": ["pnp-sparse", "pnp-dense", "cpr", "cpr-fused", "cpr-capu"], "recurrences": [1],
    "order": ["joint", "interleaved"], "in_plane": ["literal", "cross"], "lookup": ["reverse", "soft"], "known": [True],
    "regression": ["vertices"], "code_loss": ["foreground"], "path_errors": ["normalised"], "spacing": [2.5],
    "bounded": [True], "trust": [0.1], "share": [0.5], "samples": [2], "vertices": [64], "fits": [1], "norm": [False],
    "depths": [[1, 1, 2, 1]],
}  # fmt: skip
ROWS = {
    "local_global": LOCAL_GLOBAL, "part_heatmap": PART_HEATMAP, "pose_aware": POSE_AWARE, "jvcr": JVCR, "cprfa": CPRFA,
}  # fmt: skip
ABLATIONS = [(m, key, value) for m, rows in ROWS.items() for key, values in rows.items() for value in values]
STAGES_CHANGE = ("arch", "finetune", "xy_from", "training", "second", "solver")


@pytest.mark.parametrize(
    ("method", "key", "value", "kind"),
    [(*row, "paper") for row in ABLATIONS]
    + [(*row, kind) for row in ABLATIONS if row[1] in STAGES_CHANGE for kind in ("improved", "small-synth")],
    ids=str,
)
def test_an_ablation_is_one_key_of_a_recipe_and_of_the_command_line(method, key, value, kind, tmp_path):
    """In a file of its own, and by --set; every stage that the configuration has gets steps."""
    name = f"{method}-{kind}"
    typed = Recipe.read(name, [f"config.{key}={json.dumps(value).strip(chr(34))}"])
    plain = yaml.safe_load(packaged()[name].read_text())
    plain["config"] = {**plain.get("config", {}), key: value}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(plain))
    assert Recipe.read(tmp_path / "mine.yaml") == typed
    narrow = {k: v for k, v in NARROW[method].items() if k not in (key, "solver")}
    if (method, key) == ("jvcr", "depths"):
        narrow["widths"] = [16, 32, 64]
    aligner = build(method, {**typed.config, **narrow})
    stages = aligner.stages()
    scheduled = plan(typed, stages)
    assert [s.stage.name for s in scheduled] == [s.name for s in stages]
    assert all(s.first < s.last for s in scheduled) and {s.name for s in stages} <= set(type(aligner).stage_names)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    """A painted set a method, two faces each."""
    return {method: make(tmp_path_factory.mktemp(method), 2) for method, make in SETS.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "key", "value"), ABLATIONS, ids=str)
def test_an_ablation_is_trained_by_the_command_line(method, key, value, sets, tmp_path):
    """One step a stage of the paper's recipe, narrow; then weights that say what they are."""
    narrow = {k: v for k, v in NARROW[method].items() if k not in (key, "solver")} | {"size": 32}
    if (method, key) == ("jvcr", "depths"):
        narrow["widths"] = [16, 32, 64]
    if method == "local_global":
        narrow |= {"size": 64}
    config = {**narrow, key: value}
    typed = Recipe.read(f"{method}-paper", [f"config.{name}={_typed(v)}" for name, v in config.items()])
    stages = build(method, typed.config).stages()
    changes = {f"config.{name}": v for name, v in config.items()}
    changes |= {"steps": len(stages), "batch": 2, "picture_every": 0}
    for stage in stages:
        changes |= {f"stages.{stage.name}.share": 1.0, f"stages.{stage.name}.batch": 2}
    options = [word for name, v in changes.items() for word in ("--set", f"{name}={_typed(v)}")]
    command = ["train", f"{method}-paper", "--faces", str(sets[method]), "--out", str(tmp_path), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    log = (tmp_path / "log.csv").read_text().splitlines()
    assert len(log) == 1 + len(stages)
    written = json.loads((tmp_path / "weights" / "config.json").read_text())["config"]
    assert _typed(written[key]) == _typed(value)


def _typed(value: Any) -> str:
    """A value as one types it."""
    return json.dumps(value).strip('"')


def test_ablations_name_keys_that_there_are():
    for method, key, _ in ABLATIONS:
        assert hasattr(method_class(method).Config(), key), (method, key)


def test_a_stage_that_no_configuration_has_is_still_refused():
    recipe = Recipe.read("pose_aware-paper", ["stages.stabel.lr=1e-4"])
    with pytest.raises(RecipeError, match="`stages` has the unknown key 'stabel'; 'stable'"):
        plan(recipe, build("pose_aware", NARROW["pose_aware"]).stages())


def test_a_stage_that_the_steps_would_skip_is_an_error():
    recipe = Recipe.read("part_heatmap-paper", steps=3)
    with pytest.raises(
        RecipeError, match="`steps` is 3, of which the stage 'joint' gets none|the stage 'regression' gets none"
    ):
        plan(recipe, build("part_heatmap", NARROW["part_heatmap"]).stages())


@pytest.mark.parametrize("method", METHODS)
def test_photometric_changes_are_off_in_the_papers_recipes_but_for_those_the_papers_have(method):
    augment = Recipe.read(f"{method}-paper").augment
    has = {"part_heatmap": {"colour"}, "local_global": {"colour"}, "pose_aware": {"soft"}}.get(method, set())
    photometric = {"gain", "gamma", "contrast", "brightness", "colour", "grey", "blur", "soft", "noise", "occlusion"}
    assert {name for name in photometric if augment.get(name, 0 if name == "soft" else 1) != 0} == has
    assert augment["outside"] == "black" and augment["border"] == 0


def test_the_regression_of_local_global_begins_at_the_first_rate():
    recipe = Recipe.read("local_global-paper")
    heatmaps, end_to_end = plan(recipe, build("local_global", NARROW["local_global"]).stages())
    assert heatmaps.span.lr_at(0) == end_to_end.span.lr_at(end_to_end.first) == pytest.approx(2.5e-4)
    assert end_to_end.span.lr_at(end_to_end.last - 1) == pytest.approx(5e-5, rel=1e-3)
    assert heatmaps.span.lr_at(int(0.7 * heatmaps.last)) == pytest.approx(2.5e-5)
