"""Files of head meshes: they come back as they were, and a sequence of OBJ moves as the landmarks do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapes import made_up_faces

from canthus.errors import OutputError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.meshes import FaceMeshes
from canthus.face.morphable import MorphableModel
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.rotation import matrix_from_euler, quaternion_from_matrix
from canthus.io.gltf import HeadMotion
from canthus.io.meshes import write_mesh, write_obj_sequence
from canthus.io.outputs import atomic_folder

trimesh = pytest.importorskip("trimesh")


def tetrahedra(**changes) -> FaceMeshes:
    """Two "faces": a tetrahedron at (0, 0, 0) and at (10, 20, 30) of the image, with a seam in the uv."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 0, 1]], float)  # image frame: -1 is up
    parts = {
        "name": "tetrahedron", "mean": corners * [1, -1, 1], "identity": np.zeros((0, 4, 3)),
        "expression": np.zeros((0, 4, 3)), "expression_bounds": np.zeros((0, 2)), "expression_names": (),
        "triangles": np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
        "uv": np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.25, 0.5]]),
        "uv_triangles": np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [4, 2, 3]]),  # corner 1 has two
        "landmark_ids": np.zeros((68, 3), int), "landmark_weights": np.full((68, 3), 1 / 3),
    }  # fmt: skip
    model = MorphableModel(**(parts | changes))
    vertices = np.stack([corners, corners + [10, 20, 30]])
    camera = WeakPerspective(np.stack([np.eye(3)] * 2), np.ones(2), np.zeros((2, 2)))
    return FaceMeshes(vertices, model, np.zeros((2, 0)), np.zeros((2, 0)), camera, (40, 40))


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
@pytest.mark.parametrize("textured", [True, False])
def test_a_mesh_comes_back_upright(tmp_path: Path, suffix: str, textured: bool) -> None:
    meshes = tetrahedra() if textured else tetrahedra(uv=None, uv_triangles=None)
    path = tmp_path / f"a.{suffix}"
    write_mesh(path, meshes, face=1)
    assert list(tmp_path.iterdir()) == [path]
    back = trimesh.load_mesh(path, process=False)
    corners = np.array([[10, -20, 30], [11, -20, 30], [10, -19, 30], [10, -20, 31]])
    if suffix == "glb":  # the head by itself, in metres
        corners = (corners - corners[0]) / 1000
    np.testing.assert_allclose(back.triangles, corners[meshes.triangles], atol=1e-5)
    # A positive volume means that the triangles still face outwards; that of the tetrahedron is 1/6.
    assert back.volume == pytest.approx(1 / 6 * (1e-9 if suffix == "glb" else 1), rel=1e-4)
    if textured:
        np.testing.assert_allclose(back.visual.uv[back.faces], meshes.uv[meshes.uv_triangles], atol=1e-6)


def test_mesh_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="want one that ends in"):
        write_mesh(tmp_path / "a.stl", tetrahedra())


def test_a_face_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for face in (-1, len(tetrahedra())):
        with pytest.raises(OutputError, match=f"got face {face} of {len(tetrahedra())}"):
            write_mesh(tmp_path / "a.obj", tetrahedra(), face)
    assert list(tmp_path.iterdir()) == []


def test_the_mesh_of_a_face_lies_on_it(tmp_path: Path) -> None:
    """The chin of the file lies below its brows, and the nose towards the viewer."""
    faces = made_up_faces([(0.0, 0.0, 0.0)])
    for suffix in ("obj", "ply"):
        write_mesh(tmp_path / f"a.{suffix}", faces.mesh())
        back = trimesh.load_mesh(tmp_path / f"a.{suffix}", process=False)
        low, high = back.bounds
        assert low[1] < -faces.xyz[0, 8, 1] + 10 and high[1] > -faces.xyz[0, 19, 1]
        assert high[2] > faces.xyz[0, 30, 2] - 10 and back.volume > 0


