"""canthus.js, run by Node, gives the answers of the Python package: the same bytes of crops, and the same faces."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import aligner, photo
from PIL import Image

from canthus.face.expressions import EXPRESSIONS
from canthus.geometry.crop import Crop
from canthus.io.images import crop_image
from canthus.weights import DEFAULT, DETECTOR, ROOT

WEB = Path(__file__).parents[2] / "web"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None or not (WEB / "node_modules" / "onnxruntime-web").is_dir(),
    reason="no Node, or nothing in web/node_modules: `npm ci` in web puts it there",
)


BOXES = [[178.0, 89.0, 275.0, 176.5], [150.0, 60.0, 300.0, 200.0]]


# both on the one face of the photo
FOUND = [
    {
        "score": 0.9,
        "square": {"x": 226, "y": 132, "side": 97, "angle": 0},
        "angleKnown": True,
        "leastScore": 0.15,
        "facingScore": 0.15,
    },
    {
        "score": 0.8,
        "square": {"x": 236, "y": 140, "side": 110, "angle": 0},
        "angleKnown": True,
        "leastScore": 0.1,
        "facingScore": 0.1,
    },
]


class Pictures:
    """Writes pictures as files of RGBA bytes, and asks canthus.js about them."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0

    def write(self, image: np.ndarray) -> dict[str, Any]:
        rgba = image if image.shape[2] == 4 else np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        self.count += 1
        path = self.folder / f"{self.count}.rgba"
        path.write_bytes(rgba.tobytes())
        return {"pixels": str(path), "width": rgba.shape[1], "height": rgba.shape[0]}

    def run(self, jobs: list[dict[str, Any]], models: Path | None) -> subprocess.CompletedProcess[str]:
        given = json.dumps({"models": models and str(models), "jobs": jobs})
        return subprocess.run([NODE, str(WEB / "test" / "answers.js")], input=given, text=True, capture_output=True)

    def ask(self, jobs: list[dict[str, Any]], models: Path | None = None) -> list[Any]:
        answer = self.run(jobs, models)
        assert answer.returncode == 0, answer.stderr[-2000:]
        return json.loads(answer.stdout)


@pytest.fixture
def pictures(tmp_path):
    return Pictures(tmp_path)


def linked_models(folder: Path) -> Path:
    for name, weights in (("aligner", DEFAULT), ("detector", DETECTOR)):
        (folder / name).symlink_to(ROOT / weights)
    return folder


def upright() -> np.ndarray:
    return photo()


def lying() -> np.ndarray:
    return np.ascontiguousarray(np.rot90(photo()))


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """All that is asked of the networks, as they take seconds to start: faces in boxes, detected, detected lying, of a
    grey picture; numbers of a face that moves, is gone, comes back, and of a frame of another size."""
    pictures, small = Pictures(tmp_path_factory.mktemp("pictures")), photo()[40:240, 100:350]
    frames = [small, np.roll(small, 4, 1), np.zeros_like(small), np.roll(small, 8, 1), small[:, :200].copy()]
    jobs = [{**pictures.write(upright()), "boxes": BOXES}, pictures.write(upright()), pictures.write(lying())]
    jobs += [pictures.write(np.full((90, 120, 3), 99, np.uint8)), {"frames": [pictures.write(f) for f in frames]}]
    jobs += [{**pictures.write(upright()), "found": FOUND}]
    answered = pictures.ask(jobs, linked_models(tmp_path_factory.mktemp("models")))
    return dict(zip(("boxes", "upright", "lying", "nobody", "followed", "found"), answered, strict=True))


def bytes_of(answer: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(answer), np.uint8).reshape(shape)


def test_expressions_have_the_names_of_python():
    text = (WEB / "expressions.js").read_text(encoding="utf-8")
    assert tuple(re.search("`(.*?)`", text, re.S)[1].split()) == EXPRESSIONS


