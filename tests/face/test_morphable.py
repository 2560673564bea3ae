"""The morphable model: evaluation, files and the fit to landmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from canthus.errors import LandmarkError, ModelError
from canthus.face.morphable import MorphableModel
from canthus.face.morphable_fit import bounded_minimum
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.raster import rasterise
from canthus.geometry.rotation import geodesic, matrix_from_euler


def tiny_model(**changes) -> MorphableModel:
    rng, v = np.random.default_rng(3), 90
    weights = rng.dirichlet(np.ones(3), 68)
    parts = {
        "name": "tiny", "mean": rng.normal(0, 50, (v, 3)), "identity": rng.normal(0, 2, (4, v, 3)),
        "expression": rng.normal(0, 3, (3, v, 3)), "expression_bounds": np.tile([0, 1], (3, 1)),
        "expression_names": ("a", "b", "c"), "triangles": rng.integers(0, v, (20, 3)),
        "landmark_ids": rng.integers(0, v, (68, 3)), "landmark_weights": weights,
        "uv": rng.uniform(0, 1, (30, 2)), "uv_triangles": rng.integers(0, 30, (20, 3)), "licence": "CC0-1.0",
        "card": {"made": ["here", 1]},
    }  # fmt: skip
    return MorphableModel(**(parts | changes))


@pytest.fixture(scope="module")
def head() -> MorphableModel:
    return MorphableModel.default()


def random_faces(head: MorphableModel, count: int, seed: int = 0):
    """Coefficients, cameras and exact image points (B, 68, 3) of random faces turned up to 60 degrees."""
    rng = np.random.default_rng(seed)
    identity = rng.normal(size=(count, len(head.identity)))
    shape = (count, len(head.expression))
    expression = rng.uniform(0, 0.6, shape) * (rng.uniform(size=shape) < 0.25)
    angles = np.radians(rng.uniform(-1, 1, (count, 3)) * [25, 60, 25])
    camera = WeakPerspective(
        matrix_from_euler(angles, "arkit"), rng.uniform(0.5, 2, count), rng.uniform(0, 300, (count, 2))
    )
    return identity, expression, camera, camera.project(head.landmarks(identity, expression))


def face_size(head: MorphableModel, camera: WeakPerspective) -> np.ndarray:
    """Square root of the area of the mean face's frontal box, pixels (B,)."""
    return camera.scale * np.sqrt(np.prod(np.ptp(head.landmarks()[0, :, :2], axis=0)))


# evaluation


def test_vertices_are_the_sum_written_out(xp):
    model = tiny_model()
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4)), rng.uniform(size=(2, 3))
    identity, expression = model.identity.astype(float), model.expression.astype(float)  # NumPy 1 adds in float32 else
    slow = np.zeros((2, 90, 3))
    for face in range(2):
        for vertex in range(90):
            slow[face, vertex] = model.mean[vertex]
            for k in range(4):
                slow[face, vertex] += a[face, k] * identity[k, vertex]
            for e in range(3):
                slow[face, vertex] += b[face, e] * expression[e, vertex]
    fast = model.vertices(xp(a), xp(b))
    assert type(fast) is type(xp(a)) and fast.dtype == xp(a).dtype
    np.testing.assert_allclose(np.asarray(fast), slow, atol=1e-10)


def test_landmarks_are_the_weighted_vertices(head):
    identity, expression, _, _ = random_faces(head, 3)
    vertices = head.vertices(identity, expression)
    expected = (vertices[:, head.landmark_ids] * head.landmark_weights[..., None]).sum(axis=2)
    np.testing.assert_allclose(head.landmarks(identity, expression), expected, atol=1e-4)


