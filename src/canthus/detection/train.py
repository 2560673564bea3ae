"""Training of the face detector: a recipe in, a run folder with weights out.

The pictures are composites, drawn once into the run folder and then shown many times. The pyramid learns first, then
the refiner, on what the pyramid sees in them. What a step sees depends on (seed, step) alone, and a run that was
stopped goes on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from canthus.decode import decoding, fits, read_bytes, read_json
from canthus.detection.candidates import Candidates
from canthus.detection.dataset import PART, Composites, draw_composites
from canthus.detection.export import REFINER_WEIGHTS, WEIGHTS_FILE, export_detector
from canthus.detection.loss import FacesTruth, loss_terms
from canthus.detection.network import STRIDES, DetectorNetwork, load_network
from canthus.detection.refiner import Looks, RefinerNetwork, load_refiner, look_terms
from canthus.errors import RecipeError
from canthus.io.outputs import atomic_write, make_folder, remove_leftovers
from canthus.io.yaml_config import read_keys, refuse_unknown
from canthus.training import monitor
from canthus.training.checkpoint import pack, unpack
from canthus.training.recipe import as_json, check_limits, refuse_changes
from canthus.training.schedule import OptimizerSpan
from canthus.training.train import CHECKPOINT, RECIPE, WEIGHTS, computes_bf16, move_average, optimizer_of

SHIPPED = Path(__file__).with_name("detector.yaml")
COMPOSITES = "composites"
DRAWN = ("heads", "environments", "photos", "objects", "weights", "side", "seed")  # keys that composites depend on
TERMS = {"score": 1.0, "box": 1.5, "upright": 0.3, "up": 0.5}  # of the pyramid's loss, and their weights
REFINER_TERMS = {"seen": 1.0, "square": 0.3, "axis": 0.5}


@dataclass(frozen=True)
class DetectorRecipe:
    """How a detector is trained.

    heads: folders of renders with regions (`canthus synth --set maps=true`). environments: a folder of .exr to stand
    behind them, photos: a folder of pictures without faces, objects: one of small pictures of things with opacity,
    which are strewn over the others. composites: pictures to draw, a multiple of 256. side: of a picture, px, a
    multiple of 32. weights: the folder of another run to start from, which also mines pictures without faces that it
    takes for some. steps, batch, lr: of the pyramid; refiner_...: of the refiner, whose batches are crops.
    warmup_steps, final_lr_ratio, weight_decay, grad_clip, ema_decay: as of other recipes. Raises `RecipeError` for a
    value of another type or out of range.
    """

    heads: tuple[str, ...] = ()
    environments: str | None = None
    photos: str | None = None
    objects: str | None = None
    weights: str | None = None
    composites: int = 15360
    side: int = 320
    steps: int = 12000
    batch: int = 32
    lr: float = 2e-3
    refiner_steps: int = 6000
    refiner_batch: int = 256
    refiner_lr: float = 2e-3
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
        if (
            self.composites % PART
            or self.side % STRIDES[-1]
            or min(self.composites, self.side, self.batch, self.refiner_batch, self.refiner_steps) <= 0
        ):
            raise RecipeError(
                f"want composites in multiples of {PART}, a side in multiples of {STRIDES[-1]}, batches, refiner_steps"
            )
        if self.steps == 0 and self.weights is None:
            raise RecipeError("want steps, or `weights` whose pyramid is kept")
        check_limits(asdict(self) | {"steps": self.steps or 1})

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
    """Draw the composites of a run that are missing; yields the number of those that are there. Raises `RecipeError`
    where `out` holds composites of another recipe, and where a source cannot be read, and `OutputError`."""
    drawn = {key: value for key, value in json.loads(as_json(recipe)).items() if key in DRAWN}
    about = make_folder(Path(out, COMPOSITES)) / RECIPE
    if os.path.exists(about):
        with decoding(RecipeError, f"'{about}', which says what the composites there were drawn from, cannot be read"):
            before = dict(read_json(about))
        if differ := ", ".join(key for key in DRAWN if before.get(key) != drawn[key]):
            raise RecipeError(
                f"'{about.parent}' holds composites of another recipe ({differ} differ); take another folder"
            )
    else:
        atomic_write(about, json.dumps(drawn, indent=2).encode())
    judge = None if recipe.weights is None else str(Path(recipe.weights, WEIGHTS_FILE))
    sources = recipe.heads, recipe.environments, recipe.photos, recipe.objects, judge
    parts = recipe.composites // PART
    for done in draw_composites(Path(out, COMPOSITES), sources, parts, recipe.side, recipe.seed, recipe.workers):
        yield done * PART


def train_detector(recipe: DetectorRecipe, out: str | Path) -> Iterator[dict[str, Any]]:
    """Train on the composites that `draw` left in `out`; yields each step as it is done, those of the refiner counted
    on from those of the pyramid.

    At the end `out/detector.safetensors` and `out/refiner.safetensors` hold the averaged weights, and `out/weights`
    what runs them. Raises `RecipeError` if `out` began with another recipe, for damaged files, and where the loss is
    not finite.
    """
    out = make_folder(out)
    remove_leftovers(out)
    resumed = os.path.exists(out / CHECKPOINT)
    tensors: dict[str, Tensor] = {}
    with decoding(RecipeError, f"the checkpoint '{out / CHECKPOINT}' does not fit the recipe"):
        if resumed:
            tensors = load(read_bytes(out / CHECKPOINT))
        step = int(tensors.get("step", torch.tensor(0)))
    if resumed:
        refuse_changes(recipe, out / RECIPE)
        before = read_json(out / RECIPE)["steps"]
        if step > before != recipe.steps:
            raise RecipeError(
                f"the run in '{out}' began with `steps` {before}, now {recipe.steps}; they may grow until the "
                "second network begins"
            )
    atomic_write(out / RECIPE, as_json(recipe).encode())
    composites = Composites(out / COMPOSITES, recipe.composites // PART)
    monitor.note_start(out, step=step, composites=recipe.composites)
    log = monitor.Log(out, [*TERMS, *REFINER_TERMS], step, False)
    try:
        if step <= recipe.steps:
            yield from _learn(_pyramid(recipe, composites, not resumed), recipe, tensors, out, log)
            tensors = {}
        candidates = Candidates(composites, load_network(out / WEIGHTS_FILE))
        yield from _learn(_refiner(recipe, candidates, not tensors), recipe, tensors, out, log)
    finally:
        log.close()
    export_detector(out, out / WEIGHTS, json.dumps(asdict(recipe)))


class _Part(NamedTuple):
    """One network of the two and how it learns. file: where its weights go. draw: makes a batch. losses: terms of the
    loss of a batch; weights: theirs."""

    name: str
    file: str
    network: nn.Module
    span: OptimizerSpan
    draw: Callable[[np.random.Generator], Any]
    losses: Callable[[Any], dict[str, Tensor]]
    weights: dict[str, float]


def _pyramid(recipe: DetectorRecipe, composites: Composites, new: bool) -> _Part:
    """new: it starts, by the weights that the recipe may name."""
    torch.manual_seed(recipe.seed)
    network = DetectorNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.weights is not None and new:
        network.load_state_dict(load_network(Path(recipe.weights, WEIGHTS_FILE)).state_dict())

    def losses(batch: tuple[Tensor, FacesTruth]) -> dict[str, Tensor]:
        pictures, faces = batch
        return loss_terms(network(pictures), faces, *pictures.shape[1:3])

    span = _span(recipe, 0, recipe.steps, recipe.lr)
    return _Part(
        "detector", WEIGHTS_FILE, network, span, lambda rng: composites.batch(rng, recipe.batch), losses, TERMS
    )


def _refiner(recipe: DetectorRecipe, candidates: Candidates, new: bool) -> _Part:
    """new: as for `_pyramid`."""
    torch.manual_seed(recipe.seed)
    network = RefinerNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.weights is not None and new:
        network.load_state_dict(load_refiner(Path(recipe.weights, REFINER_WEIGHTS)).state_dict())
    # the pyramid gains nothing from it: its depthwise convolutions take longer in bfloat16
    bf16 = computes_bf16(torch.device("cpu"))

    def losses(batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        crops, *truth = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            looks = network(crops)
        return look_terms(Looks(*(values.float() for values in looks)), *truth)

    span = _span(recipe, recipe.steps, recipe.refiner_steps, recipe.refiner_lr)
    draw = partial(candidates.batch, count=recipe.refiner_batch)
    return _Part("refiner", REFINER_WEIGHTS, network, span, draw, losses, REFINER_TERMS)


def _span(recipe: DetectorRecipe, first: int, steps: int, lr: float) -> OptimizerSpan:
    return OptimizerSpan(
        0, first, steps, "adamw", lr, recipe.warmup_steps, "cosine", recipe.final_lr_ratio, (), recipe.weight_decay
    )


def _learn(
    part: _Part, recipe: DetectorRecipe, tensors: dict[str, Tensor], out: Path, log: monitor.Log
) -> Iterator[dict[str, Any]]:
    """The steps of one network that are left; its averaged weights go to the disk. tensors: a checkpoint, or none."""
    run = _Run(part, recipe)
    if tensors:
        with decoding(RecipeError, f"the checkpoint '{out / CHECKPOINT}' does not fit the recipe"):
            run.restore(tensors)
    last = part.span.first + part.span.steps

    def fetch(step: int) -> Any:
        return part.draw(np.random.default_rng([recipe.seed, step]))

    with ThreadPoolExecutor(1, "composites") as reader:
        ahead = reader.submit(fetch, run.step)
        while run.step < last:
            batch = ahead.result()
            ahead = reader.submit(fetch, run.step + 1)
            row = run.advance(batch)
            log.write(row)
            if run.step == last or run.step % recipe.save_every == 0:
                log.flush()
                atomic_write(out / CHECKPOINT, save(run.state()))
            yield row
    atomic_write(out / part.file, save({k: v.contiguous() for k, v in run.ema.items()}))


class _Run:
    """Network, optimiser, averaged weights and step: the content of a checkpoint."""

    def __init__(self, part: _Part, recipe: DetectorRecipe):
        self.part, self.recipe, self.step = part, recipe, part.span.first
        self.ema = {k: v.detach().clone() for k, v in part.network.state_dict().items()}
        self.optimizer = optimizer_of(part.network, part.span)

    def advance(self, batch: Any) -> dict[str, Any]:
        """One step of the optimiser."""
        part, network = self.part, self.part.network
        lr = part.span.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        network.train()
        terms = part.losses(batch)
        total = torch.stack([weight * terms[name] for name, weight in part.weights.items()]).sum()
        if not math.isfinite(float(total.detach())):
            raise RecipeError(f"the loss of step {self.step + 1} is not finite: a lower `lr` or `grad_clip` may help")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        self.step += 1
        done = self.step - part.span.first
        move_average(self.ema, network, min(self.recipe.ema_decay, done / (done + 10)))
        losses = {name: float(value.detach()) for name, value in terms.items()}
        return {"step": self.step, "stage": part.name, "lr": lr, "loss": float(total.detach()), **losses}

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds."""
        return pack(self.part.network, self.ema, self.optimizer) | {"step": torch.tensor(self.step)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from the tensors of `state`."""
        self.ema, self.step = unpack(tensors, self.part.network, self.optimizer), int(tensors["step"])
