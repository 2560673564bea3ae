"""The full report of the default weights on development images of AFLW2000-3D: tables, curves and sweeps.

    python benchmarks/report.py --data FOLDER

FOLDER holds `aflw2000-3d-dev/`. Protocol: docs/benchmark.md, `aflw2000`, true boxes. The report's numbers go to
results/<version>/report.json and its charts, which show no photo, to results/<version>/report/.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import common

import canthus
from canthus.benchmark.report import png
from canthus.evaluate import evaluate, predict, write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data / "aflw2000-3d-dev"
    aligner = canthus.load()
    scores = evaluate("aflw2000", folder, predict("aflw2000", folder, aligner))
    with tempfile.TemporaryDirectory() as out:
        report = write_report(out, "aflw2000", scores, aligner)
    path = common.write("report", report.to_json())
    charts = path.with_suffix("")
    charts.mkdir(exist_ok=True)
    for name, chart in report.charts().items():
        (charts / f"{name}.png").write_bytes(png(chart))
    print(path)


if __name__ == "__main__":
    main()
