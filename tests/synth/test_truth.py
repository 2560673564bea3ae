"""The truth beside a rendered picture, against slow twins and against the picture itself."""

from __future__ import annotations

import numpy as np
import pytest
from rendering import SIZE, camera_of, depth_by_rays, distance_to_surface, make_generator, with_recipe

pytest.importorskip("moderngl")
pytest.importorskip("scipy")

from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.synth.dense import RUNS, DenseHead  # noqa: E402
from canthus.synth.effects import downsample  # noqa: E402
from canthus.synth.generator import VIEWS_PER_HEAD  # noqa: E402
from canthus.synth.person import pose_head, sample_expression, sample_person  # noqa: E402
from canthus.synth.recipe import RandomStreams  # noqa: E402
from canthus.synth.scene import PerspectiveCamera  # noqa: E402
from canthus.synth.truth import REGIONS, is_visible, maps, occlusion, weak_camera  # noqa: E402

NOTHING_ON = dict.fromkeys(("glasses", "headwear", "hands", "objects", "masks", "scarves", "hair"), 0.0)


@pytest.fixture(scope="module")
def generator():
    return make_generator()


def person_of(generator, key: int = 0, **changes):
    """A posed person with nothing on but what `changes` says, loaded: head, bare vertices, generator."""
    twin = with_recipe(generator, **NOTHING_ON | changes)
    person = sample_person(RandomStreams(key), twin.assets, twin.recipe)
    expression = sample_expression(RandomStreams(key), twin.assets.expression_names, twin.recipe)
    return *twin.load(person, expression), twin


def own_triangles(head) -> np.ndarray:
    return np.concatenate([p.vertices[p.triangles] for p in head.pieces if p.is_head]).astype(float)


@pytest.mark.parametrize("yaw", [0, 55])
def test_depth_and_outline_are_those_of_the_rays_through_the_pixels(generator, yaw):
    head, _, twin = person_of(generator)
    camera, rng = camera_of(head.landmarks, yaw, 10, 20, distance=50), np.random.default_rng(0)
    pixels = rng.integers(15, SIZE - 15, (150, 2))
    depth = twin.renderer.depth_of(camera, lambda p: p.is_head, SIZE)[pixels[:, 1], pixels[:, 0]]
    expected = depth_by_rays(camera, own_triangles(head), pixels)
    seen = np.isfinite(expected)
    assert 50 < seen.sum() < 145  # some pixels show the backdrop
    assert (seen == np.isfinite(depth)).mean() > 0.98  # a ray may pass through a crack between two edges
    both = seen & np.isfinite(depth)
    error = np.abs(depth[both] - expected[both]) * camera.focal / camera.distance
    # Along the ray, so on a slope of 45 degrees it is also how far the surface is off across it.
    assert np.median(error) < 0.002 and np.percentile(error, 95) < 0.01  # px


def test_points_outside_the_picture_are_not_visible():
    xyz = np.full((3, 68, 3), 30.0)
    xyz[1, 5, 0], xyz[1, 6, 1] = -0.6, 63.4  # the border is half a pixel beyond the middle of a pixel
    xyz[2, 7, 1] = 63.6
    hidden = np.zeros((3, 68), np.uint8)
    hidden[0, 9] = 2
    seen = is_visible(hidden, xyz, 64)
    assert np.argwhere(~seen).tolist() == [[0, 9], [1, 5], [2, 7]]


def test_landmarks_are_on_the_surface_that_is_drawn(generator):
    head, _, _ = person_of(generator)
    assert distance_to_surface(head.landmarks.astype(float), own_triangles(head)).max() < 0.12  # cm: three vertices
    assert np.median(distance_to_surface(head.landmarks.astype(float), own_triangles(head))) < 0.02


