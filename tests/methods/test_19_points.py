"""pose_aware on the 19 points of AFLW: stable points, masked losses, the head fitted to them, a training end to end."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import painted_sets
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from small import CONFIGS, STILL  # noqa: E402

from canthus.data.formats import FaceSample  # noqa: E402
from canthus.data.sample import FaceBatch  # noqa: E402
from canthus.data.sources import FaceMix  # noqa: E402
from canthus.data.truth import whole_truth  # noqa: E402
from canthus.evaluation.collect import collect  # noqa: E402
from canthus.evaluation.pairs import nme_own_box, pair  # noqa: E402
from canthus.evaluation.protocols import protocol  # noqa: E402
from canthus.face.completion import Completion, complete  # noqa: E402
from canthus.face.faces import Alignment  # noqa: E402
from canthus.face.landmarks import convert, scheme  # noqa: E402
from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.geometry.camera import WeakPerspective  # noqa: E402
from canthus.geometry.crop import tight_boxes  # noqa: E402
from canthus.geometry.rotation import matrix_from_euler  # noqa: E402
from canthus.inference.runtime import OnnxAligner  # noqa: E402
from canthus.methods.pose_aware import SEMIFACE, SEMIFACE_19, PoseAware  # noqa: E402
from canthus.training.aligner import Aligner, build  # noqa: E402
from canthus.training.export import export_onnx  # noqa: E402
from canthus.training.partial import learnable  # noqa: E402
from canthus.training.recipe import Recipe  # noqa: E402
from canthus.training.train import train  # noqa: E402

NARROW = {"size": 64, **CONFIGS["pose_aware"], "landmarks": 19}
STABLE = [*SEMIFACE_19, 3, 11, 14, 17]
MODEL = MorphableModel.default()


def narrow(**changes) -> PoseAware:
    torch.manual_seed(0)
    return build("pose_aware", {**NARROW, **changes})


def heads(count: int) -> np.ndarray:
    """Landmarks (count,68,3) of random heads of the model that look to the picture's right."""
    rng = np.random.default_rng(0)
    rotation = matrix_from_euler(np.deg2rad(rng.uniform([-15, -50, -15], [15, 0, 15], (count, 3))), "aflw")
    camera = WeakPerspective(rotation, np.full(count, 0.9), np.full((count, 2), 110.0))
    return camera.project(MODEL.landmarks(rng.normal(size=(count, 10))))


def test_eleven_points_of_one_half_and_four_of_the_other_are_stable():
    """The eleven: whatever 68 points they are made of lies in the half that the paper counts 30 points in, or on the
    midline; the four are the same anatomical points as those of the 68."""
    names = scheme("aflw19").points
    assert not [names[k] for k in SEMIFACE_19 if names[k].startswith("left")]
    assert narrow(extra=(22, 35, 45, 54)).ids.tolist() == sorted(STABLE)
    assert narrow(extra=()).ids.tolist() == sorted(SEMIFACE_19)
    assert narrow(extra=(22, 35, 45, 54, *range(9))).ids.tolist() == sorted(STABLE)  # of the jaw AFLW has the chin
    assert narrow(second="all").ids.tolist() == [*range(19)]
    one = np.zeros((68, 2), np.float64)
    one[list(SEMIFACE)] = 1  # means over points of the half alone are 1
    here = convert(one, "ibug68", "aflw19")[0][:, 0]
    assert {*np.flatnonzero(here > 0.999)} == {*SEMIFACE_19} - {16, 18}  # mouth and chin are of the midline


def test_the_head_fitted_to_fifteen_points_gives_the_others_and_keeps_those():
    """The stable points exact: 2 % of the face's size for the open ones, and the placed ones exactly where they were,
    eye centres and mouth, which are means of six and eight of the 68, as well."""
    xyz = heads(30)
    true = convert(xyz, "ibug68", "aflw19")[0]
    is_stable = np.isin(np.arange(19), STABLE)
    said = np.where(is_stable[:, None], true, 3.0) * [1, 1, 0]
    score = np.broadcast_to(is_stable.astype(np.float32), true.shape[:2])
    out = complete(Alignment(said.astype(np.float32), score=score), Completion(0.01, 5, "fixed", points="aflw19"))
    assert out.xyz.shape == (30, 68, 3) and out.score.shape == (30, 68)
    back = convert(out.xyz.astype(np.float64), "ibug68", "aflw19")[0]
    np.testing.assert_allclose(back[:, is_stable, :2], true[:, is_stable, :2], atol=1e-3)
    size = np.sqrt(np.prod(np.ptp(xyz[..., :2], axis=1), axis=1))
    away = np.linalg.norm(back[..., :2] - true[..., :2], axis=-1) / size[:, None]
    assert away[:, ~is_stable].mean() < 0.02
    all68 = np.linalg.norm(out.xyz[..., :2] - xyz[..., :2], axis=-1) / size[:, None]
    assert all68[:, 17:].mean() < 0.03
    single = [17, 19, 21, 22, 36, 39, 45, 31, 30, 35, 48, 54, 8]
    assert np.flatnonzero(out.score[0]).tolist() == sorted(single)