def test_crops_have_the_bytes_of_python(pictures):
    """Noise, partly see-through; crops that enlarge and that shrink by up to 10, turned, over the border, outside."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (233, 317, 4), dtype=np.uint8)
    noise[::3, :, 3] = 255
    centre, side = rng.uniform(0, 300, (12, 2)), np.geomspace(8, 1100, 12)
    angle = np.where(np.arange(12) % 3, rng.uniform(-4, 4, 12), 0.0)
    centre[-1] = 5000
    wanted = crop_image(noise, Crop(centre, side, angle, 112))
    assert wanted[:-1].any((1, 2, 3)).all() and not wanted[-1].any()
    written = pictures.write(noise)
    crops = [
        {"x": x, "y": y, "side": s, "angle": a, "size": 112}
        for (x, y), s, a in zip(centre.tolist(), side.tolist(), angle.tolist())
    ]
    for answer, crop in zip(pictures.ask([{**written, "crop": crop} for crop in crops]), wanted, strict=True):
        np.testing.assert_array_equal(bytes_of(answer, crop.shape), crop)


def test_what_the_detector_sees_has_the_bytes_of_python(pictures):
    noise = np.random.default_rng(4).integers(0, 256, (233, 317, 3), dtype=np.uint8)
    written, sizes = pictures.write(noise), {0.93: (295, 217), 0.5: (158, 116), 0.21: (67, 49), 0.07: (22, 16)}
    for answer, size in zip(pictures.ask([{**written, "zoom": zoom} for zoom in sizes]), sizes.values(), strict=True):
        wanted = Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
        np.testing.assert_array_equal(bytes_of(answer, (*size[::-1], 3)), np.asarray(wanted))


@pytest.mark.parametrize("name", ["boxes", "upright", "lying"])
def test_faces_are_those_of_python(answers, name):
    image = lying() if name == "lying" else upright()
    faces = aligner().predict(image, BOXES if name == "boxes" else None)
    assert len(answers[name]) == len(faces) == (2 if name == "boxes" else 1)
    for face, got in zip(faces, answers[name]):
        np.testing.assert_allclose(got["landmarks"], face.xyz[0], atol=0.1)
        np.testing.assert_allclose(got["box"], face.boxes[0], atol=0.1)
        np.testing.assert_allclose(got["sigma"], face.sigma[0], atol=0.1)
        np.testing.assert_allclose(got["visible"], face.visible[0], atol=0.01)
        np.testing.assert_allclose(got["score"], face.scores[0], atol=0.01)
        np.testing.assert_allclose(got["pose"]["matrix"], face.pose.matrix[0], atol=0.002)
        angles = [got["pose"]["euler_degrees"]["aflw"][angle] for angle in ("pitch", "yaw", "roll")]
        np.testing.assert_allclose(angles, face.pose.euler()[0], atol=0.1)
        for key in ("expression", "expression_sigma"):
            assert tuple(got[key]) == EXPRESSIONS
            np.testing.assert_allclose(np.array(list(got[key].values()), float), getattr(face, key)[0], atol=0.01)
        detected = np.nan if got["detection_score"] is None else got["detection_score"]
        np.testing.assert_allclose(detected, face.detection_scores[0], atol=0.01)


def test_of_two_detections_on_one_face_the_first_counts(answers):
    (face,) = answers["found"]
    assert face["detection_score"] == 0.9
    np.testing.assert_allclose(face["box"], BOXES[0], atol=4)


def test_a_picture_without_a_face_has_none(answers):
    assert answers["nobody"] == []


def test_a_followed_face_keeps_its_number_through_a_gap(answers):
    assert answers["followed"] == [[0], [0], [], [0], [1]]  # a frame of another size ends the track


def test_weights_that_the_card_does_not_list_are_refused(pictures, tmp_path):
    models = linked_models(tmp_path)
    (models / "detector").unlink()
    shutil.copytree(ROOT / DETECTOR, models / "detector")
    (models / "detector" / "model.onnx").write_bytes(b"another")
    answer = pictures.run([], models)
    assert answer.returncode and "is not the network that its card lists" in answer.stderr


def constant(given: str, kind: int, shape: list, values: dict[str, list]) -> bytes:
    """A network that answers the same to everything."""
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    tensors = [onnx.numpy_helper.from_array(np.array(v, np.float32), name=f"{k}_value") for k, v in values.items()]
    graph = make.make_graph(
        [make.make_node("Identity", [t.name], [t.name.removesuffix("_value")]) for t in tensors],
        "constant",
        [make.make_tensor_value_info(given, kind, shape)],
        [make.make_tensor_value_info(k, onnx.TensorProto.FLOAT, np.shape(v)) for k, v in values.items()],
        tensors,
    )
    return make.make_model(graph, ir_version=8, opset_imports=[make.make_opsetid("", 17)]).SerializeToString()


def test_a_trained_detector_tells_boxes_in_the_picture_and_roll(pictures, tmp_path):
    """Of three cells the second overlaps the first one (boxes of 20 x 20, moved by 2: 324 / 476 = 0.68) and the third
    is no candidate. At half the size, 10 is seen of 2 * 10.5 - 0.5: a box of 40 px around (40.5, 60.5), whose head
    leans to the right by an angle of cosine 0.8 and sine 0.6, in a square of 32 px. The second network moves it by a
    quarter of that along the crop (0.8 * 8 and 0.6 * 8 px), takes it for twice as large and for upright in its crop.
    """
    networks = {
        "model.onnx": constant("pictures", 2, [1, "h", "w", 3], {
            "score": [[0.9, 0.8, 0.05]],
            "box": [[[10, 20, 30, 40], [12, 22, 32, 42], [50, 50, 60, 60]]],
            "upright": [[[20, 30, 16], [22, 32, 16], [55, 55, 8]]],
            "up": [[[0.6, -0.8], [0, -1], [0, -1]]],
            "sigma": [[0.1, 0.1, 0.1]],
        }),
        "refiner.onnx": constant("crops", 2, ["n", 64, 64, 3], {
            "score": [0.8], "move": [[0.25, 0, np.log(2)]], "up": [[0, -1]], "sigma": [0.1],
        }),
    }  # fmt: skip
    models = linked_models(tmp_path)
    (models / "detector").unlink()
    (models / "detector").mkdir()
    for name, network in networks.items():
        (models / "detector" / name).write_bytes(network)
    card = {"files": {name: hashlib.sha256(network).hexdigest() for name, network in networks.items()}}
    (models / "detector" / "card.json").write_text(json.dumps(card))
    ((face,),) = pictures.ask([{**pictures.write(np.zeros((128, 192, 3), np.uint8)), "seen": 0.5}], models)
    assert face["score"] == pytest.approx(0.8)
    np.testing.assert_allclose(face["box"], [46.9 - 40, 65.3 - 40, 46.9 + 40, 65.3 + 40], rtol=1e-6)
    square = face["square"]
    np.testing.assert_allclose([square["x"], square["y"], square["side"]], [46.9, 65.3, 64], rtol=1e-6)
    assert square["angle"] == pytest.approx(np.arctan2(0.6, 0.8))  # up leans right: the head is turned clockwise
