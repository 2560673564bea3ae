"""Training of the face detector: a recipe in, a run folder with weights out.

The pictures are composites, drawn once into the run folder and then shown many times. What a step sees depends on
(seed, step) alone, and a run that was stopped goes on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from canthus.decode import decoding, fits, read_bytes
from canthus.detection.dataset import PART, Composites, draw_composites
from canthus.detection.export import export_detector
from canthus.detection.loss import FacesTruth, loss_terms
from canthus.detection.network import STRIDES, DetectorNetwork, load_network
from canthus.errors import RecipeError
from canthus.io.outputs import atomic_write, make_folder, remove_leftovers
from canthus.io.yaml_config import read_keys, refuse_unknown
from canthus.training import monitor
from canthus.training.checkpoint import pack, unpack
from canthus.training.recipe import as_json, refuse_changes
from canthus.training.schedule import OptimizerSpan
from canthus.training.train import CHECKPOINT, RECIPE, WEIGHTS, move_average, optimizer_of

SHIPPED = Path(__file__).with_name("detector.yaml")
WEIGHTS_FILE = "detector.safetensors"
COMPOSITES = "composites"
TERMS = {"score": 1.0, "box": 1.5, "upright": 0.3, "up": 0.5}  # of the loss, and their weights


@dataclass(frozen=True)
class DetectorRecipe:
    """How a detector is trained.

    heads: folders of renders with regions (`canthus synth --set maps=true`). environments: a folder of .exr to stand
    behind them, photos: a folder of pictures without faces. composites: pictures to draw, a multiple of 256. side: of
    a picture, px, a multiple of 32. weights: a file `detector.safetensors` to start from, which also mines pictures
    without faces that it takes for some. warmup_steps, final_lr_ratio, weight_decay, grad_clip, ema_decay: as of other
    recipes. Raises `RecipeError` for a value of another type or out of range.
    """

    heads: tuple[str, ...] = ()
    environments: str | None = None
    photos: str | None = None
    weights: str | None = None
    composites: int = 15360
    side: int = 320
    steps: int = 12000
    batch: int = 32
    lr: float = 2e-3
    warmup_steps: int = 200
    final_lr_ratio: float = 0.02
    weight_decay: float = 0.02
    grad_clip: float = 5.0
    ema_decay: float = 0.998
    workers: int = 2
    seed: int = 0
    save_every: int = 250

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if not fits(getattr(self, name), kind):
                raise RecipeError(f"`{name}` is {getattr(self, name)!r}; {kind} is wanted")
        if self.composites % PART or self.side % STRIDES[-1] or min(self.composites, self.side, self.batch) <= 0:
            raise RecipeError(f"want composites in multiples of {PART}, a side in multiples of {STRIDES[-1]}, a batch")

    @classmethod
    def read(cls, path: str | Path | None, **overrides: Any) -> DetectorRecipe:
        """A recipe file (YAML), or that of the shipped detector; overrides replace what it says. Raises
        `RecipeError`."""
        values = read_keys(SHIPPED if path is None else path) | overrides
        refuse_unknown("a recipe of a detector", values, [f.name for f in fields(cls)])
        if isinstance(values.get("heads"), list):
            values["heads"] = tuple(values["heads"])
        return cls(**values)


def draw(recipe: DetectorRecipe, out: str | Path) -> Iterator[int]:
    """Draw the composites of a run that are missing; yields the number of those that are there."""
    sources = recipe.heads, recipe.environments, recipe.photos, recipe.weights
    parts = recipe.composites // PART
    for done in draw_composites(Path(out, COMPOSITES), sources, parts, recipe.side, recipe.seed, recipe.workers):
        yield done * PART


def train_detector(recipe: DetectorRecipe, out: str | Path) -> Iterator[dict[str, Any]]:
    """Train on the composites that `draw` left in `out`; yields each step as it is done.

    At the end `out/detector.safetensors` holds the averaged weights, and `out/weights` what runs them. Raises
    `RecipeError` if `out` began with another recipe, for damaged files, and where the loss is not finite.
    """
    out = make_folder(out)
    remove_leftovers(out)
    resumed = os.path.exists(out / CHECKPOINT)
    if resumed:
        refuse_changes(recipe, out / RECIPE)
    atomic_write(out / RECIPE, as_json(recipe).encode())
    composites = Composites(out / COMPOSITES, recipe.composites // PART)
    run = _Run(recipe)
    if recipe.weights is not None:
        run.start_from(recipe.weights)
    if resumed:
        with decoding(RecipeError, f"the checkpoint '{out / CHECKPOINT}' does not fit the recipe"):
            run.restore(load(read_bytes(out / CHECKPOINT)))
    monitor.note_start(out, step=run.step, composites=recipe.composites)
    log = monitor.Log(out, list(TERMS), run.step, False)

    def fetch(step: int) -> tuple[Tensor, FacesTruth]:
        return composites.batch(np.random.default_rng([recipe.seed, step]), recipe.batch)

    with ThreadPoolExecutor(1, "composites") as reader:
        try:
            ahead = reader.submit(fetch, run.step)
            while run.step < recipe.steps:
                pictures, faces = ahead.result()
                ahead = reader.submit(fetch, run.step + 1)
                row = run.advance(pictures, faces)
                log.write(row)
                if run.step == recipe.steps or run.step % recipe.save_every == 0:
                    log.flush()
                    atomic_write(out / CHECKPOINT, save(run.state()))
                yield row
        finally:
            log.close()
    atomic_write(out / WEIGHTS_FILE, save({k: v.contiguous() for k, v in run.ema.items()}))
    export_detector(out / WEIGHTS_FILE, out / WEIGHTS, json.dumps(asdict(recipe)))


class _Run:
    """Network, optimiser, averaged weights and step: the content of a checkpoint."""

    def __init__(self, recipe: DetectorRecipe):
        torch.manual_seed(recipe.seed)
        self.recipe, self.step = recipe, 0
        self.network = DetectorNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.span = OptimizerSpan(
            0, 0, recipe.steps, "adamw", recipe.lr, recipe.warmup_steps, "cosine", recipe.final_lr_ratio, (),
            recipe.weight_decay,
        )  # fmt: skip
        self.optimizer = optimizer_of(self.network, self.span)

    def start_from(self, weights: str) -> None:
        """Take the weights of another run. Raises `WeightsError`."""
        self.network.load_state_dict(load_network(weights).state_dict())
        self.ema = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def advance(self, pictures: Tensor, faces: FacesTruth) -> dict[str, Any]:
        """One step of the optimiser."""
        lr = self.span.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        terms = loss_terms(self.network(pictures), faces, *pictures.shape[1:3])
        total = torch.stack([weight * terms[name] for name, weight in TERMS.items()]).sum()
        if not math.isfinite(float(total.detach())):
            raise RecipeError(f"the loss of step {self.step + 1} is not finite: a lower `lr` or `grad_clip` may help")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        self.step += 1
        move_average(self.ema, self.network, min(self.recipe.ema_decay, self.step / (self.step + 10)))
        losses = {name: float(value.detach()) for name, value in terms.items()}
        return {"step": self.step, "stage": "detector", "lr": lr, "loss": float(total.detach()), **losses}

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds."""
        return pack(self.network, self.ema, self.optimizer) | {"step": torch.tensor(self.step)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from the tensors of `state`."""
        self.ema, self.step = unpack(tensors, self.network, self.optimizer), int(tensors["step"])
