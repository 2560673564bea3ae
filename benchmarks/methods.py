"""Size and speed of every method, by recipe: parameters, multiply-adds and time a face on the CPU, untrained.

    OMP_NUM_THREADS=1 python benchmarks/methods.py

The variable, unlike torch's own setting, also tells NumPy, which fits head models.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

import canthus
from canthus.training.aligner import Aligner, build
from canthus.training.recipe import Recipe


def cost(aligner: Aligner, repeats: int) -> dict[str, float]:
    """Of one face: networks and what lies between them; the host's part, such as a fitted head, is in the time."""
    size = aligner.config.size
    crops = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    with FlopCounterMode(display=False) as counter:
        aligner.run(crops)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        aligner.run(crops)
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "parameters": sum(p.numel() for p in aligner.parameters()),
        "GMAC": round(counter.get_total_flops() / 2e9, 3),
        "ms": round(float(np.median(times)), 1),
    }


def main() -> None:
    threads = torch.get_num_threads()
    results: dict[str, Any] = {}
    table = Table("recipe", "crop, px", "parameters, M", "GMAC", f"ms a face, torch, {threads} threads")
    for path in sorted((Path(canthus.__file__).parent / "recipes").glob("*.yaml")):
        recipe = Recipe.read(path)
        torch.manual_seed(0)
        aligner = build(recipe.method, recipe.config)
        row = cost(aligner, 3 if "paper" in path.stem or "improved" in path.stem else 20)
        results[path.stem] = {"crop": aligner.config.size, **row}
        table.add_row(path.stem, str(aligner.config.size), f"{row['parameters'] / 1e6:.2f}", f"{row['GMAC']:.2f}",
                      f"{row['ms']:.1f}")  # fmt: skip
        del aligner
    Console().print(table)
    print(common.write("methods", {"threads": threads, "recipes": results}))


if __name__ == "__main__":
    main()
