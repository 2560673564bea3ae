"""84 points (Menpo-3D) from the labels to the files: training, export, alignment, tracking, outputs, evaluation."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import layouts_maker as make
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from faces_maker import make_faces  # noqa: E402
from PIL import Image  # noqa: E402
from small import config, recipe  # noqa: E402

import canthus  # noqa: E402
from canthus.data.sources import FaceMix  # noqa: E402
from canthus.data.truth import whole_truth  # noqa: E402
from canthus.errors import LandmarkError  # noqa: E402
from canthus.evaluation.evaluate import evaluate, predict  # noqa: E402
from canthus.evaluation.protocols import protocol  # noqa: E402
from canthus.face.landmarks import convert, scheme  # noqa: E402
from canthus.geometry.crop import tight_boxes  # noqa: E402
from canthus.inference.detect import Detections  # noqa: E402
from canthus.inference.tracker import Tracker  # noqa: E402
from canthus.io.draw import overlay  # noqa: E402
from canthus.io.outputs import read_json, write_json, write_pts  # noqa: E402
from canthus.io.tables import write_csv  # noqa: E402
from canthus.training.export import export_onnx  # noqa: E402
from canthus.training.train import train  # noqa: E402

COUNT = 8


def write_menpo(folder: Path, faces: dict[str, np.ndarray]) -> Path:
    """Faces with 68 points as pictures with 84 in LJSON (y, x, z)."""
    folder.mkdir()
    for k, (image, xyz) in enumerate(zip(faces["image"], faces["xyz"])):
        Image.fromarray(image).save(folder / f"{k}.png")
        rows = convert(xyz.astype(np.float64), "ibug68", "menpo84")[0][:, [1, 0, 2]].tolist()
        document = {"version": 2, "labels": [], "landmarks": {"points": rows, "connectivity": []}}
        (folder / f"{k}.ljson").write_text(json.dumps(document))
    return folder


def write_video(folder: Path, faces: dict[str, np.ndarray], frames: int) -> Path:
    """Frames of the first face, which stands still, labelled in every second one, as 300-VW."""
    points = convert(faces["xyz"][0].astype(np.float64), "ibug68", "menpo84")[0]
    for k in range(frames):
        path = folder / "001" / "imgs" / f"{k + 1:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces["image"][0]).save(path)
        if k % 2 == 0:
            make.pts(folder / "001" / "annot" / f"{k + 1:06d}.pts", points)
    return folder


class Finder:
    """A detector that knows where the face is."""

    def __init__(self, boxes: np.ndarray):
        self.boxes = boxes.astype(np.float32)

    def __call__(self, picture: np.ndarray) -> Detections:
        return Detections.of_boxes(self.boxes, np.full(len(self.boxes), 0.9, np.float32))

    quick = __call__


@pytest.fixture(scope="module")
def faces() -> dict[str, np.ndarray]:
    return make_faces(COUNT, size=96, seed=5, most=30)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, faces) -> tuple[Path, Path, list[float]]:
    """The folder of the labels, exported weights after a few steps on them, and the losses of the heatmaps."""
    folder = tmp_path_factory.mktemp("84")
    data = write_menpo(folder / "menpo", faces)
    changes = {**config("local_global", 64), "landmarks": 84, "finetune": "shape"}
    plan = recipe("local_global", data, config=changes, steps=40, batch=4)
    losses = [step["heatmaps"] for step in train(plan, folder / "run")]
    export_onnx(folder / "run" / "weights", folder / "onnx")
    return data, folder / "onnx", losses


def test_maps_between_68_and_84_points_agree_and_keep_to_the_curve():
    there = convert(np.eye(68)[:, :3], "ibug68", "menpo84")[0]
    assert np.abs(convert(there, "menpo84", "ibug68")[0] - np.eye(68)[:, :3]).max() < 1e-12
    # a jaw on the parabola y = x^2 with x = 0..16: the points between lie on it too, at x + 1/2
    jaw = np.zeros((68, 2))
    jaw[:17] = np.stack([np.arange(17.0), np.arange(17.0) ** 2], 1)
    x, y = convert(jaw, "ibug68", "menpo84")[0][:33].T
    assert x == pytest.approx(np.arange(33) / 2) and y == pytest.approx(x**2)


def test_the_truth_of_training_has_84_points_whatever_the_labels(tmp_path, faces):
    menpo = list(protocol("menpo3d").faces(write_menpo(tmp_path / "a", faces)))
    truth = whole_truth(menpo, "menpo84")
    assert truth.xyz.shape == (COUNT, 84, 3) and truth.known.all() and truth.deep.all()
    away = truth.xyz - np.stack([s.points for s in menpo])
    assert np.abs(away[..., :2]).max() < 1e-3
    mix = FaceMix([str(make.renders(tmp_path / "b"))], 64, 1.4, 0, points="menpo84")
    batch = mix.fetch(0, 2, 0)[0]
    assert batch.xyz.shape == (2, 84, 3) and batch.visible.shape == (2, 84)
    assert not batch.visible[:, :33].any() and batch.visible[:, 33:].all()  # as of 68: the jaw is hidden
    assert batch.xyz[..., 2].mean(1).abs().max() < 1e-3


@pytest.mark.slow
def test_a_few_steps_lower_the_loss(trained):
    losses = trained[2]
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


@pytest.mark.slow
def test_a_photo_has_84_points_with_depth_in_every_file(trained, faces, tmp_path):
    aligner = canthus.load(trained[1], threads=1)
    assert aligner.card.scheme == "menpo84"
    boxes = tight_boxes(faces["xyz"][:1])
    found = aligner.predict(faces["image"][0], boxes)
    assert found.xyz.shape == (1, 84, 3) and found.scheme == "menpo84" and np.ptp(found.xyz[..., 2]) > 1
    assert found.landmarks().shape == (1, 68, 3) and len(found.mesh()) == 1
    write_json(tmp_path / "a.json", found)
    again = read_json(tmp_path / "a.json")
    assert again.scheme == "menpo84" and again.xyz == pytest.approx(found.xyz, abs=1e-3)
    write_pts(tmp_path / "a.pts", found)
    assert "n_points:  84\n" in (tmp_path / "a.pts").read_text()
    write_csv(tmp_path / "a.csv", found)  # tables have the columns of the 68
    with open(tmp_path / "a.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["x_0"]) == pytest.approx(found.xyz[0, 0, 0], abs=1e-3)
    assert float(row["x_67"]) == pytest.approx(found.xyz[0, 83, 0], abs=1e-3) and "x_68" not in row
    drawn = overlay(faces["image"][0], found)
    assert (drawn != faces["image"][0]).any()
    assert len(aligner.predict(faces["image"][0], np.zeros((0, 4)))) == 0


@pytest.mark.slow
def test_the_same_points_are_evaluated_and_mirrored(trained):
    data, weights, _ = trained
    scores = evaluate("menpo3d", data, predict("menpo3d", data, canthus.load(weights, threads=1)))
    assert scores.pairs.scheme == "menpo84" and scores.pairs.prediction.shape == (COUNT, 84, 3)
    assert {"NME box", "NME diagonal", "GTE"} <= set(scores.errors) and scores.pairs.found.all()
    aligned = predict("menpo3d", data, canthus.load(weights, threads=1), boxes="aligned")
    assert aligned.xyz.shape == (COUNT, 84, 3) and aligned.scheme == "menpo84"
    assert (scheme("menpo84").mirror[scheme("menpo84").mirror] == np.arange(84)).all()


@pytest.mark.slow
def test_a_video_is_tracked_and_measured_between_its_labels(trained, faces, tmp_path):
    folder = write_video(tmp_path, faces, frames=5)
    aligner = canthus.load(trained[1], threads=1)
    aligner.__dict__["detector"] = Finder(tight_boxes(faces["xyz"][:1]))
    answers = predict("300vw84", folder, aligner, boxes="tracked")
    scores = evaluate("300vw84", folder, answers)
    assert answers.scheme == "menpo84" and len(scores.pairs.samples) == 5  # two frames between labelled ones
    assert {"annotated", "interpolated"} <= set(scores.table("by subset").columns)


@pytest.mark.slow
def test_two_models_of_other_points_cannot_track_together(trained):
    with pytest.raises(LandmarkError, match="points of ibug68 and of menpo84, want one scheme"):
        Tracker(canthus.load(threads=1), canthus.load(trained[1], threads=1))