def test_the_picture_stays_in_place_when_it_is_reduced(generator):
    head, _, twin = person_of(generator)
    camera = camera_of(head.landmarks, 30)
    factor = twin.renderer.size / SIZE
    from test_renderer import FLAT

    picture = twin.renderer.draw(camera.resized(factor), FLAT, 0.0)
    small = downsample(picture, SIZE)[..., 3]
    # The centre of what is covered, less a border that the neck crosses.
    weight = np.zeros((SIZE, SIZE))
    weight[: SIZE * 3 // 4] = small[: SIZE * 3 // 4]
    large = np.zeros(picture.shape[:2])
    large[: len(large) * 3 // 4] = picture[: len(large) * 3 // 4, :, 3]

    def middle(w: np.ndarray) -> np.ndarray:
        y, x = np.indices(w.shape)
        return np.array([(x * w).sum(), (y * w).sum()]) / w.sum()

    np.testing.assert_allclose(middle(weight), (middle(large) + 0.5) / factor - 0.5, atol=0.03)  # px


# ---- hidden points


@pytest.mark.parametrize(("what", "points"), [("masks", range(48, 68)), ("scarves", range(6, 11))])
def test_what_is_worn_before_the_face_hides_from_outside(generator, what, points):
    head, _, twin = person_of(generator, 4)
    camera = camera_of(head.landmarks, 0)
    factor = twin.renderer.size / SIZE
    free = occlusion(twin.renderer, camera.resized(factor), head.landmarks)
    assert (free[17:68] == 0).all()
    head, _, twin = person_of(generator, 4, **{what: 1.0})
    covered = occlusion(twin.renderer, camera.resized(factor), head.landmarks)
    assert (covered[list(points)] == 2).all()
    assert (covered[36:48] == 0).all()


@pytest.mark.parametrize("what", ["hands", "objects"])
def test_hands_and_things_hide_points_of_some_faces(generator, what):
    hidden = []
    for key in range(8):
        head, _, twin = person_of(generator, key, **{what: 1.0})
        camera = camera_of(head.landmarks, 0).resized(twin.renderer.size / SIZE)
        hidden.append((occlusion(twin.renderer, camera, head.landmarks) == 2).mean())
    assert 0.03 < np.mean(hidden) < 0.7
    assert np.count_nonzero(hidden) >= 4


def test_behind_the_head_itself_is_told_from_behind_a_thing(generator):
    head, _, twin = person_of(generator, 4, masks=1.0)
    camera = camera_of(head.landmarks, 80).resized(twin.renderer.size / SIZE)
    hidden = occlusion(twin.renderer, camera, head.landmarks)
    assert (hidden[[42, 45, 53, 54, 55, *range(9, 17)]] == 1).all()  # far eye, corner of the mouth and cheek
    assert (hidden[[5, 6, 7, *range(48, 53)]] == 2).all()  # the near side of the same mask


def test_visible_means_hidden_by_nothing(generator):
    twin = with_recipe(generator, hands=0.5, masks=0.5)
    group = twin.group(3)
    np.testing.assert_array_equal(group["visible"], group["occlusion"] == 0)
    assert set(np.unique(group["occlusion"])) <= {0, 1, 2}


# ---- the visible jaw line


def test_from_the_front_both_jaw_lines_agree(generator):
    head, vertices, twin = person_of(generator)
    camera = camera_of(head.landmarks, 0, distance=200)
    xyz = camera.project(head.landmarks)
    apart = np.linalg.norm(twin.contour(camera, vertices, xyz)[:, :2] - xyz[:17, :2], axis=1)
    assert apart.max() < 0.06 * np.ptp(xyz[:, 1])


@pytest.mark.parametrize("yaw", [45, -45, 80])
def test_on_the_far_side_the_visible_jaw_line_is_the_outline(generator, yaw):
    head, vertices, twin = person_of(generator)
    camera = camera_of(head.landmarks, yaw)
    xyz = camera.project(head.landmarks)
    seen = twin.contour(camera, vertices, xyz)
    near, far = (np.arange(0, 6), np.arange(12, 16)) if yaw > 0 else (np.arange(11, 17), np.arange(1, 5))
    np.testing.assert_allclose(seen[near], xyz[near], atol=1.0)  # the near side stays
    face = twin.renderer.depth_of(camera, lambda p: p.role == "face", SIZE)
    out = np.sign(yaw)
    for point, mesh in zip(seen[far], xyz[far]):
        column, row = np.rint(point[:2]).astype(int)
        # Further out in the same row is no more cheek than 2 px; at yaw 80 nose and mouth lie there, but at most.
        if abs(yaw) < 60:
            assert not np.isfinite(face[row, column + 3 * out])
        assert np.isfinite(face[row, column - 3 * out])
        assert (point[0] - mesh[0]) * out > 2


# ---- dense vertices


def test_the_runs_of_vertices_are_those_of_the_shipped_head():
    assert sum(last - first for first, last in RUNS) == len(MorphableModel.default().mean)
    assert all(a[1] < b[0] for a, b in zip(RUNS, RUNS[1:]))


def test_dense_vertices_are_the_drawn_face_in_the_shipped_topology(generator):
    model, dense = MorphableModel.default(), DenseHead(generator.assets)
    skin = np.unique(model.triangles[slice(*model.card["triangle_ranges"]["skin"])])
    for key in range(3):
        head, vertices, _ = person_of(generator, key)
        got = dense(vertices)
        assert got.shape == model.mean.shape
        # Three skin vertices in four are on the drawn skin to 0.7 mm; eye sockets, the inside of the mouth and the back
        # of the skull are not.
        apart = distance_to_surface(got[skin].astype(float), own_triangles(head)) * 10
        assert np.median(apart) < 0.2 and np.percentile(apart, 75) < 0.7  # mm
        # The shipped landmarks on them are those of the picture.
        points = (got[model.landmark_ids] * model.landmark_weights[..., None]).sum(1)
        error = np.linalg.norm(points - head.landmarks, axis=1) * 10
        assert np.median(error) < 0.5 and error.max() < 5  # mm
        # Neighbours stay neighbours: edges are as long as in the model, but for identity and expression.
        edges = model.triangles[:, :2]
        edges = edges[np.isin(edges, skin).all(1)]
        length = [np.linalg.norm(v[edges[:, 0]] - v[edges[:, 1]], axis=1) for v in (got * 10, model.mean)]
        assert np.median(np.abs(np.log(length[0] / length[1]))) < 0.25


def test_teeth_and_eyes_of_the_dense_head_follow_the_drawn_ones(generator):
    assets, dense = generator.assets, DenseHead(generator.assets)
    expression = np.zeros(len(assets.expression))
    expression[assets.expression_names.index("jawOpen")] = 1
    moved = dense(assets.shape(np.zeros(100), expression)) - dense(assets.mean)
    (right, _), (_, _), (upper, _), (lower, _), (tongue, _) = dense.parts
    assert np.abs(moved[np.concatenate([right, upper])]).max() < 0.01  # cm
    assert (moved[lower, 1] < -1).all() and (moved[tongue, 1].mean() < -0.5)
    assert len(right) == 72 and len(upper) == len(lower) == 68


# ---- cameras and maps


def stored_camera(group: dict, k: int) -> PerspectiveCamera:
    target, (distance, focal), centre = np.split(group["camera"][k].astype(float), [3, 5])
    return PerspectiveCamera(group["rotation"][k].astype(float), target, distance, focal, centre)


def test_all_that_a_sample_holds_belongs_together(generator):
    twin = with_recipe(generator, dense=True, maps=True)
    group = twin.group(2)
    model = MorphableModel.default()
    for k in range(VIEWS_PER_HEAD):
        camera = stored_camera(group, k)
        xyz = camera.project(group["head"][k].astype(float))
        origin = xyz[:, 2].mean()
        np.testing.assert_allclose(group["xyz"][k], xyz - [0, 0, origin], atol=0.01)
        # weak perspective: the stored residual is what is left
        turned = group["head"][k] @ group["weak_rotation"][k].T
        flat = group["weak_scale"][k] * turned[:, :2] * [1, -1] + group["weak_shift"][k]
        residual = np.sqrt(((flat - group["xyz"][k][:, :2]) ** 2).sum(1).mean())
        assert residual == pytest.approx(group["weak_residual"][k], abs=0.01)
        points = (group["vertices"][k][model.landmark_ids] * model.landmark_weights[..., None]).sum(1)
        assert np.linalg.norm(points - group["xyz"][k], axis=1).max() < 0.5 * camera.focal / camera.distance * 1.3
        # depth of the inner points that are seen, in the picture's own pixels
        x, y = np.rint(group["xyz"][k][17:, :2]).astype(int).T
        seen = group["visible"][k][17:]
        face = np.pad(group["region"][k] == REGIONS.index("face"), 1)
        near = np.stack([face[y + dy, x + dx] for dy in range(3) for dx in range(3)], 1).any(1)
        if seen.sum() > 10:
            assert near[seen].mean() > 0.9  # points on an outline and beside strands of hair have face next to them
            around = [group["depth"][k][y + i, x + j] - group["xyz"][k][17:, 2] for i in (-1, 0, 1) for j in (-1, 0, 1)]
            assert np.median(np.nanmin(np.abs(around), 0)[seen]) < 1.0  # px: beside it where the face is steep


def test_a_near_camera_is_less_like_a_weak_one(generator):
    head, _, _ = person_of(generator)
    near, far = (
        weak_camera(head.landmarks, camera_of(head.landmarks, 20, distance=d).project(head.landmarks))["weak_residual"]
        for d in (35.0, 1000.0)
    )
    assert near > 5 * far and far < 0.1


def test_regions_tell_face_hair_and_things(generator):
    head, _, twin = person_of(generator, 4, masks=1.0, hair=1.0)
    camera = camera_of(head.landmarks, 0)
    found = maps(twin.renderer, camera, SIZE, 0.0)
    xyz = camera.project(head.landmarks)
    mouth, nose = (np.rint(xyz[k, :2]).astype(int) for k in (62, 27))
    region = found["region"]
    assert REGIONS[region[mouth[1], mouth[0]]] == "things" and REGIONS[region[nose[1], nose[0]]] == "face"
    assert REGIONS[region[2, 2]] == "backdrop" and (region == REGIONS.index("hair")).any()
    assert np.isnan(found["depth"][2, 2]) and found["depth"].dtype == np.float16
    # the mask lies before the lips
    assert found["depth"][mouth[1], mouth[0]] > xyz[62, 2] + 0.1


def test_closed_eyes_are_closed_and_a_wink_closes_one(generator):
    names = generator.assets.expression_names
    lids = [names.index("eyeBlink_L"), names.index("eyeBlink_R")]
    closed = with_recipe(generator, closed_eyes=1.0, winks=0.0).recipe
    winking = with_recipe(generator, winks=1.0).recipe
    for key in range(10):
        assert (sample_expression(RandomStreams(key), names, closed)[lids] > 0.7).all()
        one = np.sort(sample_expression(RandomStreams(key), names, winking)[lids])
        assert one[0] < 0.4 and one[1] >= 0.8


def test_eyes_look_where_the_gaze_says(generator):
    person = sample_person(RandomStreams(0), generator.assets, generator.recipe)
    names = generator.assets.expression_names
    look_left = np.zeros(len(names), np.float32)
    look_left[[names.index("eyeLookOut_L"), names.index("eyeLookIn_R")]] = 0.5
    rest, _ = pose_head(generator.assets, person, np.zeros(len(names), np.float32))
    left, _ = pose_head(generator.assets, person, look_left)
    for name in ("M_ScleraLeft", "M_ScleraRight"):
        before, after = (next(p for p in h.pieces if p.name == name).vertices for h in (rest, left))
        front = before[:, 2].argmax()
        assert after[front, 0] - before[front, 0] > 0.3  # cm towards the subject's left, about 1.5 sin(17 degrees)
