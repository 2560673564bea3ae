"""Writes the README's table from benchmarks/results, so that it holds what was measured and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import common

import canthus

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- measured -->", "<!-- /measured -->"


def table() -> str:
    folder = common.RESULTS / canthus.__version__
    accuracy = json.loads((folder / "accuracy.json").read_text())["results"]
    record = json.loads((folder / "speed.json").read_text())
    steps, machine = record["results"]["steps_ms"], record["machine"]
    lines = [
        "| weights, boxes | 0-30 | 30-60 | 60-90 | mean of bins | GTE | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in accuracy.items():
        bins = " | ".join(f"{row[c]:.2f}" for c in ("0-30", "30-60", "60-90", "mean of bins"))
        gte = f"{row['gte']:.2f}" if "gte" in row else ""
        lines.append(f"| {name} | {bins} | {gte} | {row.get('missed', 0)} |")
    lines += ["", "| milliseconds, median | " + " | ".join(steps) + " |", "|---|" + "---|" * len(steps)]
    for step in next(iter(steps.values())):
        lines.append(f"| {step} | " + " | ".join(f"{s[step]['median']:.2f}" for s in steps.values()) + " |")
    lines += ["", f"{machine['cores']} cores of {machine['cpu']}; cold start of `canthus align` on one photo "
              f"{record['results']['cold_start_s']} s."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    before, rest = README.read_text().split(START)
    README.write_text(before + START + "\n" + table() + "\n" + END + rest.split(END)[1])