def test_missing_coefficients_are_zero_and_one_face_serves_many():
    model = tiny_model()
    np.testing.assert_array_equal(model.vertices(), model.mean[None])
    np.testing.assert_array_equal(model.vertices(np.zeros((2, 0))), np.stack([model.mean] * 2))
    first = model.vertices(np.ones((1, 2)))  # fewer coefficients than modes
    np.testing.assert_allclose(first[0], model.mean + model.identity[0] + model.identity[1], rtol=1e-6)
    both = model.vertices(np.ones((1, 2)), np.eye(3))
    assert both.shape == (3, 90, 3)
    np.testing.assert_allclose(both[2] - first[0], model.expression[2], atol=1e-4)


def test_gradients_flow_through_torch(head):
    torch = pytest.importorskip("torch")
    model = tiny_model()
    a = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    b = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: model.landmarks(a, b).sin(), (a, b))
    single = torch.zeros(1, 5, requires_grad=True)
    head.vertices(single).sum().backward()
    np.testing.assert_allclose(single.grad[0], head.identity[:5].sum(axis=(1, 2)), rtol=1e-3, atol=0.5)


@pytest.mark.parametrize("shape", [(4,), (2, 5), (1, 2, 3)])
def test_coefficients_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ModelError, match="identity has shape"):
        tiny_model().vertices(np.zeros(shape))


# the parts and the files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": np.full((90, 3), np.nan)}, "not finite"),
        ({"mean": np.zeros((90, 2))}, "mean of model 'tiny' has shape"),
        ({"identity": np.zeros((4, 89, 3))}, "identity of model 'tiny' has shape"),
        ({"expression_names": ("a",)}, "expression_names"),
        ({"landmark_ids": np.full((68, 3), 90)}, "landmark_ids of model 'tiny' runs"),
        ({"landmark_weights": np.ones((68, 3))}, "sum to one"),
        ({"expression_bounds": np.tile([0.5, 1], (3, 1))}, "hold zero"),
        ({"uv": None}, "one of uv and uv_triangles"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        tiny_model(**changes)


def test_a_saved_model_comes_back(tmp_path):
    model = tiny_model()
    model.save(tmp_path / "m.npz")
    back = MorphableModel.load(tmp_path / "m.npz")
    for key in ("mean", "identity", "expression", "expression_bounds", "triangles", "landmark_ids", "uv"):
        np.testing.assert_array_equal(getattr(back, key), getattr(model, key))
    assert back.expression_names == model.expression_names and back.card == model.card
    assert (back.name, back.unit, back.licence) == ("tiny", "mm", "CC0-1.0")
    tiny_model(uv=None, uv_triangles=None).save(tmp_path / "n.npz")
    assert MorphableModel.load(tmp_path / "n.npz").uv is None


def test_quantised_modes_are_off_by_half_a_step_at_most(tmp_path):
    modes = np.random.default_rng(1).normal(size=(4, 90, 3)) * [[[1]], [[10]], [[0]], [[1e-3]]]
    model = tiny_model(identity=modes)
    model.save(tmp_path / "q.npz", quantised=True)
    back = MorphableModel.load(tmp_path / "q.npz")
    for key in ("identity", "expression"):
        modes = getattr(model, key)
        step = np.abs(modes).max(axis=(1, 2)) / 32767
        error = np.abs(getattr(back, key) - modes).max(axis=(1, 2))
        assert (error <= 0.501 * step + 1e-6 * np.abs(modes).max(axis=(1, 2))).all()  # float32 rounding on top
    assert error.max() > 0


def test_bad_files_say_what_is_wrong(tmp_path):
    model = tiny_model()
    model.save(tmp_path / "m.npz", quantised=True)
    with np.load(tmp_path / "m.npz") as file:
        parts = dict(file)
    with pytest.raises(ModelError, match="not a readable"):
        MorphableModel.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ModelError, match="not a readable"):
        MorphableModel.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    with pytest.raises(ModelError, match="schema 'none'"):
        MorphableModel.load(tmp_path / "other.npz")
    for lost in ("mean", "identity_scale", "about"):
        np.savez(tmp_path / "lost.npz", **{k: v for k, v in parts.items() if k != lost})
        with pytest.raises(ModelError, match=f"lacks {lost}"):
            MorphableModel.load(tmp_path / "lost.npz")
    np.savez(tmp_path / "about.npz", **(parts | {"about": np.array("{")}))
    with pytest.raises(ModelError, match="damaged description"):
        MorphableModel.load(tmp_path / "about.npz")
    cut = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(ModelError):
        MorphableModel.load(tmp_path / "cut.npz")


