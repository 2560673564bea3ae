"""Recipes of pictures: each trait has its share, and changing one changes nothing else."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from rendering import make_generator, with_recipe

from canthus.errors import RecipeError
from canthus.face.expressions import ICT_EXPRESSIONS
from canthus.synth.person import sample_expression
from canthus.synth.recipe import NOT_SHARES, RandomStreams, SynthRecipe

HEAD_SHARES = {"blended_skins", "tones", "pigment", "wrinkles", "blemishes", "hair", "hair_cuts", "grey_hair",
               "dyed_hair", "mixed_brows", "beard", "make_up", "freckles", "moles", "glasses", "headwear", "hands",
               "objects", "masks", "scarves"}  # fmt: skip
FACE_SHARES = {"expressions", "extremes", "closed_eyes", "half_closed", "winks", "squints"}
VIEW_SHARES = {"hdri", "environment_backdrop", "clutter_backdrop", "tone", "cast", "low_resolution", "blur", "motion",
               "noise", "jpeg"}  # fmt: skip


def test_a_name_has_its_own_stream():
    streams = RandomStreams(3, 7)
    assert streams.generator("hair").random() == RandomStreams(3, 7).generator("hair").random()
    others = RandomStreams(3, 8), RandomStreams(4, 7), streams.child(0), streams.child(1)
    numbers = {s.generator(n).random() for s in (streams, *others) for n in ("a", "b")}
    assert len(numbers) == 10


def test_a_share_is_a_share_and_grows():
    few, many = ({k for k in range(2000) if RandomStreams(0, k).maybe("cap", share)} for share in (0.1, 0.4))
    assert abs(len(few) / 2000 - 0.1) < 0.03 and abs(len(many) / 2000 - 0.4) < 0.04
    assert few < many
    assert not any(RandomStreams(0, k).maybe("cap", 0.0) for k in range(100))
    assert all(RandomStreams(0, k).maybe("cap", 1.0) for k in range(100))


def test_every_key_is_known_to_be_a_share_or_not():
    shares = {f.name for f in fields(SynthRecipe)} - set(NOT_SHARES)
    assert shares == HEAD_SHARES | FACE_SHARES | VIEW_SHARES | {"frontal_share", "own_expressions"}


def test_the_default_is_flat_in_yaw():
    recipe = SynthRecipe()
    assert recipe.yaw == 100 and recipe.frontal_share == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"glases": 0.1}, "'glases'; 'glasses'?"),
        ({"hair": 1.2}, "`hair` is 1.2; a share 0..1"),
        ({"hair": "often"}, "`hair` is 'often'"),
        ({"size": 100.5}, "`size` is 100.5"),
        ({"size": 8}, "size 8"),
        ({"dense": 1}, "`dense` is 1"),
        ({"environment_backdrop": 0.7, "clutter_backdrop": 0.6}, "sum to more than 1"),
    ],
)
def test_what_makes_no_sense_is_refused(values, said):
    with pytest.raises(RecipeError) as error:
        SynthRecipe.read(None, **values)
    assert said in str(error.value)


def test_a_file_holds_what_differs(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text("size: 96\nglasses: 0\nmaps: true\n")
    assert SynthRecipe.read(path, seed=4) == SynthRecipe(size=96, glasses=0, maps=True, seed=4)
    path.write_text("- 1")
    with pytest.raises(RecipeError, match="no mapping|not a mapping"):
        SynthRecipe.read(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        SynthRecipe.read(tmp_path / "none.yaml")


def test_changes_are_read_from_text():
    assert SynthRecipe.parse(["glasses=0.5", "size=64", "dense=true"]) == {"glasses": 0.5, "size": 64, "dense": True}
    for wrong in ("glasses", "size=big", "dense=1"):
        with pytest.raises(RecipeError, match="KEY=VALUE is wanted"):
            SynthRecipe.parse([wrong])


# ---- ablations


@pytest.fixture(scope="module")
def generator():
    return make_generator()


def sample(generator, **changes) -> dict[str, np.ndarray]:
    return with_recipe(generator, **changes).sample(9)


@pytest.mark.parametrize("key", sorted(HEAD_SHARES | VIEW_SHARES))
def test_a_share_changes_the_picture_and_nothing_else(generator, key):
    other = {"environment_backdrop": {"clutter_backdrop": 0.0}, "clutter_backdrop": {"environment_backdrop": 0.0},
             "mixed_brows": {"hair": 0.0, "yaw": 20.0}}  # fmt: skip
    without, with_it = (sample(generator, **{key: share}, **other.get(key, {})) for share in (0.0, 1.0))
    assert not np.array_equal(without["image"], with_it["image"])
    for name in ("xyz", "contour", "head", "rotation", "camera", "identity", "expression"):
        np.testing.assert_array_equal(without[name], with_it[name], err_msg=name)


@pytest.mark.parametrize("key", sorted(FACE_SHARES))
def test_a_share_of_faces_changes_the_expression_and_not_the_person(generator, key):
    without, with_it = (sample(generator, **{"winks": 0.0, "closed_eyes": 0.0, key: share}) for share in (0.0, 1.0))
    assert not np.array_equal(without["expression"], with_it["expression"])
    np.testing.assert_array_equal(without["identity"], with_it["identity"])


def test_extremes_reach_every_unit_and_its_end():
    """One to three of 29 units, each up to 1: 600 faces move every unit far, and lips close on an open jaw alone."""
    recipe = SynthRecipe(expressions=0, extremes=1, closed_eyes=0, half_closed=0, winks=0, squints=0)
    drawn = np.array([sample_expression(RandomStreams(2, k), list(ICT_EXPRESSIONS), recipe) for k in range(600)])
    still = [n.startswith(("eyeLook", "eyeBlink", "Pupil")) for n in ICT_EXPRESSIONS]
    moved = drawn[:, ~np.array(still)]
    assert (moved.max(0) > 0.8).all() and moved.max() <= 1
    sided = [ICT_EXPRESSIONS.index(f"cheekPuff_{side}") for side in "LR"]
    left, right = drawn[:, sided].T
    assert ((left > 0) & (left == right)).any() and ((left > 0) & (right == 0)).any()
    jaw, close = (drawn[:, ICT_EXPRESSIONS.index(name)] for name in ("jawOpen", "mouthClose"))
    assert (close > 0).any() and (jaw >= close).all()


def test_own_expressions_move_one_person_otherwise_in_every_view(generator):
    """The expression of a view is its own for the share of the views alone, and with it the points of the head."""
    for share, expressions in ((0.0, 1), (1.0, 4)):
        group = with_recipe(generator, own_expressions=share, expressions=1.0).group(3)
        assert len(np.unique(group["identity"], axis=0)) == 1
        assert len(np.unique(group["expression"], axis=0)) == len(np.unique(group["head"], axis=0)) == expressions
    some = [with_recipe(generator, own_expressions=0.5).group(k)["expression"] for k in range(3)]
    assert {len(np.unique(e, axis=0)) for e in some} - {1, 4}


def test_stored_extras_change_no_picture(generator):
    plain, rich = sample(generator), sample(generator, dense=True, maps=True)
    assert set(rich) - set(plain) == {"vertices", "region", "depth"}
    for name, values in plain.items():
        np.testing.assert_array_equal(values, rich[name], err_msg=name)


def test_yaw_is_flat_over_its_range(generator):
    from canthus.synth.generator import sample_camera

    points = generator.assets.landmarks(generator.assets.mean)
    turn = [sample_camera(RandomStreams(0, k), generator.recipe, points).rotation for k in range(600)]
    # About the vertical of the head: R = Rz Rx Ry, whose last row is cos(pitch) (-sin yaw, ., cos yaw).
    yaw = np.degrees([np.arctan2(-r[2, 0], r[2, 2]) for r in turn])
    counts = np.histogram(yaw, np.linspace(-100, 100, 6))[0]
    assert counts.sum() == 600 and counts.min() > 80  # 120 each, give or take 4 standard deviations
