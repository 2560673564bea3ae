"""Measuring on AFLW2000-3D: predictors whose errors are known give the numbers that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_face import face
from PIL import Image

scipy_io = pytest.importorskip("scipy.io")

from canthus.card import Card  # noqa: E402
from canthus.crop import Crop  # noqa: E402
from canthus.data.formats import FaceSample, read_300wlp  # noqa: E402
from canthus.evaluate import evaluate_aflw2000  # noqa: E402
from canthus.faces import Alignment  # noqa: E402
from canthus.geometry.rotation import matrix_from_euler  # noqa: E402
from canthus.inference import Predictor  # noqa: E402

YAWS = (5.0, -29.0, 31.0, -45.0, 75.0, -88.0)  # two a bin, degrees


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six pictures of `face` under `YAWS`, 120 px wide or high, in the layout of AFLW2000-3D."""
    for k, yaw in enumerate(YAWS):
        pose = np.deg2rad([3.0, yaw, -4.0])
        points = (face() * [1, -1, 1]) @ matrix_from_euler(pose, "aflw").T * [1, -1, 1]
        points *= 120 / np.ptp(points[:, :2], axis=0).max()
        Image.new("RGB", (260, 240), (90, 90, 90)).save(tmp_path / f"image{k:05d}.jpg")
        mat = {"pt3d_68": (points + [131, 121, 50]).T, "Pose_Para": np.array([[*pose, 0, 0, 0, 1]])}
        scipy_io.savemat(tmp_path / f"image{k:05d}.mat", mat)
    return tmp_path


class Oracle(Predictor):
    """Knows the truth and says it, in the pixels of the crop that it is given, after `change`d it."""

    def __init__(self, folder: Path, change: Callable[[int, np.ndarray], np.ndarray], turn: float = 0.0):
        self.card = Card("oracle", "1", "none", 112, 1.4, "", False, "", "", "")
        self.rest = list(enumerate(read_300wlp(folder)))[::-1]
        self.change = change
        self.extra = matrix_from_euler(np.array([0, np.deg2rad(turn), 0]), "aflw")

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`; the faces come in their order, one at a time."""
        assert crops.shape == (1, 112, 112, 3)
        number, sample = self.rest.pop()
        xy = sample.xyz[:, :2]
        crop = Crop.around_boxes(np.array([[*xy.min(0), *xy.max(0)]], np.float64), 1.4, 112)
        xyz = crop.crop_from_image(self.change(number, sample.xyz)[None])
        rotation = (sample.rotation @ self.extra)[None]
        return Alignment(xyz, np.full((1, 68), 2.0) * crop.zoom, np.ones((1, 68)), rotation)


def samples(folder: Path) -> list[FaceSample]:
    return list(read_300wlp(folder))


def test_the_truth_has_no_error(folder):
    result = evaluate_aflw2000(Oracle(folder, lambda _, xyz: xyz), folder)
    assert result.nme == pytest.approx(np.zeros(6), abs=1e-6)
    assert result.gte == pytest.approx(np.zeros(6), abs=1e-6)
    assert result.distance == pytest.approx(np.zeros((6, 68)), abs=1e-5)
    assert result.pose_error == pytest.approx(np.zeros(6), abs=1e-3)
    assert result.yaw == pytest.approx(YAWS)


def test_a_known_shift_gives_the_error_that_follows_from_it(folder):
    result = evaluate_aflw2000(Oracle(folder, lambda _, xyz: xyz + [3, 4, 7]), folder)
    for k, sample in enumerate(samples(folder)):
        # Every point is off by (3, 4), 5 px in the plane; the shift in z has no meaning and does not count. NME is
        # 5 / sqrt(w h) of the true box, GTE is 5 / the 3D distance of the outer eye corners, 36 and 45.
        width, height = np.ptp(sample.xyz[:, :2], axis=0)
        eyes = np.sqrt(((sample.xyz[36] - sample.xyz[45]) ** 2).sum())
        assert result.nme[k] == pytest.approx(5 / np.sqrt(width * height), rel=1e-4)
        assert result.distance[k] == pytest.approx(np.full(68, 5 / np.sqrt(width * height)), rel=1e-3)
        assert result.gte[k] == pytest.approx(5 / eyes, rel=1e-4)


def test_the_bins_are_those_of_the_true_yaw(folder):
    # Shift face k by (k + 1) px: the bins hold the faces 0 1, 2 3 and 4 5, whatever the points say.
    result = evaluate_aflw2000(Oracle(folder, lambda k, xyz: xyz + [k + 1, 0, 0]), folder)
    sizes = [np.sqrt(np.prod(np.ptp(s.xyz[:, :2], axis=0))) for s in samples(folder)]
    errors = [100 * (k + 1) / size for k, size in enumerate(sizes)]
    bins = [np.mean(errors[i : i + 2]) for i in (0, 2, 4)]
    row = result.row()
    assert [row["0-30"], row["30-60"], row["60-90"]] == pytest.approx(bins, rel=1e-4)
    assert row["mean of bins"] == pytest.approx(np.mean(bins), rel=1e-4)
    assert row["mean of images"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert row["faces"] == 6


def test_the_mean_of_bins_is_not_that_of_images(folder):
    # Without face 0 the first bin has one face: (e1 + (e2 + e3)/2 + (e4 + e5)/2) / 3 against (e1 + ... + e5) / 5.
    for ending in ("jpg", "mat"):
        (folder / f"image00000.{ending}").unlink()
    result = evaluate_aflw2000(Oracle(folder, lambda k, xyz: xyz + [10 * k, 0, 0]), folder)
    e = 100 * result.nme
    assert result.row()["mean of bins"] == pytest.approx((e[0] + (e[1] + e[2]) / 2 + (e[3] + e[4]) / 2) / 3)
    assert result.row()["mean of images"] == pytest.approx(e.sum() / 5)
    assert abs(result.row()["mean of bins"] - result.row()["mean of images"]) > 0.1


def test_a_turned_pose_is_off_by_its_angle(folder):
    result = evaluate_aflw2000(Oracle(folder, lambda _, xyz: xyz, turn=12.0), folder)
    assert result.pose_error == pytest.approx(np.full(6, 12.0), abs=1e-3)
    assert result.row()["pose_degrees"] == pytest.approx(12.0, abs=1e-3)
    assert result.yaw == pytest.approx(YAWS)  # still the truth's


def test_scores_belong_to_the_predicted_uncertainty(folder):
    result = evaluate_aflw2000(Oracle(folder, lambda _, xyz: xyz), folder)
    for scores, sample in zip(result.scores, samples(folder), strict=True):
        # sigma is 2 image px; within r = 0.05 sqrt(w h) lies 1 - (1 + a) exp(-a), a = sqrt(3) r / sigma.
        a = np.sqrt(3) * 0.05 * np.sqrt(np.prod(np.ptp(sample.xyz[:, :2], axis=0))) / 2
        assert scores == pytest.approx(np.full(68, 1 - (1 + a) * np.exp(-a)), rel=1e-3)


def test_progress_counts_the_photos(folder):
    seen: list[tuple[int, int]] = []
    evaluate_aflw2000(Oracle(folder, lambda _, xyz: xyz), folder, lambda done, total: seen.append((done, total)))
    assert seen == [(k, 6) for k in range(1, 7)]
