"""Crops: the pixel rules by hand, there and back, and the check of boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from canthus.errors import BoxError, CanthusError
from canthus.geometry.crop import Crop, as_boxes, box_centres, box_overlaps, box_sizes, tight_boxes


def random_crop(xp, count=5, seed=0):
    rng = np.random.default_rng(seed)
    center, side = xp(rng.uniform(0, 2000, (count, 2))), xp(rng.uniform(20, 3000, count))
    return Crop(center, side, xp(rng.uniform(-np.pi, np.pi, count)), 256)


def test_rule_by_hand(xp):
    # Box 40 x 80 around (50, 100); side 1.25 * 80 = 100 px to 200 px: zoom 2, the centre at 99.5.
    crop = Crop.around_boxes(xp([[30, 60, 70, 140]]), scale=1.25, size=200)
    np.testing.assert_allclose(crop.side, [100])
    got = crop.crop_from_image(xp([[[50, 100, 0], [51, 99, 3], [0, 50, -1], [100, 150, 1]]]))
    # The crop's borders, 50 px from the centre, fall on -0.5 and 199.5.
    want = [[[99.5, 99.5, 0], [101.5, 97.5, 6], [-0.5, -0.5, -2], [199.5, 199.5, 2]]]
    np.testing.assert_allclose(got, want)


def test_angle_turns_from_x_towards_y(xp):
    # The crop's x axis points down in the image (90 degrees): a point below the centre is to its right in the
    # crop, and a point to the right of the centre is above it.
    crop = Crop(xp([[10, 10]]), xp([101]), xp([np.pi / 2]), 101)
    np.testing.assert_allclose(crop.crop_from_image(xp([[[10, 13], [14, 10]]])), [[[53, 50], [50, 46]]])


def test_around_boxes_takes_one_angle_or_one_each(xp):
    boxes = xp([[0, 0, 10, 10], [5, 5, 25, 10]])
    np.testing.assert_allclose(Crop.around_boxes(boxes, 1.0, 64, 0.5).angle, [0.5, 0.5])
    np.testing.assert_allclose(Crop.around_boxes(boxes, 1.0, 64, xp([0.1, 0.2])).angle, [0.1, 0.2])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_there_and_back(xp, dimensions):
    crop, points = random_crop(xp), xp(np.random.default_rng(1).uniform(-500, 2500, (5, 9, dimensions)))
    there = crop.crop_from_image(points)
    assert tuple(there.shape) == (5, 9, dimensions)
    np.testing.assert_allclose(crop.image_from_crop(there), points, atol=1e-9)


def test_float32_is_good_to_a_thousandth_of_a_pixel():
    crop64 = random_crop(np.asarray)
    crop = Crop(*(field.astype(np.float32) for field in (crop64.center, crop64.side, crop64.angle)), 256)
    points = np.random.default_rng(2).uniform(0, 2000, (5, 50, 2)).astype(np.float32)
    back = crop.image_from_crop(crop.crop_from_image(points))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, points, atol=1e-3)


def test_the_matrix_says_the_same_as_the_method(xp):
    crop, points = random_crop(xp), xp(np.random.default_rng(3).uniform(0, 2000, (5, 9, 2)))
    homogeneous = np.concatenate([np.asarray(points), np.ones((5, 9, 1))], axis=-1)
    by_matrix = homogeneous @ np.asarray(crop.affine_image_from_crop()).transpose(0, 2, 1)
    np.testing.assert_allclose(crop.image_from_crop(points), by_matrix, atol=1e-8)


def test_part_of_a_batch_moves_points_as_before(xp):
    crop, points = random_crop(xp), xp(np.random.default_rng(2).uniform(0, 500, (5, 7, 3)))
    whole = crop.crop_from_image(points)
    for part in (slice(2, 4), [3, 0], slice(5, 5)):
        np.testing.assert_array_equal(crop[part].crop_from_image(points[part]), whole[part])


def test_flip_and_stride_are_unbiased(xp):
    # A mirrored image has x' = W - 1 - x; the crop of the mirrored box is the mirrored crop, u' = R - 1 - u.
    box, width, point = np.array([[30.0, 60, 70, 140]]), 500, np.array([[[41.0, 77.0]]])
    mirrored = np.array([[width - 1 - 70.0, 60, width - 1 - 30.0, 140]])
    u = Crop.around_boxes(xp(box), 1.3, 128).crop_from_image(xp(point))
    v = Crop.around_boxes(xp(mirrored), 1.3, 128).crop_from_image(xp([width - 1, 0] + [-1, 1] * point))
    np.testing.assert_allclose(v[..., 0], 127 - u[..., 0])
    # A crop of a quarter of the size is the same square seen with stride 4.
    coarse = Crop.around_boxes(xp(box), 1.3, 32).crop_from_image(xp(point))
    np.testing.assert_allclose(coarse, (u + 0.5) / 4 - 0.5)


def test_gradients():
    torch = pytest.importorskip("torch")
    crop = random_crop(torch.as_tensor, 2)
    fields = [field.requires_grad_() for field in (crop.center, crop.side, crop.angle)]
    points = torch.as_tensor(np.random.default_rng(4).uniform(0, 500, (2, 4, 3))).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, *f: Crop(*f, 64).crop_from_image(p), (points, *fields))
    assert torch.autograd.gradcheck(lambda p, *f: Crop(*f, 64).image_from_crop(p), (points, *fields))


def test_the_box_of_points_its_centre_and_size(xp):
    boxes = tight_boxes(xp([[[1, 7, 9], [3, 2, -9], [9, 20, 0]]]))
    np.testing.assert_array_equal(boxes, [[1, 2, 9, 20]])
    np.testing.assert_array_equal(box_centres(boxes), [[5, 11]])
    np.testing.assert_array_equal(box_sizes(boxes), [12])  # sqrt(8 * 18)


def test_overlaps_by_hand(xp):
    # (0,0,2,2) and (1,0,3,2) share 2 of 6; touching boxes share nothing, nor do boxes that are inside out
    boxes = xp(np.array([[1, 0, 3, 2.0], [0, 0, 2, 2], [2, 0, 4, 2], [9, 9, 10, 10], [2, 2, 0, 0]]))
    np.testing.assert_allclose(box_overlaps(xp(np.array([[0, 0, 2, 2.0]])), boxes), [[1 / 3, 1, 0, 0, 0]])
    assert box_overlaps(boxes[:0], boxes).shape == (0, 5)


def test_boxes_come_as_one_or_many():
    one = as_boxes((10, 20, 30, 40), image_size=(100, 100))
    assert one.dtype == np.float32 and one.tolist() == [[10, 20, 30, 40]]
    assert as_boxes(np.zeros((0, 4)), (100, 100)).shape == (0, 4)
    assert as_boxes([], (100, 100)).shape == (0, 4)
    assert as_boxes(np.ma.masked_array([10, 20, 30, 40]), (100, 100)).tolist() == one.tolist()  # nothing is masked
    over_the_edge = [[-20, -20, 300, 300], [99, 99, 200, 200]]
    assert as_boxes(over_the_edge, (100, 100)).tolist() == over_the_edge


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3], r"shape \(3,\), want numbers \(4,\) or \(B, 4\)"),
        (np.zeros((2, 2, 4)), "shape"),
        (5, "shape"),
        ([[1, 2, 3], [1, 2, 3, 4]], "not an array"),
        (["a", "b", "c", "d"], "type"),
        (None, "type object"),
        ([True, False, True, True], "type bool"),
        ([10, 20, np.nan, 40], "finite"),
        ([10, 20, np.inf, 40], "finite"),
        ([10, 20, 1e300, 40], "finite"),  # infinite in float32
        ([30, 20, 10, 40], "want x0 < x1"),
        ([10, 20, 30, 20], "want x0 < x1"),
        ([10, 20, 20, 20], "want x0 < x1"),  # what (x, y, width, height) often looks like
        ([99.5, 0, 120, 10], "overlaps the 100 x 80 px image"),
        ([0, 79.5, 10, 90], "overlaps"),
        ([-20, 0, -0.5, 10], "overlaps"),
        ([0, 0, 1001, 10], "at most 10 times the size of the 100 x 80 px image"),
        ([-1e20, -1e20, 1e20, 1e20], "at most 10 times"),
        (np.ma.masked_equal([10, 20, 30, 40], 20), "masked"),
    ],
)
def test_bad_boxes_are_refused_with_a_sentence(boxes, message):
    with pytest.raises(BoxError, match=message):
        as_boxes(boxes, image_size=(100, 80))


@settings(deadline=None)
@given(
    st.one_of(
        hnp.arrays(hnp.array_dtypes(max_size=2) | hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_side=5)),
        hnp.arrays(np.float64, st.sampled_from([(4,), (3, 4)]), elements=st.floats(allow_nan=True)),
        hnp.arrays(np.float64, st.sampled_from([(4,), (1, 4)]), elements=st.floats(-100, 700)),
        st.lists(st.integers() | st.floats() | st.text(max_size=3) | st.none(), max_size=5),
    )
)
def test_any_boxes_are_either_good_or_refused(boxes):
    try:
        result = as_boxes(boxes, image_size=(640, 480))
    except CanthusError:
        return
    assert result.dtype == np.float32 and result.ndim == 2 and result.shape[1] == 4
    assert np.isfinite(result).all()
    assert (result[:, 2:] > result[:, :2]).all() and (result[:, :2] < [639.5, 479.5]).all()


# From points


def test_around_points_is_around_their_box_along_the_crops_axes(xp):
    points = np.random.default_rng(3).uniform(0, 300, (4, 20, 2))
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    flat, plain = Crop.around_points(xp(points), 1.4, 64, xp(np.zeros(4))), Crop.around_boxes(xp(boxes), 1.4, 64)
    np.testing.assert_allclose(flat.center, plain.center)
    np.testing.assert_allclose(flat.side, plain.side)
    crop = Crop.around_points(xp(points), 1.25, 81, xp(np.linspace(-3, 3, 4)))
    inside = np.asarray(crop.crop_from_image(xp(points)))
    np.testing.assert_allclose(inside.min(1) + inside.max(1), np.full((4, 2), 80.0))  # in the middle, (81 - 1) / 2
    np.testing.assert_allclose(np.ptp(inside, axis=1).max(1), 81 / 1.25)


def test_around_shapes_lays_moved_copies_of_the_mean_shape_on_it(xp):
    rng = np.random.default_rng(4)
    mean, crop = rng.uniform(-0.4, 0.4, (12, 2)), random_crop(xp, 5)
    points = crop.image_from_crop(xp(np.tile(256 * mean + 127.5, (5, 1, 1))))
    got = Crop.around_shapes(points, xp(mean), 256)
    for name in ("center", "side", "angle"):
        np.testing.assert_allclose(getattr(got, name), getattr(crop, name))
