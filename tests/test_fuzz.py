"""Every reader on seeded damage: a well-formed answer or a `CanthusError`, never another exception, a crash or a hang.

Where there is a checksum, damage is always noticed."""

from __future__ import annotations

import io
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import layouts_maker
import numpy as np
import pytest
from faces_maker import make_faces
from mutations import Rng, damaged, nested, with_odd_value
from photos import BOX, photo
from PIL import Image
from shapes import made_up_faces

import canthus
from canthus.decode import listed
from canthus.errors import CanthusError, ModelError, WeightsError
from canthus.evaluation.predictions import Predictions
from canthus.face.morphable import MorphableModel
from canthus.io.card import CARD_FILE, Card, sha256
from canthus.io.columns import ImageFaces
from canthus.io.images import read_image
from canthus.io.lines import frame_line, header_line, read_json_lines
from canthus.io.outputs import read_json, write_json
from canthus.io.session import MODEL_FILE
from canthus.io.shards import shard_path, write_shard
from canthus.weights import DEFAULT, DETECTOR, ROOT

SECONDS = 5  # a reader that takes longer hangs
Call = Callable[[], None]


class Target(SimpleNamespace):
    """file: what is damaged. call: reads it and checks that the answer is well-formed. odd: its text with an odd value,
    for files of JSON or YAML. sealed: whether a checksum guards it."""

    file: Path
    call: Call
    odd: Callable[[Rng], str] | None = None
    sealed: bool = False


# Targets: each writes a good file into a folder


def image_files(folder: Path, suffix: str) -> Target:
    path = folder / f"picture{suffix}"
    Image.fromarray(np.ascontiguousarray(photo()[80:176:2, 180:276:2])).save(path)

    def call() -> None:
        pixels = read_image(path)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3

    return Target(file=path, call=call)


def video(folder: Path) -> Target:
    pytest.importorskip("av")
    from canthus.io.video import Video
    from canthus.io.video_writer import write_video

    path = folder / "clip.mp4"
    with write_video(path) as put:
        for k in range(8):
            put(np.ascontiguousarray(photo()[80 + k : 176 + k, 180:276]), k / 25)

    def call() -> None:
        for frame in Video(path):
            assert frame.image.dtype == np.uint8 and frame.image.ndim == 3 and np.isfinite(frame.time)

    return Target(file=path, call=call)


def card(folder: Path) -> Target:
    path = folder / CARD_FILE
    good = json.loads((ROOT / DEFAULT / CARD_FILE).read_text())
    good["completion"] = {"noise": 0.01, "iterations": 5, "jaw": "soft"}
    good["mean_shape"] = MorphableModel.default().landmarks()[0, :, :2].round(3).tolist()
    path.write_text(json.dumps(good))

    def call() -> None:
        read = Card.read(folder)
        assert isinstance(read.commercial_use, bool) and isinstance(read.crop_size, int)
        assert 0.1 < read.crop_scale < 20 and read.crop_scale is not True
        assert all("/" not in name and name not in (".", "..") for name in read.files)
        assert str(read).isprintable()

    return Target(file=path, call=call, odd=lambda rng: json.dumps(with_odd_value(good, rng)))


def weights_card(folder: Path) -> Target:
    target = card(Path(shutil.copytree(ROOT / DEFAULT, folder / "weights")))
    good = json.loads((ROOT / DEFAULT / CARD_FILE).read_text())
    target.file.write_text(json.dumps(good))

    def call() -> None:
        faces = canthus.load(target.file.parent, threads=1).predict(photo(), BOX)
        assert len(faces) == 1 and np.isfinite(faces.xyz).all()
        assert (np.abs(faces.xy[0].mean(0) - [226, 130]) < 100).all()

    return Target(file=target.file, call=call, odd=lambda rng: json.dumps(with_odd_value(good, rng)))


