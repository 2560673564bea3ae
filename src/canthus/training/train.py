"""The one training loop: a recipe in, a run folder with weights out.

What a step sees depends on (seed, step) alone, so a run that was stopped and resumed gives the same result as one that
was not. One process or many (`accelerate launch`), CPU or GPU: every process takes its share of each batch.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from safetensors.torch import load, save
from torch import Tensor, nn

from canthus.data.augment import Augmentation, Augmenter
from canthus.data.sample import FaceBatch, StoredBatch
from canthus.data.sources import FaceMix, batch_of
from canthus.decode import decoding, read_bytes
from canthus.errors import RecipeError, WeightsError
from canthus.face.faces import Alignment
from canthus.io import charts
from canthus.io.outputs import atomic_write, make_folder, remove_leftovers
from canthus.io.yaml_config import refuse_unknown
from canthus.nn.pretrained import load_trunk
from canthus.nn.resnet import PreActResNet, ResNet
from canthus.nn.trunk import Trunk
from canthus.training import monitor
from canthus.training.aligner import Aligner, Stage, build
from canthus.training.checkpoint import pack, unpack
from canthus.training.monitor import LOG
from canthus.training.partial import counted, learnable, missing
from canthus.training.recipe import Recipe, as_json, refuse_changes
from canthus.training.schedule import OptimizerSpan, ScheduledStage, at, plan

__all__ = ["CHECKPOINT", "LOG", "Recipe", "leave_processes", "train"]

CHECKPOINT = "checkpoint.safetensors"
RECIPE = "recipe.json"
PICTURES = "pictures"
WEIGHTS = "weights"
CURVE = "curve.png"
SHOWN = 8  # faces in a picture


def train(recipe: Recipe, out: str | Path) -> Iterator[dict[str, Any]]:
    """Train into the folder `out`; yields each step as it is done and can be stopped at any of them.

    A step is its number from 1, the name of its stage, the learning rate, the number of faces, the loss and its terms.
    If `out` holds a checkpoint the run is resumed from it; raises `RecipeError` if it began with another recipe. At the
    end `out/weights` holds the averaged weights; batch statistics are averaged with them, not measured again.
    """
    out = Path(out)
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    torch.manual_seed(recipe.seed)
    aligner = build(recipe.method, recipe.config)
    plan(recipe, aligner.stages())
    resumed = os.path.exists(out / CHECKPOINT)
    if resumed:
        refuse_changes(recipe, out / RECIPE)
    size, crop_scale = aligner.config.size, aligner.config.crop_scale
    faces = FaceMix(recipe.faces, size, crop_scale, recipe.seed, accelerator.device, recipe.head_model, aligner.scheme)
    try:
        stages = plan(recipe, learnable(aligner, faces))
        least = min(stage.batch for stage in stages)
        if least < accelerator.num_processes:
            got = f"{accelerator.num_processes} processes and a stage whose batch is {least}"
            raise RecipeError(f"got {got}; at least one face for each process is wanted")
        weights = aligner.sampling_weights(faces.xyz) if len(faces) else None
        if weights is not None:
            faces.weigh(weights)
        augmenter = Augmenter(Augmentation(**recipe.augment), size, crop_scale, aligner.card.mean_shape, aligner.scheme)
        if type(aligner).prepare is not Aligner.prepare:
            points, boxes = faces.shapes(256 if faces.live else 2048)
            aligner.prepare(augmenter.points(points, boxes, _generator(recipe, -1, 0, torch.device("cpu"))))
        if recipe.trunk_weights and not resumed:
            load_trunks(aligner, recipe.trunk_weights)
        if recipe.weights and not resumed:
            _copy_weights(recipe.weights, aligner)
        run = _Run(aligner, recipe, stages, accelerator)
        if resumed:
            with decoding(RecipeError, f"the checkpoint '{out / CHECKPOINT}' does not fit the recipe"):
                run.restore(_read(out / CHECKPOINT))
        yield from _steps(run, faces, augmenter, out)
        del run
    finally:
        faces.close()
        accelerator.free_memory()


def leave_processes() -> None:
    """Leave the group of processes that `train` joined, once no more is trained.

    A process that ends without it may be aborted: threads of the group still free tensors when the interpreter is gone.
    """
    PartialState().destroy_process_group()


def _steps(run: _Run, faces: FaceMix, augmenter: Augmenter, out: Path) -> Iterator[dict[str, Any]]:
    """Do the remaining steps, then write the weights."""
    recipe, accelerator = run.recipe, run.accelerator
    main, rank, world = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    log = None
    if main:
        make_folder(out / PICTURES)
        for folder in (out, out / PICTURES, out / WEIGHTS):
            remove_leftovers(folder)
        atomic_write(out / RECIPE, as_json(recipe).encode())
        monitor.note_start(
            out, step=run.step, faces=len(faces), processes=world, device=str(accelerator.device), bf16=run.bf16
        )
        names = list(dict.fromkeys(name for s in run.stages for name in s.stage.terms))
        log = monitor.Log(out, names, run.step, recipe.tensorboard)

    def fetch(step: int) -> list[StoredBatch]:
        scheduled = at(run.stages, step)
        return faces.fetch(scheduled.drawn(step), scheduled.batch, step, rank, world)

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
        run.aligner.load_state_dict(run.ema)
        limits = [f"In training {line}." for line in missing(run.aligner, faces)]
        run.aligner.card = replace(run.aligner.card, version="trained", commit=monitor.commit(), limits=limits)
        run.aligner.save(out / WEIGHTS)
        if reason := charts.missing():
            logging.getLogger(__name__).warning(reason)
        else:
            atomic_write(out / CURVE, monitor.learning_curve(out))
    accelerator.wait_for_everyone()


def _generator(recipe: Recipe, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The random generator of one step: a function of (seed, step, process)."""
    seed = np.random.SeedSequence([recipe.seed, step + 1, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


def _copy_weights(folder: str, aligner: Aligner) -> None:
    """Start from the weights of another run."""
    try:
        aligner.load_state_dict(Aligner.load(folder).state_dict())
    except WeightsError as error:
        raise RecipeError(f"`weights`, to go on from (--set weights=FOLDER names others): {error}") from error
    except RuntimeError as error:
        raise RecipeError(f"the weights in '{folder}' do not fit method and config of the recipe: {error}") from error


def load_trunks(aligner: Aligner, files: str | Mapping[str, str]) -> None:
    """Start the trunks of a method's networks from weights of others (`nn.pretrained`): all from one file, or those of
    the networks that are named. Raises `RecipeError` for a network without a trunk, and `WeightsError`."""
    trunks: dict[str, ResNet | PreActResNet | Trunk] = {}
    for name, child in aligner.named_children():
        if isinstance(trunk := getattr(child, "trunk", None), ResNet | PreActResNet | Trunk):
            trunks[name] = trunk
    named = dict.fromkeys(trunks, files) if isinstance(files, str) else files
    refuse_unknown("`trunk_weights`", named, list(trunks))
    if not named:
        raise RecipeError(f"{aligner.method} has no trunk that `trunk_weights` could start")
    for name, file in named.items():
        load_trunk(trunks[name], file)


def _read(path: Path) -> dict[str, Tensor]:
    with decoding(RecipeError, f"the checkpoint '{path}' cannot be read"):
        return load(read_bytes(path))


class _Objective(nn.Module):
    """The loss as a module of its own, which DistributedDataParallel can wrap."""

    def __init__(self, aligner: Aligner):
        super().__init__()
        self.aligner = aligner

    def forward(self, batch: FaceBatch, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and the means of the terms."""
        terms = self.aligner.training_terms(batch, stage)
        terms = {k: counted(v.float(), batch, self.aligner.needs.get(k, ())).mean() for k, v in terms.items()}
        total = torch.stack([weight * terms[name] for name, weight in stage.terms.items()]).sum()
        return total, {k: v.detach() for k, v in terms.items()}


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16: a GPU that does, or a CPU with AVX512-BF16 or AMX.

    Other CPUs emulate them, several times slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu_flags())


def _cpu_flags() -> set[str]:
    """The instruction sets of the CPU as Linux names them; elsewhere none are known."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


def optimizer_of(network: nn.Module, span: OptimizerSpan) -> torch.optim.Optimizer:
    """A fresh optimiser. Biases and norms, which have one dimension, do not decay."""
    plain = [p for p in network.parameters() if p.ndim < 2]
    weights = [p for p in network.parameters() if p.ndim >= 2]
    groups = [{"params": weights, "weight_decay": span.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if span.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=span.lr, momentum=0.9)
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
    return kinds[span.optimizer](groups, lr=span.lr)


@torch.no_grad()
def move_average(average: dict[str, Tensor], network: nn.Module, keep: float) -> None:
    """Move averaged weights and batch statistics towards a network's: `keep` of the old and the rest of the new."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)


class _Run:
    """Network, optimiser, averaged weights and step: the content of a checkpoint."""

    def __init__(self, aligner: Aligner, recipe: Recipe, stages: tuple[ScheduledStage, ...], accelerator: Accelerator):
        self.aligner, self.recipe, self.stages, self.accelerator = aligner, recipe, stages, accelerator
        self.step = 0
        self.bf16 = not recipe.float32 and computes_bf16(accelerator.device)
        aligner.to(accelerator.device)
        for parameter in aligner.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.ema = {k: v.detach().clone() for k, v in aligner.state_dict().items()}
        self.span = stages[0].span
        self.optimizer = optimizer_of(aligner, self.span)
        self._entered: ScheduledStage | None = None
        self._model: nn.Module = _Objective(aligner)

    def _enter(self, scheduled: ScheduledStage) -> None:
        """Begin a stage: freeze what it does not train; a new span gets a fresh optimiser."""
        if scheduled.span is not self.span:
            self.span, self.optimizer = scheduled.span, optimizer_of(self.aligner, scheduled.span)
        trains = scheduled.stage.trains
        for name, child in self.aligner.named_children():
            child.requires_grad_(not trains or name in trains)
        for name, parameter in self.aligner.named_parameters(recurse=False):
            parameter.requires_grad_(not trains or name in trains)
        # DistributedDataParallel fixes the set of trained parameters when it is created
        self._model = self.accelerator.prepare_model(_Objective(self.aligner))
        self._entered = scheduled

    def advance(self, batch: FaceBatch) -> dict[str, Any]:
        """One step of the optimiser."""
        scheduled = at(self.stages, self.step)
        if scheduled is not self._entered:
            self._enter(scheduled)
        stage, lr = scheduled.stage, scheduled.span.lr_at(self.step)
        self._model.train()
        for name, child in self.aligner.named_children():
            if stage.trains and name not in stage.trains:
                child.eval()  # batch statistics are frozen too
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # dropout and the like are a function of the step as well
        torch.manual_seed(_generator(self.recipe, self.step, self.accelerator.process_index, _CPU).initial_seed())
        crops = batch.crops.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            total, terms = self._model(replace(batch, crops=crops), stage)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        torch.nn.utils.clip_grad_norm_(self.aligner.parameters(), self.recipe.grad_clip)
        values = torch.stack([total.detach(), *terms.values()])
        loss, *means = self.accelerator.reduce(values, "mean").tolist()
        if not math.isfinite(loss):
            raise RecipeError(f"the loss of step {self.step + 1} is {loss}: a lower `lr` or `grad_clip` may help")
        self.optimizer.step()
        self.step += 1
        self._update_ema()
        of_step = {"step": self.step, "stage": stage.name, "lr": lr, "faces": scheduled.batch, "loss": loss}
        return {**of_step, **dict(zip(terms, means))}

    def _update_ema(self) -> None:
        """Update the moving average of weights and batch statistics; in the first steps of a stage, whose networks may
        be new, it forgets faster."""
        since = self.step - at(self.stages, self.step - 1).first
        keep = min(self.recipe.ema_decay, since / (since + 10))
        move_average(self.ema, self.aligner, keep)

    def picture(self, batch: FaceBatch) -> bytes:
        """A PNG of what the averaged weights predict for the first faces of a batch."""
        self.aligner.eval()
        crops = batch.crops[:SHOWN]
        with torch.no_grad(), self._autocast():
            out: Alignment = torch.func.functional_call(self.aligner, self.ema, (crops,))
        drawn = out.maps[-1] if out.maps and out.maps[-1].ndim >= 4 else None
        return monitor.picture(
            (crops * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy(),
            batch.xyz[:SHOWN].float().cpu().numpy(),
            out.xyz.float().cpu().numpy(),
            None if drawn is None else drawn.float().flatten(1, -3).sum(1).cpu().numpy(),
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16)

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, as tensors by name."""
        numbers = {"step": torch.tensor(self.step), "span": torch.tensor(self.span.number)}
        return pack(self.aligner, self.ema, self.optimizer) | numbers

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Resume from the tensors of `state`."""
        self.step = int(tensors["step"])
        number = int(tensors["span"])
        self.span = next(s.span for s in self.stages if s.span.number == number)
        self.optimizer = optimizer_of(self.aligner, self.span)
        average = unpack(tensors, self.aligner, self.optimizer)
        self.ema = {k: v.to(self.accelerator.device) for k, v in average.items()}


_CPU = torch.device("cpu")
