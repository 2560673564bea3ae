"""Photos as textures of heads: what can be seen has the photo's colours at the place where the photo shows it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from photos import aligner, photo
from PIL import Image

from canthus.errors import OutputError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.meshes import FaceMeshes
from canthus.face.morphable import MorphableModel
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.rotation import matrix_from_euler
from canthus.io.head_parts import Part, parts_of, photo_parts, sample
from canthus.io.meshes import write_mesh

SIZE = 200


def head(yaw: float, model: MorphableModel | None = None, shift: float = 0.0) -> FaceMeshes:
    """The mean head in a photo of SIZE px, turned about its height by `yaw` degrees: positive shows its left side."""
    model = model or MorphableModel.default()
    rotation = matrix_from_euler(np.deg2rad([[0.0, -yaw, 0.0]]), "arkit")
    camera = WeakPerspective(rotation, np.array([0.55]), np.array([[SIZE / 2 + shift, SIZE / 2]]))
    vertices = camera.project(model.vertices())
    return FaceMeshes(vertices, model, np.zeros((1, len(model.identity))), np.zeros((1, 52)), camera, (SIZE, SIZE))


def places() -> np.ndarray:
    """A photo that tells its pixels: red is x, green y, blue 200."""
    y, x = np.indices((SIZE, SIZE))
    return np.stack([x, y, np.full_like(x, 200)], axis=-1).astype(np.uint8)


def at_vertices(part: Part) -> np.ndarray:
    """The colours (W,3) of a part's texture at its vertices, as a viewer finds them: texel k is at (k + 1/2) / side."""
    return sample(part.texture, part.uv * len(part.texture) - 0.5)


