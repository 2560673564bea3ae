import subprocess
import sys

import numpy as np
import pytest
from made_up_face import face, turn

from canthus.errors import LandmarkError
from canthus.evaluation import metrics


def moved(by: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """A prediction that misses the truth by one and the same step, and the truth: (1, 68, 3) each."""
    truth = face()[None]
    return truth + by, truth


# ---- errors by normaliser: the face's box is 150 by 132 (-75 to 75, -52 to 80), its eye corners at x = -46
# and 46


def test_nme_box():
    prediction, truth = moved([3, 4, 100])  # z is not looked at
    assert metrics.nme_box(prediction, truth) == pytest.approx(5 / np.sqrt(150 * 132))
    assert metrics.nme_box(prediction[..., :2], truth[..., :2]) == pytest.approx(5 / np.sqrt(150 * 132))
    assert metrics.nme_box(prediction, truth, [[10, 20, 110, 45]]) == pytest.approx(5 / 50)
    # The box is the truth's: a prediction twice as large does not divide by itself.
    assert metrics.nme_box(2 * truth, truth) == pytest.approx(metrics.nme_box(0 * truth, truth))


def test_nme_box_3d():
    prediction, truth = moved([3, 4, 100])  # the mean z is free
    assert metrics.nme_box_3d(prediction, truth) == pytest.approx(5 / np.sqrt(150 * 132))
    prediction[0, :34, 2] += 12  # 6 above and 6 below the mean of all
    assert metrics.nme_box_3d(prediction, truth) == pytest.approx(np.sqrt(25 + 36) / np.sqrt(150 * 132))
    assert metrics.nme_box_3d(2 * truth, truth) == pytest.approx(metrics.nme_box_3d(0 * truth, truth))


def test_nme_diagonal():
    prediction, truth = moved([3, 4, 100])
    assert metrics.nme_diagonal(prediction, truth) == pytest.approx(5 / np.hypot(150, 132))
    assert metrics.nme_diagonal(prediction, truth, [[0, 0, 30, 40]]) == pytest.approx(5 / 50)


def test_nme_interocular_and_interpupil():
    prediction, truth = moved([3, 4, 100])
    truth[0, 36, 2] += 50  # distances are in the plane
    assert metrics.nme_interocular(prediction, truth) == pytest.approx(5 / 92)
    assert metrics.nme_interocular(prediction, truth, (39, 42)) == pytest.approx(
        5 / 40
    )  # inner corners, x = -20 and 20
    assert metrics.nme_interpupil(prediction, truth) == pytest.approx(5 / 66)  # eye centres, x = -33 and 33


def test_mean_is_over_points_and_not_over_coordinates():
    prediction, truth = moved([0, 0, 0])
    prediction[0, 0, :2] += [3, 4]
    prediction[0, 1, :2] += [0, 12]
    assert metrics.nme_interocular(prediction, truth) == pytest.approx((5 + 12) / 68 / 92)


def test_gte():
    prediction, truth = moved([2, 3, 100])
    assert metrics.gte(prediction, truth) == pytest.approx(np.sqrt(13) / 92)
    prediction[0, ::2, 2] += 12  # half of the points: +6 and -6 after the alignment of the means
    assert metrics.gte(prediction, truth) == pytest.approx(7 / 92)  # sqrt(4 + 9 + 36)
    parts = [metrics.gte(prediction, truth, axes=axes) for axes in [(0, 1), (0,), (1,), (2,)]]
    np.testing.assert_allclose(np.ravel(parts), np.array([np.sqrt(13), 2, 3, 6]) / 92)


def test_gte_measures_the_eyes_in_3d_and_ignores_the_z_origin():
    truth = turn(face(), 1.2)[None]
    prediction = truth + np.random.default_rng(0).normal(size=truth.shape)
    value = metrics.gte(prediction, truth)
    # A turn about y keeps the distance of the eyes in space (92) and shrinks it in the image (92 cos 1.2 =
    # 33).
    assert value == pytest.approx(metrics.gte(prediction - truth + face(), face()[None]))
    np.testing.assert_allclose(metrics.gte(prediction + [0, 0, 37], truth), value)
    np.testing.assert_allclose(metrics.gte(prediction + [0, 0, 37], truth + [0, 0, -5]), value)


def test_cvgtce_of_similar_copies_is_zero():
    truth = np.stack([turn(face(), yaw) for yaw in (-0.8, 0.0, 0.5)])
    copies = 0.4 * turn(face(), 1.0) + [30, -20, 7]
    assert metrics.cvgtce(np.stack([copies] * 3), truth).max() < 1e-9
    mirrored = truth * [1, 1, -1]  # a reflection is no similarity
    assert metrics.cvgtce(mirrored, truth).min() > 0.05


def test_cvgtce_by_hand():
    # A square of side 2 in z = 0 whose corners are predicted at z = +h, -h, +h, -h: the best similarity keeps
    # centre and axes and has s = sum(x y) / sum(x^2) = 8 / (8 + 4 h^2); for h = 1, s = 2/3, so each corner
    # misses by 1/3 of (1, 1) in the plane and 2/3 in z: sqrt(2/9 + 4/9) = 0.816497. The "eyes", opposite
    # corners, are sqrt 8 apart.
    truth = np.array([[[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]], float)
    prediction = truth + np.array([[0, 0, 1], [0, 0, -1], [0, 0, 1], [0, 0, -1]])
    assert metrics.cvgtce(prediction, truth, (0, 2)) == pytest.approx(np.sqrt(6 / 9) / np.sqrt(8))


@pytest.mark.parametrize("error", [metrics.nme_box, metrics.nme_interocular, metrics.gte, metrics.cvgtce])
def test_errors_refuse_shapes_that_differ(error):
    with pytest.raises(LandmarkError, match=r"got landmarks \(1, 66, 3\) with truth \(1, 68, 3\), want both"):
        error(np.zeros((1, 66, 3)), np.zeros((1, 68, 3)))
    with pytest.raises(LandmarkError):
        error(np.zeros((68, 3)), np.zeros((68, 3)))


def test_3d_errors_refuse_points_of_the_plane():
    with pytest.raises(LandmarkError, match=r"want both \(N, L, 3\)"):
        metrics.gte(np.zeros((1, 68, 2)), np.zeros((1, 68, 2)))


@pytest.mark.parametrize(
    "error",
    [metrics.nme_box, metrics.nme_box_3d, metrics.nme_diagonal, metrics.nme_interocular, metrics.gte, metrics.cvgtce],
)
def test_points_that_are_not_annotated_do_not_count(error):
    rng = np.random.default_rng(0)
    truth = np.repeat(face()[None], 3, 0)
    prediction = truth + rng.normal(size=truth.shape)
    kept = np.ones(68, bool)
    kept[[3, 20, 50]] = False  # neither the ends of the box nor eye corners
    truth[:, ~kept] = np.nan
    # the same faces without these points at all, their eye corners in other places
    names = np.flatnonzero(kept).tolist()
    by_eyes = error in (metrics.gte, metrics.cvgtce, metrics.nme_interocular)
    eyes = {"corners": (names.index(36), names.index(45))} if by_eyes else {}
    np.testing.assert_allclose(error(prediction, truth), error(prediction[:, kept], truth[:, kept], **eyes))


def test_a_missing_prediction_is_not_an_annotation_that_is_missing():
    prediction = face()[None].copy()
    prediction[0, 30] = np.nan
    assert np.isnan(metrics.nme_box(prediction, face()[None])).all()


def slow_gte(prediction: np.ndarray, truth: np.ndarray) -> float:
    """GTE of one face, written out point by point."""
    lift = sum(p[2] for p in truth) / len(truth) - sum(p[2] for p in prediction) / len(prediction)
    total = 0.0
    for p, t in zip(prediction, truth):
        total += ((p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2 + (p[2] + lift - t[2]) ** 2) ** 0.5
    eyes = sum((a - b) ** 2 for a, b in zip(truth[36], truth[45])) ** 0.5
    return total / len(truth) / eyes


def slow_box(prediction: np.ndarray, truth: np.ndarray) -> float:
    """NME of one face by its box, written out point by point."""
    width = max(t[0] for t in truth) - min(t[0] for t in truth)
    height = max(t[1] for t in truth) - min(t[1] for t in truth)
    total = sum(((p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2) ** 0.5 for p, t in zip(prediction, truth))
    return total / len(truth) / (width * height) ** 0.5


@pytest.mark.parametrize(("fast", "slow"), [(metrics.gte, slow_gte), (metrics.nme_box, slow_box)])
def test_errors_are_those_of_their_slow_twins(fast, slow):
    rng = np.random.default_rng(1)
    truth = np.stack([turn(face(), yaw) for yaw in (-1.0, 0.2, 0.9)])
    prediction = truth + rng.normal(scale=4, size=truth.shape)
    np.testing.assert_allclose(fast(prediction, truth), [slow(p, t) for p, t in zip(prediction, truth)])


# ---- tables


def test_yaw_bins():
    degrees = [0, 30, -30, 30.001, -45, 60, 60.001, -90, 187.8]
    assert metrics.yaw_bins(np.deg2rad(degrees)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("bins", "mean", "std", "std_population"),
    # Rows of published tables on AFLW2000-3D: JVCR (ICPR 2018, table IV) prints the std with ddof = 1,
    # CPRFA's table 1 (arXiv 1803.06542) that of FAN with ddof = 0.
    [((2.94, 3.46, 4.53), 3.64, 0.81, None), ((2.67, 3.76, 5.24), 3.89, None, 1.05)],
)
def test_table_row_repeats_published_rows(bins, mean, std, std_population):
    counts = (1312, 383, 305)  # images by the yaw of the fitted pose
    errors, index = np.repeat(bins, counts), np.repeat([0, 1, 2], counts)
    row = metrics.table_row(errors, index)
    np.testing.assert_allclose(row.bins, bins)
    assert row.counts.tolist() == list(counts)
    assert row.mean_of_bins == pytest.approx(mean, abs=0.005)
    assert std is None or row.std == pytest.approx(std, abs=0.005)
    assert std_population is None or row.std_population == pytest.approx(std_population, abs=0.0055)
    assert row.std == pytest.approx(row.std_population * np.sqrt(3 / 2))
    # Most images are near frontal, so the mean of all is lower: (1312 * 2.94 + 383 * 3.46 + 305 * 4.53) /
    # 2000 = 3.28.
    assert row.mean_of_images == pytest.approx(np.dot(bins, counts) / 2000)
    assert row.mean_of_images < row.mean_of_bins - 0.3


def test_table_row_says_nan_of_an_empty_bin():
    row = metrics.table_row([0.02, 0.04], [0, 2])
    np.testing.assert_array_equal(row.bins, [0.02, np.nan, 0.04])
    assert np.isnan([row.mean_of_bins, row.std, row.std_population]).all()
    assert row.mean_of_images == pytest.approx(0.03) and row.counts.tolist() == [1, 0, 1]


# ---- curves


def test_curve_by_hand():
    errors = [0.02, 0.05, 0.10, 0.20]
    assert metrics.ced(errors, [0.0, 0.02, 0.06, 0.1, 1.0]).tolist() == [0, 0.25, 0.5, 0.75, 1]
    # 0.8 + 0.5 + 0 + 0 over 4; 0.10 itself is no failure.
    assert metrics.auc(errors, 0.1) == pytest.approx(0.325)
    assert metrics.failure_rate(errors, 0.1) == 0.25


def test_auc_is_the_area_under_the_curve():
    errors = np.random.default_rng(0).gamma(2, 0.03, 500)
    x = np.linspace(0, 0.1, 20001)
    area = np.mean((metrics.ced(errors, x)[1:] + metrics.ced(errors, x)[:-1]) / 2)
    assert metrics.auc(errors, 0.1) == pytest.approx(area, abs=1e-5)


@pytest.mark.parametrize("missing", [np.inf, np.nan])
def test_an_image_without_a_result_is_a_failure(missing):
    errors = [0.02, missing]
    assert metrics.ced(errors, [0.1]).tolist() == [0.5]
    assert metrics.auc(errors, 0.1) == pytest.approx(0.4)
    assert metrics.failure_rate(errors, 0.1) == 0.5


# ---- tracks


def test_jitter_is_the_noise_and_not_the_motion():
    frames = np.arange(400.0)[:, None, None]
    motion = face()[None] + frames * [0.7, -0.3, 0.1]
    assert metrics.jitter(motion) == pytest.approx(0, abs=1e-10)
    # 398 * 68 * 3 second differences: the estimate is good to about 0.5 %.
    noise = np.random.default_rng(0).normal(scale=1.5, size=motion.shape)
    assert metrics.jitter(motion + noise) == pytest.approx(1.5, rel=0.02)
    # One coordinate 0, 6, 0: a single second difference of -12; sqrt(144 / 6) = 4.89898.
    assert metrics.jitter([[[0.0]], [[6.0]], [[0.0]]]) == pytest.approx(np.sqrt(24))
    with pytest.raises(LandmarkError, match="got a track of 2 frames, want at least 3"):
        metrics.jitter(motion[:2])


# ---- pose


def test_pose_mae_by_hand():
    truth = np.deg2rad([[0, 10, 0], [-99, 20, 95], [0, 99.1, 0], [0, -351, 0]])
    prediction = np.deg2rad([[3, 8, -1], [-98, 26, -263], [90, 0, 90], [0, 9, 0]])
    assert metrics.pose_kept(truth).tolist() == [True, True, False, False]
    # Pitch |3| and |1|, yaw |2| and |6|, roll |1| and, around the circle, -263 = 97 against 95: |2|.
    np.testing.assert_allclose(np.rad2deg(metrics.pose_mae(prediction, truth)), [2, 4, 1.5])


def test_geodesic_of_rotations():
    truth = np.eye(3)[None]
    c, s = np.cos(0.3), np.sin(0.3)
    assert metrics.geodesic(np.array([[[c, -s, 0], [s, c, 0], [0, 0, 1]]]), truth) == pytest.approx([0.3])


def test_metrics_import_no_torch():
    code = "import sys, canthus.evaluation.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_roc_area_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    said, true = rng.integers(0, 6, (7, 5)) / 5, rng.random((7, 5)) < 0.4  # many ties
    pairs = [(a > b) + (a == b) / 2 for a in said[true] for b in said[~true]]
    assert metrics.roc_auc(said, true) == pytest.approx(np.mean(pairs))
    assert np.isnan(metrics.roc_auc([0.1, 0.2], [True, True]))


def test_a_correlation_knows_what_tells_nothing():
    truth = np.array([1.0, 2, 3, np.nan, 5])
    assert metrics.correlation(3 - 2 * truth, truth) == pytest.approx(-1)
    # deviations (-1, 0, 1) and (-1, 1, 0): 1 / (sqrt(2) sqrt(2))
    assert metrics.correlation([1, 3, 2], [1, 2, 3]) == pytest.approx(0.5)
    assert metrics.correlation(np.ones(5), truth) == 0
    assert np.isnan(metrics.correlation(truth, np.ones(5)))
    assert np.isnan(metrics.correlation([1, 2], [1, 2]))
