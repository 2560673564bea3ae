"""Writes the measured tables of README.md, docs/benchmark.md, docs/models.md, docs/scale.md and docs/guide/serve.md,
from benchmarks/results and the cards.

    python tools/readme.py

So the pages hold what was measured and nothing else. Each table stands between <!-- NAME --> and <!-- /NAME -->.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import common  # noqa: E402
from accuracy import COLUMNS  # noqa: E402

from canthus.io.card import Card  # noqa: E402
from canthus.weights import DEFAULT  # noqa: E402

PUBLISHED = {  # figures of the papers, for their own networks, trained on sets that we do not have
    "part_heatmap": "3DFAW, test: GTE 4.56, CVGTCE 3.48",
    "jvcr": "AFLW2000-3D: 2.94, 3.46, 4.53, mean 3.64; GTE 7.28",
    "local_global": "AFLW2000-3D: mean 2.96",
    "pose_aware": "300-W full, inter-ocular: 2.77",
    "cprfa": "AFLW2000-3D: 3.12, 3.62, 5.40, mean 4.05",
}


def lines(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown, and an empty line."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def accuracy(results: dict[str, Any], others: dict[str, Any]) -> list[str]:
    """Errors of all weights and of other systems."""
    rows = []
    for name, row in (results | {f"{system}, own detector": r for system, r in others.items()}).items():
        gte = f"{row['gte']:.2f}" if "gte" in row else ""
        rows.append([name, *(f"{row[c]:.2f}" for c in COLUMNS), gte, str(row["missed"])])
    return lines(["NME, %: weights, boxes", *COLUMNS, "GTE", "lost"], rows)


def methods(costs: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """The published methods: the paper's figures beside ours."""

    def size(recipe: str) -> str:
        return f"{costs[recipe]['parameters'] / 1e6:.1f} M, {costs[recipe]['GMAC']:.1f}" if recipe in costs else ""

    rows = []
    for method, said in PUBLISHED.items():
        ours = results.get(f"{method}-small, true boxes")
        measured = ", ".join(f"{ours[c]:.2f}" for c in COLUMNS[:3]) + f", mean {ours[COLUMNS[3]]:.2f}" if ours else ""
        small = f"{method}-small-synth"
        time = f"{costs[small]['ms']:.0f}" if small in costs else ""
        rows.append([f"`{method}`", said, size(f"{method}-paper"), measured, size(small), time])
    head = ["method", "the paper says", "its network, GMAC", "ours (`-small`), 300 images",
            "network of its recipe, GMAC", "ms, torch, 1 thread"]  # fmt: skip
    return lines(head, rows)


def speed(steps: dict[str, Any]) -> list[str]:
    """Milliseconds of the steps of a photo."""
    shown = {name: s for name, s in steps.items() if name.startswith(DEFAULT)}
    rows = [[step, *(f"{s[step]['median']:.2f}" for s in shown.values())] for step in next(iter(shown.values()))]
    return lines(["milliseconds, median", *shown], rows)


def beside(costs: dict[str, Any]) -> list[str]:
    """The cost of one photo, ours and that of other systems."""
    rows = []
    for title, systems in costs.items():
        for system in systems:
            numbers = [f"{system[k]:g} ({ratio:.1f}x)" for k, ratio in system["ratio to ours"].items()]
            rows.append([f"{system['system']}, {title}", *numbers])
    return lines(["one photo, own detector (times ours)", *next(iter(costs.values()))[0]["ratio to ours"]], rows)


def peers(systems: dict[str, Any]) -> list[str]:
    """The short comparison: accuracy with each system's own detector, and the cost of one photo on one core."""
    costs = {cost["system"]: cost for cost in systems["cost"]["one core"]}
    rows = []
    for name, cost in costs.items():
        row = systems["accuracy"].get(name.removeprefix("canthus, "))
        if row:
            numbers = [f"{row['mean of bins']:.2f}", f"{row['missed']} of {row['faces']}"]
            rows.append([name, *numbers, f"{cost['ms']:.1f}", str(cost["peak MB"]), str(cost["installed MB"])])
    return lines(["system", "NME, %", "not found", "ms per photo", "peak memory, MB", "installed, MB"], rows)


def peer_bins(systems: dict[str, dict[str, float]]) -> list[str]:
    """Accuracy by bins of yaw with each system's own detector, over the faces that it found."""
    rows = [[name, *(f"{row[c]:.2f}" for c in COLUMNS), f"{row['missed']} of {row['faces']}"]
            for name, row in systems.items()]  # fmt: skip
    return lines(["NME, % (degrees of yaw)", *COLUMNS, "not found"], rows)


def models() -> list[str]:
    """A section for each weights folder, from its card."""
    text = []
    for name, folder in common.weights().items():
        card = Card.read(folder)
        where = "in the package" if folder.parent == common.find(DEFAULT).parent else f"`weights/{name}`"
        use = "commercial use allowed" if card.commercial_use else "no commercial use"
        size = sum((folder / file).stat().st_size for file in card.files) / 1e6
        text += [
            f"## {name}", "",
            f"Version {card.version}, method `{card.method}`, {where}, {size:.1f} MB. "
            f"Licence: {card.licence}; {use}.", "",
            f"Training data: {card.training_data}", "",
        ]  # fmt: skip
        if card.measured:
            shown = [
                [r["protocol"], ", ".join(f"{k} {v}" for k, v in r.items() if k != "protocol")] for r in card.measured
            ]
            text += lines(["protocol", "result"], shown)
        if card.limits:
            text += ["Limits:", "", *(f"- {limit}" for limit in card.limits), ""]
    return text