# the head that is shipped


def test_the_default_head_is_a_face_in_the_head_frame(head):
    assert head is MorphableModel.default()
    assert head.unit == "mm" and head.licence == "CC0-1.0" and len(head.expression_names) == 52
    points = head.landmarks()[0]
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.01)
    assert np.linalg.norm(points[45] - points[36]) == pytest.approx(90, abs=0.01)  # outer eye corners
    assert points[45, 0] > 0 > points[36, 0]  # the subject's left eye, point 45, at positive x
    assert points[30, 2] > points[[0, 16], 2].max() + 80  # the tip of the nose lies in front of the ears
    assert points[8, 1] < points[57, 1] < points[33, 1] < points[27, 1]  # chin, lip, nose, between the eyes
    mirror = points[[16, 45, 54, 26]] * [-1, 1, 1]
    np.testing.assert_allclose(mirror, points[[0, 36, 48, 17]], atol=1.0)
    a, b, c = np.moveaxis(head.mean[head.triangles], 1, 0)
    assert (a * np.cross(b, c)).sum() > 0  # triangles face outwards


def test_identity_modes_have_human_size_and_expressions_do_what_they_say(head):
    spread = np.sqrt((head.landmarks(np.eye(len(head.identity))) - head.landmarks()).__pow__(2).sum(axis=0))
    assert 1 < spread.mean() < 4  # millimetres a coordinate; scans of adults give about 2 to 3

    def moved(name: str) -> np.ndarray:
        weights = np.eye(52)[[head.expression_names.index(name)]]
        return (head.landmarks(None, weights) - head.landmarks())[0]

    assert moved("jawOpen")[57, 1] < -10 and abs(moved("jawOpen")[27, 1]) < 0.5
    blink = moved("eyeBlinkLeft")
    assert blink[43, 1] < -1 and abs(blink[37, 1]) < 0.2  # the subject's left eye only
    assert moved("mouthSmileRight")[48, 1] > 2
    assert moved("browInnerUp")[21, 1] > 1


@pytest.mark.parametrize(("side", "pairs"), [("Right", [(37, 41), (38, 40)]), ("Left", [(44, 46), (43, 47)])])
def test_lids_meet_along_the_whole_eye_in_a_blink_of_one_and_not_before(head, side, pairs):
    blink = head.expression[head.expression_names.index(f"eyeBlink{side}")]
    is_eye = np.zeros(len(head.triangles), bool)
    is_eye[head.parts["eyes"]] = True
    balls = np.unique(head.triangles[is_eye])

    def shown(weight: float) -> np.ndarray:  # of the eyeball, for each column of a front view, 5 px a mm
        placed = head.mean + weight * blink
        placed[balls, 2] -= 4  # lids on straight paths cut into the ball
        corner = head.landmarks()[0, {"Right": 36, "Left": 42}[side]]
        pixels = (placed - corner + [10, -25, 0]) * [5, -5, 5]
        seen, _ = rasterise(torch.from_numpy(pixels.astype(np.float32))[None], torch.from_numpy(head.triangles), 250)
        return ((seen >= 0).numpy() & is_eye[seen.numpy()])[0].sum(0)

    open_eye = shown(0)
    wide = open_eye > 20  # columns that are open by over 4 mm
    assert wide.sum() > 80 and shown(1).max() == 0
    half = shown(0.5)[wide] / open_eye[wide]
    assert (half > 0.35).all() and (half < 0.75).all()
    upper, lower = np.transpose(pairs)
    gap = lambda points: (points[0, upper] - points[0, lower])[:, 1]
    weights = np.eye(52)[[head.expression_names.index(f"eyeBlink{side}")]]
    assert (abs(gap(head.landmarks(None, weights))) < 0.05 * gap(head.landmarks())).all()


