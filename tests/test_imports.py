"""The base install: what it must not need, and that importing it changes nothing in the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "canthus"
PHOTO = str(PACKAGE.parents[1] / "examples" / "astronaut.jpg")
# Parts that an extra is needed for; everything else is the base install.
EXTRAS = (
    "codecs.volumes", "data", "detection", "geometry.mesh", "geometry.raster", "io.yaml_config", "methods", "nn",
    "papers", "serve", "synth", "training",
)  # fmt: skip

BLOCK = """
import sys
BLOCKED = {"torch", "scipy", "cv2", "yaml", "trimesh", "onnx", "safetensors", "h5py", "moderngl", "OpenEXR",
           "accelerate", "tensorboard", "av", "matplotlib", "fastapi", "uvicorn", "prometheus_client"}

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not in the base install")

sys.meta_path.insert(0, Blocker)
"""


def modules() -> list[str]:
    """All modules of the package, without the package's name."""
    parts = [p.relative_to(PACKAGE).with_suffix("").parts for p in sorted(PACKAGE.rglob("*.py"))]
    return [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]


def is_extra(module: str) -> bool:
    return any(module == extra or module.startswith(extra + ".") for extra in EXTRAS)


def python(code: str, folder: Path) -> str:
    """Run code in a fresh interpreter inside an empty folder that is also its home; gives what it printed."""
    home = {"HOME": str(folder), "USERPROFILE": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**inherited, **home}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_list_of_extras_is_up_to_date():
    assert all(any(m == extra or m.startswith(extra + ".") for m in modules()) for extra in EXTRAS)


def test_every_module_of_the_base_install_imports_without_the_extras(tmp_path):
    base = [m for m in modules() if not is_extra(m) and m != "__main__"]
    assert {"inference.runtime", "cli", "commands.photos", "face.faces", "codecs"} <= set(base)
    names = ["canthus" + f".{m}" * bool(m) for m in base]
    python(f"{BLOCK}\nfrom importlib import import_module\nfor name in {names!r}: import_module(name)", tmp_path)


@pytest.mark.parametrize("extra", ["canthus.training.aligner", "trimesh"])
def test_the_block_of_these_tests_blocks(tmp_path, extra):
    pytest.importorskip("torch")
    code = f"try:\n    import {extra}\nexcept ImportError as error:\n    print(error)\nelse:\n    print('imported')"
    assert "is not in the base install" in python(BLOCK + code, tmp_path)


def test_a_photo_is_aligned_without_the_extras(tmp_path):
    code = f"""
import canthus
faces = canthus.load(threads=1).predict({PHOTO!r})
print(faces.xyz.shape, faces.mesh().vertices.ndim, faces.pose.euler().shape)
from typer.testing import CliRunner
from canthus.cli import app
result = CliRunner().invoke(app, ["align", {PHOTO!r}, "--csv", "--pts", "--out", "out"])
assert result.exit_code == 0, result.output
from PIL import Image
Image.open({PHOTO!r}).save("clip.gif", save_all=True, append_images=[Image.open({PHOTO!r})])
result = CliRunner().invoke(app, ["track", "clip.gif", "--overlay", "--out", "out"])
assert result.exit_code == 0, result.output
"""
    assert python(BLOCK + code, tmp_path).strip() == "(1, 68, 3) 3 (1, 3)"
    assert (tmp_path / "out" / "astronaut.json").exists()
    assert (tmp_path / "out" / "clip.overlay.gif").exists()


def test_weights_that_were_not_exported_say_what_they_need(tmp_path):
    folder = Path(__file__).parents[1] / "weights" / "cprfa-small"
    code = f"import canthus\ntry:\n    canthus.load({str(folder)!r})\nexcept canthus.CanthusError as e:\n    print(e)"
    said = python(BLOCK + code, tmp_path)
    assert "not exported to ONNX" in said and "needs torch: pip install" in said


CHANGES = """
import json, locale, logging, os, random, signal, sys, warnings
import numpy as np

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "hooks": [str(sys.excepthook), str(sys.displayhook)],
        "handlers": [str(h) for h in logging.getLogger().handlers] + [logging.getLogger().level],
        "warnings": [str(f) for f in warnings.filters],
        "random": hash(random.getstate()),
        "numpy errors": np.geterr(),
        "numpy print": str(np.get_printoptions()),
        "numpy random": str(np.random.get_state()),
    }

before = state()
import {modules}
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""


@pytest.mark.parametrize(
    ("modules", "changes"),
    [
        ("canthus, canthus.commands.photos, canthus.inference.runtime", []),
        ("canthus.cli", ["random"]),  # Rich draws numbers for its styles
    ],
)
def test_importing_changes_nothing(tmp_path, modules, changes):
    assert json.loads(python(CHANGES.replace("{modules}", modules), tmp_path)) == changes
    assert list(tmp_path.rglob("*")) == []  # neither here nor at home


def test_importing_changes_no_setting_of_torch(tmp_path):
    pytest.importorskip("torch")
    code = """
import torch

def state():
    return (
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.initial_seed(),
        torch.random.get_rng_state().tolist(), torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark,
    )

before = state()
import canthus, canthus.methods.swift, canthus.training.train
print(state() == before)
"""
    assert python(code, tmp_path).strip() == "True"


def test_slow_packages_wait_until_they_are_needed(tmp_path):
    code = "import sys, canthus, canthus.cli; print(*({'onnxruntime', 'trimesh', 'torch', 'scipy'} & set(sys.modules)))"
    assert python(code, tmp_path).strip() == ""
    code = "import sys, canthus; print(*({'numpy', 'PIL', 'rich'} & set(sys.modules)))"
    assert python(code, tmp_path).strip() == ""
    code = "import sys, canthus; canthus.Faces; canthus.Video; print('onnxruntime' in sys.modules)"
    assert python(code, tmp_path).strip() == "False"


def test_aligning_leaves_nothing_behind(tmp_path):
    # ONNX Runtime's telemetry would leave its identifier and its queue in the home folder.
    code = f"""
import os, canthus
canthus.load(threads=1).predict({PHOTO!r})
print('ORT_DISABLE_TELEMETRY' in os.environ)
"""
    assert python(code, tmp_path).strip() == "False"
    assert list(tmp_path.rglob("*")) == []
