"""One graph from a picture and a box to points, what ONNX files say about themselves, and programs that use both."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from photos import aligner, photo
from PIL import Image
from typer.testing import CliRunner

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("torch")

from canthus.cli import app  # noqa: E402
from canthus.errors import WeightsError  # noqa: E402
from canthus.face.expressions import EXPRESSIONS  # noqa: E402
from canthus.geometry.crop import Crop  # noqa: E402
from canthus.inference.runtime import OnnxAligner  # noqa: E402
from canthus.io.card import CARD_FILE, Card, sha256  # noqa: E402
from canthus.io.images import crop_image  # noqa: E402
from canthus.io.session import MODEL_FILE, Session, open_session  # noqa: E402
from canthus.training import picture_graph as graphs  # noqa: E402
from canthus.training.export import copy_onnx  # noqa: E402
from canthus.training.metadata import with_metadata  # noqa: E402
from canthus.weights import find  # noqa: E402

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "examples" / "runtimes"
BOX = [178.0, 89.0, 275.0, 176.5]  # of the face of the example photo
OUTPUTS = ("xyz", "sigma", "visible", "expression", "expression_sigma")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("picture")
    copy_onnx(find("swift"), out)
    assert graphs.export_picture(out) <= graphs.PARITY
    return out


def larger(times: int) -> np.ndarray:
    """The example photo, each pixel a block of them, a little noise on it: what a network sees is averaged again."""
    noise = np.random.default_rng(0).integers(-8, 9, (512 * times, 512 * times, 3))
    wide = photo().repeat(times, 0).repeat(times, 1)
    return (wide + noise).clip(0, 255).astype(np.uint8)


def turned(picture: np.ndarray, degrees: float) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).rotate(degrees, Image.Resampling.BICUBIC))


CASES = {
    "upright": (photo, BOX, 0.0),
    "wide box": (photo, [150.0, 60.0, 300.0, 200.0], 0.0),
    "turned crop": (photo, BOX, 0.3),
    "lying": (lambda: np.ascontiguousarray(np.rot90(photo())), [89.0, 236.0, 176.5, 333.0], -np.pi / 2),
    "over the border": (lambda: photo()[100:, 190:].copy(), [-12.0, -11.0, 85.0, 76.5], 0.0),
    "large face": (lambda: larger(5), [5 * v + 2 for v in BOX], 0.1),
    "small face": (lambda: np.asarray(Image.fromarray(photo()).reduce(4)), [v / 4 for v in BOX], 0.0),
    "crop larger than the picture": (lambda: photo()[85:181, 172:281].copy(), [6.0, 4.0, 103.0, 91.5], 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_graph_says_what_the_package_says_to_a_tenth_of_a_pixel(folder, case):
    make, box, roll = CASES[case]
    picture, card = make(), aligner().card
    crop = Crop.around_boxes(np.array([box]), card.crop_scale, card.crop_size, roll)
    size = picture.shape[1], picture.shape[0]
    wanted = aligner().run(crop_image(picture, crop)).to_image(crop, size, scheme=card.scheme)
    given = {"picture": picture, "box": np.array(box, np.float32), "roll": np.array([roll], np.float32)}
    answers = dict(
        zip([*OUTPUTS, "rotation"], Session(folder / graphs.PICTURE_FILE, 1).run([*OUTPUTS, "rotation"], given))
    )
    for name in ("xyz", "sigma"):
        np.testing.assert_allclose(answers[name], getattr(wanted, name)[0], atol=0.1)
    for name in ("visible", "expression", "expression_sigma"):
        np.testing.assert_allclose(answers[name], getattr(wanted, name)[0], atol=0.01)
    np.testing.assert_allclose(answers["rotation"], wanted.pose.matrix[0], atol=0.005)
    if roll == 0:
        np.testing.assert_allclose(answers["xyz"], aligner().predict(picture, box).xyz[0], atol=0.1)


# Boxes without a believable face in them, where a network may make a pixel of one grey level: their crops alone.
ODD = {
    "larger than the picture": ((80, 190, 160, 290), [-70.0, -90.0, 210.0, 200.0], 0.0),
    "much larger": ((0, 60, 0, 40), [-300.0, -300.0, 500.0, 400.0], 0.2),
    "turned, over a corner": ((0, 512, 0, 512), [400.0, 420.0, 600.0, 590.0], 2.5),
    "the smallest picture": ((0, 2, 0, 3), [0.0, 0.0, 2.0, 1.0], 0.0),
    "less than a pixel": ((0, 512, 0, 512), [100.2, 100.1, 100.7, 100.6], 1.0),
    "blocks that leave a rest": ((3, 509, 5, 502), [10.0, 20.0, 470.0, 480.0], -0.7),
}


@pytest.fixture(scope="module")
def crops(folder) -> Session:
    """The graph, whose output `network_crops` shows what the network sees."""
    made = onnx.load(folder / graphs.PICTURE_FILE)
    shown = onnx.helper.make_tensor_value_info("network_crops", onnx.TensorProto.UINT8, [1, 112, 112, 3])
    made.graph.output.append(shown)
    onnx.save(made, folder / "shown.onnx")
    return Session(folder / "shown.onnx", 1)


@pytest.mark.parametrize("case", [*ODD, *CASES])
def test_the_crop_is_the_packages_but_for_few_grey_levels(crops, case):
    if case in ODD:
        (top, bottom, left, right), box, roll = ODD[case]
        picture = photo()[top:bottom, left:right].copy()
    else:
        make, box, roll = CASES[case]
        picture = make()
    given = {"picture": picture, "box": np.array(box, np.float32), "roll": np.array([roll], np.float32)}
    seen = crops.run(["network_crops"], given)[0]
    exact = np.array([box], np.float32).astype(np.float64)
    wanted = crop_image(picture, Crop.around_boxes(exact, aligner().card.crop_scale, 112, float(np.float32(roll))))
    differences = np.abs(seen.astype(int) - wanted)
    assert differences.max() <= 1 and (differences > 0).mean() < 0.001 and wanted.any()


def test_a_box_beside_the_picture_has_a_black_crop(crops):
    given = {"picture": photo(), "box": np.array([900, 900, 990, 990], np.float32), "roll": np.zeros(1, np.float32)}
    assert not crops.run(["network_crops"], given)[0].any()


def test_the_graph_is_on_the_card_and_says_what_it_takes(folder):
    card = Card.read(folder)
    assert card.files == {name: sha256(folder / name) for name in (MODEL_FILE, graphs.PICTURE_FILE)}
    said = open_session(folder / graphs.PICTURE_FILE).get_modelmeta().custom_metadata_map
    inputs, outputs = json.loads(said["inputs"]), json.loads(said["outputs"])
    assert {name: value["shape"] for name, value in inputs.items()} == {
        "picture": ["H", "W", 3],
        "box": [4],
        "roll": [1],
    }
    assert outputs["xyz"]["unit"] == outputs["sigma"]["unit"] == "pixel" and "rotation" in outputs
    OnnxAligner(folder)  # and the folder is still one that runs


def test_the_command_writes_it_for_shipped_weights(tmp_path):
    result = CliRunner().invoke(app, ["export", "swift-int8", "--with-crop", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {MODEL_FILE, CARD_FILE, graphs.PICTURE_FILE}


HEAD = {"noise": 0.1, "iterations": 1, "jaw": "fixed"}


@pytest.mark.parametrize(
    "change, said", [({"start": "swift"}, "points to start from"), ({"completion": HEAD}, "a head model")]
)
def test_weights_that_need_more_than_their_network_are_refused(folder, tmp_path, change, said):
    card = replace(Card.read(folder), **change)
    (tmp_path / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
    with pytest.raises(WeightsError, match=said):
        graphs.export_picture(tmp_path)


def test_a_graph_that_differs_is_refused(tmp_path, monkeypatch):
    copy_onnx(find("swift"), tmp_path)
    made = graphs.picture_graph

    def wrong(model, card):
        return made(model, replace(card, crop_scale=card.crop_scale * 1.001))

    monkeypatch.setattr(graphs, "picture_graph", wrong)
    with pytest.raises(WeightsError, match="the graph with the crop differs by"):
        graphs.export_picture(tmp_path)


# What files say about themselves


def networks() -> list[Path]:
    return [*(ROOT / "src/canthus/weights").glob("swift*/model.onnx"), *(ROOT / "weights").rglob("model.onnx")]


@pytest.mark.parametrize("path", networks(), ids=lambda path: path.parent.name)
def test_every_network_of_the_project_describes_itself(path):
    card = json.loads((path.parent / CARD_FILE).read_text(encoding="utf-8"))
    session = open_session(path)
    said = session.get_modelmeta().custom_metadata_map
    assert (said["name"], said["version"], said["licence"]) == (card["name"], card["version"], card["licence"])
    assert set(json.loads(said["inputs"])) == {given.name for given in session.get_inputs()}
    assert set(json.loads(said["outputs"])) == {given.name for given in session.get_outputs()}
    about = json.loads(said["card"])
    assert about and all(card.get(name, value) == value for name, value in about.items())
    if "crop_size" in card:
        crop = json.loads(said["crop"])
        assert (crop["size"], crop["scale"]) == (card["crop_size"], card["crop_scale"]) and "rot(a)" in crop["rule"]
        count = json.loads(said["landmarks"])["count"]
        assert session.get_outputs()[0].shape[1] == count
        for given in session.get_inputs():  # shapes, but for the names of what may have any size
            shape = json.loads(said["inputs"])[given.name]["shape"]
            assert [n for n in shape if isinstance(n, int)] == [n for n in given.shape if isinstance(n, int)]
    assert json.loads(said.get("expressions", "[]")) == (list(EXPRESSIONS) if "expression" in said["outputs"] else [])


def test_metadata_leaves_the_network_as_it_is_and_replaces_older():
    data = (find("swift") / MODEL_FILE).read_bytes()
    bare = onnx.ModelProto.FromString(data)
    bare.ClearField("metadata_props")
    plain = bare.SerializeToString()
    once = with_metadata(plain, {"name": "a", "more": "b"})
    assert once.startswith(plain)
    twice = with_metadata(once, {"name": "c"})
    read = onnx.ModelProto.FromString(twice)
    assert [(entry.key, entry.value) for entry in read.metadata_props] == [("name", "c")]
    assert read.graph == bare.graph


# Programs


def answers(text: str) -> np.ndarray:
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return np.array(rows, float)


@pytest.fixture(scope="module")
def ppm(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ppm") / "photo.ppm"
    Image.fromarray(photo()).save(path)
    return path


def check(text: str) -> None:
    wanted = aligner().predict(photo(), BOX)
    rows = answers(text)
    np.testing.assert_allclose(rows[:, :3], wanted.xyz[0], atol=0.1)
    np.testing.assert_allclose(rows[:, 3], wanted.sigma[0], atol=0.1)
    np.testing.assert_allclose(rows[:, 4], wanted.visible[0], atol=0.01)
    rotation = np.array(re.search("# rotation: (.*)", text)[1].split(), float).reshape(3, 3)
    np.testing.assert_allclose(rotation, wanted.pose.matrix[0], atol=0.005)


def headers() -> Path | None:
    """The folder of ONNX Runtime's C++ headers."""
    places = [os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime"]
    places += ["/usr/include/onnxruntime/core/session"]
    return next((Path(place) for place in places if place and Path(place, "onnxruntime_cxx_api.h").is_file()), None)


@pytest.mark.skipif(sys.platform != "linux", reason="the library is looked for as Linux names it")
def test_the_sample_in_cpp_gives_pythons_answers(folder, ppm, tmp_path):
    import onnxruntime

    compiler, include = shutil.which("c++") or shutil.which("g++"), headers()
    libraries = sorted(Path(onnxruntime.__file__).with_name("capi").glob("libonnxruntime.so.*"))
    if compiler is None or include is None or not libraries:
        missing = [what for what, there in (("C++ compiler", compiler), ("headers of ONNX Runtime", include),
                                            ("libonnxruntime.so in the package", libraries)) if not there]  # fmt: skip
        pytest.skip(f"no {', no '.join(missing)}: .ci/run says where the headers come from")
    (tmp_path / "libonnxruntime.so").symlink_to(libraries[0])
    (tmp_path / "libonnxruntime.so.1").symlink_to(libraries[0])
    program = tmp_path / "align"
    command = [compiler, "-std=c++17", "-Wall", f"-I{include}", str(SAMPLES / "align.cpp"), f"-L{tmp_path}"]
    built = subprocess.run(
        [*command, "-lonnxruntime", f"-Wl,-rpath,{tmp_path}", "-o", str(program)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr[-2000:]
    graph = str(folder / graphs.PICTURE_FILE)
    ran = subprocess.run([program, graph, str(ppm), *map(str, BOX)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    check(ran.stdout)
    card = aligner().card
    assert f"# name: {card.name}\n# version: {card.version}\n# licence: {card.licence}\n" in ran.stdout
    wrong = subprocess.run([program, graph, str(SAMPLES / "align.cpp"), *map(str, BOX)], capture_output=True, text=True)
    assert wrong.returncode == 1 and "want a PPM file" in wrong.stderr


def test_the_sample_in_javascript_gives_pythons_answers(folder, ppm, tmp_path):
    node, modules = shutil.which("node"), ROOT / "web" / "node_modules"
    if node is None or not (modules / "onnxruntime-web").is_dir():
        pytest.skip("no Node, or nothing in web/node_modules: `npm ci` in web puts it there")
    shutil.copy(SAMPLES / "align.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    command = [node, "align.mjs", str(folder / graphs.PICTURE_FILE), str(ppm), *map(str, BOX)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    check(ran.stdout)
