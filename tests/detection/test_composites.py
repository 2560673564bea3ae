"""Composites: truth follows the pixels, and what cannot be seen is not asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from heads_maker import FACE, make_heads, write_heads

from canthus.detection.composites import (
    MINED_FROM,
    Composer,
    CutOut,
    CutOuts,
    FaceTruth,
    _black_edge,
    _camera_effects,
    _Canvas,
    _Placed,
    _sides,
)
from canthus.detection.patterns import pattern, relief, scatter
from canthus.errors import RecipeError
from canthus.synth.light import procedural_environments

PIL = pytest.importorskip("PIL.Image")
NO_TINT = list(range(256)) * 3


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> CutOuts:
    return CutOuts([write_heads(tmp_path_factory.mktemp("heads"))])


@pytest.fixture(scope="module")
def composer(heads) -> Composer:
    return Composer(heads, procedural_environments(2), [np.full((80, 90, 3), 7, np.uint8)], [], 128)


def paste(canvas: _Canvas, placed: _Placed, head: CutOut, wanted: bool = True) -> None:
    cover = np.where(head.region > 0, 255, 0).astype(np.uint8)
    canvas.paste(placed, head.image, cover, head.region == 1, NO_TINT)
    canvas.add(placed, wanted)


def on_black(side: int = 128) -> _Canvas:
    return _Canvas(PIL.new("RGB", (side, side)))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0.0, np.pi / 2, 2.1])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.3])
def test_the_box_lies_around_the_skin(heads, scale, turn, mirrored):
    head, canvas = heads[3], on_black()
    placed = _Placed(head, np.array([70.0, 60.0]), scale, turn, mirrored)
    paste(canvas, placed, head)
    truth = canvas.truth()
    red = np.asarray(canvas.image, int)
    skin = np.abs(red - FACE).sum(-1) < 60
    y, x = np.nonzero(skin)
    seen = np.array([x.min(), y.min(), x.max(), y.max()], float)
    # the skin is the ellipse of which four points of the head mark the ends: at quarter turns both boxes are the same,
    # in between the points span less than the ellipse, at most 1 - 1/sqrt(2) of its axis on each side
    slack = 1.5 if turn != 2.1 else 20 * scale * 0.3 + 1.5
    assert np.abs(truth.box[0] - seen).max() < slack
    np.testing.assert_allclose((truth.box[0, :2] + truth.box[0, 2:]) / 2, [70, 60], atol=6 if turn == 2.1 else 1e-6)


def test_the_upright_square_and_the_upward_axis_turn_with_the_head(heads):
    head = heads[0]
    for turn, mirrored in ((0.0, False), (0.8, False), (-2.5, True)):
        canvas = on_black()
        placed = _Placed(head, np.array([64.0, 64.0]), 0.9, turn, mirrored)
        paste(canvas, placed, head)
        truth = canvas.truth()
        # upright, the points span 36 x 40 px around (47, 50); a picture axis (0, -1) turned by `turn` is (sin, -cos)
        np.testing.assert_allclose(truth.upright[0, 2], 40 * 0.9, rtol=1e-6)
        np.testing.assert_allclose(truth.upright[0, :2], placed.on_canvas(np.array([[47.0, 50.0]]))[0], atol=1e-6)
        np.testing.assert_allclose(truth.up[0], [np.sin(turn), -np.cos(turn)], atol=1e-6)


def test_a_face_behind_another_is_not_asked_for(heads):
    head, canvas = heads[0], on_black()
    for scale in (0.5, 1.2):  # the second covers all of the first
        paste(canvas, _Placed(head, np.array([64.0, 64.0]), scale, 0.0, False), head)
    assert canvas.truth().box.shape == (1, 4)
    canvas = on_black()
    for x in (46.0, 64.0):  # about 180 pixels of the first skin remain: over 0.04 and under 0.2 of 40 x 40
        paste(canvas, _Placed(head, np.array([x, 64.0]), 1.0, 0.0, False), head)
    assert canvas.truth().wanted.tolist() == [False, True]


def test_what_is_drawn_over_a_face_hides_it(heads):
    head, canvas = heads[0], on_black()
    paste(canvas, _Placed(head, np.array([64.0, 64.0]), 1.0, 0.0, False), head)
    canvas.draw([([(0, 0), (127, 0), (127, 127), (0, 127)], (9, 9, 9))])
    assert len(canvas.truth().box) == 0


def test_a_face_of_which_blur_leaves_too_little_is_not_asked_for(heads):
    head, canvas = heads[0], on_black()
    for x, scale in ((30.0, 0.4), (90.0, 0.8)):  # sides of 16 and 32 px; 9 are wanted
        paste(canvas, _Placed(head, np.array([x, 64.0]), scale, 0.0, False), head)
    for sharpness, wanted in ((1.0, [True, True]), (0.5, [False, True]), (0.25, [False, False])):
        assert canvas.truth(sharpness).wanted.tolist() == wanted


def test_camera_effects_say_how_sharp_they_leave_a_picture():
    """Of stripes 2 px wide, what halves the sharpness leaves next to no contrast."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 200
    sharp, blurred = [], []
    for seed in range(200):
        image, sharpness = _camera_effects(np.random.default_rng(seed), PIL.fromarray(stripes))
        assert 0.1 < sharpness <= 1
        contrast = image[8:-8, 8:-8].mean((0, 2)).std() / max(image.mean(), 1)
        (sharp if sharpness == 1 else blurred if sharpness < 0.5 else []).append(contrast)
    assert len(sharp) > 50 and len(blurred) > 10
    assert np.median(blurred) < 0.3 * np.median(sharp)


