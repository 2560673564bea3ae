"""Readers of other head models, on small made-up files with the keys and layouts of the real ones."""

from __future__ import annotations

import json
import re
import sys
import types

import numpy as np
import pytest

from canthus.errors import ModelError, pip_install
from canthus.face import morphable_formats as formats
from canthus.face.morphable import MorphableModel

V, K, E = 80, 4, 3
IDS = np.arange(68)


class Source:
    """A made-up model: points on a sphere, random modes, a few triangles with their corners anticlockwise."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        points = rng.normal(size=(V, 3))
        self.mean = points / np.linalg.norm(points, axis=1, keepdims=True) * 10 + [3, 40, -7]
        self.identity = rng.normal(size=(K, V, 3))
        self.expression = rng.normal(size=(E, V, 3))
        triangles = rng.integers(0, V, (40, 3))
        a, b, c = np.moveaxis(self.mean[triangles] - self.mean.mean(axis=0), 1, 0)
        inwards = (a * np.cross(b, c)).sum(axis=1) < 0
        self.triangles = np.where(inwards[:, None], triangles[:, ::-1], triangles)
        self.sigma, self.sigma_exp = rng.uniform(1, 3, K), rng.uniform(1, 3, E)

    def columns(self, modes: np.ndarray) -> np.ndarray:
        return modes.reshape(len(modes), -1).T


@pytest.fixture
def source() -> Source:
    return Source()


def check(model: MorphableModel, source: Source, expressions: bool = True, bound=(-3.0, 3.0)) -> None:
    """The model has the vertices of the source but for the origin."""
    a, b = np.random.default_rng(1).normal(size=(2, K)), np.random.default_rng(2).uniform(0, 1, (2, E))
    wanted = source.mean - source.mean[IDS].mean(axis=0) + np.tensordot(a, source.identity, 1)
    if expressions:
        wanted = wanted + np.tensordot(b, source.expression, 1)
        np.testing.assert_array_equal(model.expression_bounds, np.tile(bound, (E, 1)))
    np.testing.assert_allclose(model.vertices(a, b if expressions else None), wanted, atol=1e-3)
    np.testing.assert_allclose(model.landmarks()[0], model.mean[IDS], atol=1e-5)
    np.testing.assert_allclose(model.landmarks()[0].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_array_equal(model.triangles, source.triangles)


def ict_npz(source: Source) -> dict[str, np.ndarray]:
    def quantised(modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.abs(modes).max(axis=(1, 2)) / 32767
        return np.rint(modes / scale[:, None, None]).astype(np.int16), scale.astype(np.float32)

    id_q, id_scale = quantised(source.identity)
    exp_q, exp_scale = quantised(source.expression)
    return {
        "mean": source.mean.astype(np.float32), "id_q": id_q, "id_scale": id_scale, "exp_q": exp_q,
        "exp_scale": exp_scale, "exp_names": np.array(["jawOpen", "b", "c"]),
        "landmarks68": IDS.astype(np.int32), "faces": source.triangles.astype(np.uint16),
        "faces_uv": np.zeros((40, 3), np.uint16),
        "uv": np.zeros((2, 2), np.float32),
    }  # fmt: skip


def test_ict_npz(source, tmp_path):
    np.savez(tmp_path / "ict.npz", **ict_npz(source))
    model = formats.read_ict(tmp_path / "ict.npz")
    check(model, source, bound=(0, 1))
    assert model.expression_names == ("jawOpen", "b", "c") and model.unit == "cm" and model.uv.shape == (2, 2)
    other = formats.read_ict(tmp_path / "ict.npz", landmarks=IDS + 5)
    np.testing.assert_array_equal(other.landmark_ids[:, 0], IDS + 5)


def test_ict_folder_of_obj_files(source, tmp_path):
    def write(name: str, vertices: np.ndarray) -> None:
        lines = ["# made up", *(f"v {x} {y} {z}" for x, y, z in vertices), "vt 0 0"]
        quad = source.triangles[:1] + 1
        lines += [f"f {a}/1 {b}/1 {c}/1" for a, b, c in source.triangles + 1]
        lines += [f"f {quad[0, 0]} {quad[0, 1]} {quad[0, 2]} {quad[0, 0]}"]  # a polygon of four corners
        (tmp_path / f"{name}.obj").write_text("\n".join(lines))

    write("generic_neutral_mesh", source.mean)
    for k in range(K):
        write(f"identity{k:03d}", source.mean + source.identity[k])
    for name, shape in zip("abc", source.expression, strict=True):
        write(name, source.mean + shape)
    with pytest.raises(ModelError, match="no 68 landmarks"):
        formats.read_ict(tmp_path)
    (tmp_path / "vertex_indices.json").write_text(json.dumps({"idx_to_landmark_verts": IDS.tolist()}))
    model = formats.read_ict(tmp_path)
    assert len(model.triangles) == 42  # the polygon became two
    source.triangles = model.triangles
    check(model, source, bound=(0, 1))
    assert model.expression_names == ("a", "b", "c")
    (tmp_path / "c.obj").write_text("v 0 0 0\n")
    with pytest.raises(ModelError, match="has 1 vertices"):
        formats.read_ict(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="not a readable OBJ"):
        formats.read_ict(tmp_path / "empty")


def test_bfm2009(source, tmp_path):
    io = pytest.importorskip("scipy.io")
    data = {
        "shapeMU": source.mean.reshape(-1, 1), "shapePC": source.columns(source.identity) / source.sigma,
        "shapeEV": source.sigma[:, None], "tl": source.triangles[:, ::-1] + 1,
    }  # fmt: skip
    io.savemat(tmp_path / "01_MorphableModel.mat", data)
    model = formats.read_bfm2009(tmp_path / "01_MorphableModel.mat", IDS)
    check(model, source, expressions=False)
    assert model.expression.shape == (0, V, 3)
    del data["shapeEV"]
    io.savemat(tmp_path / "short.mat", data)
    with pytest.raises(ModelError, match="lacks shapeEV"):
        formats.read_bfm2009(tmp_path / "short.mat", IDS)
    with pytest.raises(ModelError, match="not a readable MATLAB"):
        formats.read_bfm2009(tmp_path / "absent.mat", IDS)


def test_bfm2017(source, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["shape/model/mean"] = source.mean.ravel() - 1
        file["shape/model/pcaBasis"] = source.columns(source.identity) / source.sigma
        file["shape/model/pcaVariance"] = source.sigma**2
        file["expression/model/mean"] = np.ones(3 * V)
        file["expression/model/pcaBasis"] = source.columns(source.expression) / source.sigma_exp
        file["shape/representer/cells"] = source.triangles.T
        with_all = "expression/model/pcaVariance"
    with pytest.raises(ModelError, match=f"lacks {with_all}"):
        formats.read_bfm2017(tmp_path / "m.h5", IDS)
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file[with_all] = source.sigma_exp**2
    check(formats.read_bfm2017(tmp_path / "m.h5", IDS), source)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(ModelError, match="HDF5"):
        formats.read_bfm2017(tmp_path / "text.h5", IDS)


def test_3ddfa_mat(source, tmp_path):
    io = pytest.importorskip("scipy.io")
    shape = {
        "mu_shape": source.mean.reshape(-1, 1) - 1, "w": source.columns(source.identity) / source.sigma,
        "tri": source.triangles.T + 1, "keypoints": IDS[None] + 1, "sigma": source.sigma[:, None],
    }  # fmt: skip
    exp = {"mu_exp": np.ones((3 * V, 1)), "w_exp": source.columns(source.expression) / source.sigma_exp}
    io.savemat(tmp_path / "Model_Shape.mat", shape)
    io.savemat(tmp_path / "Model_Exp.mat", exp)
    with pytest.raises(ModelError, match="deviations"):
        formats.read_3ddfa(tmp_path)
    check(formats.read_3ddfa(tmp_path, deviations=(source.sigma, source.sigma_exp)), source)
    io.savemat(tmp_path / "Model_Exp.mat", exp | {"sigma_exp": source.sigma_exp[:, None]})
    check(formats.read_3ddfa(tmp_path), source)


def test_3ddfa_npy(source, tmp_path):
    arrays = {
        "u_shp": source.mean.reshape(-1, 1), "w_shp": source.columns(source.identity) / source.sigma,
        "u_exp": np.zeros((3 * V, 1)), "w_exp": source.columns(source.expression) / source.sigma_exp,
        "tri": source.triangles, "keypoints": (3 * IDS[:, None] + [0, 1, 2]).ravel(),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    check(formats.read_3ddfa(tmp_path, deviations=(source.sigma, source.sigma_exp)), source)
    (tmp_path / "tri.npy").rename(tmp_path / "tri.pkl")
    with pytest.raises(ModelError, match="never loaded"):
        formats.read_3ddfa(tmp_path, deviations=(source.sigma, source.sigma_exp))


def fake_eos(source: Source, expression) -> types.ModuleType:
    """A module with the part of eos-py's interface that the reader calls."""
    pca = types.SimpleNamespace(
        get_mean=lambda: source.mean.ravel(),
        get_rescaled_pca_basis=lambda: source.columns(source.identity),
        get_triangle_list=lambda: source.triangles.tolist(),
    )
    model = types.SimpleNamespace(get_shape_model=lambda: pca, get_expression_model=lambda: expression)
    module = types.ModuleType("eos")
    module.morphablemodel = types.SimpleNamespace(
        load_model=lambda path: model,
        load_blendshapes=lambda path: [
            types.SimpleNamespace(name=name, deformation=shape.ravel())
            for name, shape in zip("xyz", source.expression, strict=True)
        ],
    )
    return module


