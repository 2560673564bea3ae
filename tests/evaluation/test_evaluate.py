"""Measuring a predictor: those whose errors are known give the numbers that follow from them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import layouts_maker as make
import numpy as np
import pytest

pytest.importorskip("scipy.io")

from canthus.data.formats import FaceSample, read_aflw2000  # noqa: E402
from canthus.errors import CanthusError  # noqa: E402
from canthus.evaluation.collect import collect  # noqa: E402
from canthus.evaluation.evaluate import evaluate, predict, write_predictions, write_report, write_scores  # noqa: E402
from canthus.evaluation.predictions import Predictions  # noqa: E402
from canthus.evaluation.protocols import PROTOCOLS, protocol  # noqa: E402
from canthus.evaluation.scores import score  # noqa: E402
from canthus.face.faces import Alignment  # noqa: E402
from canthus.face.landmarks import convert  # noqa: E402
from canthus.geometry.crop import Crop  # noqa: E402
from canthus.geometry.rotation import matrix_from_euler  # noqa: E402
from canthus.inference.detect import Detections
from canthus.inference.predictor import Predictor  # noqa: E402
from canthus.inference.tracker import Tracker  # noqa: E402
from canthus.io.card import Card  # noqa: E402

YAWS = make.YAWS
Change = Callable[[int, np.ndarray], np.ndarray]


class Oracle(Predictor):
    """Knows the truth and says it, in the pixels of the crop around `change`d boxes, after `change`d it."""

    def __init__(self, samples: list[FaceSample], change: Change, turn: float = 0.0):
        self.card = Card("oracle", "1", "none", 112, 1.4, "", False, "", "", "")
        self.samples, self.change, self.start = samples, change, 0
        self.extra = matrix_from_euler(np.array([0, np.deg2rad(turn), 0]), "aflw")

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`; the faces come in their order, over and over again."""
        assert crops.shape[1:] == (112, 112, 3)
        number = (self.start + np.arange(len(crops))) % len(self.samples)
        self.start += len(crops)
        part = [self.samples[k] for k in number]
        boxes = np.array([[*s.points[:, :2].min(0), *s.points[:, :2].max(0)] for s in part])
        crop = Crop.around_boxes(boxes, 1.4, 112)
        xyz = crop.crop_from_image(np.stack([self.change(k, s.points) for k, s in zip(number, part)]))
        rotation = np.stack([s.rotation @ self.extra for s in part])
        return Alignment(xyz, np.full((len(part), 68), 2.0) * crop.zoom[:, None], np.ones((len(part), 68)), rotation)


@pytest.fixture
def folder(tmp_path) -> Path:
    return make.aflw2000(tmp_path)


def samples(folder: Path) -> list[FaceSample]:
    return list(read_aflw2000(folder))


def scored(folder: Path, change: Change, turn: float = 0.0):
    answers = predict("aflw2000", folder, Oracle(samples(folder), change, turn))
    return evaluate("aflw2000", folder, answers)


def bins(scores) -> dict[str, float]:
    table = scores.table("by yaw of the pose")
    return dict(zip(table.columns, table.rows["NME box"]))


def test_the_truth_has_no_error(folder):
    scores = scored(folder, lambda _, xyz: xyz)
    assert set(scores.errors) >= {"NME box", "NME 3D", "GTE", "CVGTCE", "NME diagonal"}
    for name, errors in scores.errors.items():
        assert errors == pytest.approx(np.zeros(6), abs=1e-6), name
    assert scores.pairs.distance == pytest.approx(np.zeros((6, 68)), abs=1e-5)
    pose = scores.table("pose")
    assert pose.rows["angles up to 99"] == pytest.approx([0, 0, 0, 0, 0, 6], abs=1e-3)