# the fit


@pytest.mark.parametrize("dims", [2, 3])
def test_exact_projections_are_recovered(head, dims):
    identity, expression, camera, points = random_faces(head, 12)
    fit = head.fit(points[..., :dims], iterations=30)
    size = face_size(head, camera)
    assert (fit.residual[:, 17:].mean(axis=1) / size).max() < 0.005
    found = fit.camera.project(head.landmarks(fit.identity, fit.expression))
    np.testing.assert_allclose(np.linalg.norm((found - points)[..., :2], axis=-1), fit.residual, atol=1e-3)
    if dims == 3:
        miss = found - points
        miss[..., 2] -= miss[..., 2].mean(axis=1, keepdims=True)
        assert (np.linalg.norm(miss, axis=-1)[:, 17:].mean(axis=1) / size).max() < 0.005
    assert np.degrees(geodesic(fit.camera.rotation, camera.rotation)).max() < (8 if dims == 2 else 2)
    few = head.fit(points[..., :dims])  # the default number of rounds has converged
    np.testing.assert_allclose(few.residual, fit.residual, atol=0.02)


def test_less_noise_means_a_closer_fit(head):
    *_, camera, points = random_faces(head, 4)
    size = face_size(head, camera)[:, None]
    means = [(head.fit(points, noise=n, depth_noise=2 * n).residual / size).mean() for n in (0.03, 0.01, 0.001)]
    assert means[0] > 1.5 * means[1] > 3 * means[2]


def test_expressions_stay_in_their_bounds(head):
    *_, points = random_faces(head, 6)
    wild = points + np.random.default_rng(1).normal(0, 8, points.shape)
    fit = head.fit(wild, noise=0.002, depth_noise=0.004)
    low, high = head.expression_bounds.T
    assert (fit.expression >= low).all() and (fit.expression <= high).all()
    assert (fit.expression == low).any() and (fit.expression == high).any()  # the bounds were felt


def test_a_batch_is_fitted_like_its_faces_one_by_one(head):
    *_, points = random_faces(head, 4)
    weights = np.random.default_rng(2).uniform(0.2, 1, (4, 68))
    together = head.fit(points, weights)
    for i in range(4):
        alone = head.fit(points[i : i + 1], weights[i : i + 1])
        np.testing.assert_allclose(alone.identity[0], together.identity[i], atol=1e-6)
        np.testing.assert_allclose(alone.expression[0], together.expression[i], atol=1e-6)
        np.testing.assert_allclose(alone.camera.rotation[0], together.camera.rotation[i], atol=1e-8)
    assert head.fit(points[:0]).identity.shape == (0, len(head.identity))


@pytest.mark.parametrize("wild", [1e4, np.nan])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_point_of_weight_zero_is_ignored(head, dims, wild):
    *_, points = random_faces(head, 2)
    points, weights = points[..., :dims], np.ones((2, 68))
    weights[:, [3, 30, 48]] = 0
    clean = head.fit(points, weights)
    spoilt = points.copy()
    spoilt[:, [3, 30, 48]] = wild
    fit = head.fit(spoilt, weights)
    np.testing.assert_allclose(fit.identity, clean.identity, atol=1e-8)
    np.testing.assert_allclose(fit.expression, clean.expression, atol=1e-8)


def test_the_offset_of_z_does_not_matter(head):
    *_, points = random_faces(head, 2)
    a, b = head.fit(points), head.fit(points + [0, 0, 123.0])
    np.testing.assert_allclose(a.identity, b.identity, atol=1e-5)
    np.testing.assert_allclose(a.residual, b.residual, atol=1e-5)


