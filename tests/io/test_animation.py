"""Moving heads: the GLB as other libraries read it, and the table of Live Link Face."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from canthus.errors import OutputError
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces, TrackedFaces
from canthus.face.morphable import MorphableModel
from canthus.face.pose import Pose
from canthus.face.series import TrackedFrame
from canthus.geometry.projection import project
from canthus.geometry.rotation import euler_from_matrix, matrix_from_euler, matrix_from_quaternion
from canthus.io.animation import LIVE_LINK, live_link_table, motions, time_code, view_of
from canthus.io.columns import Camera
from canthus.io.gltf import HeadMotion, motions_glb

CAMERA = Camera(700.0)
SIZE = (640, 480)
DISTANCE = 900.0  # mm


def frames(count: int = 20) -> list[TrackedFrame]:
    """A head that turns and opens its mouth, 900 mm away as weak perspective sees it, gone from 0.4 to 1.0 s."""
    model, part = MorphableModel.default(), np.arange(count) / (count - 1)
    expression = np.zeros((count, 52), np.float32)
    expression[:, EXPRESSIONS.index("jawOpen")] = part
    rotation = matrix_from_euler(np.deg2rad(np.stack([5 * part, 40 * part - 20, -10 * part], 1)), "aflw")
    points = model.landmarks(None, expression).astype(np.float64)
    scale = 700.0 / DISTANCE
    xyz = project(points, rotation, np.full(count, scale), np.stack([300 + 40 * part, 240 + 0 * part], 1))
    nan = np.full((count, 68), np.nan)
    expression[:, EXPRESSIONS.index("tongueOut")] = np.nan
    xyz = xyz - [0, 0, 1] * xyz.mean(1, keepdims=True)
    faces = Faces(xyz, nan[:, 0], nan, nan, Pose(rotation), SIZE, expression=expression)
    times = [k / 25 if k < 10 else k / 25 + 0.6 for k in range(count)]
    numbers = [round(25 * t) for t in times]
    return [TrackedFrame(n, t, TrackedFaces(faces[k], [0], [k > 0])) for k, (n, t) in enumerate(zip(numbers, times))]


def arrays(gltf, number: int) -> np.ndarray:
    """The numbers of an accessor, by the words of the specification."""
    accessor = gltf.accessors[number]
    view = gltf.bufferViews[accessor.bufferView]
    assert view.byteOffset % 4 == 0 and not view.byteStride
    data = gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor.type]
    values = np.frombuffer(data, {5126: np.float32, 5125: np.uint32}[accessor.componentType])
    assert len(values) == accessor.count * width
    return values.reshape(accessor.count, width)


def test_a_glb_moves_the_head_as_it_was_seen() -> None:
    pygltflib = pytest.importorskip("pygltflib")
    given = frames()
    model, heads = MorphableModel.default(), motions(given, CAMERA)
    gltf = pygltflib.GLTF2().load_from_bytes(motions_glb(model, heads, view_of(CAMERA, SIZE), given[-1].time))
    (mesh,), (animation,) = gltf.meshes, gltf.animations
    assert mesh.extras["targetNames"] == list(EXPRESSIONS) and len(mesh.primitives[0].targets) == 52
    assert [node.name for node in gltf.nodes] == ["face_0", "camera"]
    # from top to bottom 2 atan(240 / 700)
    assert gltf.cameras[0].perspective.yfov == pytest.approx(2 * np.arctan(240 / 700))
    assert gltf.cameras[0].perspective.aspectRatio == pytest.approx(640 / 480)
    moved = {c.target.path: animation.samplers[c.sampler] for c in animation.channels}
    times = arrays(gltf, moved["rotation"].input)[:, 0]
    np.testing.assert_allclose(times, [frame.time for frame in given], atol=1e-6)
    neutral = arrays(gltf, mesh.primitives[0].attributes.POSITION)
    targets = np.stack([arrays(gltf, t["POSITION"]) for t in mesh.primitives[0].targets])
    weights = arrays(gltf, moved["weights"].output).reshape(len(times), 52)
    rotation = matrix_from_quaternion(arrays(gltf, moved["rotation"].output)[:, [3, 0, 1, 2]].astype(np.float64))
    translation = arrays(gltf, moved["translation"].output)
    for k in (0, 9, 19):
        head = (neutral + np.einsum("e,evc->vc", weights[k], targets)) @ rotation[k].T + translation[k]
        assert head[:, 2].max() < -0.7  # in front of the camera, which looks along -z
        flat = [319.5, 239.5] + 700 * head[:, :2] * [1, -1] / -head[:, 2:]
        seen = given[k].tracked.faces.xy[0]
        # the landmarks are on the head, so some vertex is near each; perspective moves them by a few pixels
        apart = np.linalg.norm(flat[:, None] - seen, axis=2).min(0)
        assert apart.max() < 8 and apart.mean() < 4
    assert weights[19, EXPRESSIONS.index("jawOpen")] == pytest.approx(1) and weights[:, -1].max() == 0
    edges, scale = (arrays(gltf, getattr(moved["scale"], name)) for name in ("input", "output"))
    assert moved["scale"].interpolation == "STEP" and scale[:, 0].tolist() == [1, 0, 1, 1]  # it stays at the end
    np.testing.assert_allclose(edges[:, 0], [0, 0.361, 1.0, given[-1].time], atol=1e-3)


def test_trimesh_reads_the_heads() -> None:
    trimesh = pytest.importorskip("trimesh")
    heads = motions(frames(3), CAMERA)
    model = MorphableModel.default()
    scene = trimesh.load(
        io.BytesIO(motions_glb(model, [heads[0], heads[0]], (0.6, 1.5), 0.08)), file_type="glb", process=False
    )
    assert len(scene.geometry) == 2 * len(model.parts)  # a mesh for each material
    assert sum(len(mesh.faces) for mesh in scene.geometry.values()) == 2 * len(model.triangles)
    assert {mesh.visual.material.name for mesh in scene.geometry.values()} == set(model.parts)
    low, high = scene.bounds
    np.testing.assert_allclose(high - low, np.ptp(model.mean, axis=0) / 1000, rtol=0.15)  # metres


def test_rotations_take_the_short_way_and_lengths_are_multiples_of_four() -> None:
    pygltflib = pytest.importorskip("pygltflib")
    model = MorphableModel.default()
    quaternions = np.array([[1.0, 0, 0, 0], [-0.9, 0.1, 0, 0], [-1.0, 0, 0, 0]])
    head = HeadMotion(
        "a",
        np.zeros(80),
        np.arange(3),
        np.arange(3) / 25,
        quaternions,
        np.zeros((3, 3)),
        np.zeros((3, 52)),
        [(0.04, 0.08)],
    )
    data = motions_glb(model, [head, replace(head, there=[(0.0, 0.08)])], (0.6, 1.5), 0.2)
    gltf = pygltflib.GLTF2().load_from_bytes(data)
    (animation,) = gltf.animations
    moved, others = (
        {c.target.path: animation.samplers[c.sampler] for c in animation.channels if c.target.node == k} for k in (0, 1)
    )
    assert (arrays(gltf, moved["rotation"].output)[:, 3] > 0).all()
    # one comes later, and nobody is there in the last frames of the video, which are part of the clip
    for scale, sizes, edges in (
        (moved["scale"], [0, 1, 0, 0], [0, 0.04, 0.081, 0.2]),
        (others["scale"], [1, 0, 0], [0, 0.081, 0.2]),
    ):
        assert arrays(gltf, scale.output)[:, 0].tolist() == sizes
        np.testing.assert_allclose(arrays(gltf, scale.input)[:, 0], edges, atol=1e-6)
    assert len(data) % 4 == 0 and int.from_bytes(data[8:12], "little") == len(data)
    text = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    assert len(text) % 4 == 0 and json.loads(text)["asset"]["version"] == "2.0"


def test_a_video_without_a_face_is_a_file_with_a_camera() -> None:
    pygltflib = pytest.importorskip("pygltflib")
    gltf = pygltflib.GLTF2().load_from_bytes(
        motions_glb(MorphableModel.default(), motions([], CAMERA), (0.6, 1.5), 1.0)
    )
    assert [node.name for node in gltf.nodes] == ["camera"] and not gltf.meshes


def test_a_model_in_other_units_is_refused() -> None:
    with pytest.raises(OutputError, match="want one in mm"):
        motions_glb(replace(MorphableModel.default(), unit="units"), [], (0.6, 1.5), 1.0)


def test_expressions_are_fitted_where_the_network_gives_none() -> None:
    given = []
    for frame in frames():
        faces = replace(frame.tracked.faces, expression=None, expression_sigma=None)
        given.append(frame._replace(tracked=TrackedFaces(faces, [0], [True])))
    (head,) = motions(given, CAMERA)
    jaw = head.expression[:, EXPRESSIONS.index("jawOpen")]
    assert head.expression.min() >= 0 and jaw[-1] > 0.4 > 0.2 > jaw[0]


def test_the_table_of_live_link_face() -> None:
    (head,) = motions(frames(), CAMERA)
    rows = list(csv.DictReader(io.StringIO(live_link_table(head).decode())))
    names = list(rows[0])
    assert len(names) == 63 and names[:4] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft"]
    assert names[53:57] == ["TongueOut", "HeadYaw", "HeadPitch", "HeadRoll"]
    assert sorted(LIVE_LINK) == sorted(EXPRESSIONS)
    assert len(rows) == 20 and rows[0]["BlendShapeCount"] == "61"
    assert float(rows[19]["JawOpen"]) == pytest.approx(1.0) and float(rows[19]["TongueOut"]) == 0
    angles = euler_from_matrix(matrix_from_quaternion(head.rotation[19:]), "arkit")[0]
    assert [float(rows[19][f"Head{a}"]) for a in ("Pitch", "Yaw", "Roll")] == pytest.approx(angles.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("seconds", "code"),
    # 1/25 s are 2.4 of 60 frames a second
    [(0.0, "00:00:00:00.000"), (0.04, "00:00:00:02.400"), (61.5, "00:01:01:30.000"), (3599.999999, "01:00:00:00.000")],
)
def test_time_codes(seconds: float, code: str) -> None:
    assert time_code(seconds) == code
