"""Points of other schemes on a fitted head: where they lie, what moves them, and what stays the network's own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from canthus.errors import LandmarkError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.face.landmarks import scheme
from canthus.face.meshes import FaceMeshes
from canthus.face.morphable import MorphableModel
from canthus.face.pose import Pose
from canthus.face.surface import SOFTENING, _nearness, landmarks_on_heads, surface_map, surface_schemes
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.rotation import matrix_from_euler
from canthus.io.outputs import read_json, write_json

SCHEMES = ("lapa106", "mediapipe478", "wflw98")
NO_GAZE = np.full((1, len(EXPRESSIONS)), np.nan)


def head(yaw: float = 0.0, scale: float = 2.0) -> tuple[FaceMeshes, np.ndarray]:
    """The mean head in the middle of 480 x 480 px, turned, and its 68 landmarks."""
    model = MorphableModel.default()
    rotation = matrix_from_euler(np.deg2rad([[0.0, yaw, 0.0]]), "aflw")
    camera = WeakPerspective(rotation, np.array([scale]), np.array([[240.0, 240.0]]))
    vertices = camera.project(model.mean[None].astype(np.float64))
    vertices[..., 2] -= model.at_landmarks(vertices[..., 2:]).mean(1)
    identity, expression = np.zeros((1, len(model.identity))), np.zeros((1, len(model.expression)))
    return FaceMeshes(vertices, model, identity, expression, camera, (480, 480)), model.at_landmarks(vertices)


def faces_of(xyz: np.ndarray, yaw: float = 0.0) -> Faces:
    unsure = np.linspace(1, 3, 68)[None]
    pose = Pose(matrix_from_euler(np.deg2rad([[0.0, yaw, 0.0]]), "aflw"))
    return Faces(xyz - [0, 0, 1] * xyz.mean(1, keepdims=True), np.ones(1), unsure, unsure / 3, pose, (480, 480))


def inner(name: str) -> np.ndarray:
    """The points that are no visible contour."""
    contour = scheme(name).parts["jaw"] if scheme(name).jaw == "visible contour" else []
    return np.setdiff1d(np.arange(scheme(name).count), contour)


def test_the_schemes_on_the_head():
    assert surface_schemes() == SCHEMES
    with pytest.raises(LandmarkError, match="got the scheme aflw21, want one of lapa106"):
        surface_map("aflw21")


@pytest.mark.parametrize("name", SCHEMES)
def test_places_are_inside_triangles_and_symmetric(name):
    model, places = MorphableModel.default(), surface_map(name)
    np.testing.assert_allclose(places.weights.sum(1), 1, atol=1e-5)
    assert places.weights.min() >= -0.4 and places.ids.min() >= 0 and places.ids.max() < len(model.mean)
    on_mean = places.at(model.mean)
    off = np.linalg.norm(on_mean[scheme(name).mirror] * [-1, 1, 1] - on_mean, axis=1)
    assert off.max() < 1.5 and np.median(off) < 0.1  # mm on a head 185 mm wide; two triangles may be as near


@pytest.mark.parametrize("name", SCHEMES)
def test_points_on_a_head_that_fits_are_its_own_and_go_along_with_the_landmarks(name):
    meshes, xyz = head(20.0)
    points = landmarks_on_heads(meshes, xyz, name, NO_GAZE)
    wanted = surface_map(name).at(meshes.vertices)
    np.testing.assert_allclose(points[:, inner(name)], wanted[:, inner(name)], atol=1e-4)
    moved = landmarks_on_heads(meshes, xyz + [5.0, -3.0, 2.0], name, NO_GAZE)  # shares of all offsets sum to one
    np.testing.assert_allclose(moved, points + [5.0, -3.0, 2.0], atol=1e-4)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_nearest_landmarks_count_most(name):
    model, got = MorphableModel.default(), _nearness(name)
    places, landmarks = surface_map(name).at(model.mean), model.landmarks()[0]
    for m in range(0, len(got), 17):
        shares = [1 / (np.linalg.norm(places[m] - landmark) ** 2 + SOFTENING**2) for landmark in landmarks]
        np.testing.assert_allclose(got[m], np.array(shares) / sum(shares), rtol=1e-4)


def test_points_that_are_landmarks_are_the_networks_own():
    _, xyz = head()
    xyz = xyz + np.random.default_rng(0).normal(0, 1.5, xyz.shape)  # off any head
    faces = faces_of(xyz)
    got = faces.landmarks("wflw98")
    for theirs, ours in (((60, 64, 68, 72), (36, 39, 42, 45)), (range(51, 60), range(27, 36)), ((76, 94), (48, 66))):
        np.testing.assert_array_equal(got[:, list(theirs)], faces.xyz[:, list(ours)])
    quality = faces.landmark_quality("wflw98")
    assert set(quality) == {"exact", "approximate"} and quality[60] == "exact" and quality[0] == quality[61]
    assert set(faces.landmark_quality("cofw29")) == {"exact", "approximate", "missing"}  # by the map


def test_lids_brows_and_irises_are_where_their_names_say():
    points = faces_of(head()[1]).landmarks("wflw98")[0]
    for eye in (range(60, 68), range(68, 76)):
        x, y = points[list(eye), 0], points[list(eye), 1]
        assert (np.diff(x[:5]) > 0).all() and (np.diff(x[5:]) < 0).all()  # image left to right above, back below
        assert y[1:4].max() < y[5:8].min()
    assert (points[[37, 36, 35, 34], 1] < points[[38, 39, 40, 41], 1]).all()  # upper edges are above lower ones
    assert (points[[42, 43, 44, 45], 1] < points[[50, 49, 48, 47], 1]).all()
    mesh = faces_of(head()[1]).landmarks("mediapipe478")[0]
    for centre in (468, 473):
        right, top, left, bottom = mesh[centre + 1 : centre + 5, :2] - mesh[centre, :2]
        assert right[0] > 10 and left[0] < -10 and top[1] < -10 and bottom[1] > 10  # 6.2 mm at 2 px a mm


def test_a_gaze_of_the_network_turns_the_pupils_alone():
    meshes, xyz = head()
    straight, aside = np.zeros((2, 1, len(EXPRESSIONS)))
    aside[0, [EXPRESSIONS.index("eyeLookOutLeft"), EXPRESSIONS.index("eyeLookInRight")]] = 1
    way = landmarks_on_heads(meshes, xyz, "wflw98", aside) - landmarks_on_heads(meshes, xyz, "wflw98", straight)
    assert (way[0, [96, 97], 0] > 3).all()  # to the subject's left, the right of the image
    assert not np.delete(way, [96, 97], axis=1).any()


def test_the_contour_has_equal_steps_and_follows_the_outline_of_a_turned_head():
    meshes, xyz = head()
    jaw = landmarks_on_heads(meshes, xyz, "wflw98", NO_GAZE)[0, :33]
    np.testing.assert_allclose(jaw[[0, 16, 32]], xyz[0, [0, 8, 16]], atol=0.5)
    steps = np.linalg.norm(np.diff(jaw[:, :2], axis=0), axis=1)
    assert steps.max() < 1.05 * steps.min()  # chords of equal arcs
    meshes, xyz = head(-50.0)  # the nose is to the right of the image, and so the left cheek is turned away
    jaw = landmarks_on_heads(meshes, xyz, "wflw98", NO_GAZE)[0, :33]
    assert jaw[20:31, 0].min() > xyz[0, 11:16, 0].min() and jaw[32, 0] > xyz[0, 16, 0] + 10


def test_converted_faces_know_sigma_of_landmarks_only_and_go_through_json(tmp_path):
    faces = faces_of(head()[1])
    with_98 = faces.converted("wflw98")
    assert with_98.scheme == "wflw98" and with_98.sigma[0, 60] == faces.sigma[0, 36] and np.isnan(with_98.sigma[0, 61])
    assert np.isnan(with_98.visible[0, 0]) and with_98.visible[0, 72] == faces.visible[0, 45]
    write_json(tmp_path / "a.json", with_98)
    assert json.loads((tmp_path / "a.json").read_text())["scheme"] == "wflw98"
    np.testing.assert_allclose(read_json(tmp_path / "a.json").xyz, with_98.xyz, atol=1e-3)
    assert Faces.empty((9, 9)).landmarks("mediapipe478").shape == (0, 478, 3)


@pytest.mark.parametrize("scheme", ["menpo84", "aflw19", "wflw98", "mediapipe478"])
def test_converted_points_have_a_mean_z_of_zero(scheme):
    faces = faces_of(head(-50.0)[1])
    converted = faces.converted(scheme)
    assert abs(converted.xyz[..., 2].mean()) < 1e-4
    moved = faces.landmarks(scheme) - converted.xyz
    np.testing.assert_allclose(moved[..., :2], 0, atol=1e-6)
    np.testing.assert_allclose(moved[..., 2], moved[0, 0, 2], atol=1e-4)  # all by the same
