"""Recipes: every shipped one can be run, and a wrong one is refused with a sentence that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from mutations import nested  # noqa: E402

import canthus  # noqa: E402
from canthus.errors import CanthusError, RecipeError, WeightsError  # noqa: E402
from canthus.training.aligner import build  # noqa: E402
from canthus.training.recipe import Recipe  # noqa: E402
from canthus.training.schedule import plan  # noqa: E402

RECIPES = sorted((Path(canthus.__file__).parent / "recipes").glob("*.yaml"))


@pytest.fixture
def read(tmp_path):
    """A function that reads a recipe from its text."""

    def recipe(text: str, **overrides) -> Recipe:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return Recipe.read(path, **overrides)

    return recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_shipped_recipe_is_whole(path):
    recipe = Recipe.read(path)
    aligner = build(recipe.method, recipe.config)
    assert {name for stage in aligner.stages() for name in stage.terms}
    assert plan(recipe, aligner.stages())
    assert recipe.steps >= recipe.warmup_steps


def test_there_are_recipes():
    assert "swift" in {path.stem for path in RECIPES}


def test_what_a_recipe_does_not_say_is_the_default(read):
    recipe = read("faces: [data/a, data/b]\nsteps: 7\nlr: 2.0e-3")
    assert recipe == Recipe(faces=("data/a", "data/b"), steps=7, lr=2e-3)


def test_overrides_replace_what_the_file_says(read):
    recipe = read("faces: [data/a]\nsteps: 7", faces=["b"])
    assert recipe.faces == ("b",) and recipe.steps == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 5\nsteps: 6", "has the key `steps` twice"),
        ("seed: 1.0e+30", r"`seed` is 1e\+30"),
        ("stepz: 5", r"mine\.yaml.*'stepz'; 'steps'\?"),
        ("augment: {scal: 0}", r"`augment`.*'scal'; 'scale'\?"),
        ("config: {withs: [8]}", r"`config`.*'withs'; 'widths'\?"),
        ("xyzzy: 5", r"mine\.yaml.*'xyzzy'$"),
        ("stages: {regression: {shar: 1.0}}", r"`stages\.regression`.*'shar'; 'share'\?"),
    ],
)
def test_an_unknown_key_names_the_nearest(read, text, said):
    with pytest.raises(RecipeError, match=said):
        read(f"faces: [a]\n{text}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 5", "`faces`"),
        ("faces: []", "`faces`"),
        ("faces: {}", "`faces`"),
        ("faces: {a: 0}", "weight of `faces` 'a' is 0"),
        ("faces: {a: }", "weight of `faces` 'a' is None"),
        ("faces: [a]\noptimizer: adamm", "`optimizer` is 'adamm'; one of adamw, adam, rmsprop, sgd"),
        ("faces: [a]\nschedule: cosin", "`schedule` is 'cosin'"),
        ("faces: [a]\nlr_milestones: [0.5, 2]", "`lr_milestones`"),
        ("faces: [a]\nfinal_lr_ratio: 1.5", "`final_lr_ratio` is 1.5; 0 to 1"),
        ("faces: [a]\nsteps: 10.5", "whole number"),
        ("faces: [a]\nstages: [head]", "`stages`"),
        ("faces: [a]\nstages: {head: 3}", r"`stages\.head` is 3"),
        ("faces: [a]\nstages: {head: {lr: 1e-3}}", r"`stages\.head\.lr` is '1e-3'"),
        ("faces: [a]\nstages: {head: {batch: 0}}", r"`stages\.head\.batch` is 0"),
        ("faces: [a]\nstages: {head: {optimizer: no}}", r"`stages\.head\.optimizer` is False"),
        ("faces: [a]\naugment: 3", "`augment` is 3"),
        ("faces: [a]\nsteps: 0", "`steps` is 0"),
        ("faces: [a]\nbatch: -1", "`batch` is -1"),
        ("faces: [a]\nsave_every: 0", "`save_every` is 0"),
        ("faces: [a]\nlr: 2e-3", r"`lr` is '2e-3'.*2\.0e-3"),  # text by the rules of YAML 1.1
        ("faces: [a]\nsteps: many", "`steps` is 'many'"),
        ("- a list", "not a mapping"),
        ("faces: [a", "cannot be read"),
        ("faces: [a]\nsteps: .nan", "number nan"),
        ("faces: [a]\nsteps: .inf", "number inf"),
        ("faces: [a]\nlr: true", "`lr` is True; a number"),
        ("faces: [a]\nfloat32: 1", "`float32` is 1; true or false"),
        ("faces: [a]\ntensorboard: 'no'", "`tensorboard` is 'no'; true or false"),
        ("faces: 3", "`faces` is 3"),
        ("faces: [[a], b]", "`faces`"),
        ("faces: {1: 2}", "`faces`"),
        ("faces: {a: true}", "weight of `faces` 'a' is True"),
        ("faces: [a]\nmethod: 3", "`method` is 3; text"),
        ("faces: [a]\nweights: [b]", "`weights` is"),
        ("faces: [a]\noptimizer: [sgd]", "`optimizer` is"),
        ("faces: [a]\naugment: {scale: much}", r"`augment\.scale` is 'much'; float"),
        ("faces: [a]\naugment: {flip: 3}", r"`augment\.flip` is 3; 0 to 1"),
        ("faces: [a]\naugment: {rotation: -5}", r"`augment\.rotation` is -5; zero or more"),
        ("faces: [a]\nconfig: {widths: [8, x]}", r"`config\.widths` is \[8, 'x'\]; tuple\[int"),
        ("a: &x [1]\nb: *x", "anchor or an alias"),
        ("&x a: 3", "anchor or an alias"),
        (nested(100_000), "nested deeper than 16"),
        (nested(17), "nested deeper than 16"),
        ("steps: 1 # " + "x" * 300_000, "at most 262144"),
        ("steps: !!python/object/apply:os.getcwd []", "cannot be read"),
        ("steps: 2001-99-99", "month must be in"),
        ("1: 2", "not a mapping"),
    ],
)
def test_what_makes_no_sense_is_refused(read, text, said):
    with pytest.raises(RecipeError, match=said):
        read(text)


@pytest.mark.parametrize(
    ("text", "faces"),
    [
        ("data/a", ("data/a",)),
        ("synth:assets", ("synth:assets",)),
        ("{a: 2, 'synth:b': 0.5}", {"a": 2, "synth:b": 0.5}),
    ],
)
def test_faces_are_one_source_a_list_or_weights(read, text, faces):
    assert read(f"faces: {text}").faces == faces


def test_changes_reach_nested_keys_and_leave_the_rest(read):
    recipe = read(
        "faces: [a]\naugment: {scale: 0.3, rotation: 5.0}",
        changes=["lr=1e-3", "augment.scale=0.2", "faces=[b, c]", "stages.regression.optimizer=sgd"],
    )
    assert recipe.lr == 1e-3 and recipe.augment == {"scale": 0.2, "rotation": 5.0} and recipe.faces == ("b", "c")
    assert recipe.stages == {"regression": {"optimizer": "sgd"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lr", "key=value"),
        ("lr.zoom=3", "`lr` is 0.5 and has no keys"),
        ("=3", "key=value"),
        ("lr=[1", "cannot be read"),
        ("stps=3", "'steps'"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(read, change, said):
    with pytest.raises(RecipeError, match=said):
        read("faces: [a]\nlr: 0.5", changes=[change])


@pytest.mark.parametrize("changes", [[], ["config.z_maps=true"]])
def test_true_is_a_word_where_a_word_is_wanted(read, changes):
    config = "" if changes else "config: {z_maps: true}\n"
    assert read(f"faces: [a]\nmethod: part_heatmap\n{config}", changes=changes).config == {"z_maps": "true"}
    assert read("faces: [a]\nmethod: cprfa\nconfig: {known: true}").config == {"known": True}


@pytest.mark.parametrize("folder", ["2024", "true", "1e3", "runs/swift"])
def test_a_change_of_text_stays_as_it_is_written(read, folder):
    assert read("faces: [a]", changes=[f"weights={folder}"]).weights == folder


def test_a_method_that_is_not_there_is_refused(read):
    with pytest.raises(WeightsError, match=r"no method 'swft'"):
        read("faces: [a]\nmethod: swft")


@pytest.mark.parametrize("method", ["../swift", "cprfa.updates", "", "?"])
def test_a_method_is_a_plain_name(read, method):
    with pytest.raises(WeightsError, match="no method"):
        read(f"faces: [a]\nmethod: {method!r}")


@pytest.mark.parametrize("size", [8, 10**6, 64.5, "64", True])
def test_a_size_that_no_network_has_is_refused_before_one_is_built(size):
    with pytest.raises(RecipeError, match=f"`size` is {size!r}"):
        build("swift", {"size": size})


def test_a_bomb_of_aliases_is_refused_at_once(read):
    # each line holds the one before ten times: ten to the ninth values
    lines = ["a0: &a0 [1]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10)]
    with pytest.raises(RecipeError, match="anchor or an alias"):
        read("\n".join(lines))


def test_numbers_from_python_are_checked_as_those_of_a_file():
    for steps in (float("nan"), float("inf"), True, "10"):
        with pytest.raises(RecipeError, match="`steps`"):
            Recipe(faces=("a",), steps=steps)


def test_a_recipe_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CanthusError, match=r"nowhere\.yaml"):
        Recipe.read(tmp_path / "nowhere.yaml")
