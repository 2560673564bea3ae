"""When a run does what: which stage a step belongs to, which optimiser learns in it and at what rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from canthus.errors import RecipeError
from canthus.io.yaml_config import refuse_unknown
from canthus.training.aligner import Stage
from canthus.training.recipe import Recipe, StageRecipe


@dataclass(frozen=True, eq=False)
class Leg:
    """The steps over which one optimiser learns by one schedule: one stage, or several that follow each other."""

    number: int
    first: int  # step
    steps: int
    optimizer: str
    peak: float
    warm_up: int
    schedule: str
    last_rate: float
    drops: tuple[float, ...]
    decay: float

    def rate(self, step: int) -> float:
        """Learning rate at a step of the run: linear warm-up, then the schedule."""
        step -= self.first
        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        if self.schedule == "steps":
            return self.peak * 0.1 ** sum(step >= drop * self.steps for drop in self.drops)
        if self.schedule == "geometric":
            return self.peak * self.last_rate**done
        return self.peak * (self.last_rate + (1 - self.last_rate) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True, eq=False)
class Stretch:
    """A stage with its place in the run: steps first to last, `last` not included."""

    stage: Stage
    leg: Leg
    first: int
    last: int
    batch: int
    seen: int  # faces drawn before the first step

    def drawn(self, step: int) -> int:
        """Faces drawn before `step`."""
        return self.seen + (step - self.first) * self.batch


def plan(recipe: Recipe, stages: tuple[Stage, ...]) -> tuple[Stretch, ...]:
    """The stages of a method laid out over a recipe's steps. Raises `RecipeError` for stages that are not there."""
    refuse_unknown("`stages`", recipe.stages, [stage.name for stage in stages])
    own = [recipe.stage(stage.name) for stage in stages]
    shares = [stage.share if other.share is None else other.share for stage, other in zip(stages, own)]
    if not sum(shares) > 0:
        raise RecipeError("the stages' shares sum to zero; one above zero is wanted")
    # Rounded to the whole step after; 1e-9 because sums of shares such as 0.1 are not exact.
    ends = [math.ceil(recipe.steps * sum(shares[: k + 1]) / sum(shares) - 1e-9) for k in range(len(shares))]
    starts = [0, *ends[:-1]]
    anew = [k == 0 or _begins_anew(own[k]) or _begins_anew(own[k - 1]) for k in range(len(own))]
    stretches: list[Stretch] = []
    seen = 0
    for k, (stage, other) in enumerate(zip(stages, own)):
        if anew[k]:
            until = next((j for j in range(k + 1, len(own)) if anew[j]), len(own))
            number = sum(anew[:k])
            leg = _leg(recipe, other, number, starts[k], ends[until - 1] - starts[k])
        batch = recipe.batch if other.batch is None else other.batch
        stretches.append(Stretch(stage, leg, starts[k], ends[k], batch, seen))
        seen = stretches[-1].drawn(ends[k])
    return tuple(stretches)


def at(stretches: tuple[Stretch, ...], step: int) -> Stretch:
    """The stretch that a step belongs to."""
    return next((s for s in stretches if s.first <= step < s.last), stretches[-1])


def _begins_anew(other: StageRecipe) -> bool:
    return any(getattr(other, f.name) is not None for f in fields(other) if f.name not in ("share", "batch"))


def _leg(recipe: Recipe, other: StageRecipe, number: int, first: int, steps: int) -> Leg:
    names = ("optimizer", "rate", "warm_up", "schedule", "last_rate", "drops", "decay")
    said = {n: getattr(recipe, n) if getattr(other, n) is None else getattr(other, n) for n in names}
    if said["schedule"] == "geometric" and said["last_rate"] == 0:
        raise RecipeError("`last_rate` is 0; the schedule geometric needs one above zero")
    if said["schedule"] == "steps" and not said["drops"]:
        raise RecipeError("the schedule steps needs `drops`: fractions of the steps at which to divide the rate by ten")
    return Leg(number, first, steps, peak=said.pop("rate"), **said)