def test_a_known_shift_gives_the_error_that_follows_from_it(folder):
    scores = scored(folder, lambda _, xyz: xyz + [3, 4, 7])
    for k, sample in enumerate(samples(folder)):
        # Every point is off by (3, 4), 5 px in the plane; the shift in z has no meaning and does not count. NME is
        # 5 / sqrt(w h) of the true box, GTE is 5 / the 3D distance of the outer eye corners, 36 and 45.
        width, height = np.ptp(sample.points[:, :2], axis=0)
        eyes = np.sqrt(((sample.points[36] - sample.points[45]) ** 2).sum())
        assert scores.errors["NME box"][k] == pytest.approx(5 / np.sqrt(width * height), rel=1e-4)
        assert scores.errors["NME 3D"][k] == pytest.approx(5 / np.sqrt(width * height), rel=1e-4)
        assert scores.errors["NME diagonal"][k] == pytest.approx(5 / np.hypot(width, height), rel=1e-4)
        assert scores.pairs.distance[k] == pytest.approx(np.full(68, 5 / np.sqrt(width * height)), rel=1e-3)
        for name, by in (("GTE", 5), ("GTE xy", 5), ("GTE x", 3), ("GTE y", 4), ("GTE z", 0), ("CVGTCE", 0)):
            assert scores.errors[name][k] == pytest.approx(by / eyes, rel=1e-4, abs=1e-5), name


def test_second_labels_are_measured_beside_the_first(tmp_path):
    folder = make.aflw2000(tmp_path, second=True)  # the second labels are 1 px to the right of the first
    scores = scored(folder, lambda _, xyz: xyz + [3, 0, 0])
    sizes = np.array([np.sqrt(np.prod(np.ptp(s.points[:, :2], axis=0))) for s in samples(folder)])
    assert scores.errors["NME box, second labels"] == pytest.approx(2 / sizes, rel=1e-4)
    assert scores.errors["first to second labels"] == pytest.approx(1 / sizes, rel=1e-4)
    # AFLW's own yaw, here 40 degrees for all, makes other bins: all six faces are in the middle one
    table = scores.table("by labelled yaw")
    assert table.rows["faces"][:3] == [0, 6, 0]
    assert table.cell("NME box", "30-60") == pytest.approx(bins(scores)["mean of images"])


