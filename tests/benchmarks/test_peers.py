"""The adapters of other systems: what they write is what the scorer reads. No peer is installed for it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import layouts_maker as make
import numpy as np
import pytest

pytest.importorskip("scipy.io")

from canthus.evaluation.evaluate import evaluate  # noqa: E402
from canthus.evaluation.predictions import Predictions  # noqa: E402

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def peer(monkeypatch):
    """A function: run a peer's script with stand-ins for the package that it needs."""

    def run(name: str, package: str, stand_in: object, *arguments: object) -> None:
        monkeypatch.syspath_prepend(str(PEERS))
        monkeypatch.setitem(sys.modules, package, stand_in)
        for module in ("common", name):
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        importlib.import_module(name).main()
        for module in ("common", name):
            monkeypatch.delitem(sys.modules, module, raising=False)

    return run


def fake_dlib(shapes: list[np.ndarray]) -> ModuleType:
    """Finds the faces in their order, and another one in the corner each time."""
    rest = iter(shapes)

    def detector(image: np.ndarray, grow: int) -> list[np.ndarray]:
        return [np.zeros((68, 2)) + [2, 2] + np.arange(68)[:, None] / 10, next(rest)]

    def predictor(image: np.ndarray, box: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(parts=lambda: [SimpleNamespace(x=x, y=y) for x, y in box])

    return SimpleNamespace(
        get_frontal_face_detector=lambda: detector, shape_predictor=lambda path: predictor, __version__="0"
    )  # type: ignore[return-value]


def test_dlib(tmp_path, peer):
    data = make.w300(tmp_path / "300w")
    shapes = [make.shapes()[k][:, :2] + [3, 4] for k in (0, 2, 1)]  # in the order of names: helen, ibug, lfpw
    peer("dlib_ert", "dlib", fake_dlib(shapes), "300w", data, "--out", tmp_path / "p.npz", "--model", "x.dat")
    answers = Predictions.read(tmp_path / "p.npz")
    assert answers.names == ("helen/testset/a", "ibug/c", "lfpw/testset/b") and answers.system == "dlib 0 ERT"
    scores = evaluate("300w", data, answers)
    sizes = [np.sqrt(np.prod(np.ptp(s, axis=0))) for s in shapes]
    assert scores.errors["NME box"] == pytest.approx(5 / np.array(sizes), rel=1e-4)


def test_mediapipe(tmp_path, peer):
    data = make.aflw2000(tmp_path / "a")
    spots = np.random.default_rng(0).uniform(0.3, 0.7, (478, 3))

    def process(image: np.ndarray) -> SimpleNamespace:
        face = SimpleNamespace(landmark=[SimpleNamespace(x=x, y=y, z=z) for x, y, z in spots])
        return SimpleNamespace(multi_face_landmarks=[face])

    mesh = SimpleNamespace(FaceMesh=lambda **options: SimpleNamespace(process=process))
    package = SimpleNamespace(solutions=SimpleNamespace(face_mesh=mesh), __version__="0")
    peer("mediapipe_mesh", "mediapipe", package, "aflw2000", data, "--out", tmp_path / "p.jsonl")
    answers = Predictions.read(tmp_path / "p.jsonl")
    assert answers.scheme == "mediapipe478" and len(answers) == 6
    # 260 x 240 px; fraction 0.5 is the border between the two middle pixels, whose centres are 129 and 130
    wanted = spots * [260, 240, -260] - [0.5, 0.5, 0]
    np.testing.assert_allclose(answers.xyz[0], wanted, atol=1e-3)
    assert set(evaluate("aflw2000", data, answers).errors) >= {"NME box", "GTE"}


def test_fan(tmp_path, peer, monkeypatch):
    data = make.aflw2000(tmp_path / "a")
    shapes = iter(make.shapes())
    network = SimpleNamespace(get_landmarks=lambda image: [next(shapes)])
    package = SimpleNamespace(FaceAlignment=lambda kind, device: network, LandmarksType=SimpleNamespace(THREE_D=3))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    peer("fan", "face_alignment", package, "aflw2000", data, "--out", tmp_path / "p.npz")
    scores = evaluate("aflw2000", data, Predictions.read(tmp_path / "p.npz"))
    assert scores.errors["NME 3D"] == pytest.approx(np.zeros(6), abs=1e-6)