@pytest.mark.parametrize("draw", [pattern, relief])
def test_patterns_differ_and_come_again(draw):
    one, again, other = (np.asarray(draw(np.random.default_rng(seed), 96)) for seed in (1, 1, 2))
    assert one.shape == (96, 96, 3) and np.array_equal(one, again) and not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(8))
def test_a_relief_is_lit_and_fills_the_square(seed):
    pixels = np.asarray(relief(np.random.default_rng(seed), 96), float).mean(-1)
    assert np.ptp(pixels) > 10
    corners = [pixels[:4, :4], pixels[:4, -4:], pixels[-4:, :4], pixels[-4:, -4:]]
    assert all(corner.max() > 0 for corner in corners)  # none is the black outside a turned square


def test_cloth_covers_the_first_area_and_a_colour_the_second():
    canvas = on_black(32)
    whole, cloth = [(0, 0), (31, 0), (31, 31), (0, 31)], PIL.new("RGB", (32, 32), (1, 2, 3))
    canvas.draw([(whole, cloth), ([(0, 0), (9, 0), (9, 9), (0, 9)], (7, 8, 9))])
    pixels = np.asarray(canvas.image)
    assert tuple(pixels[20, 20]) == (1, 2, 3) and tuple(pixels[5, 5]) == (7, 8, 9)
    canvas.draw([(whole, (9, 9, 9))])
    assert tuple(np.asarray(canvas.image)[5, 5]) == (9, 9, 9)


@pytest.mark.parametrize("seed", range(6))
def test_only_what_is_opaque_of_an_object_is_strewn(tmp_path, seed):
    def strewn(opacity: int) -> np.ndarray:
        PIL.new("RGBA", (40, 20), (255, 255, 0, opacity)).save(tmp_path / "thing.png")
        image = PIL.new("RGB", (96, 96), (0, 0, 255))
        scatter(np.random.default_rng(seed), image, [tmp_path / "thing.png"])
        return np.asarray(image)

    assert (strewn(0) == (0, 0, 255)).all()
    assert (strewn(255) != (0, 0, 255)).any() and np.array_equal(strewn(255), strewn(255))


def test_a_damaged_object_is_told(tmp_path):
    PIL.new("RGBA", (40, 20), (255, 255, 0, 255)).save(tmp_path / "thing.png")
    data = (tmp_path / "thing.png").read_bytes()
    (tmp_path / "thing.png").write_bytes(data[:50])  # its head is whole, its pixels are not
    with pytest.raises(RecipeError, match=r"thing\.png' cannot be read"):
        scatter(np.random.default_rng(0), PIL.new("RGB", (96, 96)), [tmp_path / "thing.png"])


