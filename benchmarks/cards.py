"""Writes what was measured into the cards of all weights, from benchmarks/results.

    python benchmarks/cards.py

Run accuracy.py, report.py and speed.py first. What was measured with another version of the weights is left out, and a
card keeps what it says where nothing was measured.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import common
from accuracy import COLUMNS, HIGH, MOVEMENTS, NAMED
from common import record
from report import row as row_of_report

from canthus.evaluation.protocols import HALVES
from canthus.io.card import CARD_FILE, Card
from canthus.io.outputs import atomic_write

PROTOCOLS = {
    "true boxes": "300 images of AFLW2000-3D, original labels, true boxes, NME % of sqrt(w h)",
    "own detector": "300 images of AFLW2000-3D, original labels, own detector, NME % of sqrt(w h)",
    "renders, true boxes": f"{common.RENDERS} held-out renders, true boxes, NME % of sqrt(w h)",
}
EXPRESSIONS_PROTOCOLS = {
    "expressions": f"{common.RENDERS} held-out renders of expressions, true boxes, visible eyes, mouths and brows",
    "extremes": f"{common.RENDERS} held-out renders of single expressions up to their ends, true boxes, visible parts",
}
GTES = {"gte": "GTE %, mean of images", "gte, bins": "GTE %, mean of bins", "gte, full set": "GTE %, as the full set"}
CLIPS_PROTOCOL = f"{common.CLIPS} rendered clips of {common.FRAMES} frames, tracked, NME % of sqrt(w h)"
OF_CLIPS = ("mean of images", "jitter of error", "restarts", "lost")


def rows(name: str, version: str) -> list[dict[str, Any]]:
    """The table of the card of weights, from what was measured with this version of them."""

    def measured(what: str) -> dict[str, Any]:
        found = record(what)
        return found if found and found["weights"].get(name) == version else {}

    found, accuracy, speed = [], measured("accuracy").get("results", {}), measured("speed")
    for system, note in ((name, ""), (f"{name} {HIGH}", ", accuracy high")):
        for title, protocol in PROTOCOLS.items():
            if row := accuracy.get(f"{system}, {title}"):
                numbers = {c: round(row[c], 2) for c in COLUMNS}
                numbers |= {f"{COLUMNS[3]}, {h}": round(v, 2) for h in HALVES if (v := row.get(f"{COLUMNS[3]}, {h}"))}
                numbers |= {title: round(row[key], 2) for key, title in GTES.items() if key in row}
                found.append({"protocol": protocol + note, **numbers, "lost": row["missed"]})
        told = [*MOVEMENTS, *(f"{n} correlation" for n in NAMED)]
        for title, protocol in EXPRESSIONS_PROTOCOLS.items():
            if row := accuracy.get(f"{system}, {title}"):
                found.append({"protocol": protocol + note, **{k: round(row[k], 2) for k in told if k in row}})
    if clips := measured(f"{name}/clips/report"):
        numbers = row_of_report(clips["results"])
        found.append({"protocol": CLIPS_PROTOCOL, **{k: round(numbers[k], 2) for k in OF_CLIPS}})
    if speed and (steps := speed["results"]["steps_ms"].get(f"{name}, 1 threads")):
        numbers = {
            "network, one face": round(steps["network"]["median"], 2),
            "photo to faces": round(steps["photo to faces"]["median"], 1),
        }
        found.append({"protocol": f"a photo of 512 px on one thread of {speed['machine']['cpu']}, ms", **numbers})
    return found


def main() -> None:
    for name, folder in common.weights().items():
        if measured := rows(name, Card.read(folder).version):
            for copy in {folder, common.RELEASED / name}:  # packaged weights may lie there for training, too
                if (copy / CARD_FILE).is_file():
                    card = replace(Card.read(copy), measured=measured)
                    atomic_write(copy / CARD_FILE, card.to_json().encode())
            print(f"{name}: {json.dumps(measured[0])}")


if __name__ == "__main__":
    main()
