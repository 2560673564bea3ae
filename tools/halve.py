"""Store the weights of folders at half precision, for a smaller repository.

    python tools/halve.py weights/jvcr-small ... --faces SHARD

Matrices and kernels become float16; vectors (biases, statistics of batch norm) stay float32, as they are few. torch
copies them into float32 parameters, and ONNX Runtime casts them once, when a session is opened: the arithmetic stays
float32. Prints how far the points of 64 faces of SHARD move, in pixels of the crop, and leaves a file as it was if that
is more than 0.05 px on average.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from canthus.inference.predictor import Predictor
from canthus.inference.runtime import OnnxAligner
from canthus.io.card import CARD_FILE, Card, sha256
from canthus.io.session import MODEL_FILE
from canthus.training.aligner import WEIGHTS_FILE, Aligner
from canthus.training.export import face_crops, strip

FACES, MOST = 64, 0.05  # faces that are compared; px that their points may move on average


def halve_torch(path: Path) -> None:
    """Rewrite a safetensors file."""
    tensors = load_file(path)
    save_file({k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in tensors.items()}, path)


def halve_onnx(path: Path) -> None:
    """Rewrite an ONNX file; each constant of two or more dimensions is followed by a cast. What the method computes
    itself, such as the arrays of a head model, is no weight and stays as it is."""
    model = onnx.load(str(path))
    described = {entry.key: entry.value for entry in model.metadata_props}
    strip(model)
    helper.set_model_props(model, described)
    aligner = Aligner.load(path.parent)
    computed = {f"aligner.{name}" for name, _ in aligner.named_buffers()} - {
        f"aligner.{n}" for n in aligner.state_dict()
    }
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and tensor.name not in computed:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    onnx.save(model, str(path))


def points(aligner: Predictor, crops: np.ndarray) -> np.ndarray:
    """Points of crops, some at a time."""
    return np.concatenate([aligner.run(crops[k : k + 8]).xyz for k in range(0, len(crops), 8)])


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--faces", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {WEIGHTS_FILE: (halve_torch, Aligner.load), MODEL_FILE: (halve_onnx, lambda f: OnnxAligner(f, threads=1))}
    for folder in given.weights:
        card = Card.read(folder)
        crops = face_crops(given.faces, card, FACES)
        for name, (halve, load) in kinds.items():
            if not (folder / name).exists():
                continue
            with tempfile.TemporaryDirectory() as made:
                copy = Path(shutil.copytree(folder, Path(made) / folder.name))
                halve(copy / name)
                hashes = {**Card.read(folder).files, name: sha256(copy / name)}
                (copy / CARD_FILE).write_text(replace(Card.read(folder), files=hashes).to_json())
                moved = np.linalg.norm(points(load(copy), crops) - points(load(folder), crops), axis=-1)
                sizes = (folder / name).stat().st_size / 1e6, (copy / name).stat().st_size / 1e6
                print(
                    f"{folder.name}/{name}: {sizes[0]:.1f} -> {sizes[1]:.1f} MB, points move by {moved.mean():.4f} px "
                    f"on average, of one face by {moved.mean(1).max():.4f} at most",
                    flush=True,
                )
                if moved.mean() <= MOST:
                    shutil.copy(copy / name, folder / name)
                    shutil.copy(copy / CARD_FILE, folder / CARD_FILE)
                else:
                    print("left as it was")


if __name__ == "__main__":
    main()
