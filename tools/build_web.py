"""Builds web/dist, the page that finds faces in the browser, from web/ and what `npm ci` put into web/node_modules.

    make web

Everything that the page needs is in web/dist, and any web server can give it out. `canthus serve` gives out its own
weights in place of the copies here, which the wheel does not have.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from canthus.face.morphable import MorphableModel
from canthus.serve import PAGE_WEIGHTS
from canthus.weights import ROOT as WEIGHTS

ROOT = Path(__file__).parents[1]
WEB = ROOT / "web"

PACKAGES = {  # name that our modules import -> package, its files, the module among them
    "onnxruntime-web": ("dist", ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")),
    "three": ("build", ("three.module.js", "three.core.js")),
}
HOLDERS = {"onnxruntime-web": "Microsoft Corporation"}  # of packages that bring no file with their licence


def build(dist: Path) -> None:
    """Write the page into `dist`, which is made anew. Raises `SystemExit` with a sentence where a part is missing."""
    missing = [name for name in PACKAGES if not (WEB / "node_modules" / name).is_dir()]
    if missing:
        raise SystemExit(f"no {' and '.join(missing)} in web/node_modules: run `npm ci` in web")
    missing = [name for name in PAGE_WEIGHTS.values() if not (WEIGHTS / name / "model.onnx").is_file()]
    if missing:
        raise SystemExit(f"no weights '{missing[0]}' in {WEIGHTS}: the page needs their network")
    shutil.rmtree(dist, ignore_errors=True)
    (dist / "vendor").mkdir(parents=True)
    notices = [write_vendor(dist / "vendor", name, *PACKAGES[name]) for name in PACKAGES]
    (dist / "vendor" / "LICENSES.txt").write_text("\n\n".join(notices), encoding="utf-8")
    for source in sorted(WEB.iterdir()):
        if source.suffix in (".html", ".css", ".js"):
            (dist / source.name).write_text(browser_imports(source.read_text(encoding="utf-8")), encoding="utf-8")
    for folder, name in PAGE_WEIGHTS.items():
        (dist / "models" / folder).mkdir(parents=True)
        for file in ("card.json", *json.loads((WEIGHTS / name / "card.json").read_text(encoding="utf-8"))["files"]):
            shutil.copyfile(WEIGHTS / name / file, dist / "models" / folder / file)
    about, data = head_files(MorphableModel.default())
    (dist / "models" / "head.json").write_text(json.dumps(about), encoding="utf-8")
    (dist / "models" / "head.bin").write_bytes(data)
    shutil.copyfile(ROOT / "examples" / "astronaut.jpg", dist / "astronaut.jpg")


def browser_imports(text: str) -> str:
    """A module with addresses in place of the names of packages, which only Node and bundlers find."""
    for name, (_, files) in PACKAGES.items():
        text = text.replace(f'from "{name}"', f'from "./vendor/{files[0]}"')
    return text


def write_vendor(folder: Path, name: str, inside: str, files: tuple[str, ...]) -> str:
    """Copy the files of a package; its name, version and licence as text."""
    package = WEB / "node_modules" / name
    for file in files:
        shutil.copyfile(package / inside / file, folder / file)
    about = json.loads((package / "package.json").read_text(encoding="utf-8"))
    licence = package / "LICENSE"
    terms = licence.read_text(encoding="utf-8") if licence.is_file() else f"Copyright (c) {HOLDERS[name]}\n\n{MIT}"
    return f"{name} {about['version']}, licence {about['license']}\n\n{terms}"


def head_files(model: MorphableModel) -> tuple[dict, bytes]:
    """What web/head.js reads of a head model.

    The first is JSON: numbers of vertices and triangles, names of the expressions, the unit of each one's movement in
    mm, and for each part of the head its first triangle and the one after its last. The second: the mean (V,3) float32
    in mm; the movements (E,V,3) int16 in their units; the triangles (T,3) uint16; little-endian.
    """
    scales = np.abs(model.expression).max(axis=(1, 2)) / 32767
    moves = np.rint(model.expression / scales[:, None, None])
    about = {
        "vertices": len(model.mean),
        "triangles": len(model.triangles),
        "expressions": model.expression_names,
        "scales": scales.astype(float).tolist(),
        "parts": model.card["triangle_ranges"],
    }
    arrays = model.mean.astype("<f4"), moves.astype("<i2"), model.triangles.astype("<u2")
    return about, b"".join(array.tobytes() for array in arrays)


MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of
the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO
THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


if __name__ == "__main__":
    build(WEB / "dist")
    size = sum(file.stat().st_size for file in (WEB / "dist").rglob("*") if file.is_file())
    print(f"web/dist: {size / 1e6:.1f} MB", file=sys.stderr)
