"""The time table of a run: which stage a step belongs to, which optimiser learns in it and at what learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from canthus.errors import RecipeError
from canthus.io.yaml_config import refuse_unknown
from canthus.training.aligner import Stage, method_class
from canthus.training.recipe import Recipe, StageRecipe


@dataclass(frozen=True, eq=False)
class OptimizerSpan:
    """The steps over which one optimiser learns by one schedule: one stage, or several consecutive ones."""

    number: int
    first: int  # step
    steps: int
    optimizer: str
    lr: float
    warmup_steps: int
    schedule: str
    final_lr_ratio: float
    lr_milestones: tuple[float, ...]
    weight_decay: float

    def lr_at(self, step: int) -> float:
        """Learning rate at a step of the run: linear warm-up, then the schedule."""
        step -= self.first
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        if self.schedule == "multistep":
            return self.lr * 0.1 ** sum(step >= milestone * self.steps for milestone in self.lr_milestones)
        if self.schedule == "exponential":
            return self.lr * self.final_lr_ratio**done
        return self.lr * (self.final_lr_ratio + (1 - self.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True, eq=False)
class ScheduledStage:
    """A stage with its place in the run: steps first to last, `last` not included."""

    stage: Stage
    span: OptimizerSpan
    first: int
    last: int
    batch: int
    seen: int  # faces drawn before the first step

    def drawn(self, step: int) -> int:
        """Faces drawn before `step`."""
        return self.seen + (step - self.first) * self.batch


def plan(recipe: Recipe, stages: tuple[Stage, ...]) -> tuple[ScheduledStage, ...]:
    """The stages of a method laid out over the steps of a recipe; a stage with a share of zero is left out.

    What the recipe says of stages that the method has in other configurations only is passed over. Raises `RecipeError`
    for stages that the method never has, and for one that would get no step.
    """
    known = (*(stage.name for stage in stages), *method_class(recipe.method).stage_names)
    refuse_unknown("`stages`", recipe.stages, known)
    changes = [recipe.stage(stage.name) for stage in stages]
    shares = [stage.share if own.share is None else own.share for stage, own in zip(stages, changes)]
    if not sum(shares) > 0:
        raise RecipeError("the stages' shares sum to zero; one above zero is wanted")
    # Rounded to the whole step after; 1e-9 because sums of shares such as 0.1 are not exact.
    ends = [math.ceil(recipe.steps * sum(shares[: k + 1]) / sum(shares) - 1e-9) for k in range(len(shares))]
    starts = [0, *ends[:-1]]
    for stage, share, first, last in zip(stages, shares, starts, ends):
        if share > 0 and first == last:
            raise RecipeError(
                f"`steps` is {recipe.steps}, of which the stage '{stage.name}' gets none; "
                f"more steps are wanted, or `stages.{stage.name}.share` 0 to leave it out"
            )
    fresh = [k == 0 or _starts_span(changes[k]) or _starts_span(changes[k - 1]) for k in range(len(changes))]
    scheduled: list[ScheduledStage] = []
    seen = 0
    for k, (stage, own) in enumerate(zip(stages, changes)):
        if fresh[k]:
            until = next((j for j in range(k + 1, len(changes)) if fresh[j]), len(changes))
            span = _span(recipe, own, sum(fresh[:k]), starts[k], ends[until - 1] - starts[k])
        batch = recipe.batch if own.batch is None else own.batch
        scheduled.append(ScheduledStage(stage, span, starts[k], ends[k], batch, seen))
        seen = scheduled[-1].drawn(ends[k])
    return tuple(scheduled)


def at(stages: tuple[ScheduledStage, ...], step: int) -> ScheduledStage:
    """The stage that a step belongs to."""
    return next((s for s in stages if s.first <= step < s.last), stages[-1])


def _starts_span(own: StageRecipe) -> bool:
    return any(getattr(own, f.name) is not None for f in fields(own) if f.name not in ("share", "batch"))


def _span(recipe: Recipe, own: StageRecipe, number: int, first: int, steps: int) -> OptimizerSpan:
    names = ("optimizer", "lr", "warmup_steps", "schedule", "final_lr_ratio", "lr_milestones", "weight_decay")
    values = {n: getattr(recipe, n) if getattr(own, n) is None else getattr(own, n) for n in names}
    if values["schedule"] == "exponential" and values["final_lr_ratio"] == 0:
        raise RecipeError("`final_lr_ratio` is 0; the schedule exponential needs a value above zero")
    if values["schedule"] == "multistep" and not values["lr_milestones"]:
        raise RecipeError("the schedule multistep needs `lr_milestones`: fractions of the steps at which lr falls")
    return OptimizerSpan(number, first, steps, **values)
