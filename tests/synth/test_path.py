"""The renderer that traces light against the rasteriser, in scenes in which both must say the same."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from test_torch_renderer import SIZE, camera, even, square, stored, sun  # noqa: E402

from canthus.cli import app  # noqa: E402
from canthus.errors import CanthusError, RecipeError, pip_install  # noqa: E402
from canthus.synth import render_jobs as shards  # noqa: E402
from canthus.synth import renderer as choice  # noqa: E402
from canthus.synth.generator import SynthGenerator  # noqa: E402
from canthus.synth.light import Environment  # noqa: E402
from canthus.synth.recipe import SynthRecipe  # noqa: E402
from canthus.synth.renderers.path import PathRenderer  # noqa: E402
from canthus.synth.renderers.torch import TorchRenderer  # noqa: E402
from canthus.synth.solids import grid, piece  # noqa: E402

GREY = np.full((4, 3), 0.5)
RECIPE = SynthRecipe(size=64, seed=1)


@pytest.fixture(scope="module")
def renderer():
    pytest.importorskip("mitsuba")
    pytest.importorskip("pyoidn")
    return PathRenderer(TorchRenderer(SIZE, "cpu"))


def both(renderer, pieces, light, view=None, textures=None) -> tuple[np.ndarray, np.ndarray]:
    """What the rasteriser and the tracer draw, colours (N,3) where the scene is."""
    for key, image in (textures or {}).items():
        renderer.texture(key, image)
    renderer.load(pieces)
    a, b = (r.draw(view or camera(), light, 1.0) for r in (renderer.raster, renderer))
    assert np.array_equal(a[..., 3], b[..., 3])
    seen = a[..., 3] > 128
    return a[seen][:, :3].astype(float), b[seen][:, :3].astype(float)


def ball(radius: float = 5.0, colour: float = 0.5):
    polar, turn = np.meshgrid(np.linspace(0, np.pi, 33), np.linspace(0, 2 * np.pi, 64, endpoint=False), indexing="ij")
    out = np.stack([np.sin(polar) * np.sin(turn), np.cos(polar), np.sin(polar) * np.cos(turn)], -1)
    return piece("ball", grid(out * radius, around=True), np.full(3, colour), 0.0)


def lamp_left() -> Environment:
    """Grey all around, and a warm broad lamp."""
    radiance = np.full((64, 128, 3), 0.2)
    radiance[16:36, 20:40] = 5, 3, 1
    return Environment(radiance)


def tiles() -> np.ndarray:
    colours = np.random.default_rng(0).integers(30, 220, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
    return np.dstack([colours, np.full((32, 32), 255)]).astype(np.uint8)


# ---- plain scenes


def test_a_matt_square_in_even_light_is_as_bright_as_it_must_be(renderer):
    _, traced = both(renderer, [square(0, 5, colour=GREY)], even(0.5))
    assert traced.mean() == pytest.approx(stored(0.25), abs=3)
    assert np.percentile(np.abs(traced - stored(0.25)), 95) < 14  # paths are few and the scene is small


def test_a_ball_in_a_white_room_agrees_with_the_rasteriser(renderer):
    light = Environment(np.ones((64, 128, 3))).light(0.3, 0.5)
    flat, traced = both(renderer, [ball()], replace(light, ambient=even(light.exposure).ambient, sun=np.zeros(3)))
    assert abs((traced - flat).mean()) < 4
    assert np.percentile(np.abs(traced - flat), 90) < 12  # all but the outline


def test_a_map_is_turned_and_exposed_as_the_light_says(renderer):
    lights = [lamp_left().light(turn, 0.4) for turn in (0.0, 1.5, 3.0, 4.5)]
    view = camera(25)
    pairs = [both(renderer, [ball()], light, view) for light in lights]
    apart = np.array([[np.abs(traced - flat).mean() for flat, _ in pairs] for _, traced in pairs])
    assert apart.argmin(1).tolist() == [0, 1, 2, 3]
    assert np.diag(apart).max() < 14 and apart[~np.eye(4, dtype=bool)].min() > 1.5 * np.diag(apart).max(), apart


def test_a_texture_lies_where_the_rasteriser_puts_it(renderer):
    look = {"textures": {"tiles": tiles()}}
    for view in (camera(20), replace(camera(-30), centre=np.array([14.0, 31.0]))):
        flat, traced = both(renderer, [square(0, 5, (0.5, 1), texture="tiles")], even(0.8), view, **look)
        assert np.abs(traced - flat).mean() < 12  # mirrored or moved by a tile it is 40 and more
        assert abs((traced - flat).mean()) < 6


def test_colours_of_vertices_multiply_a_texture(renderer):
    colour = np.array([[0.1, 0.5, 0.9], [0.9, 0.5, 0.9], [0.9, 0.5, 0.1], [0.1, 0.5, 0.1]])
    white = {"white": np.full((128, 128, 4), 255, np.uint8)}
    flat, traced = both(renderer, [square(0, 5, colour=colour, texture="white")], even(0.8), textures=white)
    assert np.abs(traced - flat).mean() < 8


def test_painted_shade_is_taken_out(renderer):
    shade = np.array([[0.3], [0.5], [0.7], [0.9]])
    _, traced = both(renderer, [square(0, 5, colour=GREY * shade, shade=shade)], even(0.5))
    assert traced.mean() == pytest.approx(stored(0.25), abs=3)


def test_things_throw_shadows_and_clear_lenses_hardly_any(renderer):
    wall, middle = square(0, 5, colour=GREY), slice(SIZE // 2 - 1, SIZE // 2 + 1)

    def brightness(*things) -> float:
        renderer.load([wall, *things])
        return float(renderer.draw(camera(), sun([1, 0, 1]), 1.0)[middle, middle, :3].mean())

    bare, card = brightness(), square(2, 0.8, (2, 0), "card")  # between the middle of the wall and the lamp
    assert bare == pytest.approx(stored(0.5 * 0.8 / np.sqrt(2)), abs=6)
    assert brightness(replace(card, vertices=card.vertices + [0, 3, 0])) == pytest.approx(bare, abs=12)
    assert brightness(card) < 0.4 * bare
    assert brightness(replace(card, name="lens", alpha=0.1)) == pytest.approx(bare, abs=12)


def test_what_is_cut_out_lets_light_through(renderer):
    holes = np.full((16, 16, 4), 255, np.uint8)
    holes[:, 8:, 3] = 20  # the right half
    renderer.texture("holes", holes)
    wall = square(0, 5, colour=np.tile([0.8, 0.1, 0.1], (4, 1)))
    front = square(1, 4, colour=np.tile([0.1, 0.1, 0.8], (4, 1)), texture="holes", cutout=0.3)
    renderer.load([wall, front])
    picture = renderer.draw(camera(), even(0.6), 1.0)
    left, right = picture[20:28, 16:20, :3].mean((0, 1)), picture[20:28, 28:32, :3].mean((0, 1))
    assert left[2] > 2 * left[0] and right[0] > 2 * right[2]


# ---- faces


def test_a_face_has_the_same_truth_and_nearly_the_same_look(renderer):
    plain, traced = SynthGenerator(None, RECIPE), SynthGenerator(None, RECIPE, "path")
    for index in (0, 5):
        a, b = plain.sample(index), traced.sample(index)
        assert a.keys() == b.keys()
        for key in a.keys() - {"image"}:
            assert np.array_equal(a[key], b[key]), key
        apart = np.abs(a["image"].astype(float) - b["image"]).mean()
        assert 1 < apart < 40
        assert np.corrcoef(a["image"].ravel(), b["image"].ravel())[0, 1] > 0.8
    assert np.array_equal(traced.sample(5)["image"], b["image"])


# ---- folders and errors


def claimed(folder, quality: str) -> None:
    shards._claim(folder, {"recipe": asdict(RECIPE), "layout": "npz", "quality": quality, "heads": "simple"})


def test_a_folder_holds_one_quality(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: object())
    claimed(tmp_path, "raster")
    claimed(tmp_path, "raster")
    assert json.loads((tmp_path / "recipe.json").read_text())["quality"] == "raster"
    with pytest.raises(RecipeError, match="quality differ"):
        claimed(tmp_path, "path")


def test_a_folder_that_says_no_quality_is_of_the_rasteriser(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": asdict(RECIPE), "layout": "npz"}))
    claimed(tmp_path, "raster")


@pytest.mark.parametrize("missing", ["mitsuba", "pyoidn"])
def test_what_is_not_installed_is_one_sentence(missing, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setattr(choice, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(CanthusError, match=f"needs '{missing}'; to get it, run: pip install"):
        SynthGenerator(None, RECIPE, "path")
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["synth", "--quality", "path", "--out", str(out)])
    assert result.exit_code == 2 and not out.exists()
    expected = f"canthus: the quality 'path' needs '{missing}'; to get it, run: {pip_install('path')}"
    assert " ".join(result.output.split()).endswith(expected) and "Traceback" not in result.output


def test_an_unknown_quality_is_refused():
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["synth", "--quality", "best"])
    assert result.exit_code == 2 and "is not one of 'raster', 'path'" in " ".join(result.output.split())
    with pytest.raises(CanthusError, match="none of raster, path"):
        SynthGenerator(None, RECIPE, "best")