def test_objects_come_into_composites_without_a_face(heads, tmp_path):
    PIL.new("RGBA", (30, 30), (255, 0, 255, 255)).save(tmp_path / "thing.png")
    plain = Composer(heads, procedural_environments(1), [], [], 96)
    strewn = Composer(heads, procedural_environments(1), [], [tmp_path / "thing.png"], 96)

    def coloured(composer: Composer) -> int:
        images = np.stack([composer.compose(2, k)[0] for k in range(40)]).astype(int)
        return int(((images[..., 0] - images[..., 1] > 150) & (images[..., 2] - images[..., 1] > 150)).sum())

    assert coloured(strewn) > 3 * coloured(plain) + 1000
    assert sum(len(strewn.compose(2, k)[1].box) for k in range(40)) > 40


def test_a_face_outside_the_picture_is_not_asked_for(heads):
    head = heads[0]
    for x, wanted in ((-15.0, False), (64.0, True)):
        canvas = on_black()
        paste(canvas, _Placed(head, np.array([x, 64.0]), 1.0, 0.0, False), head)
        assert canvas.truth().wanted.any() == wanted


def test_backs_of_heads_are_no_faces(tmp_path):
    turned = np.tile(np.diag(np.float32([-1, 1, -1])), (12, 1, 1))  # half a turn about the vertical
    heads = CutOuts([write_heads(tmp_path, rotation=turned)])
    assert heads[0].angle == 180
    composer = Composer(heads, procedural_environments(1), [], [], 128)
    assert all(len(composer.compose(0, k)[1].box) == 0 for k in range(6))


def test_a_composite_is_a_function_of_seed_and_number(composer):
    for number in range(4):
        one, two = composer.compose(5, number), composer.compose(5, number)
        assert np.array_equal(one[0], two[0]) and all(np.array_equal(a, b) for a, b in zip(one[1], two[1]))
        assert one[0].shape == (128, 128, 3) and one[0].dtype == np.uint8
    assert not np.array_equal(composer.compose(5, 0)[0], composer.compose(6, 0)[0])


def test_pictures_show_none_to_many_faces(composer):
    counts = [len(composer.compose(1, k)[1].box) for k in range(40)]
    assert min(counts) == 0 and max(counts) > 4


def test_sides_come_from_far_to_near_and_fit_the_picture():
    for count in (0, 1, 3, 20):
        sides = _sides(np.random.default_rng(count), count, 256)
        assert len(sides) == count and sides == sorted(sides) and all(4 < s < 256 * 1.2 for s in sides)


def test_a_black_edge_hides_what_lies_behind_it():
    box = np.array([[10.0, 10, 30, 30], [90, 10, 120, 30], [10, 90, 30, 120]])
    truth = FaceTruth(box, np.zeros((3, 3)), np.zeros((3, 2)), np.ones(3, bool))
    seen = set()
    for seed in range(30):
        image, left = _black_edge(np.random.default_rng(seed), np.full((128, 128, 3), 9, np.uint8), truth)
        dark = (image == 0).all(-1)
        ends = 128 - dark.all(0).sum(), 128 - dark.all(1).sum()  # first black column, first black row
        for face, wanted in zip(left.box, left.wanted):
            inside = [np.clip((end - face[k]) / (face[k + 2] - face[k]), 0, 1) for k, end in enumerate(ends)]
            assert min(inside) > 0 and wanted == (min(inside) > 0.5)
        seen.add((len(left.box), int(left.wanted.sum())))
    assert len(seen) > 1


def test_folders_without_regions_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="regions"):
        CutOuts([tmp_path])
    heads = make_heads()
    del heads["region"]
    from canthus.io.shards import shard_path, write_shard

    write_shard(shard_path(Path(tmp_path), 0), heads, 0, "npz")
    with pytest.raises(RecipeError, match="maps=true"):
        CutOuts([tmp_path])


def test_a_judge_picks_the_hardest_of_the_pictures_without_faces(heads):
    seen = []

    def judge(pictures: np.ndarray) -> np.ndarray:
        seen.append(pictures)
        return pictures.mean((1, 2, 3))

    composer = Composer(heads, procedural_environments(2), [], [], 64, judge)
    picked = []
    for number in range(60):
        known = len(seen)
        image, truth = composer.compose(5, number)
        if len(seen) > known:
            assert len(truth.box) == 0 and len(seen[-1]) == MINED_FROM
            assert image.mean() == max(picture.mean() for picture in seen[-1])
            picked.append(image)
    # 60 pictures, each with a chance of 0.16: one in 35,000 such runs mines none
    assert 0 < len(picked) < 60
