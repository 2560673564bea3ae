"""Rendered faces: camera, light, heads and pictures, and rendering in bulk."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from faces_maker import write_shards
from PIL import Image
from rendering import ASSETS, SIZE, camera_of, make_generator

moderngl = pytest.importorskip("moderngl")
pytest.importorskip("scipy")

from canthus.errors import CanthusError, ModelError  # noqa: E402
from canthus.geometry.rotation import euler_from_matrix, matrix_from_vector  # noqa: E402
from canthus.synth import lids  # noqa: E402
from canthus.synth import render_jobs as shards  # noqa: E402
from canthus.synth.generator import VIEWS_PER_HEAD, SynthGenerator, head_rotation  # noqa: E402
from canthus.synth.heads import ICT_FROM_HEAD, Head, HeadAssets  # noqa: E402
from canthus.synth.light import Environment, Light, sh_basis  # noqa: E402
from canthus.synth.person import pose_head, sample_expression, sample_person  # noqa: E402
from canthus.synth.recipe import RandomStreams, SynthRecipe  # noqa: E402
from canthus.synth.scene import PerspectiveCamera  # noqa: E402
from canthus.synth.truth import occlusion  # noqa: E402

RECIPE = SynthRecipe(size=SIZE, seed=3)
FLAT = Light(np.eye(9)[:, :1] * np.full((1, 3), 2.0), np.array([0.0, 0, 1]), np.zeros(3), 1.0, 0.0)


@pytest.fixture(scope="module")
def generator() -> SynthGenerator:
    return make_generator()


@pytest.fixture(scope="module")
def bare(generator) -> Head:
    """A head without hair, brows, lashes, glasses or cap."""
    person = sample_person(RandomStreams(0), generator.assets, RECIPE)
    for key, image in person.textures.items():
        generator.renderer.texture(key, image)
    head, _ = pose_head(generator.assets, person, np.zeros(len(generator.assets.expression)))
    neutral = np.zeros(len(head.expression))
    vertices = generator.assets.shape(head.identity, neutral)
    pieces = []
    for piece in head.pieces:
        if piece.is_head:
            rest = vertices[generator.assets.surfaces[piece.name].vertex]
            pieces.append(type(piece)(**{**vars(piece), "vertices": rest}))
    return Head(tuple(pieces), generator.assets.landmarks(vertices), head.albedo, head.identity, neutral)


def draw(generator: SynthGenerator, head: Head, camera: PerspectiveCamera):
    """Picture and depth in the renderer's own size, and its camera."""
    generator.renderer.load(head.pieces)
    large = camera.resized(generator.renderer.size / RECIPE.size)
    depth = generator.renderer.depth_of(large, lambda p: True, generator.renderer.size)
    return generator.renderer.draw(large, FLAT, 0.0), depth, large


def hidden_by(generator: SynthGenerator, head: Head, camera: PerspectiveCamera) -> np.ndarray:
    """What hides each landmark (68,)."""
    generator.renderer.load(head.pieces)
    return occlusion(generator.renderer, camera.resized(generator.renderer.size / RECIPE.size), head.landmarks)


# ---- the camera


def random_camera(seed: int) -> PerspectiveCamera:
    rng = np.random.default_rng(seed)
    rotation, distance, focal = matrix_from_vector(rng.uniform(-1, 1, 3)), rng.uniform(35, 300), rng.uniform(300, 900)
    return PerspectiveCamera(rotation, rng.normal(size=3), distance, focal, rng.uniform(40, 90, 2))


@pytest.mark.parametrize("seed", range(4))
def test_opengl_puts_a_point_where_the_camera_says(seed):
    camera, size = random_camera(seed), 128
    points = np.random.default_rng(seed).uniform(-9, 9, (50, 3))
    clip = np.column_stack([points, np.ones(50)]) @ camera.clip_from_head(size).T
    x, y, z = (clip[:, :3] / clip[:, 3:]).T
    # -1 and 1 are the borders of the picture, half a pixel outside the outermost centres; OpenGL's y points up.
    pixels = np.column_stack([(x + 1) / 2 * size - 0.5, (1 - y) / 2 * size - 0.5])
    projected = camera.project(points)
    np.testing.assert_allclose(pixels, projected[:, :2], atol=1e-8)
    # The depth buffer holds (z + 1) / 2; read back it is q_z in cm, whose pixels `project` gives.
    depth = camera.depth_from_buffer((z + 1) / 2)
    np.testing.assert_allclose(depth * camera.focal / camera.distance, projected[:, 2], atol=1e-6)


