"""canthus beside other systems, in one run: cost of one photo, and accuracy with their own detectors.

    python benchmarks/beside.py [--data FOLDER] [--peer PYTHON:ADAPTER[:MODEL] ...]

A peer is an adapter of `benchmarks/peers` and the interpreter of the environment that it is installed in, e.g.
`peers/bin/python:mediapipe_mesh`; canthus[formats] must be there, too. Each system does the bundled photo in a process
of its own, one after the other; ratios are theirs to ours: more than 1 is more than ours. FOLDER holds
`aflw2000-3d-dev/`; the peers' answers on it go to `--out`, and are not asked for again while they lie there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
from accuracy import COLUMNS, summary
from rich.console import Console
from rich.table import Table

import canthus
from canthus.evaluation.evaluate import evaluate, predict
from canthus.evaluation.predictions import Predictions

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
PEERS = Path(__file__).parent / "peers"
MEASURED = ("ms", "CPU ms", "cold start s", "peak MB", "installed MB")


def cost(python: str, adapter: str, model: str, one: bool) -> dict[str, Any]:
    """What `peers/cost.py` measures of an adapter, and its cold start: from the process to its first answer, the
    median of three."""
    command = [
        python,
        str(PEERS / "cost.py"),
        adapter,
        str(PHOTO),
        *(["--model", model] if model else []),
        *(["--one"] * one),
    ]
    cold, text = [], ""
    for _ in range(3):
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            ready = any(line == "ready\n" for line in process.stdout)
            cold.append(time.perf_counter() - begin)
            text = process.stdout.read() if ready and len(cold) == 3 else ""
            if len(cold) < 3:
                process.kill()
        if not ready:
            raise SystemExit(f"{' '.join(command)} gave no answer")
    return json.loads(text.splitlines()[-1]) | {"cold start s": round(float(np.median(cold)), 2)}


def costs(peers: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Ours and the peers', on one core and by default: what was measured, and its ratio to ours."""
    found = {}
    for title, one in (("one core", True), ("default", False)):
        rows = [cost(sys.executable, "ours", "", one)]
        for peer in peers:
            python, adapter, model = (peer.split(":") + [""])[:3]
            rows.append(cost(python, adapter, model, one))
        for row in rows:
            row["ratio to ours"] = {k: round(row[k] / rows[0][k], 2) for k in MEASURED}
        found[title] = rows
    return found


def accuracy(peers: list[str], folder: Path, out: Path) -> dict[str, dict[str, float]]:
    """Ours and the peers' on the development images, each with its own detector; means are over found faces."""
    out.mkdir(parents=True, exist_ok=True)
    answers = [predict("aflw2000", folder, canthus.load(), "detected")]
    for peer in peers:
        python, adapter, model = (peer.split(":") + [""])[:3]
        path = out / f"{adapter}.npz"
        if not path.exists():
            script = [python, str(PEERS / f"{adapter}.py"), "aflw2000", str(folder), "--out", str(path)]
            subprocess.run([*script, *(["--model", model] if model else [])], check=True)
        answers.append(Predictions.read(path))
    rows = {}
    for answer in answers:
        scores = evaluate("aflw2000", folder, answer)
        rows[answer.system] = {k: round(v, 4) for k, v in summary(scores).items()}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/peers"))
    parser.add_argument("--peer", action="append", default=[], metavar="PYTHON:ADAPTER[:MODEL]")
    given = parser.parse_args()
    results: dict[str, Any] = {"cost": costs(given.peer)}
    for title, rows in results["cost"].items():
        table = Table(title, *MEASURED)
        for row in rows:
            table.add_row(row["system"], *(f"{row[k]:g} ({row['ratio to ours'][k]:.2f})" for k in MEASURED))
        Console(width=160).print(table)
    folder = common.development(given.data)
    if folder:
        results["accuracy"] = accuracy(given.peer, folder, given.out)
        table = Table("NME %, own detector", *COLUMNS, "lost")
        for name, numbers in results["accuracy"].items():
            table.add_row(name, *(f"{numbers[c]:.2f}" for c in COLUMNS), str(numbers["missed"]))
        Console(width=160).print(table)
    print(common.write("beside", results))


if __name__ == "__main__":
    main()