def test_points_that_cannot_be_fitted_are_refused(head):
    good = np.random.default_rng(0).uniform(0, 100, (1, 68, 2))
    for bad in (good[0], good[:, :67], np.zeros((1, 68, 4)), np.full((1, 68, 2), np.nan), good * np.inf):
        with pytest.raises(LandmarkError):
            head.fit(bad)
    few = np.zeros((1, 68))
    few[:, :5] = 1
    for weights in (np.ones((1, 67)), -np.ones((1, 68)), np.full((1, 68), np.nan), few):
        with pytest.raises(LandmarkError):
            head.fit(good, weights)
    with pytest.raises(LandmarkError):
        head.fit(good, noise=0)


def test_a_model_without_expressions_can_be_fitted(head):
    plain = MorphableModel(
        name="plain", mean=head.mean, identity=head.identity[:10], expression=np.zeros((0, *head.mean.shape)),
        expression_bounds=np.zeros((0, 2)), expression_names=(), triangles=head.triangles,
        landmark_ids=head.landmark_ids, landmark_weights=head.landmark_weights,
    )  # fmt: skip
    identity = np.random.default_rng(0).normal(size=(2, 10))
    one = np.ones(2)
    camera = WeakPerspective(np.stack([np.eye(3)] * 2), one, np.zeros((2, 2)))
    fit = plain.fit(camera.project(plain.landmarks(identity)), noise=1e-4, depth_noise=1e-4)
    np.testing.assert_allclose(fit.identity, identity, atol=0.01)
    assert fit.expression.shape == (2, 0)


def test_the_bounded_minimum_matches_slow_projected_coordinates():
    rng = np.random.default_rng(5)
    n, count = 12, 6
    bounds = np.concatenate([np.tile([-np.inf, np.inf], (4, 1)), np.tile([0.0, 1.0], (8, 1))])
    factor = rng.normal(size=(count, 20, n))
    hessian = factor.swapaxes(1, 2) @ factor
    gradient = (factor.swapaxes(1, 2) @ rng.normal(0, 4, (count, 20, 1)))[..., 0]
    found = bounded_minimum(hessian, gradient, bounds, np.zeros((count, n)))
    slow = np.zeros((count, n))
    for face in range(count):
        for _ in range(3000):
            for i in range(n):
                rest = gradient[face, i] - hessian[face, i] @ slow[face] + hessian[face, i, i] * slow[face, i]
                slow[face, i] = np.clip(rest / hessian[face, i, i], *bounds[i])
    np.testing.assert_allclose(found, slow, atol=1e-6)


def test_the_mirror_of_a_vertex_is_at_its_place_on_the_other_side():
    model = MorphableModel.default()
    mirror = model.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(model.mean)))
    assert np.abs(model.mean[mirror] * [-1, 1, 1] - model.mean).max() < 0.01  # mm
    assert 0 < (mirror == np.arange(len(mirror))).mean() < 0.1  # the midline


def test_a_head_that_is_not_symmetric_has_no_mirror():
    model = MorphableModel.default()
    bent = replace(model, mean=model.mean + [[0.1, 0, 0]] * np.square(model.mean[:, 1:2] / 10))
    with pytest.raises(ModelError, match="not symmetric"):
        _ = bent.mirror


def test_a_model_is_written_whole_or_not_at_all_under_the_name_given(tmp_path):
    model = MorphableModel.default()
    model.save(tmp_path / "head")  # no suffix is added
    assert MorphableModel.load(tmp_path / "head").name == model.name
    before = (tmp_path / "head").read_bytes()
    (tmp_path / "head.part").mkdir()  # so that nothing can be written there
    with pytest.raises(ModelError, match="head' cannot be written"):
        model.save(tmp_path / "head")
    assert (tmp_path / "head").read_bytes() == before
    with pytest.raises(ModelError, match="cannot be written"):
        model.save(tmp_path / "nowhere" / "head.npz")


def test_coefficients_of_unequal_numbers_of_heads_are_refused():
    with pytest.raises(ModelError, match=r"\[2, 3\] heads"):
        MorphableModel.default().vertices(np.zeros((2, 4)), np.zeros((3, 4)))