def test_a_far_camera_is_a_weak_perspective_one():
    # At 10 m the ratio of the depths of a head, 10 cm, to the distance is 1 %: so is the difference.
    points = np.random.default_rng(0).uniform(-5, 5, (30, 3))
    camera = PerspectiveCamera(np.eye(3), np.zeros(3), 1000.0, 5000.0, np.array([10.0, 20.0]))
    expected = points * [5, -5, 5] + [10, 20, 0]
    np.testing.assert_allclose(camera.project(points), expected, atol=0.01 * 25)


def test_a_larger_picture_shows_the_same_view():
    camera = random_camera(1)
    points = np.random.default_rng(2).uniform(-5, 5, (30, 3))
    # A pixel centre u of a picture is at (u + 0.5) k - 0.5 of one k times as large.
    expected = (camera.project(points)[:, :2] + 0.5) * 1.5 - 0.5
    np.testing.assert_allclose(camera.resized(1.5).project(points)[:, :2], expected)


def test_a_positive_turn_moves_the_nose_to_the_right_of_the_picture():
    # Yaw in the recipe is a right-handed turn about y, so the nose (0, 0, 1) goes to (sin, 0, cos), the picture's
    # right. The convention "aflw" counts it the other way round.
    rotation = head_rotation(40, 0, 0)
    np.testing.assert_allclose(rotation @ [0, 0, 1], [np.sin(np.deg2rad(40)), 0, np.cos(np.deg2rad(40))])
    assert np.rad2deg(euler_from_matrix(rotation, "aflw")) == pytest.approx([0, -40, 0])
    # A positive pitch nods: the nose goes down.
    assert (head_rotation(0, 20, 0) @ [0, 0, 1])[1] < 0


# ---- light


def irradiance(light: Light, normals: np.ndarray) -> np.ndarray:
    """Irradiance / pi on walls with these normals (N,3): harmonics, and the dominant light by its cosine."""
    return sh_basis(normals) @ light.ambient + np.clip(normals @ light.direction, 0, 1)[:, None] * light.sun


def directions(count: int) -> np.ndarray:
    d = np.random.default_rng(0).normal(size=(count, 3))
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def test_a_constant_environment_lights_every_wall_with_its_radiance():
    # E(n) = integral of L max(n . d, 0) over the sphere = pi L, so E / pi = L for every n. The map's sum over
    # 32 x 64 cells is good to 0.1 %; the dominant light, a cap of 0.19 sr, is exact where the rest is cut to
    # nine harmonics, which costs 1 %.
    radiance = np.array([0.5, 1.0, 2.0])
    light = Environment(np.broadcast_to(radiance, (64, 128, 3))).light(0.7, 1.0)
    got = irradiance(light, directions(200)) / light.exposure
    np.testing.assert_allclose(got, np.broadcast_to(radiance, got.shape), rtol=0.02)
    np.testing.assert_allclose(got.mean(0), radiance, rtol=0.005)


def test_harmonics_of_irradiance_match_a_sum_over_the_sphere():
    # A smooth environment: up is bright, left is red. The nine coefficients against the integral itself.
    h, w = 64, 128
    rows, columns = np.mgrid[:h, :w] + 0.5
    theta, phi = rows / h * np.pi, columns / w * 2 * np.pi - np.pi
    d = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), -np.sin(theta) * np.cos(phi)], -1)
    radiance = 1 + 0.5 * d[..., 1:2] + np.array([-0.3, 0, 0]) * d[..., :1]
    light = Environment(radiance).light(0.0, 1.0)
    solid = np.sin(theta) * (np.pi / h) * (2 * np.pi / w)
    normals = directions(50)
    cosine = np.clip(np.einsum("nk,hwk->nhw", normals, d), 0, None)
    expected = np.einsum("nhw,hw,hwc->nc", cosine, solid, radiance) / np.pi
    np.testing.assert_allclose(irradiance(light, normals) / light.exposure, expected, rtol=0.03)


