"""Readers of other head models, from files that a user holds under their own licence.

Each answers with a `MorphableModel`: identity modes scaled to one standard deviation, the origin moved to the
mean of the 68 mean landmarks (`card["origin"]`, in the file's coordinates), triangles turned so that they are
anticlockwise from outside. Every format here already has x to the subject's left, y up and z towards the viewer, and
its unit of length is kept.

Where a file has no 68 iBUG landmarks, `landmarks` gives them: 68 vertex ids, or a pair of ids (68, 3) and
barycentric weights (68, 3). Given landmarks win over those of the file. Every reader raises ModelError for a
file that is missing, lacks something or is a pickle: pickles can run any code, so canthus never loads one.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np

from canthus.decode import decoding, numbers, read_json, read_npy, read_npz, read_text
from canthus.decode.mat import read_mat
from canthus.errors import ModelError, pip_install
from canthus.face.morphable import LANDMARKS, MorphableModel

Landmarks = np.ndarray | Sequence[int] | tuple[np.ndarray, np.ndarray]

BLENDSHAPE = (0.0, 1.0)
BASEL = "Basel Face Model licence, non-commercial research"
PCA_MODE = (-3.0, 3.0)  # standard deviations
FLAME_IDENTITY = 300  # the modes of `shapedirs` before the expressions

_P = ParamSpec("_P")


def _whole(read: Callable[_P, MorphableModel]) -> Callable[_P, MorphableModel]:
    """A reader that raises ModelError where the arrays of a file do not fit together."""

    @functools.wraps(read)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> MorphableModel:
        with decoding(ModelError, f"{[*args, *kwargs.values()][0]} holds arrays that do not fit together"):
            return read(*args, **kwargs)

    return guarded


@_whole
def read_ict(path: str | Path, landmarks: Landmarks | None = None) -> MorphableModel:
    """ICT-FaceKit (Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020),
    centimetres.

    path: the folder of OBJ files (generic_neutral_mesh.obj, identityNNN.obj, one more a blendshape, and for
        the landmarks vertex_indices.json), or an npz of it with mean (V, 3), id_q, exp_q (modes, int16),
        id_scale, exp_scale, exp_names, faces, landmarks68 and optionally uv, faces_uv.
    """
    path = Path(path)
    about: dict[str, Any] = {"name": "ICT-FaceKit", "unit": "cm", "licence": "MIT"}
    if not path.is_dir():
        data = _load_npz(path)
        identity, expression = (data[f"{k}_q"] * data[f"{k}_scale"][:, None, None] for k in ("id", "exp"))
        about |= {"expression_names": data["exp_names"], "uv": data.get("uv")}
        about |= {"uv_triangles": data.get("faces_uv")}
        points = _pick(landmarks, data.get("landmarks68"))
        return _model(data["mean"], identity, expression, BLENDSHAPE, data["faces"], points, **about)
    neutral = path / "generic_neutral_mesh.obj"
    mean, faces = _read_obj(neutral)
    identities = sorted(path.glob("identity*.obj"))
    shapes = sorted(set(path.glob("*.obj")) - {neutral, *identities})
    if not identities or not shapes:
        raise ModelError(f"{path} has {len(identities)} identity and {len(shapes)} expression OBJ files; wanted both")
    indices, ids = path / "vertex_indices.json", None
    if indices.is_file():
        with decoding(ModelError, f"{indices} is no JSON with idx_to_landmark_verts"):
            ids = numbers(read_json(indices)["idx_to_landmark_verts"], (LANDMARKS,)).astype(int)
    identity, expression = _displacements(identities, mean), _displacements(shapes, mean)
    about |= {"expression_names": [shape.stem for shape in shapes]}
    return _model(mean, identity, expression, BLENDSHAPE, faces, _pick(landmarks, ids), **about)


@_whole
def read_bfm2009(path: str | Path, landmarks: Landmarks) -> MorphableModel:
    """Basel Face Model 2009, 01_MorphableModel.mat (Paysan et al., AVSS 2009), micrometres; it has no
    expressions."""
    data = _load_mat(path, "shapeMU", "shapePC", "shapeEV", "tl")
    modes = _columns(data["shapePC"]) * data["shapeEV"].reshape(-1, 1, 1)  # shapeEV holds standard deviations
    mean, triangles = data["shapeMU"].reshape(-1, 3), data["tl"].astype(int) - 1
    return _model(mean, modes, None, PCA_MODE, triangles, landmarks, name="BFM 2009", unit="um", licence=BASEL)


@_whole
def read_bfm2017(path: str | Path, landmarks: Landmarks) -> MorphableModel:
    """Basel Face Model 2017 or 2019, *.h5 (Gerig et al., "Morphable Face Models - An Open Framework", FG
    2018), mm."""
    _refuse_pickle(Path(path))
    h5py = _optional("h5py")
    keys = ("mean", "pcaBasis", "pcaVariance")
    wanted = [f"{part}/model/{key}" for part in ("shape", "expression") for key in keys] + ["shape/representer/cells"]
    with decoding(ModelError, f"{path} is not a readable HDF5 file"), h5py.File(path, "r") as file:
        missing = [key for key in wanted if key not in file]
        data = {key: np.asarray(file[key]) for key in wanted if not missing}
    if missing:
        raise ModelError(f"{path} lacks {', '.join(missing)}")

    def modes(part: str) -> np.ndarray:
        deviation = np.sqrt(data[f"{part}/model/pcaVariance"])
        return _columns(data[f"{part}/model/pcaBasis"]) * deviation[:, None, None]

    mean = (data["shape/model/mean"] + data["expression/model/mean"]).reshape(-1, 3)
    triangles = data["shape/representer/cells"].T.astype(int)
    about = {"name": "BFM 2017/2019", "unit": "mm", "licence": BASEL}
    return _model(mean, modes("shape"), modes("expression"), PCA_MODE, triangles, landmarks, **about)


@_whole
def read_3ddfa(
    folder: str | Path,
    landmarks: Landmarks | None = None,
    deviations: tuple[np.ndarray, np.ndarray] | None = None,
) -> MorphableModel:
    """The BFM with FaceWarehouse expressions of 3DDFA and 300W-LP (Zhu et al., CVPR 2016), micrometres.

    folder: holds Model_Shape.mat (mu_shape, w, tri, keypoints) and Model_Exp.mat (mu_exp, w_exp), or the
        arrays u_shp.npy, w_shp.npy, u_exp.npy, w_exp.npy, keypoints.npy (vertex ids, or three flat coordinate
        ids a point) and tri.npy.
    deviations: standard deviations of identity and expression coefficients, (K,) and (E,), where the files
        lack `sigma` and `sigma_exp`: the bases alone do not know them.
    """
    folder = Path(folder)
    if (folder / "Model_Shape.mat").is_file():
        shape = _load_mat(folder / "Model_Shape.mat", "mu_shape", "w", "tri", optional=("keypoints", "sigma"))
        exp = _load_mat(folder / "Model_Exp.mat", "mu_exp", "w_exp", optional=("sigma_exp",))
        names = {"u_shp": "mu_shape", "w_shp": "w", "u_exp": "mu_exp", "w_exp": "w_exp", "tri": "tri"}
        data = {key: {**shape, **exp}[name] for key, name in names.items()}
        data["tri"] = data["tri"].astype(int) - 1
        points = None if "keypoints" not in shape else shape["keypoints"].ravel().astype(int) - 1
        if deviations is None and "sigma" in shape and "sigma_exp" in exp:
            deviations = (shape["sigma"], exp["sigma_exp"])
    elif not any((folder / f"u_shp{ending}").is_file() for ending in (".npy", ".pkl")):
        arrays = "u_shp.npy, w_shp.npy, u_exp.npy, w_exp.npy, keypoints.npy and tri.npy"
        raise ModelError(f"'{folder}' holds neither Model_Shape.mat and Model_Exp.mat nor {arrays}")
    else:
        data = {key: _load_npy(folder / f"{key}.npy") for key in ("u_shp", "w_shp", "u_exp", "w_exp", "tri")}
        points = _load_npy(folder / "keypoints.npy").ravel().astype(int) if landmarks is None else None
        if points is not None and len(points) == 3 * LANDMARKS:
            points = points[::3] // 3
    if deviations is None:
        raise ModelError(f"{folder} lacks sigma and sigma_exp; give them as deviations=(identity, expression)")
    identity, expression = (
        _columns(data[key]) * np.asarray(sigma).reshape(-1, 1, 1)
        for key, sigma in zip(("w_shp", "w_exp"), deviations, strict=True)
    )
    mean, tri = (data["u_shp"] + data["u_exp"]).reshape(-1, 3), data["tri"].astype(int)
    triangles = tri if tri.shape[1] == 3 else tri.T
    about = {"name": "BFM 3DDFA", "unit": "um", "licence": BASEL}
    return _model(mean, identity, expression, PCA_MODE, triangles, _pick(landmarks, points), **about)


@_whole
def read_eos(path: str | Path, landmarks: Landmarks, blendshapes: str | Path | None = None) -> MorphableModel:
    """A model of the eos library, such as the Surrey Face Model (Huber et al., VISAPP 2016), millimetres.

    Read with eos's own Python package, which must be installed (`pip install eos-py`).
    blendshapes: a file of expression blendshapes, for a model that does not carry its expressions.
    """
    eos = _optional("eos", "eos-py")
    for file in (path, blendshapes):
        if file is not None and not Path(file).is_file():
            raise ModelError(f"there is no file {file}")
    model = eos.morphablemodel.load_model(str(path))
    shape = model.get_shape_model()
    if blendshapes is None:
        shapes = model.get_expression_model()
    else:
        shapes = eos.morphablemodel.load_blendshapes(str(blendshapes))
    about: dict[str, Any] = {"name": "eos model", "unit": "mm", "licence": "the licence of the model file"}
    expression, bound = None, BLENDSHAPE
    if hasattr(shapes, "get_rescaled_pca_basis"):
        expression, bound = _columns(np.asarray(shapes.get_rescaled_pca_basis())), PCA_MODE
    elif shapes:
        expression = np.stack([np.asarray(one.deformation).reshape(-1, 3) for one in shapes])
        about |= {"expression_names": [one.name for one in shapes]}
    mean = np.asarray(shape.get_mean()).reshape(-1, 3)
    identity = _columns(np.asarray(shape.get_rescaled_pca_basis()))
    return _model(mean, identity, expression, bound, np.asarray(shape.get_triangle_list()), landmarks, **about)


@_whole
def read_flame(path: str | Path, landmarks: Landmarks | None = None) -> MorphableModel:
    """FLAME 2020 or 2023 as npz (Li et al., "Learning a Model of Facial Shape and Expression from 4D Scans",
    2017), metres.

    Keys: v_template (V, 3), shapedirs (V, 3, 300 identity modes and then expressions), f (T, 3), and for
    landmarks full_lmk_faces_idx (1, 68) with full_lmk_bary_coords (1, 68, 3). Pose, skinning and their
    correctives are not read.
    """
    data = _load_npz(path)
    modes = np.moveaxis(data["shapedirs"], -1, 0)
    faces = data["f"].astype(int)
    points: Any = None
    if "full_lmk_faces_idx" in data:
        points = (
            faces[data["full_lmk_faces_idx"].reshape(-1)],
            data["full_lmk_bary_coords"].reshape(-1, 3),
        )
    identity, expression = modes[:FLAME_IDENTITY], modes[FLAME_IDENTITY:]
    points = _pick(landmarks, points)
    about = {"name": "FLAME", "unit": "m", "licence": "FLAME model licence"}
    return _model(data["v_template"], identity, expression, PCA_MODE, faces, points, **about)


@_whole
def read_gnm(path: str | Path, landmarks: Landmarks | None = None) -> MorphableModel:
    """Google's GNM head as npz (v3, Apache-2.0), metres; joints and skinning are not read.

    Keys: template_vertex_positions (V, 3), vertex_identity_basis (K, V, 3), expression_basis (E, V, 3),
    triangles (T, 3) and optionally expression_names. The landmarks are those of head_sparse_68.txt (rows of
    three ids and weights: id, weight, id, weight, id, weight) where that file lies beside the model.
    """
    table, points = Path(path).with_name("head_sparse_68.txt"), None
    if table.is_file():
        with decoding(ModelError, f"{table} is no table of three ids and weights a line"):
            rows = np.array([[float(word) for word in line.split()] for line in read_text(table).splitlines()])
            points = (rows[:, 0::2].astype(int), rows[:, 1::2])
    data = _load_npz(path)
    about: dict[str, Any] = {"name": "GNM head", "unit": "m", "licence": "Apache-2.0"}
    if "expression_names" in data:
        about |= {"expression_names": data["expression_names"]}
    mean, identity = data["template_vertex_positions"], data["vertex_identity_basis"]
    expression, points = data["expression_basis"], _pick(landmarks, points)
    return _model(mean, identity, expression, PCA_MODE, data["triangles"], points, **about)


class _Keys(dict):
    """Arrays by name; a missing one is a ModelError that names the file."""

    def __init__(self, path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(arrays)
        self.path = path

    def __missing__(self, key: str) -> np.ndarray:
        raise ModelError(f"{self.path} lacks {key}; it has {', '.join(sorted(self)) or 'nothing'}")


def _model(
    mean: np.ndarray,
    identity: np.ndarray,
    expression: np.ndarray | None,
    bound: tuple[float, float],
    triangles: np.ndarray,
    landmarks: Any,
    **about: Any,
) -> MorphableModel:
    """The model with its origin at the mean landmark and its triangles turned outwards."""
    if expression is None:
        expression = np.zeros((0, *mean.shape))
    ids, weights = _landmark_points(landmarks, len(mean))
    origin = np.einsum("lkc,lk->c", mean[ids], weights) / LANDMARKS
    mean = mean - origin
    a, b, c = np.moveaxis(mean[triangles] - mean.mean(axis=0), 1, 0)
    inside_out = (a * np.cross(b, c)).sum() < 0  # the signed volume over the middle, of an open face too
    about.setdefault("expression_names", [f"expression {i}" for i in range(len(expression))])
    return MorphableModel(
        mean=mean,
        identity=identity,
        expression=expression,
        expression_bounds=np.tile(bound, (len(expression), 1)),
        triangles=triangles[:, ::-1] if inside_out else triangles,
        landmark_ids=ids,
        landmark_weights=weights,
        card={"origin": origin.tolist()},
        **about,
    )


def _pick(given: Any, own: Any) -> Any:
    """The landmarks a caller gave, else those of the file."""
    return own if given is None else given


def _landmark_points(landmarks: Any, vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids (68, 3) and weights (68, 3) from vertex ids, or from a pair of those arrays."""
    if landmarks is None:
        raise ModelError("the files hold no 68 landmarks; give landmarks=vertex ids or (ids, weights)")
    if isinstance(landmarks, tuple) and len(landmarks) == 2:
        ids, weights = np.asarray(landmarks[0]), np.asarray(landmarks[1], dtype=float)
    else:
        ids = np.repeat(np.asarray(landmarks)[..., None], 3, axis=-1)
        weights = np.tile([1.0, 0.0, 0.0], (LANDMARKS, 1))
    if ids.shape != (LANDMARKS, 3) or weights.shape != (LANDMARKS, 3):
        raise ModelError(
            f"landmarks have shapes {ids.shape} and {weights.shape}; wanted {LANDMARKS} ids or (68, 3) twice"
        )
    if ids.min() < 0 or ids.max() >= vertices:
        raise ModelError(f"landmark ids run from {ids.min()} to {ids.max()}; the model has {vertices} vertices")
    return ids, weights


