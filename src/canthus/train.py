"""The one training loop: a recipe in, a run folder with weights out.

What a step sees depends on (seed, step) alone, so a run that was stopped goes on exactly as if it had not been.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file

from canthus.aligner import Aligner, Stage, build, method_class
from canthus.data.augment import Augmentation, Augmenter
from canthus.data.datasets import StoredFaces
from canthus.errors import RecipeError
from canthus.outputs import atomic_write

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.csv"


@dataclass(frozen=True)
class Recipe:
    """Everything a run needs to know; a recipe file holds what differs from these defaults."""

    method: str = "swift"
    config: dict[str, Any] = field(default_factory=dict)  # of the method
    augment: dict[str, Any] = field(default_factory=dict)  # of data.augment.Augmentation
    faces: tuple[str, ...] = ()  # folders of rendered shards
    steps: int = 10000
    batch: int = 128
    rate: float = 2e-3  # peak learning rate of AdamW
    warm_up: int = 300  # steps
    decay: float = 1e-3  # weight decay
    clip: float = 5.0  # of the gradient's norm
    average: float = 0.998  # of the weights kept a step (EMA)
    save_every: int = 250  # steps
    bf16: bool = True  # autocast of the network; points are always computed in full precision
    seed: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(f.default, int | float) and not isinstance(value, int | float):
                raise RecipeError(f"`{f.name}` is {value!r}; a number is wanted (YAML reads 2e-3 as text: 2.0e-3)")
        _refuse_unknown("`augment`", self.augment, Augmentation)
        _refuse_unknown("`config`", self.config, method_class(self.method).Config)
        if not self.faces or isinstance(self.faces, str):
            raise RecipeError("a recipe needs `faces`: a list of one or more folders of rendered shards")
        for name in ("steps", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise RecipeError(f"`{name}` is {getattr(self, name)}; 1 or more is wanted")

    @classmethod
    def read(cls, path: str | Path, **overrides: Any) -> Recipe:
        """A recipe file (YAML); an unknown key is an error that names the nearest one."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise RecipeError(f"the recipe '{path}' cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise RecipeError(f"the recipe '{path}' is not a mapping of keys to values")
        values |= overrides
        _refuse_unknown(f"the recipe '{path}'", values, cls)
        faces = values.get("faces", ())
        return cls(**{**values, "faces": faces if isinstance(faces, str) else tuple(faces)})


def _refuse_unknown(where: str, values: dict[str, Any], options: type) -> None:
    """Raise `RecipeError` for a key that is no field of the dataclass `options`, with the nearest that is."""
    names = [f.name for f in fields(options)]
    for key in values:
        if key not in names:
            near = get_close_matches(str(key), names, 1)
            raise RecipeError(f"{where} has the unknown key '{key}'" + (f"; '{near[0]}'?" if near else ""))


