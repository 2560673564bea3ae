"""Answers averaged over views: a stand-in network that sees blobs shows whether each view is brought back rightly."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from photos import BOX, aligner, distance, photo

import canthus
from canthus.errors import WeightsError
from canthus.face.expressions import EXPRESSIONS, mirror_expressions
from canthus.face.faces import Alignment
from canthus.face.landmarks import mirror, scheme
from canthus.geometry.crop import Crop
from canthus.geometry.rotation import geodesic, matrix_from_vector
from canthus.inference.predictor import Predictor
from canthus.inference.views import VIEWS, ManyViews, _mean, _mirrored
from canthus.io.images import crop_image

SIZE = 112
BLINKS = [EXPRESSIONS.index(f"eyeBlink{side}") for side in ("Left", "Right")]


def blobs(*places):
    """A crop (S,S,3) with a blob in each of the three colours at `places` (3,2)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    near = [np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 6.0**2)) for u, v in places]
    return np.rint(255 * np.stack(near, -1)).astype(np.uint8)


class Blobs(Predictor):
    """The head's up axis points to the green blob from between the other two. Points 0 to 7 lie on the one of these on
    the head's right, their mirror points on the other, the rest between; yaw is by how far the axis is from upright on
    the line through both."""

    def __init__(self):
        self.card = aligner().card

    def run(self, crops):
        weights = crops.astype(float)
        grid = np.mgrid[:SIZE, :SIZE][::-1]  # x, y
        red, green, blue = (
            np.stack([(weights[..., k] * g).sum((1, 2)) / weights[..., k].sum((1, 2)) for g in grid], -1)
            for k in range(3)
        )
        middle = (red + blue) / 2
        across, up = blue - red, green - middle
        swapped = (across[:, 0] * up[:, 1] > across[:, 1] * up[:, 0])[:, None]  # as in a mirror
        red, blue = np.where(swapped, blue, red), np.where(swapped, red, blue)
        points = np.repeat(middle[:, None], 68, 1)
        points[:, :8], points[:, scheme("ibug68").mirror[:8]] = red[:, None], blue[:, None]
        across, up = blue - red, green - middle
        roll = np.arctan2(up[:, 0], -up[:, 1])  # clockwise in the picture
        yaw = (across * up).sum(1) / (across**2).sum(1)  # changes its sign in the mirror
        turn = matrix_from_vector(-roll[:, None] * [0, 0, 1]) @ matrix_from_vector(yaw[:, None] * [0, 1, 0])
        expression = np.full((len(crops), len(EXPRESSIONS)), 0.5)
        ways = [np.linalg.norm(side - green, axis=1) for side in (blue, red)]
        expression[:, BLINKS] = np.stack(ways, 1) / SIZE
        expression[:, EXPRESSIONS.index("tongueOut")] = np.nan
        sides = np.where(np.arange(68) < 8, 2.0, 1.0) * np.ones((len(crops), 1))  # less is known of the red one
        sides = np.where(swapped, sides[:, scheme("ibug68").mirror], sides)
        return Alignment(
            np.concatenate([points, np.zeros((len(crops), 68, 1))], -1), sides, sides / 2, turn,
            np.ones((len(crops), 9)), np.ones((len(crops), 3)), None, expression, np.full_like(expression, 0.1),
        )  # fmt: skip


CROPS = np.stack([blobs((30, 60), (48, 28), (84, 52)), blobs((40, 44), (70, 30), (76, 66))])


def mirrored(answer):
    points, other = scheme("ibug68").mirror, mirror_expressions()
    return Alignment(
        mirror(answer.xyz, "ibug68", SIZE), answer.sigma[:, points], answer.visible[:, points],
        np.diag([-1, 1, 1]) @ answer.rotation @ np.diag([-1, 1, 1]), expression=answer.expression[:, other],
        expression_sigma=answer.expression_sigma[:, other],
    )  # fmt: skip


def test_every_view_is_brought_back_to_the_crop():
    # What turns and mirrors with the picture has the same answer from all views, so their mean is that of one view;
    # resampling the blobs leaves some hundredths of a pixel.
    once, often = Blobs().run(CROPS), ManyViews(Blobs()).run(CROPS)
    np.testing.assert_allclose(often.xyz, once.xyz, atol=0.1)
    assert geodesic(often.rotation, once.rotation).max() < np.deg2rad(0.5)
    assert geodesic(often.rotation, np.eye(3)).min() > np.deg2rad(15)  # it would show if a view were left turned
    np.testing.assert_allclose(often.sigma, once.sigma, rtol=0.01)
    np.testing.assert_allclose(often.visible, once.visible)
    np.testing.assert_allclose(often.expression[:, BLINKS], once.expression[:, BLINKS], rtol=0.02)
    assert np.isnan(often.expression[:, EXPRESSIONS.index("tongueOut")]).all()
    assert np.isfinite(often.expression_sigma).all()
    assert often.coefficients is None and often.placement is None  # of a head that was fitted to one view


