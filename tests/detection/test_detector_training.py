"""Training of the detector: composites on the disk, learning, going on after a stop, export."""

from __future__ import annotations

import numpy as np
import pytest
from heads_maker import write_heads

torch = pytest.importorskip("torch")

from canthus.detection import dataset  # noqa: E402
from canthus.detection.composites import FaceTruth  # noqa: E402
from canthus.detection.dataset import Composites, _varied, part_path  # noqa: E402
from canthus.detection.train import DetectorRecipe, draw, train_detector  # noqa: E402
from canthus.errors import RecipeError, WeightsError  # noqa: E402


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


def recipe(heads, **changes) -> DetectorRecipe:
    values = {
        "heads": (str(heads),),
        "composites": 8,
        "side": 96,
        "steps": 6,
        "batch": 4,
        "warmup_steps": 2,
        "save_every": 3,
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


def test_it_learns_and_goes_on_after_a_stop(heads, tmp_path, small_parts):
    plan = recipe(heads, steps=6)
    rows = {}
    for name, stops in (("whole", [6]), ("parts", [3, 6])):
        list(draw(plan, tmp_path / name))
        for stop in stops:
            running = train_detector(plan, tmp_path / name)
            for row in running:
                rows[name, row["step"]] = row["loss"]
                if row["step"] == stop != 6:
                    running.close()
                    break
    for step in range(1, 7):
        assert rows["whole", step] == pytest.approx(rows["parts", step], rel=1e-4)
    assert (tmp_path / "whole" / "detector.safetensors").exists()


@pytest.mark.slow
def test_faces_are_found_after_learning_eight_pictures_by_heart(heads, tmp_path, small_parts):
    plan = recipe(heads, steps=150, batch=8, side=128, lr=3e-3, ema_decay=0.9)
    list(draw(plan, tmp_path))
    losses = [row["loss"] for row in train_detector(plan, tmp_path)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[5:15])


@pytest.mark.slow
def test_the_exported_network_says_what_torch_says(tmp_path):
    pytest.importorskip("onnxscript")
    from safetensors.torch import save_file

    from canthus.detection.export import export_detector
    from canthus.detection.network import DetectorNetwork

    save_file(DetectorNetwork().state_dict(), tmp_path / "detector.safetensors")
    export_detector(tmp_path / "detector.safetensors", tmp_path / "out")  # compares by itself
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 1e6


@pytest.mark.parametrize("changes", [{"composites": 100}, {"side": 100}, {"batch": 0}, {"steps": "many"}])
def test_recipes_that_make_no_sense_are_refused(heads, changes):
    with pytest.raises(RecipeError):
        recipe(heads, **{"composites": 256} | changes)


def test_a_run_starts_from_the_weights_of_another(heads, tmp_path, small_parts):
    for name in ("one", "two", "three"):
        list(draw(recipe(heads), tmp_path / name))
    first = list(train_detector(recipe(heads, ema_decay=0.0), tmp_path / "one"))
    start = str(tmp_path / "one" / "detector.safetensors")
    still = list(train_detector(recipe(heads, weights=start, lr=1e-9, steps=1), tmp_path / "two"))
    assert still[0]["loss"] != pytest.approx(first[0]["loss"], rel=1e-3)  # the same pictures, other weights
    with pytest.raises(WeightsError, match="no detector"):
        next(train_detector(recipe(heads, weights=str(tmp_path / "one" / "recipe.json")), tmp_path / "three"))


def test_another_recipe_does_not_go_on(heads, tmp_path, small_parts):
    list(draw(recipe(heads), tmp_path))
    list(train_detector(recipe(heads), tmp_path))
    with pytest.raises(RecipeError, match="lr"):
        next(train_detector(recipe(heads, lr=0.5), tmp_path))