def test_the_bins_are_those_of_the_true_yaw(folder):
    # Shift face k by (k + 1) px: the bins hold the faces 0 1, 2 3 and 4 5, whatever the points say.
    scores = scored(folder, lambda k, xyz: xyz + [k + 1, 0, 0])
    sizes = [np.sqrt(np.prod(np.ptp(s.points[:, :2], axis=0))) for s in samples(folder)]
    errors = [100 * (k + 1) / size for k, size in enumerate(sizes)]
    means = [np.mean(errors[i : i + 2]) for i in (0, 2, 4)]
    row = bins(scores)
    assert [row["0-30"], row["30-60"], row["60-90"]] == pytest.approx(means, rel=1e-4)
    assert row["mean of bins"] == pytest.approx(np.mean(means), rel=1e-4)
    assert row["std (ddof 1)"] == pytest.approx(np.std(means, ddof=1), rel=1e-4)
    assert row["std (ddof 0)"] == pytest.approx(np.std(means), rel=1e-4)
    assert row["mean of images"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert scores.table("by yaw").rows["faces"][:3] == [2, 2, 2]


def test_the_mean_of_bins_is_not_that_of_images(folder):
    # Without face 0 the first bin has one face: (e1 + (e2 + e3)/2 + (e4 + e5)/2) / 3 against (e1 + ... + e5) / 5.
    for ending in ("jpg", "mat"):
        (folder / f"image00000.{ending}").unlink()
    scores = scored(folder, lambda k, xyz: xyz + [10 * k, 0, 0])
    e, row = 100 * scores.errors["NME box"], bins(scores)
    assert row["mean of bins"] == pytest.approx((e[0] + (e[1] + e[2]) / 2 + (e[3] + e[4]) / 2) / 3)
    assert row["mean of images"] == pytest.approx(e.sum() / 5)
    assert abs(row["mean of bins"] - row["mean of images"]) > 0.1


def test_a_turned_pose_is_off_by_its_angle(folder):
    pose = scored(folder, lambda _, xyz: xyz, turn=12.0).table("pose")
    assert pose.cell("all", "geodesic") == pytest.approx(12.0, abs=1e-3)
    assert pose.cell("all", "faces") == 6


def test_angles_beyond_99_degrees_are_dropped_from_the_mean(folder):
    from scipy.io import loadmat, savemat

    mat = loadmat(folder / "image00000.mat")
    mat["Pose_Para"][0, 1] += 2 * np.pi  # the same rotation, stored with a wrapped angle as some are
    savemat(folder / "image00000.mat", {k: mat[k] for k in ("pt3d_68", "Pose_Para")})
    scores = scored(folder, lambda _, xyz: xyz)
    assert scores.table("pose").cell("angles up to 99", "faces") == 5
    assert scores.table("pose").cell("all", "faces") == 6
    assert scores.table("by yaw").rows["faces"][:3] == [1, 2, 3]  # 365 degrees is in the last bin


def test_scores_belong_to_the_predicted_uncertainty(folder):
    scores = scored(folder, lambda _, xyz: xyz)
    # sigma is 2 image px; within r = 0.05 sqrt(w h) lies 1 - (1 + a) exp(-a), a = sqrt(3) r / sigma.
    a = [np.sqrt(3) * 0.05 * np.sqrt(np.prod(np.ptp(s.points[:, :2], axis=0))) / 2 for s in samples(folder)]
    said = np.sort(np.repeat([1 - (1 + v) * np.exp(-v) for v in a], 68))
    assert [x for x, _ in scores.calibration] == pytest.approx([p.mean() for p in np.array_split(said, 10)], rel=1e-3)
    assert [y for _, y in scores.calibration] == [1.0] * 10


def test_predicted_errors_stand_beside_measured_ones(folder):
    # The k-th point is off by k % of the face: in tenths of what was said, 2 / sqrt(3) sigma with sigma 2 px in all.
    size = lambda xyz: np.sqrt(np.prod(np.ptp(xyz[:, :2], axis=0)))  # noqa: E731
    scores = scored(folder, lambda _, xyz: xyz + size(xyz) * 0.01 * np.arange(68)[:, None] * [1, 0, 0])
    table = scores.table("error by tenths")
    said = np.sort(np.repeat([100 * 2 / np.sqrt(3) * 2 / size(s.points) for s in samples(folder)], 68))
    assert table.rows["predicted"] == pytest.approx([p.mean() for p in np.array_split(said, 10)], rel=1e-3)
    assert np.mean(table.rows["measured"]) == pytest.approx(np.arange(68).mean(), rel=0.02)  # tenths are not all alike


def test_progress_counts_the_photos(folder):
    seen: list[tuple[int, int]] = []
    oracle = Oracle(samples(folder), lambda _, xyz: xyz)
    predict("aflw2000", folder, oracle, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)


def test_unknown_protocols_and_boxes_are_refused(folder):
    oracle = Oracle(samples(folder), lambda _, xyz: xyz)
    with pytest.raises(CanthusError, match="no protocol 'aflw'"):
        predict("aflw", folder, oracle)
    with pytest.raises(
        CanthusError, match="got the boxes 'given', want one of true, own, detected, jittered, aligned, tracked"
    ):
        predict("aflw2000", folder, oracle, boxes="given")


class Finder:
    """Stands for a detector that finds a face in every second picture, and a poster far away in all."""

    def __init__(self, boxes: np.ndarray):
        self.boxes, self.number = boxes, -1

    def __call__(self, picture: np.ndarray) -> Detections:
        self.number += 1
        far = np.array([[0.0, 0, 12, 12]])
        boxes = np.concatenate([far, self.boxes[[self.number]]]) if self.number % 2 == 0 else far
        return Detections.of_boxes(boxes.astype(np.float32), np.full(len(boxes), 0.9, np.float32))


class Echo(Oracle):
    """Puts the mean of the truth's shapes where the crop is: what is found far away is answered far away."""

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`."""
        count = len(crops)
        xyz = np.zeros((count, 68, 3)) + 55.5 + np.linspace(-20, 20, 68)[:, None]
        return Alignment(xyz, None, None, np.broadcast_to(np.eye(3), (count, 3, 3)))


def test_detected_faces_that_are_elsewhere_are_lost(folder):
    oracle = Echo(samples(folder), lambda _, xyz: xyz)
    shapes = make.shapes()
    oracle.__dict__["detector"] = Finder(np.array([[*p[:, :2].min(0), *p[:, :2].max(0)] for p in shapes]))
    answers = predict("aflw2000", folder, oracle, boxes="detected")
    assert answers.names == ("image00000", "image00002", "image00004")
    scores = evaluate("aflw2000", folder, answers)
    assert scores.pairs.found.tolist() == [True, False] * 3
    lost = dict(zip(scores.table("by yaw").columns, scores.table("by yaw").rows["lost"]))
    assert [lost[b] for b in ("0-30", "30-60", "60-90", "mean of images")] == [1, 1, 1, 3]
    # three of six faces fail whatever the limit
    curve = scores.table("area under the curve")
    assert curve.cell("NME box", "FR@10") >= 50


def test_frames_are_tracked_and_lost_faces_looked_for_anew(tmp_path):
    """The detector sees nothing in frames 0, 1 and 5; the tracker loses the face by itself in 5, and finds it in 6."""
    from canthus.data.formats import read_clips

    folder = make.clips(tmp_path, frames=8)
    faces = list(read_clips(folder))
    exact = Oracle(faces, lambda _, xyz: xyz)

    class Blind:
        number = 0

        def __call__(self, picture: np.ndarray) -> Detections:
            points = faces[self.number].points[:, :2]
            box = np.array([[*points.min(0), *points.max(0)]], np.float32)
            box = box[: self.number % 8 not in (0, 1, 5)]
            return Detections.of_boxes(box, np.ones(len(box), np.float32))

        quick = __call__

    sees = Blind()
    exact.__dict__["detector"] = sees

    def run(crops: np.ndarray, real=exact.run) -> Alignment:
        exact.start = current[0]
        answer = real(crops)
        # what is smaller by half is not healthy
        return answer if current[0] % 8 != 5 else replace(answer, xyz=55.5 + (answer.xyz - 55.5) * 0.4)

    current, plain = [0], Tracker.step

    def step(tracker: Tracker, frame: np.ndarray):
        sees.number = current[0]
        faces_found = plain(tracker, frame)
        current[0] += 1
        return faces_found

    exact.run = run  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "step", step)
        answers = predict("clips", folder, exact, boxes="tracked")
    assert [n[-1] for n in answers.names] == list("23467") * 2
    assert answers.restarted.tolist() == [0, 0, 0, 1, 0] * 2
    table = evaluate("clips", folder, answers).table("video")
    assert table.cell("clip-00001", "lost") == 3 and table.cell("clip-00001", "restarts") == 1
    with pytest.raises(CanthusError, match="set of single photos"):
        predict("aflw2000", folder, exact, boxes="tracked")


def test_only_free_pictures_are_shown(tmp_path):
    from canthus.data.formats import read_renders

    folder = make.renders(tmp_path / "renders")
    faces = list(read_renders(folder))
    wrong = Oracle(faces, lambda k, xyz: xyz + [k, 0, 0])
    scores = evaluate("renders", folder, predict("renders", folder, wrong))
    report = write_report(tmp_path / "out", "renders", scores, None)
    assert report.worst is not None and report.worst.size == (4 * 160, 2 * 178)
    assert (tmp_path / "out" / "worst.jpg").stat().st_size > 500
    assert "image/jpeg" in (tmp_path / "out" / "report.html").read_text()
    shown = {name for name, rules in PROTOCOLS.items() if rules.free}
    assert shown == {"renders", "clips"}


def test_the_report_of_clips_has_a_chart_of_frames_and_no_sweeps(tmp_path):
    from canthus.data.formats import read_clips

    folder = make.clips(tmp_path / "clips", frames=4)
    oracle = Oracle(list(read_clips(folder)), lambda _, xyz: xyz + [2, 0, 0])
    scores = evaluate("clips", folder, predict("clips", folder, oracle))
    report = write_report(tmp_path / "out", "clips", scores, oracle)
    assert report.sweeps == {} and (tmp_path / "out" / "frames.png").stat().st_size > 500
    frames = json.loads((tmp_path / "out" / "report.json").read_text())["NME box by frame"]
    assert [len(v) for v in frames.values()] == [4, 4]
    assert report.worst is not None and report.worst.size[1] == 178  # one frame a video


def test_what_is_written(folder, tmp_path):
    answers = predict("aflw2000", folder, Oracle(samples(folder), lambda _, xyz: xyz + [2, 0, 0]))
    scores = evaluate("aflw2000", folder, answers)
    out = tmp_path / "new" / "out"
    write_predictions(out, answers)
    write_scores(out, scores)
    written = json.loads((out / "scores.json").read_text())
    assert written["faces"] == 6 and written["system"] == "oracle 1" and "68 of 68 points" in written["compared"]
    from canthus.evaluation.predictions import Predictions

    again = evaluate("aflw2000", folder, Predictions.read(out / "predictions.npz"))
    assert again.errors["NME box"] == pytest.approx(scores.errors["NME box"], rel=1e-5)
    pytest.importorskip("pyarrow")
    write_predictions(out, answers, "parquet")
    again = evaluate("aflw2000", folder, Predictions.read(out / "predictions.parquet"))
    assert again.errors["NME box"] == pytest.approx(scores.errors["NME box"], rel=1e-5)


def test_the_report_has_tables_charts_and_sweeps(folder, tmp_path):
    oracle = Oracle(samples(folder), lambda _, xyz: xyz + [2, 0, 0])
    answers = predict("aflw2000", folder, oracle)
    scores = evaluate("aflw2000", folder, answers)
    report = write_report(tmp_path / "out", "aflw2000", scores, oracle)
    names = {"blur", "noise", "jpeg", "low light", "occlusion", "resolution"}
    assert set(report.sweeps) == names | {"box shift", "box scale"}
    assert all(len(report.sweeps[n][1]) == len(report.sweeps[n][2]) == 5 for n in report.sweeps)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<table>") == len(scores.tables) and page.count("data:image/png") == len(report.charts())
    for name in ("ced", "landmarks", "parts", "calibration", "yaw-0", "sweep-blur", "sweep-box-shift"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 500
    assert json.loads((tmp_path / "out" / "report.json").read_text())["sweeps"]["blur"]["strengths"] == [1, 2, 3, 4, 6]
    assert page.index(scores.headline()) < page.index("data:image/png") < page.index("<table>")
    # a file of predictions can be scored, but nothing more can be asked of the system
    assert write_report(tmp_path / "less", "aflw2000", scores, None).sweeps == {}


def test_a_report_without_matplotlib_lacks_charts_and_says_so(folder, tmp_path, monkeypatch, caplog):
    from canthus.io import charts

    monkeypatch.setattr(charts, "find_spec", lambda name: None)
    scores = evaluate("aflw2000", folder, predict("aflw2000", folder, Oracle(samples(folder), lambda _, xyz: xyz)))
    write_report(tmp_path, "aflw2000", scores, None)
    page = (tmp_path / "report.html").read_text()
    assert "matplotlib" in page and "data:image/png" not in page and not list(tmp_path.glob("*.png"))
    assert "matplotlib" in caplog.text


def test_the_headline_holds_the_numbers_of_the_table(folder):
    scores = evaluate(
        "aflw2000", folder, predict("aflw2000", folder, Oracle(samples(folder), lambda _, xyz: xyz + [2, 0, 0]))
    )
    table = scores.table("by yaw of the pose")
    assert "oracle 1, 6 faces, 0 not found" in scores.headline()
    assert f"NME box {table.cell('NME box', 'mean of images'):.2f} %, mean of images" in scores.headline()
    assert f"{table.cell('NME box', 'mean of bins'):.2f} %, mean of three bins of |yaw|" in scores.headline()


def test_a_headline_says_which_bins_have_no_face(folder):
    faces = [s for s in samples(folder) if abs(np.asarray(s.angles)[1]) < np.deg2rad(60)]
    answers = collect(Oracle(faces, lambda _, xyz: xyz), faces, "true")
    headline = score(protocol("aflw2000"), faces, answers).headline()
    assert "; no mean of three bins of |yaw| (0.00 / 0.00 / none found for 0-30, 30-60, 60-90 degrees)" in headline


def test_a_box_off_by_a_known_share_is_off_by_that(folder):
    """A predictor that sees nothing and answers the middle of its crop follows its box: the shift is the error."""
    from canthus.evaluation.boxes import moved
    from canthus.evaluation.collect import collect_from, true_boxes

    faces = samples(folder)
    true = true_boxes(faces)
    still = collect_from(Echo(faces, lambda _, xyz: xyz), faces, true)
    pushed = collect_from(Echo(faces, lambda _, xyz: xyz), faces, moved(true, 0.1, 1.0, 0))
    size = (true[:, 2:] - true[:, :2]).max(1)
    steps = np.linalg.norm((pushed.xyz - still.xyz)[..., :2], axis=-1)
    assert steps == pytest.approx(np.broadcast_to(0.1 * size[:, None], steps.shape), rel=1e-3)


FULL = Path(os.environ.get("CANTHUS_AFLW2000", "AFLW2000-3D"))


@pytest.mark.skipif(len(list(FULL.glob("*.mat"))) != 2000, reason="CANTHUS_AFLW2000 is no folder of all 2,000 faces")
def test_the_full_set_has_the_published_bins():
    from canthus.evaluation import metrics

    angles = np.array([s.angles for s in read_aflw2000(FULL)])
    assert np.bincount(metrics.yaw_bins(angles[:, 1])).tolist() == [1312, 383, 305]


def test_aligned_crops_show_every_face_upright_and_of_one_size():
    """Faces that are the mean shape, turned, scaled and moved: on aligned crops all of them lie where it does, so an
    aligner that always answers the mean shape makes no error; on boxes it does."""
    from canthus.evaluation.collect import collect
    from canthus.face.morphable import MorphableModel

    mean = MorphableModel.default().frontal_shape(1.4)

    class Constant(Predictor):
        card = Card("constant", "1", "none", 112, 1.4, "", False, "", "", "")

        def run(self, crops: np.ndarray) -> Alignment:
            xy = np.tile(mean * 112 + 55.5, (len(crops), 1, 1))
            return Alignment(np.concatenate([xy, 0 * xy[..., :1]], -1), rotation=np.tile(np.eye(3), (len(crops), 1, 1)))

    faces = []
    for k, (angle, side) in enumerate(((0.0, 100.0), (0.7, 140.0), (-2.0, 60.0))):
        c, s = np.cos(angle), np.sin(angle)
        points = side * mean @ np.array([[c, -s], [s, c]]).T + [120, 110 + 5 * k]
        faces.append(FaceSample(np.zeros((240, 260, 3), np.uint8), points, name=str(k)))
    truth = np.stack([f.points for f in faces])
    np.testing.assert_allclose(collect(Constant(), faces, "aligned").xyz[..., :2], truth, atol=1e-3)
    assert np.abs(collect(Constant(), faces, "true").xyz[1, :, :2] - truth[1]).max() > 10
    part = [replace(faces[0], points=np.where(np.arange(68)[:, None] == 5, np.nan, faces[0].points))]
    with pytest.raises(CanthusError, match="lack some of the 68 points"):
        collect(Constant(), part, "aligned")


def test_a_headline_says_which_points_of_another_set_were_compared(tmp_path):
    faces = protocol("menpo3d").faces(make.menpo3d(tmp_path))
    answers = Predictions([s.name for s in faces], np.stack([convert(s.points, s.scheme, "ibug68")[0] for s in faces]))
    headline = score(protocol("menpo3d"), faces, answers).headline()
    assert headline.startswith("Menpo-3D, 84 points: ") and ", 68 of 68 points of ibug68 in " in headline


def test_predictions_of_another_set_are_refused(folder):
    others = Predictions(("elsewhere",), np.zeros((1, 68, 3)))
    with pytest.raises(CanthusError, match="no prediction is of a face in .*got 'elsewhere', want names such as"):
        evaluate("aflw2000", folder, others)