def _columns(basis: np.ndarray) -> np.ndarray:
    """Basis (3V, K), coordinates x0 y0 z0 x1 ... down a column, as modes (K, V, 3)."""
    return np.asarray(basis).T.reshape(basis.shape[1], -1, 3)


def _optional(module: str, package: str = "") -> Any:
    """Import what the base install does not have."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        command = f"pip install {package}" if package else pip_install("formats")
        raise ModelError(f"this format needs {module}; to get it, run: {command}") from error


def _refuse_pickle(path: Path) -> None:
    if path.suffix in (".pkl", ".pickle"):
        raise ModelError(f"{path} is a pickle, which can run any code and is never loaded; export its arrays to npz")


def _load_npz(path: str | Path) -> _Keys:
    """The arrays of an npz; anything that is not one, pickled arrays included, is a ModelError."""
    _refuse_pickle(Path(path))
    with decoding(ModelError, f"{path} is not a readable npz without pickled arrays"):
        return _Keys(path, read_npz(path))


def _load_npy(path: Path) -> np.ndarray:
    pickled = path.with_suffix(".pkl")
    if not path.is_file() and pickled.is_file():
        _refuse_pickle(pickled)
    with decoding(ModelError, f"{path} is not a readable npy"):
        return read_npy(path)


def _load_mat(path: str | Path, *keys: str, optional: Sequence[str] = ()) -> _Keys:
    """Arrays of a MATLAB 5 file: `keys`, and of `optional` those that are there."""
    _refuse_pickle(Path(path))
    with decoding(ModelError, f"{path} is not a readable MATLAB 5 file"):
        data = _Keys(path, read_mat(path, (*keys, *optional)))
    for key in keys:
        data[key]
    return data


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (T, 3) of a Wavefront OBJ; polygons become fans."""
    vertices, triangles = [], []
    with decoding(ModelError, f"{path} is not a readable OBJ file"):
        for line in read_text(path).splitlines():
            key, *rest = line.split() or [""]
            if key == "v":
                vertices.append([float(x) for x in rest[:3]])
            elif key == "f":
                ids = [int(corner.split("/")[0]) - 1 for corner in rest]
                triangles += [[ids[0], ids[i], ids[i + 1]] for i in range(1, len(ids) - 1)]
        return np.array(vertices, dtype=float).reshape(-1, 3), np.array(triangles, dtype=int).reshape(-1, 3)


def _displacements(paths: Sequence[Path], mean: np.ndarray) -> np.ndarray:
    """Displacements (N, V, 3) of OBJ meshes from the mean (V, 3)."""
    meshes = [_read_obj(path)[0] for path in paths]
    for path, mesh in zip(paths, meshes, strict=True):
        if mesh.shape != mean.shape:
            raise ModelError(f"{path} has {len(mesh)} vertices; the neutral mesh has {len(mean)}")
    return np.stack(meshes) - mean