def motion(count: int = 3) -> HeadMotion:
    """A head that turns, opens its mouth and comes nearer; frame 5 is the first one, and 6 is missing."""
    part, rng = np.arange(count) / max(count - 1, 1), np.random.default_rng(1)
    expression = np.zeros((count, 52))
    expression[:, EXPRESSIONS.index("jawOpen")] = part
    rotation = quaternion_from_matrix(matrix_from_euler(np.stack([0.1 * part, 0.5 * part, -0.2 * part], 1), "aflw"))
    place = np.stack([30 * part, 0 * part, -900 + 100 * part], 1)
    frames = np.array([5, *range(7, 6 + count)])
    return HeadMotion(
        "face_0", rng.normal(size=80), frames, frames / 25, rotation, place, expression, [(5 / 25, frames[-1] / 25)]
    )


def test_a_sequence_of_obj_moves_the_head(tmp_path: Path) -> None:
    model, head = MorphableModel.default(), motion()
    with atomic_folder(tmp_path / "clip.heads") as folder:
        write_obj_sequence(folder, model, head)
    paths = sorted((tmp_path / "clip.heads").iterdir())
    assert [path.name for path in paths] == ["face_0.000005.obj", "face_0.000007.obj", "face_0.000008.obj"]
    jaw = EXPRESSIONS.index("jawOpen")
    angles = np.array([[0.1, 0.5, -0.2]])
    for k, path in enumerate(paths):
        text = path.read_text()
        first = text.splitlines()[0]
        assert "metres" in first and f"frame {head.frames[k]}, {head.times[k]:.3f} s" in first
        assert re.findall(r"^g (\w+)$", text, re.M) == ["skin", "eyes", "teeth", "tongue"]
        places = np.array([line.split()[1:] for line in text.splitlines() if line.startswith("v ")], float)
        # by the words of conventions.md: mean + identity + expression, turned and moved, a millimetre is 0.001
        part = k / 2
        neutral = model.mean + np.tensordot(head.identity, model.identity.astype(float), 1)
        turn = matrix_from_euler(part * angles, "aflw")[0]
        seen = (neutral + part * model.expression[jaw]) @ turn.T + [30 * part, 0, -900 + 100 * part]
        np.testing.assert_allclose(places, seen / 1000, atol=1e-6)
        back = trimesh.load_mesh(path, process=False)
        assert len(back.faces) == len(model.triangles) and back.bounds[1, 2] < -0.7
        corners = places[model.triangles]
        np.testing.assert_allclose(np.sort(back.triangles.mean(1)), np.sort(corners.mean(1)), atol=1e-6)


def test_a_sequence_in_place_of_an_older_one_holds_nothing_of_it(tmp_path: Path) -> None:
    model = MorphableModel.default()
    for count in (3, 2):
        with atomic_folder(tmp_path / "clip.heads") as folder:
            write_obj_sequence(folder, model, motion(count))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.heads"]
    assert len(list((tmp_path / "clip.heads").iterdir())) == 2


def test_a_sequence_of_a_model_in_other_units_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="want one in mm"):
        write_obj_sequence(tmp_path, replace(MorphableModel.default(), unit="m"), motion())


def test_the_photo_of_a_glb_has_the_size_of_that_of_the_faces(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"got an image of \(50, 40\) px, want the \(40, 40\) px of the meshes"):
        write_mesh(tmp_path / "a.glb", tetrahedra(), 0, np.zeros((40, 50, 3), np.uint8))


def test_a_head_is_placed_in_the_photo_that_is_named(tmp_path):
    meshes = made_up_faces([(0.0, 20.0, 0.0)]).mesh()
    camera = replace(meshes.camera, scale=meshes.camera.scale * 2, shift=meshes.camera.shift * 2)
    whole = replace(meshes, vertices=meshes.vertices * 2, camera=camera)
    write_mesh(tmp_path / "a.glb", meshes)
    write_mesh(tmp_path / "b.glb", meshes, placed=whole)
    small, large = (document(tmp_path / f"{name}.glb")["nodes"][0]["extras"] for name in "ab")
    # the head model is in millimetres
    assert small["pixels_per_metre"] == pytest.approx(1000 * float(meshes.camera.scale[0]), rel=1e-3)
    assert large["pixels_per_metre"] == pytest.approx(2 * small["pixels_per_metre"], rel=1e-4)
    assert large["origin_in_photo"] == pytest.approx(2 * np.array(small["origin_in_photo"]), abs=0.01)


def document(path: Path) -> dict:
    """The JSON of a binary glTF: after 12 bytes of header and 8 of the chunk's own."""
    data = path.read_bytes()
    return json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