# One lamp in a dim room, at rows 20 and 21 and columns 90 and 91 of 64 x 128: its polar angle is 21/64 pi from +y, its
# azimuth 91/128 2 pi - pi from -z towards +x.
ROOM = np.full((64, 128, 3), 0.05)
ROOM[20:22, 90:92] = 500
POLAR, AROUND = 21 / 64 * np.pi, 91 / 128 * 2 * np.pi - np.pi
LAMP = np.array([np.sin(POLAR) * np.sin(AROUND), np.cos(POLAR), -np.sin(POLAR) * np.cos(AROUND)])


def test_the_dominant_light_comes_from_the_brightest_spot():
    light = Environment(ROOM).light(0.0, 1.0)
    assert light.direction @ LAMP > 0.997  # within 4.4 degrees; a cell of the reduced map is 5.6 wide
    assert light.sun.mean() > 5 * light.ambient[0].mean()


def test_light_and_backdrop_turn_together():
    # A camera looks along -z, so a lamp in direction d is seen at f d_x / -d_z and -f d_y / -d_z from the middle.
    environment, focal, seen = Environment(ROOM), 32.5 / np.tan(np.deg2rad(50)), []
    for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        x, y, z = environment.light(turn, 1.0).direction
        assert y == pytest.approx(LAMP[1], abs=0.05)  # its height stays
        expected = np.array([32 + focal * x / -z, 32 - focal * y / -z])
        picture = environment.background(turn, 65, np.deg2rad(100), 1.0).max(-1)
        inside = z < 0 and ((expected > 5) & (expected < 59)).all()
        assert not inside or picture.max() > 100
        if inside:
            rows, columns = np.nonzero(picture > 100)
            np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=3)
            seen.append(turn)
    assert 2 <= len(seen) <= 6


def test_endless_suns_do_not_spoil_the_light():
    radiance = np.full((32, 64, 3), 0.1, np.float32)
    radiance[3, 5] = np.inf
    light = Environment(radiance).light(0.0, 0.5)
    assert np.isfinite(light.ambient).all() and np.isfinite(light.sun).all()


# ---- heads and pictures


def test_a_folder_without_assets_is_named(tmp_path):
    with pytest.raises(ModelError, match="no head assets at"):
        HeadAssets(tmp_path)