def weights_network(folder: Path) -> Target:
    copy = Path(shutil.copytree(ROOT / DEFAULT, folder / "weights"))
    return Target(file=copy / MODEL_FILE, call=lambda: canthus.load(copy) and None, sealed=True)


def weights_torch(folder: Path, name: str) -> Target:
    """A small untrained aligner whose card agrees with the damaged file, as if somebody had signed it."""
    pytest.importorskip("torch")
    from small import config

    from canthus.training.aligner import Aligner, build

    build("swift", config("swift")).save(folder / "weights")
    path = folder / "weights" / name
    described = json.loads((folder / "weights" / "config.json").read_text())

    def call() -> None:
        values = json.loads((path.parent / CARD_FILE).read_text())
        values["files"] = {file: sha256(path.parent / file) for file in values["files"]}
        (path.parent / CARD_FILE).write_text(json.dumps(values))
        xyz = Aligner.load(path.parent).run(np.zeros((1, 64, 64, 3), np.uint8)).xyz
        assert xyz.shape == (1, 68, 3) and np.isfinite(xyz).all()

    odd = (lambda rng: json.dumps(with_odd_value(described, rng))) if name == "config.json" else None
    return Target(file=path, call=call, odd=odd)


def head(folder: Path) -> Target:
    path = folder / "head.npz"
    mean = MorphableModel.default()
    small = MorphableModel(
        "small", mean.mean, mean.identity[:2], mean.expression[:2], mean.expression_bounds[:2],
        mean.expression_names[:2], mean.triangles, mean.landmark_ids, mean.landmark_weights,
    )  # fmt: skip
    small.save(path)

    def call() -> None:
        model = MorphableModel.load(path)
        assert np.isfinite(model.vertices(np.ones((1, 1)))).all() and isinstance(repr(model), str)

    return Target(file=path, call=call)


def shipped_head(folder: Path) -> Target:
    path = Path(shutil.copytree(ROOT / "head", folder / "weights" / "head")) / "head.npz"
    return Target(file=path, call=lambda: listed(path.parent, "head.npz", ModelError) and None, sealed=True)


def detector(folder: Path) -> Target:
    path = Path(shutil.copytree(ROOT / DETECTOR, folder / DETECTOR)) / MODEL_FILE
    return Target(file=path, call=lambda: listed(path.parent, MODEL_FILE, WeightsError) and None, sealed=True)


def predictions(folder: Path, suffix: str) -> Target:
    path = folder / f"answers{suffix}"
    faces = made_up_faces([(0, 0, 0), (10, 40, -5)])
    Predictions(
        ["a", "b"], faces.xyz, box=faces.boxes, sigma=faces.sigma, visible=faces.visible, rotation=faces.pose.matrix,
        restarted=[0, 1], system="made up",
    ).write(path)  # fmt: skip
    lines = [json.loads(line) for line in path.read_text().splitlines()] if suffix == ".jsonl" else []

    def call() -> None:
        read = Predictions.read(path)
        assert read.xyz.shape[:2] == (len(read), 68) and not np.isinf(read.xyz).any()
        assert not ((read.visible < 0) | (read.visible > 1) | (read.sigma < 0)).any()

    odd = (lambda rng: "\n".join(json.dumps(row) for row in with_odd_value(lines, rng))) if lines else None
    return Target(file=path, call=call, odd=odd)


def faces_json(folder: Path) -> Target:
    path = folder / "faces.json"
    write_json(path, made_up_faces([(0, 0, 0), (10, 40, -5)]))
    good = json.loads(path.read_text())

    def call() -> None:
        assert np.isfinite(read_json(path).xyz).all()

    return Target(file=path, call=call, odd=lambda rng: json.dumps(with_odd_value(good, rng)))