def test_a_mirrored_picture_has_the_mirrored_answer():
    high = ManyViews(aligner())
    crops = crop_image(photo(), Crop.around_boxes(BOX[None].astype(float), 1.4, SIZE))
    there, back = high.run(crops), mirrored(high.run(np.ascontiguousarray(crops[:, :, ::-1])))
    np.testing.assert_allclose(back.xyz, there.xyz, atol=0.02)  # Pillow rounds the two resamplings to 8 bits
    np.testing.assert_allclose(back.rotation, there.rotation, atol=2e-3)
    np.testing.assert_allclose(back.sigma, there.sigma, rtol=0.02)
    np.testing.assert_allclose(back.visible, there.visible, atol=5e-3)
    np.testing.assert_allclose(back.expression, there.expression, atol=5e-3)
    once = aligner().run(crops)
    other = mirrored(aligner().run(np.ascontiguousarray(crops[:, :, ::-1])))
    assert np.abs(once.xyz - other.xyz).max() > 0.2  # which one view does not


def test_crops_of_a_batch_do_not_know_of_each_other():
    high = ManyViews(aligner())
    boxes = BOX + np.array([[0, 0, 0, 0], [4, -3, 4, -3], [-5, 2, -5, 2]])
    together = high.predict(photo(), boxes)
    for box, face in zip(boxes, together):
        alone = high.predict(photo(), box)
        np.testing.assert_allclose(alone.xyz, face.xyz, atol=1e-3)
        np.testing.assert_allclose(alone.sigma, face.sigma, rtol=1e-3)
        np.testing.assert_allclose(alone.expression, face.expression, atol=1e-4)
    assert len(high.predict(photo(), [])) == 0


def test_the_answer_is_the_mean_of_four():
    crops = crop_image(photo(), Crop.around_boxes(BOX[None].astype(float), 1.4, SIZE))
    xyz = []
    for angle, flip in VIEWS:  # one after the other, as a plain twin
        view = Crop(np.full((1, 2), 55.5), np.array([112.0]), np.array([angle]), SIZE)
        seen = crop_image(crops[0], view)
        answer = aligner().run(np.ascontiguousarray(seen[:, :, ::-1]) if flip else seen)
        xyz.append(view.image_from_crop(mirror(answer.xyz, "ibug68", SIZE) if flip else answer.xyz))
    np.testing.assert_allclose(ManyViews(aligner()).run(crops).xyz, np.mean(xyz, 0), atol=1e-3)
    assert {(-angle, not flip) for angle, flip in VIEWS} == set(VIEWS)  # what a mirrored picture needs


def test_sigma_is_that_of_a_mean():
    # Two views of one point, 2 px apart along x, sigma 2: variance around the mean 1 along x and 0 along y, so
    # 1/2 an axis; 4 - 1/2 is left. The second point's views are 12 px apart, variance 18 an axis: a quarter of 4 stays.
    answers = [Alignment(np.array([[[x, 0, 0], [6 * x, 0, 0]]]), np.array([[2.0, 2.0]])) for x in (-1.0, 1.0)]
    np.testing.assert_allclose(_mean(answers).sigma, [[np.sqrt(3.5), 1.0]])
    assert _mean([replace(a, sigma=None) for a in answers]).sigma is None


def test_high_accuracy_is_one_option():
    high = canthus.load(accuracy="high", threads=1)
    faces, once = high.predict(photo()), aligner().predict(photo())
    assert len(faces) == 1 and distance(faces.xy[0], once.xy[0]) < 0.02
    assert faces.weights == f"{once.weights} high" != once.weights  # --resume tells them apart by it
    again = pickle.loads(pickle.dumps(high)).predict(photo())
    np.testing.assert_array_equal(again.xyz, faces.xyz)
    with pytest.raises(WeightsError, match=r"got the accuracy 'best', want 'normal' or 'high'"):
        canthus.load(accuracy="best")


def test_scores_and_deviations_of_a_mirrored_view_are_mirrored():
    scores, values = np.arange(68.0)[None], np.arange(52.0)[None] / 52
    answer = Alignment(np.zeros((1, 68, 3)), score=scores, expression=values, expression_sigma=values)
    mirrored = _mirrored(answer, 112, "ibug68")
    np.testing.assert_array_equal(mirrored.score[0], scheme("ibug68").mirror)
    left, right = (EXPRESSIONS.index(f"eyeBlink{side}") for side in ("Left", "Right"))
    assert mirrored.expression_sigma[0, left] == values[0, right]