def test_eos_through_its_own_package(source, tmp_path, monkeypatch):
    file = tmp_path / "model.bin"
    file.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "eos", None)  # as where it is not installed
    with pytest.raises(ModelError, match="pip install eos-py"):
        formats.read_eos(file, IDS)
    basis = types.SimpleNamespace(get_rescaled_pca_basis=lambda: source.columns(source.expression))
    monkeypatch.setitem(sys.modules, "eos", fake_eos(source, basis))
    check(formats.read_eos(file, IDS), source)
    monkeypatch.setitem(sys.modules, "eos", fake_eos(source, None))
    check(formats.read_eos(file, IDS), source, expressions=False)
    model = formats.read_eos(file, IDS, blendshapes=file)
    check(model, source, bound=(0, 1))
    assert model.expression_names == ("x", "y", "z")
    with pytest.raises(ModelError, match="no file"):
        formats.read_eos(tmp_path / "absent.bin", IDS)


def test_flame(source, tmp_path):
    blank = np.zeros((formats.FLAME_IDENTITY - K, V, 3))
    data = {
        "v_template": source.mean, "f": source.triangles.astype(np.uint32),
        "shapedirs": np.moveaxis(np.concatenate([source.identity, blank, source.expression]), 0, -1),
    }  # fmt: skip
    np.savez(tmp_path / "flame.npz", **data)
    check(formats.read_flame(tmp_path / "flame.npz", IDS), source)
    with pytest.raises(ModelError, match="no 68 landmarks"):
        formats.read_flame(tmp_path / "flame.npz")
    faces = np.arange(68) % 40
    weights = np.tile([0.5, 0.3, 0.2], (1, 68, 1))
    np.savez(tmp_path / "full.npz", **data, full_lmk_faces_idx=faces[None], full_lmk_bary_coords=weights)
    model = formats.read_flame(tmp_path / "full.npz")
    expected = (source.mean[source.triangles[faces]] * weights[0][..., None]).sum(axis=1)
    np.testing.assert_allclose(model.landmarks()[0], expected - expected.mean(axis=0), atol=1e-5)