def faces_lines(folder: Path) -> Target:
    path = folder / "faces.jsonl"
    faces = made_up_faces([(0, 0, 0), (10, 40, -5)])
    images = [ImageFaces("v.mp4", k, k / 25, faces, np.array([1, 2]), np.array([True, False])) for k in range(2)]
    lines = [header_line("v.mp4", ["made up"]), *map(frame_line, images)]
    path.write_bytes(b"".join(lines))
    good = [json.loads(line) for line in lines]

    def call() -> None:
        for frame in read_json_lines(path):
            assert isinstance(frame.frame, int) and np.isfinite(frame.time)
            assert len(frame.ids) == len(frame.faces)

    return Target(file=path, call=call, odd=lambda rng: "\n".join(json.dumps(v) for v in with_odd_value(good, rng)))


RECIPE = {
    "method": "swift", "faces": {"a": 1.0, "b": 2}, "steps": 100, "batch": 8, "lr": 0.002, "lr_milestones": [0.5, 0.8],
    "config": {"size": 64, "widths": [8, 16, 24, 32], "crop_scale": 1.4}, "augment": {"scale": 0.1, "rotation": 5.0},
    "stages": {"regression": {"lr": 0.01, "lr_milestones": [0.5]}}, "float32": False, "tensorboard": False,
    "weights": "",
}  # fmt: skip


def recipe(folder: Path) -> Target:
    pytest.importorskip("torch")
    import yaml

    from canthus.training.aligner import build
    from canthus.training.recipe import Recipe, as_json
    from canthus.training.schedule import plan

    path, swift = folder / "mine.yaml", build("swift", RECIPE["config"])
    path.write_text(yaml.safe_dump(RECIPE))

    def call() -> None:
        read = Recipe.read(path)
        assert isinstance(read.faces, dict | tuple) and all(isinstance(name, str) for name in read.faces)
        json.loads(as_json(read), parse_constant=pytest.fail)
        plan(read, swift.stages())

    return Target(file=path, call=call, odd=lambda rng: _yaml(with_odd_value(RECIPE, rng)))


def synth_recipe(folder: Path) -> Target:
    yaml = pytest.importorskip("yaml")
    from canthus.synth.recipe import SynthRecipe

    path = folder / "pictures.yaml"
    good = {"size": 176, "seed": 3, "yaw": 60.0, "glasses": 0.5, "dense": True}
    path.write_text(yaml.safe_dump(good))

    def call() -> None:
        values = vars(SynthRecipe.read(path))
        assert all(np.isfinite(value) for value in values.values())

    return Target(file=path, call=call, odd=lambda rng: _yaml(with_odd_value(good, rng)))


def matlab(folder: Path, compressed: bool) -> Target:
    scipy_io = pytest.importorskip("scipy.io")
    from canthus.data.formats import read_aflw2000

    layouts_maker.picture(folder / "a.jpg")
    mat = {"pt3d_68": (layouts_maker.turned(5.0) + [1, 1, 50]).T, "Pose_Para": np.array([[0.1, 0.2, 0.3, 0, 0, 0, 1]])}
    scipy_io.savemat(folder / "a.mat", mat, do_compression=compressed)

    def call() -> None:
        (sample,) = read_aflw2000(folder)
        assert sample.points.shape == (68, 3) and np.isfinite(sample.points).all()

    return Target(file=folder / "a.mat", call=call)


def shard(folder: Path, layout: str) -> Target:
    pytest.importorskip("torch")
    from canthus.data.datasets import StoredFaces
    from canthus.data.formats import read_renders

    faces = make_faces(3, size=40)
    faces["vertices"] = faces["vertices"][:, ::50].astype(np.float16)
    faces |= {"contour": faces["xyz"][:, :17], "weak_shift": np.zeros((3, 2)), "weak_scale": np.ones(3)}
    path = shard_path(folder, 0, layout)
    write_shard(path, faces, 0, layout)

    def call() -> None:
        stored = StoredFaces([folder])
        faces = stored.take(np.arange(len(stored)))
        image, xyz, visible, rotation = faces.images, faces.xyz, faces.visible, faces.rotation
        assert len(image) == len(xyz) == len(visible) == len(rotation) > 0
        assert image.shape[1] == 3 and str(image.dtype) == "torch.uint8" and str(visible.dtype) == "torch.bool"
        assert xyz.isfinite().all() and rotation.isfinite().all() and xyz.shape[1:] == (68, 3)
        list(read_renders(folder))

    inside = sorted(path.glob("*.npz"))[1] if path.is_dir() else path
    return Target(file=inside, call=call)