BEFORE, CORE = "before, parquet", "one core, parquet"  # ways of benchmarks/throughput.py
PHOTOS = 10**8  # of the bill in docs/scale.md
MACHINES, CORES, PRICE = 8, 64, 0.04  # machines, cores of each, and the price of a core for an hour


def photo_steps(found: dict[str, Any]) -> list[str]:
    """Milliseconds of CPU of the steps of a photo, of each size."""
    steps, ways = found["steps"], found["ways"]

    def row(title: str, values: list[float], form: str = ".3g") -> list[str]:
        return [title, *(format(value, form) for value in values)]

    cost = [way[CORE]["cpu_ms"] for way in ways.values()]
    rows = [row(step, [size[step]["cpu_ms"] for size in steps.values()]) for step in next(iter(steps.values()))]
    rows.append(row("**all, to Parquet**", cost))
    rows.append(row("photos a second a core", [1e3 / ms for ms in cost], ".2g"))
    rows.append(
        row("all, one after the other, networks on two threads", [way[BEFORE]["cpu_ms"] for way in ways.values()])
    )
    return lines(["ms of CPU", *steps], rows)


def bill(found: dict[str, Any]) -> list[str]:
    """What PHOTOS photos take, as products of the numbers of one."""
    hours = [PHOTOS * way[CORE]["cpu_ms"] / 3.6e6 for way in found["ways"].values()]
    size = PHOTOS * found["bytes_a_face"]["parquet"] / 1e9
    rows = [
        ["core-hours", *(f"{h:.0f}" for h in hours)],
        [f"days on {MACHINES} machines of {CORES} cores", *(f"{h / MACHINES / CORES / 24:.2f}" for h in hours)],
        [f"cost at {PRICE} a core-hour", *(f"{PRICE * h:.0f}" for h in hours)],
        ["Parquet, 12208 parts", *(f"{size:.0f} GB" for _ in hours)],
    ]
    return lines(["", *found["ways"]], rows)


def core_ratios(found: dict[str, Any]) -> list[str]:
    """Photos a second of lanes and workers over one lane."""
    rows = [[way, f"{r['median']:.2f}", f"{r['least']:.2f} to {r['most']:.2f}"] for way, r in found["speed_up"].items()]
    return lines(["512 x 512", "times one lane, median", "range of the rounds"], rows)


def many_photos(found: dict[str, Any]) -> list[str]:
    """Time and memory over the number of photos of a folder."""
    rows = []
    for one in found["folders"]:
        memory = [mb for curve in one["mb"] for _, mb in curve]
        numbers = one["photos"], one["faces"], one["list_us"], one["cpu_ms"], one["start_mb"], memory[-1]
        rows.append([*map(str, numbers[:4]), *(f"{mb:.0f}" for mb in (*numbers[4:], one["peak_mb"]))])
    head = ["photos", "faces", "listing, us of CPU a photo", "all, ms of CPU a photo", "MB at the start",
            "MB at the end", "peak, MB"]  # fmt: skip
    return lines(head, rows)


def load_test(found: dict[str, Any]) -> list[str]:
    """The server under load."""
    rows = []
    for clients, row in found["clients"].items():
        answers, times = row["answers"], [f"{row[name]:.0f}" for name in ("p50 ms", "p95 ms", "p99 ms")]
        others = sum(n for what, n in answers.items() if what.startswith(("malformed", "slow", "gone")))
        wrong = answers["sent"] - answers.get("right", 0)
        numbers = answers["sent"], wrong, others
        rows.append([clients, *times, f"{row['requests/s']:.1f}", *map(str, numbers), f"{row['memory MB']:.0f}"])
    head = ["clients", "p50, ms", "p95, ms", "p99, ms", "requests/s", "sent", "lost, refused or mixed up",
            "other requests beside", "memory, MB"]  # fmt: skip
    note = f"A clip: {found['clip frames/s']:.0f} frames/s. The load of the machine before was {found['load before']}."
    return [*lines(head, rows), note]


def tables() -> dict[str, str]:
    """The text of each table by its name."""
    measured, timed, costs, systems = (common.record(what) for what in ("accuracy", "speed", "methods", "beside"))
    assert measured and timed
    ours, found = measured["results"], systems["results"].get("accuracy", {}) if systems else {}
    machine, seconds = timed["machine"], timed["results"]["cold_start_s"]
    cores = f"{machine['cores']} cores of {machine['cpu']}"
    text = {
        "accuracy": accuracy(ours, {k: v for k, v in found.items() if not k.startswith(DEFAULT)}),
        "methods": methods(costs["results"]["recipes"], ours) if costs else [],
        "speed": [*speed(timed["results"]["steps_ms"]),
                  f"{cores}; cold start of `canthus align` on one photo {seconds} s."],
        "cost": beside(systems["results"]["cost"]) if systems else [],
        "peers": peers(systems["results"]) if systems else [],
        "bins": peer_bins(found),
        "models": models(),
    }  # fmt: skip
    scale = {"photo": ("throughput", photo_steps), "bill": ("throughput", bill), "cores": ("cores", core_ratios),
             "many": ("many", many_photos), "load": ("serve", load_test)}  # fmt: skip
    for name, (what, table) in scale.items():
        found = common.record(what)
        text[name] = table(found["results"]) if found else ["Not measured yet."]
    return {name: "\n".join(rows).strip() for name, rows in text.items()}


def filled(page: str, texts: dict[str, str]) -> str:
    """A page with the tables between its marks replaced."""
    for name, text in texts.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start in page:
            before, rest = page.split(start)
            page = f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    return page


PAGES = ("README.md", "docs/benchmark.md", "docs/models.md", "docs/scale.md", "docs/guide/serve.md")

if __name__ == "__main__":
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(), tables()))
