"""Writes the README's tables from benchmarks/results, so that they hold what was measured and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import common
from accuracy import COLUMNS

import canthus
from canthus.weights import DEFAULT

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- measured -->", "<!-- /measured -->"
PUBLISHED = {  # what the papers say of their own networks, trained on sets that we do not have
    "part_heatmap": "3DFAW, test: GTE 4.56, CVGTCE 3.48",
    "jvcr": "AFLW2000-3D: 2.94, 3.46, 4.53, mean 3.64; GTE 7.28",
    "local_global": "AFLW2000-3D: mean 2.96",
    "pose_aware": "300-W full, inter-ocular: 2.77",
    "cprfa": "AFLW2000-3D: 3.12, 3.62, 5.40, mean 4.05",
}


def record(what: str) -> dict[str, Any] | None:
    """A file of results, or None if it was not measured."""
    path = common.RESULTS / canthus.__version__ / f"{what}.json"
    return json.loads(path.read_text()) if path.exists() else None


def lines(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown, and an empty line."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def accuracy(results: dict[str, Any], others: dict[str, Any]) -> list[str]:
    rows = []
    for name, row in (results | {f"{system}, own detector": r for system, r in others.items()}).items():
        gte = f"{row['gte']:.2f}" if "gte" in row else ""
        rows.append([name, *(f"{row[c]:.2f}" for c in COLUMNS), gte, str(row["missed"])])
    return lines(["NME, %: weights, boxes", *COLUMNS, "GTE", "lost"], rows)


def methods(costs: dict[str, Any], results: dict[str, Any]) -> list[str]:
    def size(recipe: str) -> str:
        return f"{costs[recipe]['parameters'] / 1e6:.1f} M, {costs[recipe]['GMAC']:.1f}" if recipe in costs else ""

    rows = []
    for method, said in PUBLISHED.items():
        ours = results.get(f"{method}-small, true boxes")
        measured = ", ".join(f"{ours[c]:.2f}" for c in COLUMNS[:3]) + f", mean {ours[COLUMNS[3]]:.2f}" if ours else ""
        small = f"{method}-small-synth"
        time = f"{costs[small]['ms']:.0f}" if small in costs else ""
        rows.append([f"`{method}`", said, size(f"{method}-paper"), measured, size(small), time])
    head = ["method", "the paper says", "its network, GMAC", "ours (`-small`), 300 images", "our network, GMAC",
            "ms, torch, 1 thread"]  # fmt: skip
    return lines(head, rows)


def speed(steps: dict[str, Any]) -> list[str]:
    shown = {name: s for name, s in steps.items() if name.startswith(DEFAULT)}
    rows = [[step, *(f"{s[step]['median']:.2f}" for s in shown.values())] for step in next(iter(shown.values()))]
    return lines(["milliseconds, median", *shown], rows)


def beside(costs: dict[str, Any]) -> list[str]:
    rows = []
    for title, systems in costs.items():
        for system in systems:
            numbers = [f"{system[k]:g} ({ratio:.1f}x)" for k, ratio in system["ratio to ours"].items()]
            rows.append([f"{system['system']}, {title}", *numbers])
    return lines(["one photo, own detector (times ours)", *next(iter(costs.values()))[0]["ratio to ours"]], rows)


def tables() -> str:
    measured, timed, costs, systems = (record(what) for what in ("accuracy", "speed", "methods", "beside"))
    assert measured and timed
    ours, found = measured["results"], systems["results"].get("accuracy", {}) if systems else {}
    text = accuracy(ours, {k: v for k, v in found.items() if not k.startswith(DEFAULT)})
    if costs:
        text += methods(costs["results"]["recipes"], ours)
    text += speed(timed["results"]["steps_ms"])
    if systems:
        text += beside(systems["results"]["cost"])
    machine, seconds = timed["machine"], timed["results"]["cold_start_s"]
    cores = f"{machine['cores']} cores of {machine['cpu']}"
    return "\n".join([*text, f"{cores}; cold start of `canthus align` on one photo {seconds} s."])


if __name__ == "__main__":
    before, rest = README.read_text().split(START)
    README.write_text(before + START + "\n" + tables() + "\n" + END + rest.split(END)[1])
