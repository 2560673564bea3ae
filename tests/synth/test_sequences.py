"""Clips: the same person moves smoothly, speaks and blinks, and every frame has its truth."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from rendering import ASSETS, SIZE, make_generator
from typer.testing import CliRunner

pytest.importorskip("moderngl")
pytest.importorskip("scipy")

from canthus.cli import app  # noqa: E402
from canthus.synth.recipe import RandomStreams, SynthRecipe  # noqa: E402
from canthus.synth.sequences import camera_at, expression_at, frames, smooth_noise  # noqa: E402

RECIPE = SynthRecipe(seed=3)
TIMES = np.arange(0, 12, 0.04)


@pytest.fixture(scope="module")
def generator():
    return make_generator()


@pytest.fixture(scope="module")
def clip(generator):
    return list(frames(generator, 1, 4))


def test_a_wandering_number_is_smooth_and_bounded():
    walk = np.array([smooth_noise(np.random.default_rng(5), t, 2.0) for t in TIMES])
    assert np.abs(walk).max() <= 1 and walk.std() > 0.2
    # The fastest of its three waves, of a period of 0.74 s, has a share of a fifth.
    assert np.abs(np.diff(walk)).max() < 0.3


def test_faces_speak_blink_and_look_around(generator):
    names = generator.assets.expression_names
    track = np.stack([expression_at(RandomStreams(0, 1), names, RECIPE, t) for t in TIMES])
    assert track.min() >= 0 and track.max() <= 1
    lids = track[:, names.index("eyeBlink_L")]
    shut = lids > 0.85
    assert 4 <= np.count_nonzero(np.diff(shut.astype(int)) == 1) <= 9  # one every two seconds
    jaw = track[:, names.index("jawOpen")]
    assert np.ptp(jaw) > 0.15
    still = [k for k, n in enumerate(names) if not n.startswith(("eyeLook", "eyeBlink"))]
    assert np.abs(np.diff(track[:, still], axis=0)).max() < 0.25  # a frame lasts 0.04 s
    assert np.unique(track[:, names.index("eyeLookOut_L")]).size > 4


def test_the_camera_follows_a_turning_head(generator):
    rest = generator.assets.landmarks(generator.assets.mean)
    for number in range(4):
        cameras = [camera_at(RandomStreams(0, number), RECIPE, rest, t) for t in TIMES]
        yaw = np.degrees([np.arctan2(-c.rotation[2, 0], c.rotation[2, 2]) for c, _ in cameras])
        assert np.abs(yaw).max() <= 101 and np.ptp(yaw) > 15
        assert np.abs(np.diff(yaw)).max() < 12  # degrees a frame
        points = np.stack([c.project(rest)[:, :2] for c, _ in cameras])
        size = np.ptp(points, axis=1).max(1)
        assert np.abs(np.diff(points.mean(1), axis=0)).max() < 0.05 * size.mean()
        assert ((points.mean(1) > 0.2 * RECIPE.size) & (points.mean(1) < 0.8 * RECIPE.size)).all()
        assert np.ptp([c.distance for c, _ in cameras]) > 1  # cm


def test_frames_are_samples_of_one_person(generator, clip):
    single = generator.sample(0)
    for k, frame in enumerate(clip):
        assert set(frame) == {*single, "time"}
        assert frame["image"].shape == (SIZE, SIZE, 3) and frame["time"] == pytest.approx(k * 0.04)
        np.testing.assert_array_equal(frame["identity"], clip[0]["identity"])
    moved = np.linalg.norm(clip[1]["xyz"] - clip[0]["xyz"], axis=1)
    assert 0 < moved.max() < 0.1 * SIZE
    # The same light on the same person: neighbours look alike, and are not the same.
    change = np.abs(clip[1]["image"].astype(float) - clip[0]["image"]).mean()
    assert 0 < change < 25


def test_a_frame_does_not_depend_on_the_length_of_its_clip(generator, clip):
    short = list(frames(generator, 1, 2))
    for name in short[1]:
        np.testing.assert_array_equal(short[1][name], clip[1][name], err_msg=name)


def test_another_clip_shows_another_person(generator, clip):
    other = next(frames(generator, 2, 1))
    assert not np.array_equal(other["identity"], clip[0]["identity"])
    assert not np.array_equal(other["identity"], generator.sample(2)["identity"])


def test_the_command_writes_clips_and_goes_on_where_it_was(generator, tmp_path):
    out = tmp_path / "clips"
    options = ["--assets", str(ASSETS), "--sequence", "3", "--workers", "1", "--set", "size=64", "--out", str(out)]
    result = CliRunner().invoke(app, ["synth", *options, "--count", "1", "--sheet"])
    assert result.exit_code == 0, result.output
    folder = out / "clip-00000"
    assert sorted(p.name for p in folder.iterdir()) == [*(f"frame-{k:05d}.jpg" for k in range(3)), "truth.npz"]
    assert Image.open(folder / "frame-00000.jpg").size == (64, 64) and (out / "sheet.png").is_file()
    with np.load(folder / "truth.npz", allow_pickle=False) as truth:
        assert truth["xyz"].shape == (3, 68, 3) and truth["time"].tolist() == [0.0, 0.04, 0.08]
    written = (folder / "truth.npz").stat().st_mtime_ns
    assert CliRunner().invoke(app, ["synth", *options, "--count", "1"]).exit_code == 0
    assert (folder / "truth.npz").stat().st_mtime_ns == written
    other = CliRunner().invoke(app, ["synth", *options, "--count", "1", "--set", "glasses=0"])
    assert other.exit_code == 2
