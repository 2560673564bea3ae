"""Examples and notebooks run as they are, on small inputs."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path, *arguments: object) -> str:
    """Run an example in a process of its own inside `folder`; gives what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    paths = os.pathsep.join([str(EXAMPLES.parent / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_example_is_tested_and_short():
    scripts = sorted(p.name for p in EXAMPLES.glob("*.py"))
    assert len(scripts) == 6
    for name in scripts:
        assert name in Path(__file__).read_text()
        assert len((EXAMPLES / name).read_text().splitlines()) < 40, name


def test_a_photo(tmp_path):
    assert "1 face(s)" in run("01_photo.py", tmp_path)
    assert (tmp_path / "overlay.png").stat().st_size > 1000


def test_a_video(tmp_path):
    lines = run("02_video.py", tmp_path).splitlines()
    assert len(lines) == 12 and all("face 0" in line for line in lines)  # one face keeps its number
    assert (tmp_path / "tracked.webp").exists()


def test_a_mesh(tmp_path):
    text = run("03_mesh.py", tmp_path)
    assert "vertices" in text and "mouthSmile" in text  # she smiles
    assert (tmp_path / "face.obj").exists()


@pytest.mark.slow
def test_training_on_own_photos(tmp_path):
    pytest.importorskip("torch")
    assert "step 20: loss" in run("04_train.py", tmp_path, 20)
    assert (tmp_path / "my-run" / "weights" / "card.json").exists()


def test_scoring_own_predictions(tmp_path, made_shards):
    pytest.importorskip("scipy")
    text = run("05_evaluate.py", tmp_path, made_shards)
    assert "rendered faces, 68 points, exact: my system, 24 faces, 0 not found; NME box" in text


@pytest.mark.slow
def test_a_sixth_method(tmp_path, made_shards):
    pytest.importorskip("torch")
    assert "step 3: distance" in run("sixth_method.py", tmp_path, made_shards, 3)
    assert json.loads((tmp_path / "tiny" / "weights" / "card.json").read_text())["method"] == "sixth_method"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run(tmp_path, monkeypatch, path):
    notebook = json.loads(path.read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4 and len(cells) >= 4
    assert all(not cell.get("outputs") for cell in notebook["cells"])  # small files, and nothing that is out of date
    shutil.copy(EXAMPLES / "astronaut.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "cells.py"
    script.write_text("\n".join(cells))
    runpy.run_path(str(script))


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_an_array_of_slurm_jobs(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "canthus").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m canthus "$@"\n')
    (tmp_path / "canthus").chmod(0o755)
    (tmp_path / "list.txt").write_text(f"{EXAMPLES / 'astronaut.jpg'}\n")
    job = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
    paths = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLES.parent / "src")}
    environment = {**os.environ, **paths, **job, "LIST": "list.txt", "OUT": "faces"}
    for task, told in (("0", "1 file, 1 face"), ("0", "1 skipped"), ("1", "0 files")):
        environment["SLURM_ARRAY_TASK_ID"] = task
        result = subprocess.run(
            ["bash", EXAMPLES / "slurm.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0 and told in result.stdout, result.stderr
    assert (tmp_path / "faces" / "part-00000.parquet").exists()


def test_the_job_for_kuberay_is_a_command_that_is_understood():
    yaml = pytest.importorskip("yaml")
    from canthus.cli import app

    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    verb = typer.main.get_command(app).commands[words[1]]
    assert words[0] == "canthus" and verb.make_context("align", words[2:]).params["ray"] == "auto"
