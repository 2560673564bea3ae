"""Training of the detector: composites on the disk, learning, going on after a stop, export."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from heads_maker import write_heads

torch = pytest.importorskip("torch")

import canthus  # noqa: E402
from canthus.detection import dataset  # noqa: E402
from canthus.detection.candidates import Candidates  # noqa: E402
from canthus.detection.composites import FaceTruth  # noqa: E402
from canthus.detection.dataset import Composites, _varied, part_path  # noqa: E402
from canthus.detection.network import DetectorNetwork  # noqa: E402
from canthus.detection.refiner import Looks, RefinerNetwork, look_terms  # noqa: E402
from canthus.detection.train import DetectorRecipe, draw, train_detector  # noqa: E402
from canthus.errors import CanthusError, RecipeError, WeightsError  # noqa: E402
from canthus.inference.detect import REFINER_CONTEXT, Detections, corrected  # noqa: E402


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return write_heads(tmp_path_factory.mktemp("heads"))


@pytest.fixture
def small_parts(monkeypatch):
    """Files of eight composites; drawn here, as other processes do not know of it."""
    monkeypatch.setattr(dataset, "PART", 8)
    monkeypatch.setattr("canthus.detection.train.PART", 8)

    class Here:
        def __init__(self, count):
            pass

        def submit(self, function, *given):
            from concurrent.futures import Future

            done: Future = Future()
            done.set_result(function(*given))
            return done

        def stop(self):
            pass

    monkeypatch.setattr(dataset, "Workers", Here)
    monkeypatch.setattr("canthus.detection.train.export_detector", lambda *given: None)  # has a test of its own


def recipe(heads, **changes) -> DetectorRecipe:
    values = {
        "heads": (str(heads),),
        "composites": 8,
        "side": 96,
        "steps": 6,
        "batch": 4,
        "warmup_steps": 2,
        "refiner_steps": 4,
        "refiner_batch": 8,
        "save_every": 1,
    }
    return DetectorRecipe(**values | changes)


def test_variants_carry_their_truth_along():
    seen = set()
    for seed in range(200):
        image = np.zeros((64, 64, 3), np.uint8)
        image[10:21, 30:51] = 100  # a face from (30, 10) to (50, 20), looking up
        image[10, 30] = 250  # and its corner
        truth = FaceTruth(
            np.float32([[30, 10, 50, 20]]), np.float32([[40, 15, 20]]), np.float32([[0, -1]]), np.ones(1, bool)
        )
        varied, box, upright, up, *_ = _varied(np.random.default_rng(seed), image, *truth, np.ones(1, bool))
        y, x = np.nonzero(varied[..., 0])
        np.testing.assert_allclose(box[0], [x.min(), y.min(), x.max(), y.max()])
        np.testing.assert_allclose(upright[0], [(x.min() + x.max()) / 2, (y.min() + y.max()) / 2, 20])
        # from the middle, up points to the edge at which the corner lies in both variants
        corner = np.array(np.unravel_index(varied[..., 0].argmax(), (64, 64)))[::-1]
        assert up[0] @ (corner - upright[0, :2]) == 5  # half of the short side
        seen.add((*up[0].round(), *np.sign(corner - upright[0, :2])))
    assert len(seen) == 8  # four turns, each as it is and mirrored


def test_drawn_once_and_read_back(heads, tmp_path, small_parts):
    plan = recipe(heads, composites=16)
    assert list(draw(plan, tmp_path)) == [8, 16]
    before = part_path(tmp_path / "composites", 1).stat().st_mtime_ns
    part_path(tmp_path / "composites", 0).unlink()
    assert list(draw(plan, tmp_path)) == [16] and list(draw(plan, tmp_path)) == []
    assert part_path(tmp_path / "composites", 1).stat().st_mtime_ns == before
    images, faces = Composites(tmp_path / "composites", 2).batch(np.random.default_rng(0), 5)
    assert images.shape == (5, 96, 96, 3) and faces.box.shape[0] == 5 and faces.there.any()


@pytest.mark.parametrize("key", ["environments", "photos", "objects"])
def test_a_folder_of_something_else_than_pictures_is_refused(heads, tmp_path, small_parts, key):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "picture.exr").write_text("no picture")
    with pytest.raises(CanthusError, match="cannot be read"):
        list(draw(recipe(heads, **{key: str(tmp_path / "given")}), tmp_path / "run"))


def test_it_learns_and_goes_on_after_a_stop(heads, tmp_path, small_parts):
    plan = recipe(heads, steps=6)
    rows = {}
    for name, stops in (("whole", [10]), ("parts", [3, 6, 8, 10])):
        list(draw(plan, tmp_path / name))
        for stop in stops:
            running = train_detector(plan, tmp_path / name)
            for row in running:
                rows[name, row["step"]] = row["stage"], row["loss"]
                if row["step"] == stop != 10:
                    running.close()
                    break
    for step in range(1, 11):
        assert rows["whole", step][0] == rows["parts", step][0] == ("detector" if step <= 6 else "refiner")
        assert rows["whole", step][1] == pytest.approx(rows["parts", step][1], rel=1e-3)
    assert {p.name for p in (tmp_path / "whole").glob("*.safetensors")} == {
        "checkpoint.safetensors", "detector.safetensors", "refiner.safetensors",
    }  # fmt: skip
    log = (tmp_path / "parts" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["step", *(str(n) for n in range(1, 11))]


@pytest.mark.slow
def test_faces_are_found_after_learning_eight_pictures_by_heart(heads, tmp_path, small_parts):
    plan = recipe(heads, steps=150, batch=8, side=128, lr=3e-3, ema_decay=0.9, refiner_steps=60, refiner_batch=64)
    list(draw(plan, tmp_path))
    rows = list(train_detector(plan, tmp_path))
    for stage in ("detector", "refiner"):
        losses = [row["loss"] for row in rows if row["stage"] == stage]
        assert np.mean(losses[-10:]) < min(0.5 * np.mean(losses[5:15]), np.mean(losses[5:15]) - 0.5)


@pytest.fixture
def candidates(heads, tmp_path, small_parts):
    """Of eight composites, where a pyramid that knows nothing sees something everywhere."""
    list(draw(recipe(heads), tmp_path))
    network = DetectorNetwork()
    for head in network.heads:
        head[-1].bias.data[0] = -1.0
    return Candidates(Composites(tmp_path / "composites", 1), network)


def test_crops_of_the_refiner_come_with_what_leads_to_the_truth(candidates, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "canthus.detection.candidates.crop_image",
        lambda image, crop: seen.append(crop) or [np.zeros((64, 64, 3), np.uint8)],
    )
    faces = 0
    for seed in range(60):
        crops, shows, move, up = (np.asarray(v) for v in candidates.item(np.random.default_rng(seed)))
        crop = seen[-1]
        if not shows:
            continue
        faces += 1
        square = np.array([[*crop.center[0], crop.side[0] / REFINER_CONTEXT, crop.angle[0]]])
        truths = []
        for sign in (1, -1):  # a mirrored crop has a mirrored truth
            flip = np.array([sign, 1, 1])
            one = np.ones(1)
            here = Detections(np.zeros((1, 4), np.float32), one, square, one, np.ones(1, bool), one, one)
            truths.append(corrected(here, np.ones(1), move[None] * flip, up[None] * flip[:2], np.ones(1)).squares[0])
        rows = [candidates.composites.row(n) for n in range(8)]
        wanted = [
            [*square, np.arctan2(axis[0], -axis[1])]
            for row in rows for square, axis, there in zip(row[2], row[3], row[5]) if there
        ]  # fmt: skip
        apart = np.array(truths)[:, None] - np.array(wanted)
        apart[..., 3] = (apart[..., 3] + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(apart).max(2).min() < 1e-3
    assert 20 < faces < 40


def test_the_refiner_learns_of_places_without_a_face_too(candidates):
    crops, shows, move, up = candidates.batch(np.random.default_rng(0), 16)
    assert crops.shape == (16, 64, 64, 3) and crops.dtype == torch.float32 and 0 <= crops.min() < crops.max() <= 255
    assert 0 < shows.sum() < 16 and not move[~shows].any() and not up[~shows].any()
    np.testing.assert_allclose(up[shows].norm(dim=1), 1, atol=1e-5)


def test_heads_seen_from_behind_alone_teach_nothing(tmp_path, small_parts):
    turned = np.tile(np.diag(np.float32([-1, 1, -1])), (12, 1, 1))  # half a turn about the vertical
    list(draw(recipe(write_heads(tmp_path / "heads", rotation=turned)), tmp_path))
    with pytest.raises(RecipeError, match="no face that could be learnt"):
        Candidates(Composites(tmp_path / "composites", 1), DetectorNetwork())


def test_the_refiners_loss_by_hand():
    # the first crop shows a face and is off by 0.1, 0.2 and 0.3 at a sigma of 1: 0.6; its axis by a right angle: 2. The
    # second shows none. Logits of 0 cost log 2 each.
    looks = Looks(torch.zeros(2), torch.zeros(2, 3), torch.tensor([[1.0, 0], [5, 5]]), torch.zeros(2))
    shows, move = torch.tensor([True, False]), torch.tensor([[0.1, 0.2, 0.3], [9, 9, 9]])
    terms = look_terms(looks, shows, move, torch.tensor([[0.0, -1], [0, 0]]))
    assert {k: round(float(v), 5) for k, v in terms.items()} == {"seen": 0.69315, "square": 0.6, "axis": 2.0}


@pytest.mark.slow
def test_the_exported_networks_say_what_torch_says(tmp_path):
    pytest.importorskip("onnxscript")
    from safetensors.torch import save_file

    from canthus.detection.export import export_detector

    save_file(DetectorNetwork().state_dict(), tmp_path / "detector.safetensors")
    save_file(RefinerNetwork().state_dict(), tmp_path / "refiner.safetensors")
    export_detector(tmp_path, tmp_path / "out")  # compares by itself
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 1e6
    found = canthus.load(detector=tmp_path / "out").detector(np.zeros((64, 64, 3), np.uint8))
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"composites": 100}, {"side": 100}, {"batch": 0}, {"steps": "many"}, {"steps": 0}, {"refiner_steps": 0},
        {"save_every": 0}, {"seed": -1}, {"workers": 0}, {"lr": -1.0}, {"ema_decay": 7.0}, {"grad_clip": -1.0},
    ],
)  # fmt: skip
def test_recipes_that_make_no_sense_are_refused(heads, changes):
    with pytest.raises(RecipeError):
        recipe(heads, **{"composites": 256} | changes)


def test_a_run_starts_from_the_weights_of_another(heads, tmp_path, small_parts):
    for name in ("one", "two", "three"):
        list(draw(recipe(heads), tmp_path / name))
    first = list(train_detector(recipe(heads, ema_decay=0.0), tmp_path / "one"))
    start = str(tmp_path / "one")
    still = list(
        train_detector(recipe(heads, weights=start, steps=0, refiner_lr=1e-9, refiner_steps=1), tmp_path / "two")
    )
    assert [row["stage"] for row in still] == ["refiner"]
    assert still[0]["loss"] != pytest.approx(first[6]["loss"], rel=1e-3)  # the same crops, other weights
    kept, made = (tmp_path / name / "detector.safetensors" for name in ("two", "one"))
    assert kept.read_bytes() == made.read_bytes()  # a run without steps of the pyramid keeps it
    with pytest.raises(WeightsError, match="no detector"):
        next(train_detector(recipe(heads, weights=str(tmp_path / "three")), tmp_path / "three"))


def test_another_recipe_does_not_go_on(heads, tmp_path, small_parts):
    list(draw(recipe(heads), tmp_path))
    list(train_detector(recipe(heads), tmp_path))
    with pytest.raises(RecipeError, match="lr"):
        next(train_detector(recipe(heads, lr=0.5), tmp_path))


def test_composites_of_another_recipe_are_not_taken(heads, tmp_path, small_parts):
    assert list(draw(recipe(heads, composites=16), tmp_path)) == [8, 16]
    with pytest.raises(RecipeError, match=r"another recipe \(side, seed differ\)"):
        next(draw(recipe(heads, composites=16, side=128, seed=1), tmp_path))
    assert list(draw(recipe(heads, composites=16, lr=1.0), tmp_path)) == []  # what learning depends on may change


def test_steps_may_grow_until_the_refiner_begins(heads, tmp_path, small_parts):
    list(draw(recipe(heads), tmp_path))
    stages = []
    for steps, count in ((2, 1), (4, 5)):
        running = train_detector(recipe(heads, steps=steps), tmp_path)
        stages += [(row["step"], row["stage"]) for row in islice(running, count)]
        running.close()
    assert stages == [*((n, "detector") for n in (1, 2, 3, 4)), (5, "refiner"), (6, "refiner")]
    with pytest.raises(RecipeError, match="they may grow until the second network begins"):
        next(train_detector(recipe(heads, steps=5), tmp_path))
