"""Write what ONNX files say about themselves into those of the project, and their checksums on the cards.

    python tools/describe_networks.py [FOLDER ...]       default: the weights of the package and of weights/

The networks stay as they are, byte for byte: metadata is added behind them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import onnx

from canthus.inference.detect import REFINER_FILE
from canthus.io.card import CARD_FILE, Card, sha256
from canthus.io.outputs import atomic_write
from canthus.io.session import MODEL_FILE
from canthus.training.metadata import detector_metadata, network_metadata, refiner_metadata, with_metadata
from canthus.weights import ROOT

WEIGHTS = Path(__file__).parents[1] / "weights"


def describe(folder: Path) -> bool:
    """Whether a network's file has changed."""
    values = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    if "method" in values:
        names = [output.name for output in onnx.load(folder / MODEL_FILE).graph.output]
        return written(folder, MODEL_FILE, network_metadata(Card.read(folder), names))
    changed = [
        written(folder, name, about(values))
        for name, about in ((MODEL_FILE, detector_metadata), (REFINER_FILE, refiner_metadata))
    ]
    return any(changed)


def written(folder: Path, name: str, metadata: dict[str, str]) -> bool:
    """Whether metadata that were not there were written into network `name` of a folder."""
    path, text = folder / name, (folder / CARD_FILE).read_text(encoding="utf-8")
    data = path.read_bytes()
    if {entry.key: entry.value for entry in onnx.ModelProto.FromString(data).metadata_props} == metadata:
        return False
    before = sha256(path)
    if json.loads(text)["files"][name] != before:
        raise SystemExit(f"{path} is not the file that its card lists")
    atomic_write(path, with_metadata(data, metadata))
    atomic_write(folder / CARD_FILE, text.replace(before, sha256(path)).encode())
    return True


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    given = parser.parse_args().folders or sorted(p.parent for r in (ROOT, WEIGHTS) for p in r.rglob(MODEL_FILE))
    for folder in given:
        print(f"{folder}: {'written' if describe(folder) else 'as it was'}")


if __name__ == "__main__":
    main()
