"""What each piece of realism in the rendered faces buys on photos.

    python benchmarks/realism.py --assets HEAD_ASSETS --data FOLDER --work FOLDER

Renders the same people with one piece left out at a time, trains swift on each for the same steps, and measures on the
development images (as `accuracy.py` does; FOLDER holds `aflw2000-3d-dev/`). `--work` keeps pictures and runs: stop it
and run it again, it goes on. Every row is one training, so differences of a few tenths may be chance: the row
"again" is the whole recipe once more with another seed of the training and shows how much.
"""

from __future__ import annotations

import argparse
from collections import deque
from pathlib import Path
from typing import Any

import common
from accuracy import summary
from rich.console import Console
from rich.table import Table

from canthus.evaluation.evaluate import evaluate, predict
from canthus.synth.recipe import SynthRecipe
from canthus.synth.render_jobs import SHARD_SIZE, render_shards, shard_path
from canthus.training.aligner import Aligner
from canthus.training.train import Recipe, train

SEED = 11
FEW, MANY = 1536, 5120  # faces of a row, and of the row that shows what more faces and steps give
LEFT_OUT: dict[str, dict[str, Any]] = {
    "whole": {},
    "no hair": {"hair": 0.0},
    "plain light": {"hdri": 0.0},
    "one colour behind": {"environment_backdrop": 0.0, "clutter_backdrop": 0.0},
    "perfect camera": dict.fromkeys(("tone", "cast", "low_resolution", "blur", "motion", "noise", "jpeg"), 0.0),
    "nothing in front": dict.fromkeys(("hands", "objects", "masks", "scarves", "glasses", "headwear"), 0.0),
}
AUGMENTED = {"colour": 0.0, "grey": 0.0, "blur": 0.0, "noise": 0.0}  # what training adds to "perfect camera"
COVERED = {"occlusion": 0.0}  # and to "nothing in front"


def row(
    name: str, changes: dict[str, Any], args: argparse.Namespace, count: int = FEW, steps: int = 500, seed: int = 0
) -> dict[str, float]:
    """Render, train, measure."""
    left_out = next((k for k, v in LEFT_OUT.items() if v == changes), name)
    faces = args.work / "faces" / left_out.replace(" ", "-")
    shards = [shard_path(faces, n) for n in range(-(-count // SHARD_SIZE))]
    deque(render_shards(faces, args.assets, SynthRecipe(seed=SEED, **changes), count, args.workers), maxlen=0)
    augment = {"perfect camera": AUGMENTED, "nothing in front": COVERED}.get(name, {})
    linked = args.work / "sets" / name.replace(" ", "-")  # the first shards alone
    linked.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        if not (linked / shard.name).exists():
            (linked / shard.name).symlink_to(shard.resolve())
    run = args.work / "runs" / name.replace(" ", "-")
    if not (run / "weights" / "card.json").exists():
        recipe = Recipe(faces=(str(linked),), steps=steps, batch=64, seed=seed, augment=augment, picture_every=0)
        deque(train(recipe, run), maxlen=0)
    photos = args.data / "aflw2000-3d-dev"
    result = summary(evaluate("aflw2000", photos, predict("aflw2000", photos, Aligner.load(run / "weights"))))
    print(f"{name}: {result['mean of bins']:.2f}", flush=True)
    return {"faces rendered": count, "steps of 64": steps, **{k: round(v, 3) for k, v in result.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("assets", "data", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    results = {name: row(name, changes, args) for name, changes in LEFT_OUT.items()}
    results["again"] = row("again", {}, args, seed=1)
    results["more"] = row("more", {}, args, MANY, 1500)
    table = Table("rendered faces", "0-30", "30-60", "60-90", "mean of bins", "GTE")
    for name, r in results.items():
        table.add_row(name, *(f"{r[k]:.2f}" for k in ("0-30", "30-60", "60-90", "mean of bins", "gte")))
    Console().print(table)
    print(common.write("realism", results))


if __name__ == "__main__":
    main()