def test_expressions_stay_in_their_range(generator):
    names = generator.assets.expression_names
    drawn = np.stack([sample_expression(RandomStreams(k), names, RECIPE) for k in range(200)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn.max(0) > 0.2).mean() > 0.9  # nearly every unit moves in some face


def test_landmarks_lie_on_the_head(generator, bare):
    picture, depth, camera = draw(generator, bare, camera_of(bare.landmarks, 0))
    pixels = np.rint(camera.project(bare.landmarks)[:, :2]).astype(int)
    z = ((bare.landmarks - camera.target) @ camera.rotation.T)[:, 2]
    column, row = pixels[17:].T  # the inner points; the jaw is seen edge-on
    around = [depth[row + i, column + j] - z[17:] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert np.median(np.abs(around[4])) < 0.05  # cm; a pixel is 0.07 cm
    assert np.abs(around).min(0).max() < 0.3  # at the pixel or, where the head is steep, beside it
    assert (picture[row, column, 3] == 255).all()
    # What lies 5 cm beside the jaw is not the head.
    assert picture[pixels[0, 1], pixels[0, 0] - 60, 3] == 0


@pytest.mark.parametrize("yaw", [40, -40])
def test_the_nose_is_on_the_side_that_the_head_turns_to(generator, bare, yaw):
    picture, depth, camera = draw(generator, bare, camera_of(bare.landmarks, yaw))
    xyz = camera.project(bare.landmarks)
    eyes, nose = xyz[[36, 45], 0].mean(), xyz[30, 0]
    assert np.sign(nose - eyes) == np.sign(yaw)
    rows = slice(int(xyz[36:48, 1].mean()), int(xyz[48:60, 1].mean()))
    nearest = np.argmax(np.where(picture[rows, :, 3] > 0, depth[rows], -np.inf).max(0))
    assert abs(nearest - nose) < 10  # px, 1 cm: what is nearest to the camera is the nose


@pytest.mark.parametrize("yaw", [80, -80])
def test_in_profile_the_far_eye_is_hidden(generator, bare, yaw):
    # Turned to the picture's right, the subject's right eye (36-41) is on the side that is seen.
    near, far = (range(36, 42), range(42, 48)) if yaw > 0 else (range(42, 48), range(36, 42))
    camera = camera_of(bare.landmarks, yaw)
    visible = hidden_by(generator, bare, camera) == 0
    jaw_near, jaw_far = (range(0, 6), range(11, 17)) if yaw > 0 else (range(11, 17), range(0, 6))
    assert visible[list(near)].mean() > 0.6
    assert not visible[list(far)].any()
    assert visible[list(jaw_near)].all() and not visible[list(jaw_far)].any()


def test_from_the_front_both_eyes_and_the_mouth_are_seen(generator, bare):
    camera = camera_of(bare.landmarks, 0)
    assert (hidden_by(generator, bare, camera)[17:60] == 0).all()


@pytest.fixture(scope="module")
def groups(generator) -> list[dict[str, np.ndarray]]:
    return [generator.group(number) for number in (0, 1, 5)]


def test_a_group_is_what_its_recipe_says(groups):
    for group in groups:
        assert group["image"].shape == (VIEWS_PER_HEAD, 128, 128, 3) and group["image"].dtype == np.uint8
        assert group["image"].std() > 10
        extent = np.ptp(group["xyz"][..., :2], axis=1).max(1) / 128
        assert (extent > 0.52 * 0.92 - 1e-6).all() and (extent < 0.52 * 1.05 + 1e-6).all()
        np.testing.assert_allclose(group["xyz"][..., 2].mean(1), 0, atol=1e-4)
        assert group["visible"].dtype == bool
        assert np.unique(group["identity"], axis=0).shape[0] == 1  # views of one head


def camera_stored(group: dict[str, np.ndarray], k: int) -> PerspectiveCamera:
    """The camera of sample k for points of the house's head frame."""
    target, (distance, focal), centre = np.split(group["camera"][k].astype(float), [3, 5])
    return PerspectiveCamera(group["rotation"][k].astype(float), target, distance, focal, centre)


def test_identity_expression_rotation_and_camera_give_the_points_again(generator, groups):
    for group in groups:
        for k in range(VIEWS_PER_HEAD):
            assets, expression = generator.assets, group["expression"][k]
            vertices = lids.blinked(assets, assets.shape(group["identity"][k], expression), expression)
            points = lids.uncrossed(assets.landmarks(vertices)) @ ICT_FROM_HEAD
            np.testing.assert_allclose(group["head"][k], points, atol=1e-4)  # cm
            xyz = camera_stored(group, k).project(points)
            xyz[:, 2] -= xyz[:, 2].mean()
            np.testing.assert_allclose(group["xyz"][k], xyz, atol=0.01)  # px; the truth is stored in float32


def draw_group(number: int) -> dict[str, np.ndarray]:
    """What a worker process draws."""
    return shards._generator(str(ASSETS), RECIPE, "raster").group(number)


def test_a_group_is_the_same_whichever_worker_draws_it(generator, groups):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        alone = pool.submit(draw_group, 5).result()  # the first it draws, where `groups` drew others before
    for name, values in groups[2].items():
        np.testing.assert_array_equal(alone[name], values, err_msg=name)
    assert not np.array_equal(groups[0]["image"], groups[1]["image"])


# ---- shards


def write_number(job: tuple, layout: str, number: int, path: Path) -> None:
    """Writes a number instead of a rendered shard; the file 'deadly' kills the worker that meets it, the first time."""
    deadly = path.with_name(f"deadly-{number}")
    if deadly.exists():
        time.sleep(0.3)
        if "once" in deadly.read_text():
            deadly.unlink()
        os._exit(1)
    path.write_text(f"{number} {time.monotonic_ns()}")
    if path.with_name("slow").exists():
        time.sleep(0.3)


@pytest.fixture
def no_renderer(monkeypatch) -> None:
    monkeypatch.setattr(shards, "_render_shard", write_number)


def render(out: Path, count: int) -> list[int]:
    """Numbers of the shards that were rendered, in order."""
    paths = shards.render_shards(out, None, RECIPE, count * shards.SHARD_SIZE, workers=1)
    return sorted(int(path.stem.removeprefix("shard-")) for path in paths)


def test_finished_shards_are_not_rendered_again(no_renderer, tmp_path):
    assert render(tmp_path, 2) == [0, 1]
    before = (tmp_path / "shard-00001.npz").read_text()
    assert render(tmp_path, 4) == [2, 3]
    assert (tmp_path / "shard-00001.npz").read_text() == before
    assert render(tmp_path, 4) == []


def test_a_count_is_rounded_up_to_whole_shards(no_renderer, tmp_path):
    paths = shards.render_shards(tmp_path, None, RECIPE, shards.SHARD_SIZE + 1, workers=1)
    assert len(list(paths)) == 2


def test_a_worker_that_dies_costs_nothing(no_renderer, tmp_path):
    (tmp_path / "deadly-1").write_text("once")
    assert render(tmp_path, 3) == [0, 1, 2]


def test_workers_that_only_die_end_in_an_error(no_renderer, tmp_path):
    (tmp_path / "deadly-0").write_text("always")
    with pytest.raises(CanthusError, match="the renderer died 3 times and finished nothing"):
        render(tmp_path, 1)


def test_a_job_that_is_stopped_stops(no_renderer, tmp_path):
    (tmp_path / "slow").touch()
    rendering = shards.render_shards(tmp_path, None, RECIPE, 12 * shards.SHARD_SIZE, workers=1)
    next(rendering)
    rendering.close()  # type: ignore[attr-defined]  # a generator
    # A pool hands out one or two jobs ahead; the rest is left for next time.
    assert len(list(tmp_path.glob("shard-*.npz"))) <= 5


def test_a_contact_sheet_shows_the_faces_with_their_points(tmp_path):
    shard = write_shards(tmp_path, count=6, size=96) / "shard-00000.npz"
    shards.contact_sheet(shard, tmp_path / "sheet.png", rows=2, columns=3)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 96, 3 * 96, 3)
    checked = []
    with np.load(shard) as d:
        for k, (xyz, visible) in enumerate(zip(d["xyz"], d["visible"], strict=True)):
            apart = np.linalg.norm(xyz[:, None, :2] - xyz[:, :2], axis=-1) + 99 * np.eye(68)
            for point in np.nonzero(apart.min(1) > 4)[0]:  # no other dot covers it
                x, y = np.rint(xyz[point, :2]).astype(int) + [k % 3 * 96, k // 3 * 96]
                around = sheet[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).tolist()
                assert ([40, 220, 60] in around, [230, 50, 40] in around) == (visible[point], not visible[point])
                checked.append(bool(visible[point]))
    assert min(checked.count(True), checked.count(False)) > 5


def test_environment_maps_that_cannot_be_read_or_are_too_small_are_refused(tmp_path):
    pytest.importorskip("OpenEXR")
    (tmp_path / "a.exr").write_bytes(b"no picture")
    with pytest.raises(ModelError, match=r"a\.exr' cannot be read"):
        Environment.load(tmp_path / "a.exr")
    with pytest.raises(ModelError, match="32 x 64 pixels or more"):
        Environment(np.ones((16, 32, 3)))
