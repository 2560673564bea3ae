"""Pictures developed many at a time against Pillow, and heads drawn on a device against `SynthGenerator`."""

from __future__ import annotations

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from canthus.data.sources import FaceMix  # noqa: E402
from canthus.synth import backdrop, batch_renderer, effects  # noqa: E402
from canthus.synth.backdrop import Backdrop, Clutter, Panorama  # noqa: E402
from canthus.synth.effects import CameraEffects  # noqa: E402
from canthus.synth.generator import VIEWS_PER_HEAD, SynthGenerator  # noqa: E402
from canthus.synth.light import procedural_environments  # noqa: E402
from canthus.synth.preparation import FACES_PER_PERSON, VIEWS_PER_PERSON, HeadPreparer  # noqa: E402
from canthus.synth.recipe import RandomStreams, SynthRecipe  # noqa: E402

SIZE = 72  # not a multiple of 16, the side of JPEG's blocks of colour
RECIPE = SynthRecipe(size=64, seed=5, noise=0.0)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Soft patches, hard edges and fine grain, (SIZE,SIZE,3) 0..255."""
    rng = np.random.default_rng(0)
    image = backdrop.paint_backdrop(Backdrop(backdrop._choose_clutter(rng), 0.5), SIZE, [])
    image[20:50, 30:45] = [200, 40, 60]
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.float32)


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)


@pytest.mark.parametrize(
    "by, off",
    [  # mean and largest distance in levels
        (CameraEffects(), (0, 0)),
        (CameraEffects(gamma=1.3, cast=np.array([1.2, 0.9, 0.8])), (0.01, 1)),
        (CameraEffects(blur=0.5), (1.0, 16)),  # Pillow blurs by boxes
        (CameraEffects(blur=1.9), (0.6, 8)),
        (CameraEffects(motion=(6.3, 0.7)), (0.01, 1)),
        (CameraEffects(motion=(2.0, 2.4)), (0.01, 1)),
        (CameraEffects(resolution=31), (0.3, 3)),
        (CameraEffects(jpeg_quality=80), (1.5, 24)),  # a wave near the middle between two steps goes either way
        (CameraEffects(jpeg_quality=30), (1.0, 24)),
    ],
)
def test_what_a_camera_does_is_what_pillow_does(photo, by, off):
    expected = effects.apply_camera_effects(photo, by, np.random.default_rng()).astype(int)
    # a second picture that nothing is done to, beside it
    pair = batch_renderer.apply_camera_effects(
        torch.stack([planes(photo)] * 2), [by, CameraEffects()], [RandomStreams(0)] * 2
    )
    got, plain = (x.permute(1, 2, 0).numpy().astype(int) for x in pair)
    apart = np.abs(got - expected)
    assert apart.mean() <= off[0] and apart.max() <= off[1], (apart.mean(), apart.max())
    np.testing.assert_array_equal(plain, photo.astype(np.uint8))


def test_grain_is_as_loud_as_it_must_be_and_always_the_same():
    grey = torch.full((3, 3, SIZE, SIZE), 128.0)
    by, streams = [CameraEffects(noise=6.0)] * 3, [RandomStreams(1), RandomStreams(2), RandomStreams(1)]
    noise = batch_renderer.apply_camera_effects(grey, by, streams).float()
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    # 15,552 values of a spread of 6: the spread of their spread is 0.03; rounding down takes half a level
    assert noise[0].std().item() == pytest.approx(6, abs=0.15) and noise[0].mean().item() == pytest.approx(
        127.5, abs=0.2
    )


def test_backdrops_are_those_of_pillow():
    environments, rng = procedural_environments(3), np.random.default_rng(4)
    backdrops = [
        Backdrop(Panorama(2, 1.0, 1.2, 0.5, 0.2), 0.0),
        Backdrop(np.array([200.7, 30, 90]), 2.0),
        Backdrop(backdrop._choose_clutter(rng), 1.0),
        Backdrop(Panorama(0, -2.5, 0.5, 0.7, -0.1), 2.9),
        Backdrop(Clutter((np.zeros((2, 2, 3), np.uint8),), (0.5,)), 0.1),
    ]
    got = batch_renderer.Backdrops(environments, SIZE, torch.device("cpu"))(backdrops).permute(0, 2, 3, 1).numpy()
    for k, chosen in enumerate(backdrops):
        apart = np.abs(got[k] - backdrop.paint_backdrop(chosen, SIZE, environments))
        assert apart.mean() < 0.7 and np.quantile(apart, 0.98) <= 4, (k, apart.mean())


@pytest.fixture(scope="module")
def made() -> dict:
    prepare = HeadPreparer(None, RECIPE)
    renderer = batch_renderer.BatchRenderer(prepare.planner, "cpu")
    return renderer([head for number in (0, 1) for head in prepare.group(number)])


def test_a_batch_renderer_draws_the_samples_of_the_generator(made):
    generator = SynthGenerator(None, RECIPE)
    for number in (0, 1):
        first = number * VIEWS_PER_PERSON
        expected = generator.group(number)
        assert made.keys() == expected.keys()
        for key, values in expected.items():
            got = np.asarray(made[key][first : first + VIEWS_PER_HEAD])
            assert got.dtype == values.dtype and got.shape == values.shape
            if key in ("visible", "occlusion"):  # two rasterisers, and 3x3 pixels that may all be on an outline
                assert (got != values).mean() < 0.01
            elif key == "image":
                apart = np.abs(got.astype(int) - values)
                assert apart.mean() < 1.5 and np.quantile(apart, 0.98) <= 10, (apart.mean(), np.quantile(apart, 0.98))
            else:
                np.testing.assert_array_equal(got, values, err_msg=key)


def test_a_person_makes_several_faces(made):
    assert len(made["image"]) == 2 * VIEWS_PER_PERSON
    of_person = made["expression"].reshape(2, FACES_PER_PERSON, VIEWS_PER_HEAD, -1)
    assert (of_person == of_person[:, :, :1]).all() and (of_person[:, 0] != of_person[:, 1]).any((1, 2)).all()
    who = made["identity"].reshape(2, VIEWS_PER_PERSON, -1)
    assert (who == who[:, :1]).all() and (who[0, 0] != who[1, 0]).any()
    assert len({m.tobytes() for m in made["camera"]}) == len(made["camera"])


def test_workers_prepare_what_a_device_draws(made):
    faces = batch_renderer.render_live("cpu", None, RECIPE, workers=1)
    try:
        taken = faces.take(5, 12)
    finally:
        faces.close()
    assert taken.keys() == made.keys()
    for key, values in taken.items():
        apart = np.abs(np.asarray(values, float) - np.asarray(made[key], float)[5:12])
        assert apart.max() <= (1 if key == "image" else 0), key


def test_a_training_on_a_gpu_renders_there():
    kinds = []
    for device in ("cpu", "cuda"):
        faces = FaceMix(["synth:"], 48, 1.4, 3, torch.device(device))
        ((live, _),) = faces.live
        assert isinstance(live.make, functools.partial) and live.make.args[0] is None
        kinds.append(live.make.func)
    assert kinds == [SynthGenerator, HeadPreparer]
