"""`Alignment` to `Faces`, the parts of `Faces`, and the meshes fitted to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapes import MIRROR, head68, made_up_faces

from canthus.errors import BoxError, CanthusError, ImageError, LandmarkError, ModelError, WeightsError
from canthus.face.faces import Alignment, Faces, TrackedFaces
from canthus.face.morphable import MorphableModel
from canthus.face.pose import Pose
from canthus.geometry.crop import Crop
from canthus.geometry.rotation import geodesic

ANGLES = [(0.0, 0.0, 0.0), (10.0, 40.0, -5.0), (-15.0, -70.0, 20.0)]


def test_the_made_up_head_is_symmetric() -> None:
    mirrored = head68()[MIRROR] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, head68(), atol=1e-12)


def test_boxes_are_tight_and_sizes_follow() -> None:
    xyz = np.zeros((1, 68, 3))
    xyz[0, 3, :2] = 40, 90
    xyz[0, 4, :2] = 10, 0
    faces = replace(made_up_faces(ANGLES[:1]), xyz=xyz)
    np.testing.assert_array_equal(faces.boxes, [[0, 0, 40, 90]])
    assert faces.sizes[0] == pytest.approx(60)  # sqrt(40 * 90)


def test_scores_are_the_laplace_mass_within_the_radius() -> None:
    faces = made_up_faces(ANGLES[:1])
    radius = 0.05 * faces.sizes[0]
    sigma = np.full((1, 68), np.nan)
    # (1 + a) exp(-a) = 1/2 at a = 1.678347, so a radius of a sigma / sqrt(3) holds one half; one of sigma holds
    # 1 - (1 + sqrt 3) exp(-sqrt 3) = 1 - 2.73205 * 0.176921 = 0.51664.
    sigma[0, :3] = radius * np.sqrt(3) / 1.678347, radius, 0
    scores = replace(faces, sigma=sigma).scores
    np.testing.assert_allclose(scores[0, :3], [0.5, 0.51664, 1], atol=1e-4)
    assert np.isnan(scores[0, 3:]).all()


def test_scores_agree_with_drawn_errors() -> None:
    faces = made_up_faces(ANGLES[:1])
    sigma = 0.03 * faces.sizes[0]
    # The density of the length r is proportional to r exp(-sqrt(3) r / sigma): a gamma distribution of shape 2.
    errors = np.random.default_rng(0).gamma(2, sigma / np.sqrt(3), 20000)
    share = (errors < 0.05 * faces.sizes[0]).mean()
    score = replace(faces, sigma=np.full((1, 68), sigma)).scores[0, 0]
    assert score == pytest.approx(share, abs=0.01)  # three standard deviations of the share are 0.009


def test_faces_and_their_parts_are_shown_on_one_line() -> None:
    faces = replace(made_up_faces(ANGLES), weights="<swift> 1")
    width, height = faces.image_size
    sizes = ", ".join(f"{size:.0f} px" for size in faces.sizes)
    assert repr(faces) == f"Faces(3 in {width}x{height} px, ibug68, <swift> 1: {sizes})"
    assert repr(Faces.empty((640, 480))) == "Faces(0 in 640x480 px, ibug68)"
    assert repr(Pose(np.zeros((0, 3, 3)))) == "Pose()"
    assert repr(faces.pose) == "Pose(pitch 0 yaw 0 roll 0, pitch 10 yaw 40 roll -5, pitch -15 yaw -70 roll 20)"
    many = Faces.concat([faces] * 3, faces.image_size)
    assert repr(many).endswith("px and 4 more)") and "\n" not in repr(many)
    with pytest.raises(ModelError, match="got int for a head model"):
        faces.mesh(3)
    assert repr(faces.mesh()) == "FaceMeshes(3 of 4828 vertices, 9512 triangles)"


def test_notebooks_show_the_landmarks() -> None:
    faces = replace(made_up_faces(ANGLES), weights="<swift> 1")
    html = faces._repr_html_()
    assert html.count("<circle ") == 3 * 68 and "&lt;swift&gt;" in html and "<swift>" not in html
    x, y = faces.xy[0, 0]
    assert f'cx="{x:.1f}" cy="{y:.1f}"' in html
    # the first pixel's centre is at 0, its edge at -0.5
    assert f'viewBox="-0.5 -0.5 {faces.image_size[0]} {faces.image_size[1]}"' in html


def test_indexing_and_iterating_give_faces() -> None:
    faces = made_up_faces(ANGLES)
    singles = list(faces)
    assert [len(face) for face in singles] == [1, 1, 1]
    np.testing.assert_array_equal(singles[2].xyz[0], faces.xyz[2])
    np.testing.assert_array_equal(faces[-1].pose.matrix[0], faces.pose.matrix[2])
    np.testing.assert_array_equal(faces[1:].detection_scores, faces.detection_scores[1:])
    np.testing.assert_array_equal(faces[faces.detection_scores > 0.9].xyz, faces.xyz[:1])
    assert faces[0].weights == faces.weights and faces[0].image_size == faces.image_size
    with pytest.raises(IndexError):
        faces[3]


def test_faces_join_to_what_they_were_taken_from() -> None:
    faces = made_up_faces(ANGLES)
    joined = Faces.concat([faces[2], faces[:0], faces[:2]], faces.image_size)
    for name in ("xyz", "detection_scores", "sigma", "visible", "boxes", "image_size", "scheme", "weights"):
        np.testing.assert_array_equal(getattr(joined[[1, 2, 0]], name), getattr(faces, name))
    np.testing.assert_array_equal(joined[[1, 2, 0]].pose.matrix, faces.pose.matrix)
    assert len(Faces.concat([], (20, 10))) == 0 and Faces.concat([], (20, 10)).image_size == (20, 10)


def test_joined_faces_name_all_weights_and_have_one_scheme() -> None:
    one, two = (replace(made_up_faces(ANGLES[:1]), weights=name) for name in ("a 1", "b 2"))
    assert Faces.concat([one, two, one], one.image_size).weights == "a 1, b 2"
    unknown = np.full((1, 84), np.nan)
    other = replace(two, scheme="menpo84", xyz=np.zeros((1, 84, 3)), sigma=unknown, visible=unknown)
    with pytest.raises(LandmarkError, match="schemes ibug68, menpo84"):
        Faces.concat([one, other], one.image_size)


def test_alignments_join_field_by_field(xp) -> None:
    xyz, score = xp(np.ones((2, 68, 3))), xp(np.ones((2, 68)))
    a, b = (Alignment(n * xyz[:n], score=score[:n] / n, steps=(xyz,)) for n in (1, 2))
    joined = Alignment.concat([a, b])
    np.testing.assert_array_equal(joined.xyz[:, 0, 0], [1, 2, 2])
    np.testing.assert_array_equal(joined.score[:, 0], [1, 0.5, 0.5])
    assert joined.sigma is None and joined.rotation is None and joined.steps == ()


def test_tracked_faces_have_one_number_each() -> None:
    faces = made_up_faces(ANGLES)
    assert len(TrackedFaces(faces, np.arange(3), np.ones(3, bool))) == 3
    with pytest.raises(LandmarkError, match="want one a face"):
        TrackedFaces(faces, np.arange(2), np.ones(3, bool))


def test_empty_faces_answer_everything() -> None:
    faces = Faces.empty((640, 480))
    assert len(faces) == 0 and list(faces) == []
    assert faces.boxes.shape == (0, 4) and faces.scores.shape == (0, 68) and faces.sizes.shape == (0,)
    assert faces.pose.euler().shape == (0, 3) and faces.pose.quaternion.shape == (0, 4)
    assert len(faces.mesh()) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"xyz": np.zeros((1, 66, 3))}, LandmarkError),
        ({"xyz": np.full((1, 68, 3), np.nan)}, LandmarkError),
        ({"sigma": np.ones((2, 68))}, LandmarkError),
        ({"sigma": np.full((1, 68), -1.0)}, LandmarkError),
        ({"sigma": np.full((1, 68), np.inf)}, LandmarkError),
        ({"visible": np.ones(68)}, LandmarkError),
        ({"visible": np.full((1, 68), 1.5)}, LandmarkError),
        ({"detection_scores": np.array([-0.5])}, BoxError),
        ({"pose": Pose(np.zeros((0, 3, 3)))}, LandmarkError),
        ({"detection_scores": np.ones(3)}, BoxError),
        ({"image_size": (0, 480)}, ImageError),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict, error: type[CanthusError]) -> None:
    with pytest.raises(error, match="want"):
        replace(made_up_faces(ANGLES[:1]), **change)


def test_pose_refuses_other_shapes_and_unknown_conventions() -> None:
    with pytest.raises(LandmarkError, match="want"):
        Pose(np.eye(3))
    with pytest.raises(CanthusError, match="aflw"):
        Pose(np.eye(3)[None]).euler("hopenet")


def test_pose_angles_are_degrees() -> None:
    faces = made_up_faces(ANGLES)
    np.testing.assert_allclose(faces.pose.euler("aflw"), ANGLES, atol=1e-9)
    # 40 degrees of aflw yaw is a turn of -40 about y, and a quaternion (w, x, y, z) holds half the angle.
    turned = made_up_faces([(0.0, 40.0, 0.0)]).pose.quaternion
    np.testing.assert_allclose(turned, [[np.cos(np.pi / 9), 0, -np.sin(np.pi / 9), 0]], atol=1e-12)


def test_positive_aflw_yaw_moves_the_nose_to_image_left() -> None:
    xyz = made_up_faces([(0.0, 40.0, 0.0)]).xyz[0]
    assert xyz[30, 0] < xyz[[0, 16], 0].mean()


def crop_of(faces: Faces, angle: float) -> Crop:
    return Crop.around_boxes(faces.boxes, scale=1.4, size=128, angle=angle)


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
def test_alignment_goes_to_the_image_and_back(angle: float) -> None:
    faces = made_up_faces(ANGLES)
    crop = crop_of(faces, angle)
    per_pixel = crop.size / crop.side
    alignment = Alignment(
        crop.crop_from_image(faces.xyz) + [0, 0, 7],  # the origin of z is the network's own affair
        sigma=faces.sigma * per_pixel[:, None],
        visible=faces.visible,
    )
    found = alignment.to_image(crop, faces.image_size, detection_scores=faces.detection_scores, weights="w 1")
    np.testing.assert_allclose(found.xyz, faces.xyz, atol=1e-3)
    np.testing.assert_allclose(found.sigma, faces.sigma, rtol=1e-5)
    np.testing.assert_array_equal(found.visible, faces.visible)
    np.testing.assert_array_equal(found.detection_scores, faces.detection_scores)
    assert found.weights == "w 1" and found.image_size == faces.image_size


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
def test_rotation_of_the_network_turns_with_the_crop(angle: float) -> None:
    """The head, turned by the network's rotation and drawn in the crop, must lie on the image's landmarks."""
    faces = made_up_faces(ANGLES)
    crop = crop_of(faces, angle)
    xyz = crop.crop_from_image(faces.xyz)
    flat = xyz - xyz.mean(1, keepdims=True)
    # The rotation that explains the crop's points: least squares in axes with y up, exact for a rigid head.
    solution = np.stack([np.linalg.lstsq(head68(), points * [1, -1, 1], rcond=None)[0].T for points in flat])
    scale = np.cbrt(np.linalg.det(solution))[:, None, None]
    found = Alignment(xyz, rotation=solution / scale).to_image(crop, faces.image_size)
    np.testing.assert_allclose(found.pose.matrix, faces.pose.matrix, atol=1e-6)


def test_points_outside_the_image_are_not_visible() -> None:
    faces = made_up_faces(ANGLES)
    crop = crop_of(faces, 0.3)
    visible = np.full(faces.visible.shape, 0.9)
    alignment = Alignment(crop.crop_from_image(faces.xyz), visible=visible)
    width, height = (int(side) for side in np.median(faces.xy, (0, 1)))
    found = alignment.to_image(crop, (width, height))
    x, y = np.moveaxis(faces.xy.astype(float), -1, 0)
    inside = (x < width - 0.5) & (y < height - 0.5)  # the last pixel's centre is at width - 1
    assert 0.05 < inside.mean() < 0.95
    np.testing.assert_allclose(found.visible, np.where(inside, 0.9, 0), rtol=1e-6)


def test_a_rotation_that_is_nearly_one_is_made_one_and_others_are_refused() -> None:
    faces = made_up_faces(ANGLES)
    crop = crop_of(faces, 0.0)
    xyz = crop.crop_from_image(faces.xyz)
    exact = np.asarray(faces.pose.matrix)
    rounded = exact.round(2)  # each entry off by up to 0.005
    pose = Alignment(xyz, rotation=rounded).to_image(crop, faces.image_size).pose.matrix
    np.testing.assert_allclose(pose @ pose.swapaxes(1, 2), np.eye(3)[None].repeat(len(faces), 0), atol=1e-12)
    assert np.rad2deg(geodesic(pose, exact)).max() < 1  # 0.01 rad is 0.6 degrees
    for wrong in (exact * 0, exact * 2, exact * [1, 1, -1], exact * np.nan):
        with pytest.raises(WeightsError, match="want rotation matrices"):
            Alignment(xyz, rotation=wrong).to_image(crop, faces.image_size)


def test_confidence_is_the_mean_score_of_the_points() -> None:
    faces = made_up_faces(ANGLES)
    crop = crop_of(faces, 0.0)
    sigma = faces.sigma * crop.zoom[:, None]
    own = np.linspace(0, 1, 68 * len(faces)).reshape(-1, 68)
    xyz = crop.crop_from_image(faces.xyz)
    np.testing.assert_allclose(Alignment(xyz, sigma, score=own).confidence(), faces.scores.mean(1), rtol=1e-5)
    np.testing.assert_allclose(Alignment(xyz, score=own).confidence(), own.mean(1))
    np.testing.assert_array_equal(Alignment(xyz).confidence(), np.ones(len(faces)))


def test_what_is_there_of_an_alignment_is_changed_and_the_rest_left_out() -> None:
    xyz = np.arange(12.0).reshape(2, 2, 3)
    part = Alignment(xyz, score=xyz[..., 0], steps=(xyz,), maps=(xyz,)).map(lambda values: values[1:])
    np.testing.assert_array_equal(part.xyz, xyz[1:])
    np.testing.assert_array_equal(part.score, [[6.0, 9.0]])
    assert part.sigma is None and part.steps == part.maps == ()


def test_alignment_without_extras_is_unknown_there() -> None:
    faces = made_up_faces(ANGLES)
    crop = crop_of(faces, 0.0)
    found = Alignment(crop.crop_from_image(faces.xyz)).to_image(crop, faces.image_size)
    for part in (found.sigma, found.visible, found.detection_scores):
        assert np.isnan(part).all()
    # The made-up head is not the model's mean head, and so its pose is only about right.
    np.testing.assert_allclose(found.pose.euler(), ANGLES, atol=10)


def test_landmarks_without_depth_have_the_pose_of_the_image_plane() -> None:
    faces = made_up_faces(ANGLES)
    crop = crop_of(faces, 0.0)
    mean = MorphableModel.default().landmarks()[0]
    flat = faces.pose.matrix @ mean.T  # the mean head itself, so that the pose is exact
    xyz = np.concatenate([np.stack([flat[:, 0], -flat[:, 1]], -1) + 300, np.zeros((3, 68, 1))], -1)
    found = Alignment(crop.crop_from_image(xyz)).to_image(crop, faces.image_size)
    np.testing.assert_allclose(found.pose.matrix, faces.pose.matrix, atol=1e-4)


def test_alignment_of_torch_gives_the_same_faces() -> None:
    torch = pytest.importorskip("torch")
    faces = made_up_faces(ANGLES)
    crop = crop_of(faces, 0.3)
    xyz = crop.crop_from_image(faces.xyz).astype(np.float32)
    parts = {"sigma": faces.sigma, "visible": faces.visible, "rotation": faces.pose.matrix}
    of_numpy = Alignment(xyz, **parts).to_image(crop, faces.image_size)
    half = Alignment(torch.as_tensor(xyz, dtype=torch.bfloat16)).to_image(crop, faces.image_size)
    np.testing.assert_allclose(half.xyz, faces.xyz, atol=1)  # bfloat16 is good to 0.5 of 128 px
    torch_crop = Crop(*(torch.as_tensor(part) for part in (crop.center, crop.side, crop.angle)), crop.size)
    of_torch = Alignment(
        torch.tensor(xyz, requires_grad=True), **{name: torch.as_tensor(part) for name, part in parts.items()}
    ).to_image(torch_crop, faces.image_size)
    np.testing.assert_allclose(of_torch.xyz, of_numpy.xyz, atol=1e-3)
    np.testing.assert_allclose(of_torch.pose.matrix, of_numpy.pose.matrix, atol=1e-6)
    np.testing.assert_allclose(of_torch.sigma, of_numpy.sigma, rtol=1e-5)


def test_no_alignment_gives_no_faces() -> None:
    crop = Crop.around_boxes(np.zeros((0, 4)), scale=1.4, size=128)
    assert len(Alignment(np.zeros((0, 68, 3))).to_image(crop, (640, 480))) == 0


def test_landmarks_convert_to_another_scheme() -> None:
    faces = made_up_faces(ANGLES)
    np.testing.assert_array_equal(faces.landmarks(), faces.xyz)
    kept = [index for index in range(68) if index not in (60, 64)]  # 3DFAW lacks the inner mouth corners
    np.testing.assert_allclose(faces.landmarks("3dfaw66"), faces.xyz[:, kept])
    with pytest.raises(LandmarkError):
        faces.landmarks("ibug67")


def test_mesh_lies_on_the_landmarks() -> None:
    model = MorphableModel.default()
    # Heads of the model itself, so that the fit can be close.
    head = model.landmarks(np.array([[1.0, -1.0]]))[0]
    faces = made_up_faces(ANGLES)
    xyz = 1.2 * head @ np.swapaxes(faces.pose.matrix, 1, 2) * [1, -1, 1]
    faces = replace(faces, xyz=xyz - [0, 0, 1] * xyz.mean(1, keepdims=True) + [300, 200, 0])
    meshes = faces.mesh()
    found = np.einsum("nlkc,lk->nlc", meshes.vertices[:, model.landmark_ids], model.landmark_weights)
    assert np.abs(found - faces.xyz).max() < 0.02 * faces.sizes.min()
    assert len(meshes) == 3 and meshes.triangles.max() < meshes.vertices.shape[1]
    assert meshes.expression.shape == (3, len(meshes.expression_names)) and meshes.unit == model.unit
    np.testing.assert_allclose(meshes.camera.scale, 1.2, rtol=0.03)


def test_mesh_trusts_the_points_with_small_sigma() -> None:
    """One landmark moved away pulls the mesh less when the network said that it is unsure."""
    faces = made_up_faces([(0.0, 0.0, 0.0)])
    xyz = faces.xyz.copy()
    xyz[0, 8, 1] += 40
    moved = replace(faces, xyz=xyz, sigma=np.ones((1, 68)))
    unsure = np.ones((1, 68))
    unsure[0, 8] = 20
    rest = [index for index in range(68) if index != 8]
    model = MorphableModel.default()

    def error(faces: Faces) -> float:
        mesh = faces.mesh()
        landmarks = np.einsum("nlkc,lk->nlc", mesh.vertices[:, model.landmark_ids], model.landmark_weights)
        return float(np.abs(landmarks - xyz)[0, rest, :2].mean())

    assert error(replace(moved, sigma=unsure)) < error(moved)


def test_mesh_without_sigma_weighs_all_points_the_same() -> None:
    faces = made_up_faces(ANGLES[:1])
    unknown = replace(faces, sigma=np.full((1, 68), np.nan)).mesh()
    same = replace(faces, sigma=np.full((1, 68), 2.0)).mesh()
    np.testing.assert_allclose(unknown.vertices, same.vertices, atol=1e-3)


def test_matrices_that_are_no_rotations_are_no_pose():
    for matrix in (np.zeros((3, 3)), 5 * np.eye(3), np.diag([-1.0, 1, 1])):
        with pytest.raises(LandmarkError, match="no rotations"):
            Pose(matrix[None])