def test_gnm(source, tmp_path):
    np.savez(
        tmp_path / "gnm_head.npz", template_vertex_positions=source.mean,
        vertex_identity_basis=source.identity, expression_basis=source.expression, triangles=source.triangles,
        expression_names=np.array(["p", "q", "r"]),
    )  # fmt: skip
    with pytest.raises(ModelError, match="no 68 landmarks"):
        formats.read_gnm(tmp_path / "gnm_head.npz")
    rows = np.stack([IDS, np.ones(68), IDS + 1, np.zeros(68), IDS + 2, np.zeros(68)], axis=1)
    np.savetxt(tmp_path / "head_sparse_68.txt", rows)
    model = formats.read_gnm(tmp_path / "gnm_head.npz")
    check(model, source)
    assert model.expression_names == ("p", "q", "r")


def test_files_that_cannot_be_read_say_why(source, tmp_path):
    for reader in (formats.read_flame, formats.read_ict, formats.read_gnm):
        with pytest.raises(ModelError, match="never loaded"):
            reader(tmp_path / "model.pkl", IDS)
        with pytest.raises(ModelError, match="not a readable npz"):
            reader(tmp_path / "absent.npz", IDS)
        np.savez(tmp_path / "pickled.npz", mean=np.array([{}], dtype=object))
        with pytest.raises(ModelError, match="without pickled arrays"):
            reader(tmp_path / "pickled.npz", IDS)
        np.savez(tmp_path / "empty.npz", other=np.zeros(1))
        with pytest.raises(ModelError, match="lacks"):
            reader(tmp_path / "empty.npz", IDS)
    np.save(tmp_path / "array.npz", np.zeros(3))
    (tmp_path / "array.npz.npy").rename(tmp_path / "plain.npz")
    with pytest.raises(ModelError, match="not a readable npz"):
        formats.read_flame(tmp_path / "plain.npz", IDS)


@pytest.mark.parametrize("landmarks", [IDS[:67], IDS + V, (np.zeros((68, 2), int), np.ones((68, 2)))])
def test_landmarks_of_a_wrong_shape_are_refused(source, tmp_path, landmarks):
    np.savez(tmp_path / "ict.npz", **ict_npz(source))
    with pytest.raises(ModelError, match="landmark"):
        formats.read_ict(tmp_path / "ict.npz", landmarks)


def test_formats_that_need_a_package_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModelError, match=re.escape(pip_install("formats"))):
        formats.read_bfm2017(tmp_path / "model.h5", IDS)
