"""Every protocol on a small made-up data set; files of predictions; boxes, corrupted photos, tracks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import layouts_maker as make
import numpy as np
import pytest

pytest.importorskip("scipy.io")
pytest.importorskip("h5py")

from canthus.data.formats import FaceSample  # noqa: E402
from canthus.errors import LandmarkError  # noqa: E402
from canthus.evaluation import boxes as box_rules  # noqa: E402
from canthus.evaluation import metrics, pairs  # noqa: E402
from canthus.evaluation.corruptions import CORRUPTIONS, corrupt  # noqa: E402
from canthus.evaluation.predictions import Predictions  # noqa: E402
from canthus.evaluation.protocols import PROTOCOLS, in_halves, protocol  # noqa: E402
from canthus.evaluation.scores import Scores, by_steps_of_yaw, compared, score  # noqa: E402
from canthus.face.landmarks import convert  # noqa: E402

SETS: dict[str, Callable[[Path], Path]] = {
    "aflw2000": lambda f: make.aflw2000(f, second=True), "300wlp": make.lp300w, "3dfaw": make.fdaw3,
    "menpo3d": make.menpo3d, "300w": make.w300, "cofw": make.cofw, "cofw68": lambda f: make.cofw(f, True),
    "wflw": make.wflw, "aflw21": make.aflw21, "aflw19": make.aflw_full, "biwi": make.biwi, "300vw": make.vw300,
    "300vw84": make.vw300_84,
    "renders": make.renders, "clips": make.clips,
}  # fmt: skip


def answers(faces: list[FaceSample], shift: tuple[float, float] = (0, 0), **more) -> Predictions:
    """The labels themselves, moved by `shift`."""
    points = np.stack([s.points for s in faces])
    points[..., :2] += shift
    return Predictions([s.name for s in faces], points, scheme=faces[0].scheme, **more)


def measured(name: str, folder: Path, shift: tuple[float, float] = (0, 0)) -> tuple[Scores, list[FaceSample]]:
    faces = protocol(name).faces(SETS[name](folder))
    rotation = np.stack([np.eye(3) if s.rotation is None else s.rotation for s in faces])
    return score(protocol(name), faces, answers(faces, shift, rotation=rotation)), faces


def test_every_protocol_has_a_made_up_set():
    assert set(SETS) == set(PROTOCOLS)


@pytest.mark.parametrize("name", SETS)
def test_a_prediction_equal_to_the_labels_has_no_error(tmp_path, name):
    scores, faces = measured(name, tmp_path)
    assert scores.pairs.found.all() and len(faces) >= 2
    for title, errors in scores.errors.items():
        if "labels" not in title:  # these have an error of their own
            assert errors == pytest.approx(np.zeros(len(faces)), abs=1e-9), title
    assert bool(scores.errors) == (name != "biwi")


@pytest.mark.parametrize("name", [n for n in SETS if n != "biwi"])
def test_a_shift_is_divided_by_what_the_error_is_named_after(tmp_path, name):
    """All points 5 px off: 5 / sqrt(w h), 5 / diagonal, 5 / eye distance, worked out here from the labels anew."""
    scores, faces = measured(name, tmp_path, (3, -4))
    for k, sample in enumerate(faces):
        points = sample.points
        if sample.scheme in ("ibug68", "wflw98", "3dfaw66", "menpo84"):
            width, height = np.ptp(points[:, 0]), np.ptp(points[:, 1])
            assert scores.errors["NME box"][k] == pytest.approx(5 / np.sqrt(width * height))
            if "NME diagonal" in scores.errors:
                assert scores.errors["NME diagonal"][k] == pytest.approx(5 / np.hypot(width, height))
        if "inter-ocular" in scores.errors:
            a, b = {"ibug68": (36, 45), "wflw98": (60, 72), "cofw29": (8, 9), "menpo84": (52, 61)}[sample.scheme]
            eyes = np.linalg.norm((points[a] - points[b])[:2])
            assert scores.errors["inter-ocular"][k] == pytest.approx(5 / eyes)
        if "inter-pupil" in scores.errors:
            ends = {
                "ibug68": (range(36, 42), range(42, 48)), "menpo84": (range(52, 58), range(58, 64)),
                "wflw98": ([96], [97]), "cofw29": ([16], [17]),
            }  # fmt: skip
            a, b = (points[list(end)].mean(0) for end in ends[sample.scheme])
            assert scores.errors["inter-pupil"][k] == pytest.approx(5 / np.linalg.norm((a - b)[:2]))
        if "GTE" in scores.errors:
            a, b = {"ibug68": (36, 45), "3dfaw66": (36, 45), "menpo84": (52, 61)}[sample.scheme]
            assert scores.errors["GTE"][k] == pytest.approx(5 / np.linalg.norm(points[a] - points[b]))
            assert scores.errors["CVGTCE"][k] == pytest.approx(0, abs=1e-6)
        if "NME set's box" in scores.errors:
            size = sample.box[2:] - sample.box[:2]
            assert scores.errors["NME set's box"][k] == pytest.approx(5 / np.sqrt(size.prod()))


def test_300w_has_its_three_subsets_and_no_training_faces(tmp_path):
    scores, faces = measured("300w", tmp_path, (3, 4))
    assert len(faces) == 3
    table = scores.table("by subset")
    assert table.columns == ("challenge", "common", "full") and table.rows["faces"] == [1, 2, 3]
    e = 100 * scores.errors["inter-ocular"][np.argsort([s.name for s in faces])]
    assert table.rows["inter-ocular"] == pytest.approx([e[1], (e[0] + e[2]) / 2, e.mean()])


def test_cofw68_tells_hidden_points_from_visible_ones(tmp_path):
    faces = protocol("cofw68").faces(make.cofw(tmp_path, True))
    wrong = answers(faces)
    xyz = wrong.xyz.copy()
    xyz[:, :17] += [3, 4]  # the jaw is what the made-up set says is hidden
    scores = score(protocol("cofw68"), faces, Predictions(wrong.names, xyz))
    table = scores.table("NME box of points")
    sizes = [np.sqrt(np.prod(np.ptp(s.points, axis=0))) for s in faces]
    assert table.cell("NME box", "visible") == 0
    assert table.cell("NME box", "hidden") == pytest.approx(100 * np.mean([5 / s for s in sizes]))
    parts = scores.table("by part")
    assert parts.cell("jaw", "NME box") == pytest.approx(table.cell("NME box", "hidden"))
    assert parts.cell("right_eye", "NME box") == 0


def test_hidden_points_of_aflw_do_not_count(tmp_path):
    faces = protocol("aflw21").faces(make.aflw21(tmp_path))
    xyz = np.stack([s.points for s in faces])
    xyz[:, 12] = 500  # hidden in all faces
    scores = score(protocol("aflw21"), faces, Predictions([s.name for s in faces], xyz, scheme="aflw21"))
    assert scores.errors["NME set's box"] == pytest.approx(np.zeros(6))
    assert compared(scores.pairs) == "20 of 21 points of aflw21 in 2D"
    assert scores.table("by labelled yaw").rows["faces"][:3] == [2, 2, 2]


def test_68_points_are_compared_with_other_schemes(tmp_path):
    """A system with 68 points on AFLW-21 (which they give), COFW-29 (but two) and WFLW (which is turned into 68)."""
    shapes = make.shapes()
    crop = np.array([70, 60])
    for name, points, words in (
        ("aflw21", [p[:, :2] - crop for p in shapes], "20 of 21 points of aflw21"),
        ("cofw", [p[:, :2] for p in shapes[:2]], "27 of 29 points of cofw29"),
        ("wflw", [p[:, :2] for p in shapes[:2]], "68 of 68 points of ibug68"),
        ("aflw19", [p[:, :2] for p in shapes[:2]], "19 of 19 points of aflw19"),
        ("menpo3d", [p[:, :2] for p in shapes[:2]], "68 of 68 points of ibug68"),
    ):
        faces = protocol(name).faces(SETS[name](tmp_path / name))
        scores = score(protocol(name), faces, Predictions([s.name for s in faces], np.stack(points)))
        assert compared(scores.pairs).startswith(words)
        assert scores.errors[scores.main] == pytest.approx(np.zeros(len(faces)), abs=1e-6), name


def test_what_cannot_be_compared_is_refused(tmp_path):
    faces = protocol("cofw").faces(make.cofw(tmp_path))
    other = Predictions([s.name for s in faces], np.zeros((2, 84, 2)), scheme="menpo84")
    scores = score(protocol("cofw"), faces, other)  # 84 points lead to 29 through 68
    assert compared(scores.pairs).startswith("27 of 29")
    faces = protocol("wflw").faces(make.wflw(tmp_path / "wflw"))  # both lead to 68 points, which lead to neither
    with pytest.raises(LandmarkError, match="no map from"):
        score(protocol("wflw"), faces, Predictions([s.name for s in faces], np.zeros((2, 106, 2)), scheme="lapa106"))


def test_points_without_depth_are_scored_in_the_plane(tmp_path):
    faces = protocol("aflw2000").faces(make.aflw2000(tmp_path))
    flat = Predictions([s.name for s in faces], np.stack([s.points[:, :2] for s in faces]))
    assert set(score(protocol("aflw2000"), faces, flat).errors) == {"NME box", "NME diagonal"}


def test_lost_faces_are_counted_and_fail(tmp_path):
    faces = protocol("300w").faces(make.w300(tmp_path))
    part = [s for s in faces if "common" in s.groups]
    scores = score(protocol("300w"), faces, answers(part))
    assert scores.pairs.found.sum() == 2 and np.isnan(scores.errors["inter-ocular"]).sum() == 1
    table = scores.table("by subset")
    assert table.rows["lost"] == [1, 0, 1] and np.isnan(table.rows["inter-ocular"][0])
    assert scores.table("area under").cell("inter-ocular", "FR@8") == pytest.approx(100 / 3)
    assert scores.table("area under").cell("inter-ocular", "AUC@8") == pytest.approx(200 / 3)
    json.dumps(scores.to_json(), allow_nan=False)
    nothing = score(protocol("300w"), faces, answers(part).of([]))
    assert nothing.table("area under").cell("inter-ocular", "FR@8") == 100


def test_biwi_measures_the_pose_alone(tmp_path):
    scores, _ = measured("biwi", tmp_path)
    assert scores.errors == {} and compared(scores.pairs) == "poses"
    assert scores.table("pose").rows["angles up to 99"] == pytest.approx([0, 0, 0, 0, 0, 6], abs=1e-4)


def test_the_halves_are_told_by_name_and_share_each_bin():
    """Names of six faces, two a bin: one of each bin goes to half A, whatever order they come in."""
    image, angles = np.zeros((4, 4, 3), np.uint8), [np.deg2rad([0, yaw, 0]) for yaw in make.YAWS]
    faces = [FaceSample(image, p, name=f"image{k:05d}", angles=angles[k]) for k, p in enumerate(make.shapes())]
    split = in_halves(faces)
    half = {s.name: s.groups for s in split}
    assert [s.name for s in split] == [s.name for s in faces]
    for b in range(3):
        assert half[f"image{2 * b:05d}"] ^ half[f"image{2 * b + 1:05d}"] == {"half A", "half B"}
    assert {s.name: s.groups for s in in_halves(faces[::-1])} == half
    first = min(("image00000", "image00001"), key=lambda name: crc32(name.encode()))
    assert half[first] == {"half A"}


def test_bins_are_weighted_as_in_the_full_set_and_halves_have_rows(tmp_path):
    faces = protocol("aflw2000").faces(make.aflw2000(tmp_path))
    points = np.stack([s.points for s in faces])
    right = answers(faces)
    wrong = points + np.where(metrics.yaw_bins([s.angles[1] for s in faces]) == 2, 5.0, 0.0)[:, None, None] * [1, 0, 0]
    scores = score(protocol("aflw2000"), faces, Predictions(right.names, wrong))
    table = scores.table("by yaw of the pose")
    errors = 100 * scores.errors["NME box"]
    last = errors[errors > 0]
    assert len(last) == 2
    # the first two bins are without error, so only the third counts: 305 of 2,000
    assert table.cell("NME box", "weighted as the full set") == pytest.approx(last.mean() * 305 / 2000)
    assert table.cell("NME box", "mean of bins") == pytest.approx(last.mean() / 3)
    halves = [table.cell(f"NME box, half {h}", "60-90") for h in "AB"]
    assert sorted(halves) == pytest.approx(sorted(last))
    assert {"GTE, half A", "GTE, half B"} <= set(table.rows)


def test_300w_is_also_measured_without_the_jaw(tmp_path):
    faces = protocol("300w").faces(make.w300(tmp_path))
    wrong = answers(faces)
    wrong.xyz[:, :17] += 40  # the jaw
    assert score(protocol("300w"), faces, wrong).errors["inter-ocular, without jaw"] == pytest.approx(np.zeros(3))
    wrong.xyz[:, 30] += [3, 4]  # one point of 51 off by 5 px
    errors = score(protocol("300w"), faces, wrong).errors["inter-ocular, without jaw"]
    eyes = [np.linalg.norm((s.points[36] - s.points[45])[:2]) for s in faces]
    assert errors == pytest.approx(5 / 51 / np.array(eyes))


# ---- video


def test_a_track_is_measured(tmp_path):
    faces = protocol("300vw").faces(make.vw300(tmp_path, frames=9))
    exact = answers(faces)
    xyz = exact.xyz.copy()
    noise = np.random.default_rng(0).normal(0, 1.5, xyz.shape)
    restarted = np.arange(9) == 5
    keep = np.arange(9) != 4  # a gap: nothing is differenced across it
    names = [n for n, k in zip(exact.names, keep) if k]
    noisy = Predictions(names, (xyz + noise)[keep], restarted=restarted[keep])
    table = score(protocol("300vw"), faces, noisy).table("video")
    row = dict(zip(table.columns, table.rows["001"]))
    assert (row["frames"], row["lost"], row["restarts"]) == (9, 1, 1)
    size = np.sqrt(np.prod(np.ptp(faces[0].points, axis=0)))
    assert row["jitter of labels"] == pytest.approx(0, abs=1e-4)  # constant speed, to the digits of the files
    second = [np.diff((xyz + noise)[part], n=2, axis=0) for part in (slice(0, 4), slice(5, 9))]
    wanted = np.sqrt(np.mean(np.concatenate(second) ** 2) / 6)
    assert row["jitter"] == pytest.approx(100 * wanted / size, rel=1e-3)
    assert wanted == pytest.approx(1.5, rel=0.1)
    assert row["NME"] == pytest.approx(100 * np.mean(np.linalg.norm(noise[keep], axis=-1)) / size, rel=1e-3)


def test_clips_are_also_labelled_by_interpolation(tmp_path):
    """Of x = 0.1 k (k + 1) px the line between frames 10 a and 10 (a + 1) is off by 0.1 (k - 10 a) (10 (a + 1) - k)."""
    scores, faces = measured("clips", tmp_path)
    k = np.arange(21) % 10
    sizes = [np.sqrt(np.prod(np.ptp(s.points[:, :2], axis=0))) for s in faces]
    wanted = np.tile(0.1 * k * (10 - k), 2) / sizes
    assert scores.errors["truth to interpolated labels"] == pytest.approx(wanted, abs=1e-6)
    assert scores.errors["NME box, interpolated labels"] == pytest.approx(wanted, abs=1e-6)
    table = scores.table("video")
    assert list(table.rows)[:2] == ["clip-00000", "clip-00001"]
    # second differences of 0.1 k (k + 1) are 0.2 in x and 0 in y: sqrt(0.2^2 / 2 / 6) px
    assert table.cell("clip-00000", "jitter") == pytest.approx(100 * np.sqrt(0.04 / 12) / sizes[0], rel=1e-3)
    assert table.cell("clip-00000", "jitter of error") == pytest.approx(0, abs=1e-6)


def test_renders_have_hidden_points_and_exact_poses(tmp_path):
    scores, faces = measured("renders", tmp_path)
    assert [s.name for s in faces][2:4] == ["shard-00000#2", "shard-00001#0"]
    assert scores.table("by yaw").rows["faces"][:3] == [2, 2, 2]
    assert scores.table("pose").rows["angles up to 99"] == pytest.approx([0, 0, 0, 0, 0, 6], abs=1e-4)
    assert set(scores.table("NME box of points").rows["NME box"]) == {0.0}


# ---- files


@pytest.mark.parametrize("ending", ["npz", "jsonl", "parquet"])
def test_predictions_are_read_as_they_were_written(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    names = ["a/1", "b#2"]
    given = Predictions(
        names, rng.normal(size=(2, 29, 3)), box=rng.normal(size=(2, 4)), rotation=rng.normal(size=(2, 3, 3)),
        restarted=[1, 0], scheme="cofw29", system="me 1",
    )  # fmt: skip
    given.write(tmp_path / f"p.{ending}")
    again = Predictions.read(tmp_path / f"p.{ending}")
    assert again.names == ("a/1", "b#2") and again.scheme == "cofw29" and again.system == "me 1"
    for field in ("xyz", "box", "rotation", "restarted"):
        np.testing.assert_allclose(getattr(again, field), getattr(given, field), atol=1e-4)
    assert np.isnan(again.sigma).all() and again.sigma.shape == (2, 29)
    ordered = again.of(["b#2", "c", "a/1"])
    np.testing.assert_allclose(ordered.xyz[[0, 2]], again.xyz[[1, 0]])
    assert np.isnan(ordered.xyz[1]).all()


def test_json_lines_may_say_less(tmp_path):
    points = make.turned(0)[:, :2].round(2).tolist()
    lines = [{"id": "a", "xyz": points, "box": [1, 2, 3, 4]}, {"id": "b", "xyz": None}, {"id": "c", "xyz": points}]
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    read = Predictions.read(tmp_path / "p.jsonl")
    assert read.names == ("a", "c") and read.xyz.shape == (2, 68, 2) and read.scheme == "ibug68"
    np.testing.assert_array_equal(read.box, [[1, 2, 3, 4], [np.nan] * 4])


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "no file of predictions"), ('{"id": "a"}\n{"xyz": [[1, 2]]}', "no file of predictions"),
     ('{"id": "a", "xyz": [[1, 2]]}', "no file of predictions")],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, text, said):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(LandmarkError, match=said):
        Predictions.read(tmp_path / "p.jsonl")
    with pytest.raises(LandmarkError, match=r"p\.npz' is no file of predictions"):
        Predictions.read(tmp_path / "p.npz")


@pytest.mark.parametrize(
    "change",
    [{"id": 3}, {"id": None}, {"xyz": [["1", "2"]] * 68}, {"xyz": [[True, 2]] * 68}, {"xyz": "none"},
     {"xyz": [[1, 1e999]] * 68},
     {"box": [1, 2, 3]}, {"box": ["1", 2, 3, 4]}, {"visible": [2] * 68}, {"sigma": [-1] * 68}, {"system": 3},
     {"scheme": "other"}, {"scheme": []}, {"restarted": "no"}, {"rotation": [[1, 0, 0]] * 2}],
)  # fmt: skip
def test_a_wrong_type_in_json_lines_is_refused(tmp_path, change):
    line = {"id": "a", "xyz": make.turned(0)[:, :2].round(2).tolist()}
    (tmp_path / "p.jsonl").write_text(json.dumps(line | {"restarted": True, "sigma": [1] * 68}))
    assert Predictions.read(tmp_path / "p.jsonl").restarted.tolist() == [1]
    (tmp_path / "p.jsonl").write_text(json.dumps(line | change))
    with pytest.raises(LandmarkError):
        Predictions.read(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    "change",
    [{"id": np.array([[1]])}, {"id": np.array([1.5])}, {"xyz": np.full((1, 68, 2), "1")},
     {"xyz": np.full((1, 68, 2), np.inf)},
     {"sigma": np.full((1, 68), -1.0)}, {"scheme": np.array(["ibug68", "a"])}, {"system": np.array(3)},
     {"visible": np.full((1, 68), "yes")}, {"box": np.zeros((2, 4))}],
)  # fmt: skip
def test_a_wrong_type_in_npz_is_refused(tmp_path, change):
    arrays = {"id": np.array(["a"]), "xyz": np.zeros((1, 68, 2))}
    np.savez(tmp_path / "p.npz", **arrays)
    assert Predictions.read(tmp_path / "p.npz").names == ("a",)
    np.savez(tmp_path / "p.npz", **(arrays | change))
    with pytest.raises(LandmarkError):
        Predictions.read(tmp_path / "p.npz")


def test_predictions_in_parquet_are_a_table_of_numbers(tmp_path):
    pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    points, rotation = np.arange(2 * 68 * 3).reshape(2, 68, 3), np.arange(18).reshape(2, 3, 3)
    expression = np.full((2, 52), 0.25)
    Predictions(["a", "b"], points, rotation=rotation, expression=expression, system="me").write(tmp_path / "p.parquet")
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert list(table["id"]) == ["a", "b"] and set(table["scheme"]) == {"ibug68"} and set(table["system"]) == {"me"}
    # point 30 of the second face is numbers 68 * 3 + 30 * 3 and on; row 1, column 2 of its rotation 9 + 5
    assert table.loc[1, ["x_30", "y_30", "z_30", "rotation_12", "jawOpen"]].tolist() == [294, 295, 296, 14, 0.25]
    assert not any(name.startswith(("sigma", "visible", "box")) for name in table)
    table[["id", *(f"{axis}_{k}" for axis in "xy" for k in range(68))]].to_parquet(tmp_path / "less.parquet")
    np.testing.assert_array_equal(Predictions.read(tmp_path / "less.parquet").xyz, points[:, :, :2])
    Predictions([], np.zeros((0, 68, 3))).write(tmp_path / "none.parquet")
    assert len(Predictions.read(tmp_path / "none.parquet")) == 0
    wrong = {
        "no x_0": table.drop(columns="x_0"), "half a box": table.assign(box_x0=1.0), "text": table.assign(y_3="1"),
        "two schemes": table.assign(scheme=["ibug68", "cofw29"]), "numbers as ids": table.assign(id=[1, 2]),
    }  # fmt: skip
    for name, other in wrong.items():
        other.to_parquet(tmp_path / "wrong.parquet")
        with pytest.raises(LandmarkError, match="no table of predictions"):
            Predictions.read(tmp_path / "wrong.parquet")
            pytest.fail(name)
    (tmp_path / "wrong.parquet").write_text("none")
    with pytest.raises(LandmarkError, match="cannot be read"):
        Predictions.read(tmp_path / "wrong.parquet")


def test_no_objects_are_loaded(tmp_path):
    np.savez(tmp_path / "p.npz", id=np.array(["a"], object), xyz=np.zeros((1, 68, 2)))
    with pytest.raises(LandmarkError, match="no file of predictions"):
        Predictions.read(tmp_path / "p.npz")


def test_predictions_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(LandmarkError, match=r"got points of shape \(1, 66, 2\) for 1 face of ibug68"):
        Predictions(["a"], np.zeros((1, 66, 2)))
    with pytest.raises(LandmarkError, match="several predictions for 'a'"):
        Predictions(["a", "b", "a"], np.zeros((3, 68, 2)))
    with pytest.raises(LandmarkError, match=r"got box of shape \(4,\), want \(1, 4\)"):
        Predictions(["a"], np.zeros((1, 68, 2)), box=np.zeros(4))
    with pytest.raises(LandmarkError, match=r"ends in \.npz, \.jsonl, \.parquet"):
        Predictions(["a"], np.zeros((1, 68, 2))).write(tmp_path / "p.csv")


# ---- boxes


def test_boxes_move_by_what_is_said_and_the_same_each_time():
    boxes = np.array([[10.0, 20, 110, 70], [0, 0, 40, 80]])
    there = box_rules.moved(boxes, 0.1, 1.0, seed=3)
    step = (there - boxes)[:, :2]
    np.testing.assert_allclose(there - boxes, np.tile(step, 2))
    np.testing.assert_allclose(np.linalg.norm(step, axis=1), [10, 8])  # a tenth of the longer sides
    np.testing.assert_array_equal(there, box_rules.moved(boxes, 0.1, 1.0, seed=3))
    twice = box_rules.moved(boxes, 0.2, 1.0, seed=3)
    np.testing.assert_allclose(twice - boxes, 2 * (there - boxes))  # the direction does not depend on how far
    larger = box_rules.moved(boxes, 0, 1.2, seed=3)
    np.testing.assert_allclose(larger, [[0, 15, 120, 75], [-4, -8, 44, 88]])
    many = box_rules.jittered(np.repeat(boxes[:1], 400, 0))
    size = (many[:, 2] - many[:, 0]) / 100
    assert size.min() >= 0.8 and size.max() <= 1.2 and size.std() == pytest.approx(0.4 / np.sqrt(12), rel=0.1)
    middle = (many[:, :2] + many[:, 2:]) / 2 - [60, 45]
    assert 15 < np.linalg.norm(middle, axis=1).max() <= 20  # a fifth of the longer side


def test_the_nearest_box_is_the_face_unless_it_is_far_away():
    box = np.array([10.0, 20, 110, 70])
    others = np.array([[300.0, 300, 340, 340], [40, 30, 60, 60], [100, 20, 200, 70]])
    assert box_rules.nearest(others, box) == 1
    assert box_rules.nearest(others[:1], box) is None and box_rules.nearest(others[:0], box) is None
    assert (
        box_rules.nearest(box[None] + 70, box) == 0 and box_rules.nearest(box[None] + 71, box) is None
    )  # 99 and 100.4


@pytest.mark.parametrize("name", ["cofw29", "aflw21", "aflw19"])
@pytest.mark.parametrize("yaw", [0.0, 40.0])
def test_the_box_of_68_points_is_estimated_from_fewer(name, yaw):
    points = make.turned(yaw)
    wanted = box_rules.tight_box(points, "ibug68")
    np.testing.assert_allclose(wanted, [*points[:, :2].min(0), *points[:, :2].max(0)])
    some = convert(points, "ibug68", name)[0]
    got = box_rules.tight_box(some, name)
    known = some[np.isfinite(some[:, 0]), :2]
    few = np.concatenate([known.min(0), known.max(0)])
    away = np.abs(got - wanted).max() / 120
    assert away < 0.16 and away < np.abs(few - wanted).max() / 120 + 0.02  # this face is no person's: not exact


# ---- corrupted photos


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_photos_are_spoiled_more_by_more(what):
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (24, 26, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    box = np.array([20.0, 20, 200, 190])
    strengths = CORRUPTIONS[what][1]
    assert len(strengths) == 5
    away = []
    for strength in strengths:
        one = corrupt(what, strength, 4, rough, box)
        assert one.shape == rough.shape and one.dtype == np.uint8
        np.testing.assert_array_equal(one, corrupt(what, strength, 4, rough, box))
        away.append(np.abs(one.astype(float) - rough).mean())
    assert away[0] > 0 and np.all(np.diff(away) > 0)


def test_what_is_covered_is_the_share_of_the_box():
    flat = np.full((300, 300, 3), 77, np.uint8)
    box = np.array([50.0, 50, 250, 250])
    for share in (10, 40):
        changed = (corrupt("occlusion", share, 1, flat, box) != flat).any(-1)
        assert changed.sum() / 200**2 == pytest.approx(share / 100, rel=0.05)
        rows, columns = np.nonzero(changed)
        assert min(rows.min(), columns.min()) >= 50 and max(rows.max(), columns.max()) <= 250


def test_own_boxes_lose_the_habit_of_a_set_and_keep_what_varies():
    """Boxes that are all 1.5 times as large and a fifth of a side lower become the true ones; one that is another 10 %
    larger than the others stays so."""
    true = np.array([[0.0, 0, 100, 80], [50, 60, 90, 120], [10, 10, 210, 190]])
    middle, side = (true[:, :2] + true[:, 2:]) / 2, (true[:, 2:] - true[:, :2]).max(1, keepdims=True)
    habit = lambda grown: np.concatenate([middle - 0.75 * side * grown, middle + 0.75 * side * grown], 1)
    low = np.array([0, 0.2, 0, 0.2]) * side
    square = np.concatenate([middle - side / 2, middle + side / 2], 1)
    np.testing.assert_allclose(box_rules.own(habit(1.0) + low, true), square, atol=1e-9)
    grown = box_rules.own(habit(np.array([[1.0], [1.0], [1.1]])), true)
    np.testing.assert_allclose((grown[:, 2] - grown[:, 0]) / side[:, 0], [1, 1, 1.1])


def test_second_labels_are_divided_by_their_own_box():
    truth = make.turned(0)[None]
    second = 2 * truth[..., :2]
    pairs_of = SimpleNamespace(prediction=truth + [3, 4, 0], truth=truth, relabelled=second, boxes=None)
    size = np.sqrt(np.prod(np.ptp(truth[0, :, :2], axis=0)))
    apart = np.linalg.norm(second - truth[..., :2], axis=-1).mean()
    np.testing.assert_allclose(pairs.labels_apart(pairs_of), apart / size)
    away = np.linalg.norm(second - truth[..., :2] - [3, 4], axis=-1).mean()
    np.testing.assert_allclose(pairs.nme_relabelled(pairs_of), away / (2 * size))


def test_halves_take_turns():
    points = np.zeros((68, 2)) + np.arange(68)[:, None]
    faces = [FaceSample(np.zeros((4, 4, 3), np.uint8), points, name=f"f{k}", angles=np.zeros(3)) for k in range(4)]
    half = {sample.name: sample.groups for sample in in_halves(faces)}
    order = sorted(half, key=lambda name: crc32(name.encode()))
    assert [half[name] for name in order] == [{"half A"}, {"half B"}] * 2


def test_the_last_step_of_yaw_holds_what_is_beyond_it():
    middles, means = by_steps_of_yaw(np.deg2rad([-5.0, 5, 75, 85, 100]), np.array([1.0, 3, 5, 7, 9]))
    assert middles[7:] == [75, 85] and means[0] == 2 and means[7:] == [5, 8] and np.isnan(means[1:7]).all()
