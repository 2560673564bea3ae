"""GLB files of heads in three.js, run by Chromium: nodes, morph targets and vertices are where Python's numbers say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import aligner, photo
from PIL import Image

from canthus.face.expressions import EXPRESSIONS
from canthus.face.morphable import MorphableModel
from canthus.geometry.rotation import matrix_from_euler, quaternion_from_matrix
from canthus.io.gltf import HeadMotion, motions_glb
from canthus.io.head_parts import parts_of
from canthus.io.meshes import write_mesh

WEB = Path(__file__).parents[2] / "web"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the browser is looked for where Linux and macOS have it"),
    pytest.mark.skipif(
        not CHROMIUM or not shutil.which("node") or not (WEB / "node_modules" / "playwright-core").is_dir(),
        reason="no Chromium, or no Node, or nothing in web/node_modules: `npm ci` in web puts it there",
    ),
]
EVERY = 97  # of the vertices of a part one in so many is compared, as in heads.js


def play(folder: Path, data: bytes, times: list[float]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What three.js makes of a GLB at some times, and the pictures (H,W,3) that it draws."""
    (folder / "a.glb").write_bytes(data)
    arguments = [CHROMIUM, folder / "profile", folder / "a.glb", json.dumps(times), folder]
    command = ["node", str(WEB / "test" / "heads.js"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    return json.loads(ended.stdout), pictures


def places(model: MorphableModel, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """The vertices in metres that heads.js tells, of a head at the origin."""
    head = model.mean + np.tensordot(identity, model.identity.astype(float), 1)
    head = (head + np.tensordot(expression, model.expression.astype(float), 1)) / 1000
    return np.concatenate([head[part.vertex[::EVERY]] for part in parts_of(model)])


def drawn(picture: np.ndarray) -> np.ndarray:
    """Where a picture is not its background, whose colour is in its corner."""
    return np.abs(picture.astype(int) - picture[0, 0]).max(2) > 12


def test_three_plays_the_heads_of_a_track(tmp_path: Path) -> None:
    """Two heads: one turns, opens its mouth and is gone for a second, the other stands still beside it."""
    model, count = MorphableModel.default(), 26
    part = np.arange(count) / (count - 1)
    times = np.arange(count) / 25
    times[13:] += 1.0  # gone from 0.48 to 1.52 s
    expression = np.zeros((count, 52))
    expression[:, EXPRESSIONS.index("jawOpen")] = part
    expression[:, EXPRESSIONS.index("eyeBlinkLeft")] = 1 - part
    angles = np.stack([0.2 * part, 0.8 * part - 0.4, -0.3 * part], 1)
    rotation = matrix_from_euler(angles, "aflw")
    place = np.stack([-150 + 20 * part, 10 * part, -1100 + 200 * part], 1)
    rng = np.random.default_rng(0)
    moving = HeadMotion(
        "face_0", rng.normal(size=80), np.arange(count), times, quaternion_from_matrix(rotation), place, expression,
        [(0.0, 0.48), (1.52, times[-1])],
    )  # fmt: skip
    still = HeadMotion(
        "face_1", np.zeros(80), np.arange(2), np.array([0.0, 2.0]), np.tile([1.0, 0, 0, 0], (2, 1)),
        np.tile([170.0, 0, -1000], (2, 1)), np.zeros((2, 52)), [(0.0, 2.0)],
    )  # fmt: skip
    view = 2 * np.arctan(0.5)
    wanted = [0, 7, 12, 20]  # frames
    asked = [*times[wanted].tolist(), 0.9]
    answer, pictures = play(tmp_path, motions_glb(model, [moving, still], (view, 1.25), 2.0), asked)
    assert answer["problems"] == []
    assert answer["clips"] == [{"name": "faces", "duration": pytest.approx(2.0)}]
    assert answer["cameras"] == [pytest.approx(np.degrees(view))]
    for frame, (head, other) in zip(wanted, answer["moments"]):
        assert (head["name"], other["name"]) == ("face_0", "face_1") and head["scale"] == [1, 1, 1]
        np.testing.assert_allclose(head["position"], place[frame] / 1000, atol=1e-6)
        x, y, z, w = head["quaternion"]
        same = abs(np.dot([w, x, y, z], moving.rotation[frame]))
        assert same == pytest.approx(1, abs=1e-6)
        for names, influences in zip(head["names"], head["influences"]):
            assert names == list(EXPRESSIONS)
            np.testing.assert_allclose(influences, expression[frame], atol=1e-6)
        seen = places(model, moving.identity, expression[frame]) @ rotation[frame].T + place[frame] / 1000
        np.testing.assert_allclose(head["vertices"], seen, atol=2e-6)
        assert head["materials"] == ["skin", "eyes", "teeth", "tongue"]
        np.testing.assert_allclose(other["position"], [0.17, 0, -1], atol=1e-6)
    # Through the file's camera, of a focal length of 576 / 2 / tan(view / 2) = 576 px: x = 0.17 m is 98 px to the right
    # at 1 m, and 89 px at 1.1 m, where the ears are. The picture is 720 px wide.
    for picture in pictures[: len(wanted)]:
        columns = np.flatnonzero(drawn(picture)[288])
        right = columns[columns > 375]
        assert 445 < (right.min() + right.max()) / 2 < 462
        assert (columns < 375).any()
    gone, without = answer["moments"][4][0], drawn(pictures[4])
    assert gone["scale"] == [0, 0, 0] and not without[:, :375].any() and without[:, 375:].any()


def test_three_shows_the_head_of_a_photo(tmp_path: Path) -> None:
    meshes, path = aligner().predict(photo()).mesh(), tmp_path / "head.glb"
    write_mesh(path, meshes, 0, photo())
    answer, (side, front) = play(tmp_path, path.read_bytes(), [0.0])
    assert answer["problems"] == [] and answer["clips"] == []
    ((head,),) = answer["moments"]
    assert head["position"] == [0, 0, 0] and head["quaternion"] == [0, 0, 0, 1]
    assert head["textures"][0] >= 512 and head["textures"][1] >= 256 and head["textures"][2:] == [0, 0]
    for influences in head["influences"]:
        np.testing.assert_allclose(influences, meshes.expression[0], atol=1e-6)
    seen = places(MorphableModel.default(), meshes.identity[0], meshes.expression[0])
    np.testing.assert_allclose(head["vertices"], seen, atol=2e-6)
    # from its left, 0.9 m away, the face looks to the left of the picture: what lies left of the ears is in front
    assert drawn(front).mean() > 0.08 and drawn(side).mean() > 0.08
    cheek, hair = front[300, 320].astype(int), front[110, 360].astype(int)
    assert cheek[0] > cheek[2] + 30 and cheek.sum() > 300  # skin
    assert hair[0] > hair[2] + 30 and hair.sum() < cheek.sum()