def train(recipe: Recipe, out: str | Path) -> Iterator[dict[str, float]]:
    """Train into the folder `out`; yields the losses of each step and can be stopped at any of them.

    If `out` holds a checkpoint the run goes on from it. At the end `out/weights` holds the averaged weights.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "recipe.json", json.dumps(asdict(recipe), indent=2).encode())
    torch.manual_seed(recipe.seed)
    faces = StoredFaces(recipe.faces)
    aligner = build(recipe.method, recipe.config)
    augmenter = Augmenter(Augmentation(**recipe.augment), aligner.config.size, aligner.config.crop_scale)
    aligner.prepare(_batch(faces, augmenter, recipe, step=-1, count=2048).xyz)
    run = _Run(aligner, recipe)
    if (out / CHECKPOINT).exists():
        run.restore(load_file(out / CHECKPOINT))
    _cut_log(out / LOG, run.step)
    with open(out / LOG, "a", newline="") as log:
        writer = csv.writer(log)
        while run.step < recipe.steps:
            losses = run.advance(_batch(faces, augmenter, recipe, run.step, recipe.batch))
            if run.step == 1:
                writer.writerow(["step", *losses])
            writer.writerow([run.step, *(f"{v:.6g}" for v in losses.values())])
            if run.step % recipe.save_every == 0 or run.step == recipe.steps:
                log.flush()
                _save(out / CHECKPOINT, run.state())
            yield {"step": run.step, **losses}
    aligner.load_state_dict(run.average)
    aligner.save(out / "weights")


def _batch(faces: StoredFaces, augmenter: Augmenter, recipe: Recipe, step: int, count: int):
    """The batch of a step: faces without replacement within an epoch, augmented; a function of (seed, step)."""
    per_epoch = max(len(faces) // recipe.batch, 1)
    epoch, place = divmod(max(step, 0), per_epoch)
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(faces))
    index = np.resize(order, len(faces) + count)[place * recipe.batch :][:count]
    rng = torch.Generator().manual_seed((recipe.seed << 32) + step + 1)
    return augmenter(*faces.take(np.sort(index)), rng)


def _cut_log(path: Path, steps: int) -> None:
    """Keep the header and the lines of the first `steps` steps; what was logged after the checkpoint comes again."""
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        atomic_write(path, b"".join(lines[: steps + 1] if steps else []))


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary)
    temporary.replace(path)


class _Run:
    """Network, optimiser, averaged weights and step: all that a checkpoint holds."""

    def __init__(self, aligner: Aligner, recipe: Recipe):
        self.aligner, self.recipe, self.step = aligner, recipe, 0
        for p in aligner.parameters():
            if p.ndim == 4:  # 3D convolutions have five axes
                p.data = p.data.contiguous(memory_format=torch.channels_last)
        plain = [p for p in aligner.parameters() if p.ndim < 2]
        weights = [p for p in aligner.parameters() if p.ndim >= 2]
        groups = [{"params": weights, "weight_decay": recipe.decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.rate)
        self.average = {k: v.detach().clone() for k, v in aligner.state_dict().items()}

    def stage(self) -> Stage:
        """The stage that the present step belongs to."""
        stages = self.aligner.stages()
        total, reached = sum(s.share for s in stages), 0.0
        for stage in stages:
            reached += stage.share / total
            if self.step < reached * self.recipe.steps:
                return stage
        return stages[-1]

    def rate(self) -> float:
        """Learning rate: linear warm-up, then half a cosine down to 1 %."""
        r = self.recipe
        if self.step < r.warm_up:
            return r.rate * (self.step + 1) / r.warm_up
        done = (self.step - r.warm_up) / max(r.steps - r.warm_up, 1)
        return r.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    def advance(self, batch) -> dict[str, float]:
        """One step of the optimiser; returns the loss terms and their weighted sum."""
        stage = self.stage()
        self.aligner.train()
        for name, child in self.aligner.named_children():
            learns = not stage.trains or name in stage.trains
            child.requires_grad_(learns)
            if not learns:
                child.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        crops = batch.crops.contiguous(memory_format=torch.channels_last)
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            terms = self.aligner.training_terms(replace(batch, crops=crops), stage)
        terms = {k: v.float().mean() for k, v in terms.items()}
        total = torch.stack([weight * terms[name] for name, weight in stage.terms.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.aligner.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        keep = min(self.recipe.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.aligner.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)
        return {"loss": float(total.detach()), **{k: float(v.detach()) for k, v in terms.items()}}

    def state(self) -> dict[str, torch.Tensor]:
        """Everything as tensors by name."""
        out = {f"model.{k}": v for k, v in self.aligner.state_dict().items()}
        out |= {f"average.{k}": v for k, v in self.average.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            out |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        out["step"] = torch.tensor(self.step)
        return {k: v.detach().contiguous().clone() for k, v in out.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.aligner.load_state_dict(part("model."))
        self.average = part("average.")
        described = self.optimizer.state_dict()
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in part("optimizer.").items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**described, "state": moments})
        self.step = int(tensors["step"])
