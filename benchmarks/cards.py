"""Writes what was measured into the cards of all weights, from benchmarks/results.

    python benchmarks/cards.py

Run accuracy.py and report.py first; a card keeps what it says where nothing was measured.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import common
from accuracy import COLUMNS
from readme import record

from canthus.card import CARD_FILE, Card
from canthus.outputs import atomic_write

PROTOCOLS = {
    "true boxes": "300 images of AFLW2000-3D, original labels, true boxes, NME % of sqrt(w h)",
    "own detector": "300 images of AFLW2000-3D, original labels, own detector, NME % of sqrt(w h)",
    "renders, true boxes": f"{common.RENDERS} held-out renders, true boxes, NME % of sqrt(w h)",
}
CLIPS_PROTOCOL = f"{common.CLIPS} rendered clips of {common.FRAMES} frames, tracked, NME % of sqrt(w h)"


def rows(name: str, accuracy: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of a card."""
    found = []
    for title, protocol in PROTOCOLS.items():
        if row := accuracy.get(f"{name}, {title}"):
            numbers = {c: round(row[c], 2) for c in COLUMNS} | {"GTE %": round(row["gte"], 2), "lost": row["missed"]}
            found.append({"protocol": protocol, **numbers})
    if clips := record(f"{name}/clips/report"):
        tables = {t["title"]: t["rows"] for t in clips["results"]["tables"]}
        yaw, video = tables["by yaw of the pose"]["NME box"], tables["video"]["mean of videos, sums of counts"]
        numbers = {"mean of images": yaw["mean of images"], "jitter of error": video["jitter of error"],
                   "restarts": video["restarts"], "lost": clips["results"]["lost"]}  # fmt: skip
        found.append({"protocol": CLIPS_PROTOCOL, **{k: round(v, 2) for k, v in numbers.items()}})
    return found


def main() -> None:
    accuracy = record("accuracy")
    for name, folder in common.weights().items():
        if measured := rows(name, accuracy["results"] if accuracy else {}):
            card = replace(Card.read(folder), measured=measured)
            atomic_write(folder / CARD_FILE, card.to_json().encode())
            print(f"{name}: {json.dumps(measured[0])}")


if __name__ == "__main__":
    main()