def plainly_seen(meshes: FaceMeshes, part: Part) -> np.ndarray:
    """Which vertices of the skin of a part look straight at the camera, by a slow look at all triangles: none lies
    before them, they are in the middle of the face, and on no seam of the texture."""
    vertices, triangles = meshes.vertices[0].astype(float), meshes.triangles
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normals = -np.cross(b - a, c - a)  # y points down
    facing = normals[:, 2] / np.linalg.norm(normals, axis=1)
    least = np.ones(len(vertices))
    np.minimum.at(least, triangles.ravel(), np.repeat(facing, 3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    flat = np.abs(area) < 1e-9
    seen = []
    once = np.bincount(part.vertex, minlength=len(vertices)) == 1
    middle = vertices[meshes.model.landmark_ids[30, 0], :2]  # tip of the nose
    for k in part.vertex:
        p = vertices[k]
        if not once[k] or least[k] < 0.6 or np.linalg.norm(p[:2] - middle) > 60 * meshes.camera.scale[0]:
            seen.append(False)
            continue
        d = [(q[:, :2] - p[:2]) for q in (a, b, c)]
        w = (
            np.stack([d[i][:, 0] * d[j][:, 1] - d[i][:, 1] * d[j][:, 0] for i, j in ((1, 2), (2, 0), (0, 1))], axis=1)
            / np.where(flat, 1, area)[:, None]
        )
        over = (w > -1e-6).all(1) & ~flat & (triangles != k).all(1)
        z = (w * np.stack([a[:, 2], b[:, 2], c[:, 2]], 1)).sum(1)
        seen.append(not (over & (z > p[2] + 0.3)).any())
    return np.array(seen)


@pytest.mark.parametrize("yaw", [0.0, 25.0])
def test_a_vertex_that_is_seen_has_the_colour_of_its_place_in_the_photo(yaw: float) -> None:
    meshes = head(yaw)
    skin = photo_parts(meshes, 0, places())[0]
    seen = plainly_seen(meshes, skin)
    assert skin.name == "skin" and seen.sum() > 300
    found = at_vertices(skin)[seen]
    apart = np.abs(found[:, :2] - meshes.vertices[0, skin.vertex[seen], :2]).max(1)
    # px; in the corners of the eyes neighbouring texels are lids that are far from each other in the photo
    assert np.median(apart) < 0.3 and (apart < 1).mean() > 0.99
    assert (np.abs(found[:, 2] - 200) < 1).all()


def test_what_is_hidden_has_the_colour_of_its_mirror_point() -> None:
    """The head shows its left side; on its right cheek the photo of the left one appears."""
    meshes = head(55.0)
    model = meshes.model
    skin = photo_parts(meshes, 0, places())[0]
    colours = at_vertices(skin)
    left, right = model.landmark_ids[14, 0], model.landmark_ids[2, 0]  # beside the jaw
    right = model.mirror[left]
    on_left, on_right = (colours[np.flatnonzero(skin.vertex == k)[0]] for k in (left, right))
    np.testing.assert_allclose(on_left[:2], meshes.vertices[0, left, :2], atol=1)
    np.testing.assert_allclose(on_right, on_left, atol=2)


def test_the_back_of_the_head_is_filled_with_what_is_seen() -> None:
    """A red photo makes a red head, whatever stands beside it is not taken for skin, and beyond the photo all is
    continued."""
    image = np.full((SIZE, SIZE, 3), (10, 250, 10), np.uint8)
    meshes = head(0.0, shift=60.0)  # an ear is beyond the border
    low, high = meshes.vertices[0, :, :2].min(0), meshes.vertices[0, :, :2].max(0)
    y, x = np.indices((SIZE, SIZE))
    middle, half = (low + high) / 2, (high - low) / 2
    image[((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2 < 1] = 200, 30, 20
    inner = photo_parts(meshes, 0, np.full_like(image, (200, 30, 20)))[0]
    assert np.abs(at_vertices(inner) - [200, 30, 20]).max() <= 1
    skin = photo_parts(meshes, 0, image)[0]
    back = meshes.model.mean[skin.vertex, 2] < -150
    assert back.sum() > 50 and (at_vertices(skin)[back, 0] > at_vertices(skin)[back, 1]).all()


def test_a_face_outside_its_photo_has_plain_skin() -> None:
    skin = photo_parts(head(0.0, shift=900.0), 0, places())[0]
    assert np.ptp(skin.texture.reshape(-1, 3), axis=0).max() == 0


def test_a_head_that_is_not_symmetric_has_no_mirror_points() -> None:
    model = MorphableModel.default()
    crooked = replace(model, mean=model.mean + np.float32([1, 0, 0]) * (model.mean[:, :1] > 0) * model.mean[:, 1:2])
    skin = photo_parts(head(25.0, crooked), 0, places())[0]
    assert np.abs(at_vertices(skin)[:, 2] - 200).max() <= 1


def test_irises_are_in_the_middle_of_the_eyes() -> None:
    model = MorphableModel.default()
    eyes = parts_of(model)[1]
    assert eyes.name == "eyes" and eyes.uv.min() >= 0 and eyes.uv.max() <= 1
    places, light = model.mean[eyes.vertex], at_vertices(eyes).mean(1)
    for side in (-1, 1):
        own = np.flatnonzero(side * places[:, 0] > 0)
        apart = np.linalg.norm((places[own] - places[own].mean(0))[:, :2], axis=1)
        front = places[own, 2] > places[own, 2].mean()
        assert light[own][front & (apart < 5)].max() < 100  # on the iris, of 6.2 mm
        assert light[own][(apart > 7.5) | ~front].min() > 200


def test_a_photo_becomes_a_glb_that_others_read(tmp_path: Path) -> None:
    """Sizes in metres, upright, ARKit's names, and the colours of the photo where it shows the face."""
    pygltflib, trimesh = pytest.importorskip("pygltflib"), pytest.importorskip("trimesh")
    faces = aligner().predict(photo())
    meshes, path = faces.mesh(), tmp_path / "a.glb"
    write_mesh(path, meshes, 0, photo())
    gltf = pygltflib.GLTF2().load_from_bytes(path.read_bytes())
    (mesh,), (node,) = gltf.meshes, gltf.nodes
    assert mesh.extras["targetNames"] == list(EXPRESSIONS) and node.name == "head" and node.rotation is None
    np.testing.assert_allclose(mesh.weights, meshes.expression[0], atol=1e-6)
    assert [material.name for material in gltf.materials] == ["skin", "eyes", "teeth", "tongue"]
    assert all(len(primitive.targets) == 52 for primitive in mesh.primitives)
    for image in gltf.images:
        view = gltf.bufferViews[image.bufferView]
        data = gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
        assert image.mimeType == "image/png" and Image.open(io.BytesIO(data)).size[0] >= 256

    scene = trimesh.load(path, process=False)
    low, high = scene.bounds
    assert 0.25 < (high - low)[1] < 0.4 and low[2] < -0.1 < 0.02 < high[2]  # the nose in front, the neck below
    skin = next(m for m in scene.geometry.values() if m.visual.material.name == "skin")
    seen = plainly_seen(meshes, parts_of(meshes.model)[0])
    assert seen.sum() > 300
    picture = np.asarray(skin.visual.material.baseColorTexture.convert("RGB"))
    uv = skin.visual.uv * [1, -1] + [0, 1]  # trimesh turns v up
    vertex = parts_of(meshes.model)[0].vertex
    found = sample(picture, uv[seen] * len(picture) - 0.5)
    wanted = sample(photo(), meshes.vertices[0, vertex[seen], :2].astype(float))
    # both are bilinear, on different grids: they differ where the photo changes from pixel to pixel
    assert np.abs(found - wanted).mean() < 4 and np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.98


def test_only_a_glb_takes_a_photo_and_only_a_model_with_coordinates(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="want one only for .glb"):
        write_mesh(tmp_path / "a.obj", head(0.0), 0, places())
    bare = replace(MorphableModel.default(), uv=None, uv_triangles=None)
    with pytest.raises(OutputError, match="without texture coordinates"):
        write_mesh(tmp_path / "a.glb", head(0.0, bare), 0, places())
    write_mesh(tmp_path / "a.glb", head(0.0, bare), 0)