def test_points_that_are_not_known_do_not_count():
    """The loss of a face is that of the same face whose unknown points are anywhere else, in both networks."""
    aligner = narrow().train(False)
    xyz = torch.from_numpy(convert(heads(4) * 0.4, "ibug68", "aflw19")[0]).float() + 10
    known = torch.ones(4, 19, dtype=torch.bool)
    known[:2, [4, 7, 16]] = False
    batch = FaceBatch(xyz, torch.ones(4, 19), torch.eye(3).repeat(4, 1, 1), known=known, crops=torch.rand(4, 3, 64, 64))
    out = aligner(batch.crops)
    moved = xyz.clone()
    moved[:2, [4, 7, 16]] += 20
    for name in ("rough", "stable"):
        there = aligner.loss(out, replace(batch, xyz=moved))[name]
        torch.testing.assert_close(aligner.loss(out, batch)[name], there)
        assert not torch.equal(there, aligner.loss(out, replace(batch, xyz=moved, known=None))[name])
    # one mask stands for both networks: of a mirrored face point 10 is the other eye
    frame = aligner._frame(xyz[..., :2])
    mirrored = frame._replace(left=~frame.left)
    slot = aligner.ids.tolist().index(7)
    assert aligner._known_in(frame, batch)[:, slot].tolist() == [
        bool(left) or k > 1 for k, left in enumerate(frame.left)
    ]
    assert aligner._known_in(mirrored, batch)[:2, slot].tolist() != aligner._known_in(frame, batch)[:2, slot].tolist()


def test_boxes_are_those_around_the_68_landmarks():
    """The 19 points span less than the face; the mean head, laid on them, tells the box of all 68 to a tenth."""
    xyz = heads(20)
    samples = [
        FaceSample(np.zeros((240, 240, 3), np.uint8), p[:, :2], scheme="aflw19")
        for p in convert(xyz, "ibug68", "aflw19")[0]
    ]
    true, told = tight_boxes(xyz), whole_truth(samples, "aflw19").boxes
    side = (true[:, 2:] - true[:, :2]).max(1, keepdims=True)
    assert (np.abs(told - true) / side).mean() < 0.05 and (np.abs(told - true) / side).max() < 0.2
    tight = tight_boxes(convert(xyz, "ibug68", "aflw19")[0])
    assert (np.abs(tight - true) / side).max() > 0.25  # what the points themselves say


def test_a_log_says_which_points_no_face_has(tmp_path, caplog):
    faces = FaceMix([str(painted_sets.aflw21(tmp_path))], 64, 1.4, 0)
    with caplog.at_level(logging.WARNING):
        assert len(learnable(narrow(landmarks=68), faces)) == 2
    # all but 8, 17, 19, 21, 22, 24, 26, 30, 31, 35, 36, 39, 42, 45, 48 and 54
    assert "no face has the points 0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 23" in caplog.text
    caplog.clear()
    learnable(narrow(), FaceMix([str(tmp_path)], 64, 1.4, 0, points="aflw19"))
    assert not caplog.records


@pytest.mark.slow
def test_aflw_is_learnt_by_the_papers_recipe_exported_and_measured(tmp_path):
    """The paper's optimiser, rates and loss scale on the visible ones of 21 points, of a narrow network: the loss of
    both networks falls. Then ONNX, and the protocol of 21 points."""
    folder = painted_sets.aflw21(tmp_path / "set")
    plain = Recipe.read("pose_aware-paper")
    config = {**plain.config, "size": 64, "depths": [1, 1, 1, 1], "width": 16, "landmarks": 19, "crop_scale": 1.4}
    changes = {"faces": [str(folder)], "config": config, "batch": 8, "augment": STILL, "picture_every": 0}
    losses: dict[float, dict[str, list[float]]] = {}
    for learns in (1.0, 0.0):
        stages = {"stable": {"lr": plain.lr * learns}}
        recipe = Recipe.read("pose_aware-paper", **changes, steps=40, lr=plain.lr * learns, stages=stages)
        for row in train(recipe, tmp_path / f"run{learns}"):
            losses.setdefault(learns, {}).setdefault(row["stage"], []).append(row["loss"])
    for name, values in losses[1.0].items():
        assert np.mean(values[-5:]) < np.mean(losses[0.0][name][-5:])
    weights = tmp_path / "run1.0" / "weights"
    assert export_onnx(weights, tmp_path / "onnx") < 1e-3
    samples = protocol("aflw21").faces(folder)
    answers = [collect(predictor, samples) for predictor in (Aligner.load(weights), OnnxAligner(tmp_path / "onnx"))]
    np.testing.assert_allclose(answers[0].xyz, answers[1].xyz, atol=2e-2)
    assert answers[0].xyz.shape == (8, 68, 3)
    pairs = pair(samples, answers[0])
    assert pairs.scheme == "aflw21" and pairs.found.all() and np.isfinite(nme_own_box(pairs)).all()
