"""Exported networks: the same answers without torch, and nearly the same with 8 bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")

import canthus  # noqa: E402
from canthus.errors import OutputError, WeightsError  # noqa: E402
from canthus.geometry.crop import Crop  # noqa: E402
from canthus.inference.runtime import OnnxAligner  # noqa: E402
from canthus.io.card import Card, sha256  # noqa: E402
from canthus.training import export  # noqa: E402
from canthus.training.aligner import Aligner  # noqa: E402
from canthus.weights import find  # noqa: E402


@pytest.fixture(scope="module")
def trained(overfitted) -> tuple[Path, Path]:
    """Weights and the shard with the faces that they know."""
    return overfitted("swift")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> tuple[Path, float]:
    """The ONNX folder, and the difference that the export reports."""
    out = tmp_path_factory.mktemp("onnx")
    return out, export.export_onnx(trained[0], out)


def test_onnx_says_what_torch_says(trained, exported):
    folder, reported = exported
    aligner, twin = Aligner.load(trained[0]), OnnxAligner(folder)
    crops = export.face_crops(trained[1], aligner.card, 8)
    ours, theirs = aligner.run(crops), twin.run(crops)
    assert 0 <= reported <= 1e-3
    assert np.abs(ours.xyz - theirs.xyz).max() < 1e-3  # px
    assert np.abs(ours.sigma - theirs.sigma).max() < 1e-3
    assert np.abs(ours.visible - theirs.visible).max() < 1e-4
    assert np.abs(ours.rotation - theirs.rotation).max() < 1e-4


def test_weights_are_run_by_torch_until_they_are_exported(trained, exported):
    crops = export.face_crops(trained[1], Card.read(exported[0]), 2)
    ours, theirs = (canthus.load(folder, threads=1) for folder in (trained[0], exported[0]))
    assert isinstance(ours, Aligner) and isinstance(theirs, OnnxAligner)
    before = torch.get_num_threads()
    np.testing.assert_allclose(ours.run(crops).xyz, theirs.run(crops).xyz, atol=1e-3)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_batch_may_have_any_size(trained, exported, count):
    twin = OnnxAligner(exported[0])
    crops = export.face_crops(trained[1], twin.card, 8)
    out = twin.run(crops[:count])
    assert out.xyz.shape == (count, 68, 3) and out.xyz.dtype == np.float32
    np.testing.assert_allclose(out.xyz, twin.run(crops).xyz[:count], atol=1e-3)


def test_both_predict_the_same_faces(trained, exported):
    with np.load(trained[1]) as d:
        picture, points = d["image"][0], d["xyz"][0, :, :2]
    box = [*points.min(0), *points.max(0)]
    ours = Aligner.load(trained[0]).predict(picture, box)
    theirs = canthus.load(exported[0], threads=1).predict(picture, box)
    np.testing.assert_allclose(theirs.xyz, ours.xyz, atol=2e-3)


def test_the_card_carries_the_hash_of_the_file(trained, exported, tmp_path):
    folder, card = exported[0], Card.read(exported[0])
    assert card.files == {"model.onnx": sha256(folder / "model.onnx")}
    assert (card.crop_size, card.method) == (64, Card.read(trained[0]).method)
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "card.json"}  # the weights lie in the one file
    shutil.copytree(folder, tmp_path / "copy")
    with open(tmp_path / "copy/model.onnx", "ab") as file:
        file.write(b"more")
    with pytest.raises(WeightsError, match=r"model\.onnx.*damaged"):
        OnnxAligner(tmp_path / "copy")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(trained, exported, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    before = SimpleNamespace(model_proto=onnx.load(exported[0] / "model.onnx"))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: before)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"could not write '.*model\.onnx': File too large"):
            export.export_onnx(trained[0], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_cannot_be_made_is_one_sentence(trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not make the folder '.*file/out': Not a directory"):
        export.export_onnx(trained[0], tmp_path / "file" / "out")


def test_a_network_that_does_not_survive_the_export_is_refused(trained, exported, tmp_path, monkeypatch):
    aligner: Any = Aligner.load(trained[0])
    with torch.no_grad():
        aligner.out.bias[0] += 0.01  # 0.64 px of a crop of 64 px, in one of three answers that are averaged
    aligner.save(tmp_path / "moved")
    before = SimpleNamespace(model_proto=onnx.load(exported[0] / "model.onnx"))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: before)
    with pytest.raises(WeightsError, match=r"differs from torch by 0\.21 px"):
        export.export_onnx(tmp_path / "moved", tmp_path / "onnx")
    assert not list((tmp_path / "onnx").iterdir())
    with torch.no_grad():
        aligner.out.bias[0] -= 0.01
        aligner.out.bias[68 * 4] += 1.0  # of the first point's visibility
    aligner.save(tmp_path / "other")
    with pytest.raises(WeightsError, match="another visible than torch"):
        export.export_onnx(tmp_path / "other", tmp_path / "onnx")
    assert not list((tmp_path / "onnx").iterdir())
    monkeypatch.setattr(OnnxAligner, "answer", lambda *_: SimpleNamespace(xyz=np.full((16, 68, 3), np.nan)))
    with pytest.raises(WeightsError, match="differs from torch by nan px"):
        export.export_onnx(trained[0], tmp_path / "onnx")


def test_a_folder_of_weights_in_training_keeps_its_card(trained):
    card = (Path(trained[0]) / "card.json").read_bytes()
    with pytest.raises(OutputError, match="holds the weights that training wrote"):
        export.export_onnx(trained[0], trained[0])
    assert (Path(trained[0]) / "card.json").read_bytes() == card


def test_eight_bits_move_points_by_little(trained, exported, tmp_path):
    small = tmp_path / "int8"
    shutil.copytree(exported[0], small)
    export.quantise(small, _larger(trained[1], tmp_path / "shard.npz"))
    whole, eight = OnnxAligner(exported[0]), OnnxAligner(small)
    crops = export.face_crops(trained[1], whole.card, 8)
    moved = np.linalg.norm(whole.run(crops).xyz - eight.run(crops).xyz, axis=-1)
    assert 0 < moved.mean() < 1.5 and moved.max() < 5  # px of a crop of 64 px
    # Weights of the convolutions take a byte instead of four, and they are a part of the file.
    assert (small / "model.onnx").stat().st_size < (exported[0] / "model.onnx").stat().st_size
    card = Card.read(small)
    assert card.files == {"model.onnx": sha256(small / "model.onnx")}
    assert card.name == f"{whole.card.name}-int8"
    assert {p.name for p in small.iterdir()} == {"model.onnx", "card.json"}


@pytest.mark.parametrize("shipped", [False, True])
def test_products_of_eight_bits_never_overflow_sixteen(trained, exported, tmp_path, shipped):
    if shipped:
        folder = find("swift-int8")
    else:
        folder = tmp_path / "int8"
        shutil.copytree(exported[0], folder)
        export.quantise(folder, _larger(trained[1], tmp_path / "shard.npz"))
    graph = onnx.load(str(folder / "model.onnx")).graph
    weights = [w for w in map(onnx.numpy_helper.to_array, graph.initializer) if w.dtype == np.int8 and w.ndim == 4]
    # Without VNNI, processors add two products of activation (0..255) and weight in 16 bits: 2 * 255 * 64 < 2^15.
    assert weights and all(np.abs(values.astype(int)).max() <= 64 for values in weights)


def _larger(shard: Path, path: Path) -> Path:
    """The 8 faces of a shard four times: ranges are measured on 16 batches."""
    with np.load(shard) as d:
        larger: dict[str, Any] = {name: np.concatenate([d[name]] * 4) for name in d.files}
    np.savez(path, **larger)
    return path


def test_face_crops_are_those_of_prediction(trained):
    card = Card.read(trained[0])
    crops = export.face_crops(trained[1], card, 5)
    assert crops.shape == (5, 64, 64, 3) and crops.dtype == np.uint8
    with np.load(trained[1]) as d:
        image, points = d["image"][3].astype(float), d["xyz"][3].astype(float)
    box = np.array([[*points[:, :2].min(0), *points[:, :2].max(0)]])
    crop = Crop.around_boxes(box, card.crop_scale, 64)
    # Pixel (u, v) of the crop is the picture at image_from_crop (u, v), read from its four neighbours.
    for u, v in ((10, 20), (31, 40), (50, 33)):
        x, y = crop.image_from_crop(np.array([[[u, v]]], float))[0, 0]
        (i, a), (j, b) = divmod(x, 1), divmod(y, 1)
        corners = image[int(j) : int(j) + 2, int(i) : int(i) + 2]
        expected = np.einsum("jic,j,i->c", corners, [1 - b, b], [1 - a, a])
        np.testing.assert_allclose(crops[3, v, u], expected, atol=2)


def test_the_last_convolution_of_each_part_stays_in_float32():
    # a feeds b, b feeds c, whose way to d leads through a linear layer; d feeds e, the last one.
    ways = [
        ("Conv", "a", "x", "1"), ("Relu", "r", "1", "2"), ("Conv", "b", "2", "3"), ("Conv", "c", "3", "4"),
        ("Reshape", "f", "4", "5"), ("Gemm", "g", "5", "6"), ("Conv", "d", "6", "7"), ("Conv", "e", "7", "8"),
    ]  # fmt: skip
    nodes = [SimpleNamespace(op_type=kind, name=name, input=[i], output=[o]) for kind, name, i, o in ways]
    assert export._inner_convolutions(nodes) == ["a", "b", "d"]