def clip(folder: Path) -> Target:
    from canthus.data.formats import read_clips
    from canthus.synth.sequences import write_clip

    faces = make_faces(3, size=40)
    del faces["vertices"]
    write_clip(folder / "clip-00000", ({name: values[k] for name, values in faces.items()} for k in range(3)))

    def call() -> None:
        assert all(np.isfinite(sample.points).all() for sample in read_clips(folder))

    return Target(file=folder / "clip-00000" / "truth.npz", call=call)


def annotations(folder: Path, name: str) -> Target:
    from canthus.data import formats

    good: dict = {
        "a.ljson": {"version": 2, "landmarks": {"points": [[k, 2 * k] for k in range(68)], "connectivity": []}},
        "a.json": {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [{"image_id": 1, "keypoints": [5, 6, 2, 9, 6, 2] * 34, "bbox": [0, 0, 9, 9]}],
        },
    }  # fmt: skip
    texts = {
        "a.pts": "version: 1\nn_points:  3\n{\n1 2\n3 4\n5 6\n}\n",
        "a.xml": "<dataset><images><image file='a.jpg'><box top='1' left='2' width='3' height='4'>"
        "<part name='0' x='1' y='2'/></box></image></images></dataset>",
    }  # fmt: skip
    readers: dict[str, Callable[[Path], object]] = {
        "a.ljson": formats.read_ljson,
        "a.json": lambda path: list(formats.read_coco(path, "ibug68")),
        "a.pts": formats.read_pts,
        "a.xml": lambda path: list(formats.read_dlib_xml(path, "ibug68")),
    }
    layouts_maker.picture(folder / "a.jpg")
    path = folder / name
    path.write_text(texts.get(name) or json.dumps(good[name]))

    def call() -> None:
        read = readers[name](path)
        if isinstance(read, np.ndarray):
            assert read.dtype == np.float64 and not np.isinf(read).any()

    odd = (lambda rng: json.dumps(with_odd_value(good[name], rng))) if name in good else None
    return Target(file=path, call=call, odd=odd)


def other_head(folder: Path, name: str) -> Target:
    scipy_io = pytest.importorskip("scipy.io")
    from canthus.face import morphable_formats as formats

    rng = np.random.default_rng(0)
    mean, modes = rng.normal(size=(80, 3)), rng.normal(size=(4, 80, 3))
    triangles, ids = np.stack([np.arange(78), np.arange(78) + 1, np.arange(78) + 2], 1), np.arange(68)
    path = folder / name
    columns = modes.reshape(4, -1).T
    if name == "flame.npz":
        shapes = np.moveaxis(np.concatenate([np.zeros((300, 80, 3)), modes]), 0, -1)
        np.savez_compressed(path, v_template=mean, f=triangles.astype(np.uint32), shapedirs=shapes)
    elif name == "gnm.npz":
        np.savez(
            path, template_vertex_positions=mean, vertex_identity_basis=modes, expression_basis=modes,
            triangles=triangles,
        )  # fmt: skip
    elif name == "bfm.mat":
        data = {"shapeMU": mean.reshape(-1, 1), "shapePC": columns, "shapeEV": np.ones((4, 1)), "tl": triangles + 1}
        scipy_io.savemat(path, data, do_compression=True)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for part in ("shape", "expression"):
                file[f"{part}/model/mean"] = mean.ravel()
                file[f"{part}/model/pcaBasis"] = columns
                file[f"{part}/model/pcaVariance"] = np.ones(4)
            file["shape/representer/cells"] = triangles.T
    readers = {"flame.npz": formats.read_flame, "gnm.npz": formats.read_gnm, "bfm.mat": formats.read_bfm2009}
    reader = readers.get(name, formats.read_bfm2017)

    def call() -> None:
        assert np.isfinite(reader(path, ids).vertices()).all()

    return Target(file=path, call=call)


