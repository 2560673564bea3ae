"""Whatever array and boxes are given, the answer is `Faces` or a `CanthusError`; nothing else, and never a crash."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from photos import aligner, photo

from canthus.errors import BoxError, CanthusError, ImageError
from canthus.face.faces import Faces

SHAPES = st.one_of(
    st.tuples(st.integers(2, 60), st.integers(2, 60), st.sampled_from([1, 3, 4])),
    st.tuples(st.integers(2, 60), st.integers(2, 60)),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
)
IMAGES = st.one_of(
    hnp.arrays(np.uint8, SHAPES),
    hnp.arrays(np.uint16, SHAPES),
    hnp.arrays(np.float32, SHAPES, elements=st.floats(0, 1, width=32)),
    hnp.arrays(hnp.scalar_dtypes(), SHAPES),
)
NUMBERS = st.one_of(st.floats(-5, 70), st.floats(), st.floats(width=32), st.integers(-5, 70), st.integers())
BOXES = st.one_of(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=4),
    st.lists(st.lists(NUMBERS, max_size=5), max_size=3),
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)),
    st.builds(
        lambda x, y, w, h: [x, y, x + w, y + h],
        st.floats(-40, 80), st.floats(-40, 80), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6),
    ),
    st.none() | st.text(max_size=5) | st.booleans() | st.floats(),
    st.dictionaries(st.integers(), st.floats(), max_size=2),
)  # fmt: skip


def check(image: np.ndarray, boxes: Any) -> None:
    """The promise of `predict`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow on the way to a refusal
        try:
            faces = aligner().predict(image, boxes)
        except CanthusError as error:
            assert str(error) and "\n" not in str(error).strip()
            return
    assert isinstance(faces, Faces)
    assert faces.image_size == (image.shape[1], image.shape[0])
    assert np.isfinite(faces.xyz).all() and (faces.sigma >= 0).all()  # 0 in a box of 1e-45 px
    assert ((faces.visible >= 0) & (faces.visible <= 1)).all()
    if boxes is not None:
        assert len(faces) == len(np.reshape(boxes, (-1, 4)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(IMAGES)
def test_any_array(image):
    check(image, None)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(BOXES)
@example([0, 0, 3e38, 3e38])  # the largest that float32 holds
@example([-3e38, -3e38, 3e38, 3e38])
@example([0, 0, 1e-45, 1e-45])  # the smallest
@example([511.4, 511.4, 511.45, 9e9])
@example([[]])
@example(np.zeros((0, 4)))
def test_any_boxes(boxes):
    check(photo(), boxes)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(IMAGES, BOXES)
def test_any_array_with_any_boxes(image, boxes):
    check(image, boxes)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.integers(2, 3000).flatmap(lambda long: st.tuples(st.just(long), st.integers(2, 12))),
    st.booleans(),
    st.integers(0, 255),
)
def test_any_shape_of_a_picture(sides, tall, grey):
    height, width = sides if tall else sides[::-1]
    image = np.full((height, width, 3), grey, np.uint8)
    assert len(aligner().predict(image)) == 0
    assert len(aligner().predict(image, [0, 0, width - 1, height - 1])) == 1


def test_the_kinds_of_refusal():
    for image in (np.zeros((4, 4, 2), np.uint8), np.full((4, 4), np.inf), np.zeros((4, 4), complex), np.array("image")):
        try:
            aligner().predict(image, [0, 0, 3, 3])
        except ImageError:
            continue
        raise AssertionError(f"{image!r} was taken")
    for boxes in ({}, "box", [[1, 2, 3]], [0, 0, np.inf, 1], object()):
        try:
            aligner().predict(photo(), boxes)
        except BoxError:
            continue
        raise AssertionError(f"{boxes!r} was taken")
