"""The one training loop: a recipe in, a run folder with weights out.

What a step sees depends on (seed, step) alone, so a run that was stopped goes on exactly as if it had not been. One
process or many (`accelerate launch`), CPU or GPU: every process takes its share of each batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from canthus.data.augment import Augmentation, Augmenter
from canthus.data.sample import FaceBatch
from canthus.data.sources import FaceMix, Part, batch_of
from canthus.errors import RecipeError
from canthus.face.faces import Alignment
from canthus.io import charts
from canthus.io.outputs import atomic_write
from canthus.training import monitor
from canthus.training.aligner import Aligner, Stage, build
from canthus.training.monitor import LOG
from canthus.training.recipe import Recipe, as_json, refuse_changes
from canthus.training.schedule import Leg, Stretch, at, plan

__all__ = ["CHECKPOINT", "LOG", "Recipe", "train"]

CHECKPOINT = "checkpoint.safetensors"
RECIPE = "recipe.json"
PICTURES = "pictures"
CURVE = "curve.png"
SHOWN = 8  # faces in a picture


def train(recipe: Recipe, out: str | Path) -> Iterator[dict[str, Any]]:
    """Train into the folder `out`; yields each step as it is done and can be stopped at any of them.

    A step is its number from 1, the name of its stage, the rate, how many faces it took, the loss and its terms. If
    `out` holds a checkpoint the run goes on from it; raises `RecipeError` if it began with another recipe. At the end
    `out/weights` holds the averaged weights; batch statistics are averaged with them, not measured again.
    """
    out = Path(out)
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    torch.manual_seed(recipe.seed)
    aligner = build(recipe.method, recipe.config)
    stretches = plan(recipe, aligner.stages())
    going_on = (out / CHECKPOINT).exists()
    if going_on:
        refuse_changes(recipe, out / RECIPE)
    size, crop_scale = aligner.config.size, aligner.config.crop_scale
    faces = FaceMix(recipe.faces, size, crop_scale, recipe.seed, accelerator.device)
    try:
        weights = aligner.sampling_weights(faces.xyz) if len(faces) else None
        if weights is not None:
            faces.weigh(weights)
        augmenter = Augmenter(Augmentation(**recipe.augment), size, crop_scale, aligner.card.mean_shape)
        first = faces.fetch(0, 256 if faces.live else 2048, step=-1)
        aligner.prepare(batch_of(first, augmenter, _generator(recipe, -1, 0, torch.device("cpu"))).xyz)
        if recipe.weights:
            _copy_weights(recipe.weights, aligner)
        run = _Run(aligner, recipe, stretches, accelerator)
        if going_on:
            run.restore(_read(out / CHECKPOINT))
        yield from _steps(run, faces, augmenter, out)
    finally:
        faces.close()


def _steps(run: _Run, faces: FaceMix, augmenter: Augmenter, out: Path) -> Iterator[dict[str, Any]]:
    """The steps that are left, then the weights."""
    recipe, accelerator = run.recipe, run.accelerator
    main, rank, world = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    log = None
    if main:
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        for left in out.rglob(".*.part"):  # of a save that was killed
            left.unlink()
        atomic_write(out / RECIPE, as_json(recipe).encode())
        monitor.note_start(out, step=run.step, faces=len(faces), processes=world, device=str(accelerator.device))
        names = list(dict.fromkeys(name for s in run.stretches for name in s.stage.terms))
        log = monitor.Log(out, names, run.step, recipe.tensorboard)

    def fetch(step: int) -> list[Part]:
        stretch = at(run.stretches, step)
        return faces.fetch(stretch.drawn(step), stretch.batch, step, rank, world)

    with ThreadPoolExecutor(1, "faces") as reader:
        try:
            ahead = reader.submit(fetch, run.step)
            while run.step < recipe.steps:
                parts = ahead.result()
                if run.step + 1 < recipe.steps:
                    ahead = reader.submit(fetch, run.step + 1)
                batch = batch_of(parts, augmenter, _generator(recipe, run.step, rank, accelerator.device))
                row = run.advance(batch)
                last = run.step == recipe.steps
                if main and log is not None:
                    log.write(row)
                    if recipe.picture_every and (last or run.step % recipe.picture_every == 0):
                        atomic_write(out / PICTURES / f"step-{run.step:06d}.png", run.picture(batch))
                    if last or run.step % recipe.save_every == 0:
                        log.flush()
                        atomic_write(out / CHECKPOINT, save(run.state()))
                yield row
        finally:
            if log is not None:
                log.close()
    if main:
        if reason := charts.missing():
            logging.getLogger(__name__).warning(reason)
        else:
            atomic_write(out / CURVE, monitor.learning_curve(out))
        run.aligner.load_state_dict(run.average)
        run.aligner.card = replace(run.aligner.card, version="trained", commit=monitor.commit())
        run.aligner.save(out / "weights")
    accelerator.wait_for_everyone()


def _generator(recipe: Recipe, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The chance of one step: a function of (seed, step, process)."""
    seed = np.random.SeedSequence([recipe.seed, step + 1, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


def _copy_weights(folder: str, aligner: Aligner) -> None:
    """What another run has learned, as the start of this one."""
    try:
        aligner.load_state_dict(Aligner.load(folder).state_dict())
    except RuntimeError as error:
        raise RecipeError(f"the weights in '{folder}' do not fit method and config of the recipe: {error}") from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"the checkpoint '{path}' cannot be read: {error}") from error


class _Objective(nn.Module):
    """What is minimised, as a module of its own, so that many processes can share it."""

    def __init__(self, aligner: Aligner):
        super().__init__()
        self.aligner = aligner

    def forward(self, batch: FaceBatch, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and the means of the terms."""
        terms = {k: v.float().mean() for k, v in self.aligner.training_terms(batch, stage).items()}
        total = torch.stack([weight * terms[name] for name, weight in stage.terms.items()]).sum()
        return total, {k: v.detach() for k, v in terms.items()}


def _optimizer(aligner: Aligner, leg: Leg) -> torch.optim.Optimizer:
    """A fresh optimiser. Biases and norms, which have one dimension, do not decay."""
    plain = [p for p in aligner.parameters() if p.ndim < 2]
    weights = [p for p in aligner.parameters() if p.ndim >= 2]
    groups = [{"params": weights, "weight_decay": leg.decay}, {"params": plain, "weight_decay": 0.0}]
    if leg.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=leg.peak, momentum=0.9)
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
    return kinds[leg.optimizer](groups, lr=leg.peak)


class _Run:
    """Network, optimiser, averaged weights and step: all that a checkpoint holds."""

    def __init__(self, aligner: Aligner, recipe: Recipe, stretches: tuple[Stretch, ...], accelerator: Accelerator):
        self.aligner, self.recipe, self.stretches, self.accelerator = aligner, recipe, stretches, accelerator
        self.step = 0
        aligner.to(accelerator.device)
        for parameter in aligner.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in aligner.state_dict().items()}
        self.leg = stretches[0].leg
        self.optimizer = _optimizer(aligner, self.leg)
        self._entered: Stretch | None = None
        self._model: nn.Module = _Objective(aligner)

    def _enter(self, stretch: Stretch) -> None:
        """Begin a stage: what it does not train stands still, a new leg gets a fresh optimiser."""
        if stretch.leg is not self.leg:
            self.leg, self.optimizer = stretch.leg, _optimizer(self.aligner, stretch.leg)
        trains = stretch.stage.trains
        for name, child in self.aligner.named_children():
            child.requires_grad_(not trains or name in trains)
        for name, parameter in self.aligner.named_parameters(recurse=False):
            parameter.requires_grad_(not trains or name in trains)
        # which parameters learn is settled when processes are joined
        self._model = self.accelerator.prepare_model(_Objective(self.aligner))
        self._entered = stretch

    def advance(self, batch: FaceBatch) -> dict[str, Any]:
        """One step of the optimiser."""
        stretch = at(self.stretches, self.step)
        if stretch is not self._entered:
            self._enter(stretch)
        stage, rate = stretch.stage, stretch.leg.rate(self.step)
        self._model.train()
        for name, child in self.aligner.named_children():
            if stage.trains and name not in stage.trains:
                child.eval()  # batch statistics stand still too
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # for dropout and the like: as a function of the step
        torch.manual_seed(_generator(self.recipe, self.step, self.accelerator.process_index, _CPU).initial_seed())
        crops = batch.crops.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            total, terms = self._model(replace(batch, crops=crops), stage)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        torch.nn.utils.clip_grad_norm_(self.aligner.parameters(), self.recipe.clip)
        values = torch.stack([total.detach(), *terms.values()])
        loss, *means = self.accelerator.reduce(values, "mean").tolist()
        if not math.isfinite(loss):
            raise RecipeError(f"the loss of step {self.step + 1} is {loss}: a lower `rate` or `clip` may help")
        self.optimizer.step()
        self.step += 1
        self._average()
        of_step = {"step": self.step, "stage": stage.name, "rate": rate, "faces": stretch.batch, "loss": loss}
        return {**of_step, **dict(zip(terms, means))}

    def _average(self) -> None:
        """Exponential moving average of weights and batch statistics; in the first steps of a stage, whose networks
        may be new, it forgets faster."""
        since = self.step - at(self.stretches, self.step - 1).first
        keep = min(self.recipe.average, since / (since + 10))
        with torch.no_grad():
            for name, value in self.aligner.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)

    def picture(self, batch: FaceBatch) -> bytes:
        """What the averaged weights say about the first faces of a batch."""
        self.aligner.eval()
        crops = batch.crops[:SHOWN]
        with torch.no_grad(), self._autocast():
            out: Alignment = torch.func.functional_call(self.aligner, self.average, (crops,))
        drawn = out.maps[-1] if out.maps and out.maps[-1].ndim >= 4 else None
        return monitor.picture(
            (crops * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy(),
            batch.xyz[:SHOWN].float().cpu().numpy(),
            out.xyz.float().cpu().numpy(),
            None if drawn is None else drawn.float().flatten(1, -3).sum(1).cpu().numpy(),
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.recipe.bf16)

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors by name."""
        out = {f"model.{k}": v for k, v in self.aligner.state_dict().items()}
        out |= {f"average.{k}": v for k, v in self.average.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            out |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in moments.items() if v is not None}
        out |= {"step": torch.tensor(self.step), "leg": torch.tensor(self.leg.number)}
        return {k: v.detach().cpu().contiguous().clone() for k, v in out.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.aligner.load_state_dict(part("model."))
        self.average = {k: v.to(self.accelerator.device) for k, v in part("average.").items()}
        self.step = int(tensors["step"])
        number = int(tensors["leg"])
        self.leg = next(s.leg for s in self.stretches if s.leg.number == number)
        self.optimizer = _optimizer(self.aligner, self.leg)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer.").items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


_CPU = torch.device("cpu")