TARGETS: dict[str, Callable[[Path], Target]] = {
    **{s: lambda folder, s=s: image_files(folder, s) for s in (".jpg", ".png", ".gif", ".webp", ".tif", ".bmp")},
    "video": video,
    "card": card,
    "weights-card": weights_card,
    "weights-network": weights_network,
    "weights-torch": lambda folder: weights_torch(folder, "model.safetensors"),
    "weights-config": lambda folder: weights_torch(folder, "config.json"),
    "head": head,
    "shipped-head": shipped_head,
    "detector": detector,
    "predictions-npz": lambda folder: predictions(folder, ".npz"),
    "predictions-jsonl": lambda folder: predictions(folder, ".jsonl"),
    "faces-json": faces_json,
    "faces-jsonl": faces_lines,
    "recipe": recipe,
    "synth-recipe": synth_recipe,
    "mat": lambda folder: matlab(folder, False),
    "mat-compressed": lambda folder: matlab(folder, True),
    **{f"shard-{s}": lambda folder, s=s: shard(folder, s) for s in ("npz", "tar", "300wlp")},
    "clip": clip,
    **{name: lambda folder, name=name: annotations(folder, name) for name in ("a.pts", "a.ljson", "a.json", "a.xml")},
    **{n: lambda folder, n=n: other_head(folder, n) for n in ("flame.npz", "gnm.npz", "bfm.mat", "bfm.h5")},
}  # fmt: skip
HEAVY = {"weights-card": 4, "weights-torch": 2, "weights-config": 2, "video": 2, "head": 2, "recipe": 2}
"""Targets that take long, and by how much fewer cases they get."""


def cases(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """Damaged contents of the target's file."""
    data = target.file.read_bytes()
    rng = np.random.default_rng(seed)
    yield from (b"", b"\0" * 200, data[:-1], nested(100_000).encode())
    for k in range(count):
        odd = target.odd if k % 2 else None
        yield damaged(data, rng) if odd is None else odd(rng).encode("utf-8", "surrogatepass")


def _yaml(value: object) -> str:
    import yaml

    stream = io.StringIO()
    yaml.dump(value, stream, allow_unicode=True)
    return stream.getvalue()


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise where the block takes longer, if the system can."""

    def late(*_: object) -> None:
        raise AssertionError(f"took over {seconds} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def run(name: str, folder: Path, count: int, seed: int) -> None:
    """Read a good file and then damaged ones."""
    target = TARGETS[name](folder)
    target.call()
    for number, content in enumerate(cases(target, max(count // HEAVY.get(name, 1), 4), seed)):
        target.file.write_bytes(content)
        try:
            with limited(SECONDS):
                target.call()
        except CanthusError as error:
            assert str(error).strip() and "\n" not in str(error).strip()
            continue
        except BaseException as error:
            (folder / "kept").write_bytes(content)
            raise AssertionError(f"case {number} of {name}, kept as {folder / 'kept'}: {error!r}") from error
        assert not target.sealed, f"case {number} of {name}: damage was not noticed"


@pytest.mark.parametrize("name", TARGETS)
def test_damage_gives_a_canthus_error_or_a_well_formed_answer(name, tmp_path):
    run(name, tmp_path, 24, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_much_damage_gives_a_canthus_error_or_a_well_formed_answer(name, tmp_path):
    run(name, tmp_path, 600, seed=2)
