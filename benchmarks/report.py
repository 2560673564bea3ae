"""The full report of all weights of the project: on development photos, on held-out renders and on rendered clips.

    python benchmarks/report.py --data FOLDER [--assets HEAD_ASSETS] [--weights NAME ...]

FOLDER holds `aflw2000-3d-dev/`; without it that set is left out. Renders and clips are made once, in `--held` and
`--clips`, from seeds that no training used. Protocols: docs/benchmark.md, `aflw2000` and `renders` with true boxes,
`clips` tracked. Weights for tracking are measured on clips, together with those that they go on from.

The numbers go to results/<version>/<weights>/<set>/report.json, the pages with their charts to `--out`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import common
from accuracy import COLUMNS
from rich.console import Console
from rich.table import Table

from canthus.evaluation.evaluate import evaluate, predict, write_predictions, write_report, write_scores
from canthus.inference.predictor import Predictor


def report(name: str, protocol: str, folder: Path, out: Path, aligner: Predictor, tracking: Predictor | None) -> dict:
    """Measure, write everything; the row of the summary."""
    begin = time.perf_counter()
    answers = predict(protocol, folder, aligner, "tracked" if protocol == "clips" else "true", tracking=tracking)
    predicted = time.perf_counter() - begin
    scores = evaluate(protocol, folder, answers)
    out = out / name / protocol
    write_predictions(out, answers)
    write_scores(out, scores)
    made = write_report(out, protocol, scores, aligner)
    seconds = time.perf_counter() - begin
    times = {"seconds": round(seconds, 1), "ms a face": round(1e3 * predicted / len(scores.pairs.found), 2)}
    common.write(f"{name}/{protocol}/report", made.to_json() | times)
    return row(made.to_json()) | times


def row(result: dict[str, Any]) -> dict[str, float]:
    """The few numbers of a report that its summary shows; percent, NME box."""
    tables = {t["title"]: t["rows"] for t in result["tables"]}
    yaw = tables["by yaw of the pose"]["NME box"]
    numbers = {c: yaw[c] for c in (*COLUMNS, "mean of images")}
    if "video" in tables:
        numbers |= {k: tables["video"]["mean of videos, sums of counts"][k] for k in ("jitter of error", "restarts")}
    return numbers | {"lost": result["lost"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--held", type=Path, default=Path("out/held"), help="held-out renders")
    parser.add_argument("--clips", type=Path, default=Path("out/clips"), help="rendered clips")
    parser.add_argument("--out", type=Path, default=Path("out/report"), help="for the pages")
    parser.add_argument("--weights", nargs="*", help="only these")
    given = parser.parse_args()
    sets = {"aflw2000": common.development(given.data), "renders": common.renders(given.held, given.assets)}
    clips = common.clips(given.clips, given.assets)
    every, rows = common.weights(), {}
    for name in given.weights or every:
        partner = common.tracks_for(every[name])
        if partner is None:
            aligner, tracking = common.load(every[name]), None
            for protocol, folder in sets.items():
                if folder:
                    rows[name, protocol] = report(name, protocol, folder, given.out, aligner, None)
        elif partner in every:
            aligner, tracking = common.load(every[partner]), common.load(every[name])
        else:
            print(f"{name}: no weights '{partner}' to go on from; left out")
            continue
        rows[name, "clips"] = report(name, "clips", clips, given.out, aligner, tracking)
        print(f"{name}: {sum(r['seconds'] for (n, _), r in rows.items() if n == name):.0f} s", flush=True)
    columns = list(dict.fromkeys(c for r in rows.values() for c in r))
    table = Table("NME box, %", "set", *columns)
    for (name, protocol), numbers in rows.items():
        cells = (numbers.get(c) for c in columns)
        table.add_row(name, protocol, *("" if v is None else f"{v:g}" for v in cells))
    Console(width=160).print(table)
    print(f"pages in {given.out.resolve()}")


if __name__ == "__main__":
    main()
