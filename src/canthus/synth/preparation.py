"""Heads made ready in worker processes for a device that draws them: all that needs no pixels. Nothing imports torch.

A person costs some fifty milliseconds of a core, and a GPU draws a thousand pictures a second; so each person makes
several faces here, and each face is seen by as many cameras as that of a group of `SynthGenerator`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from canthus.synth.generator import VIEWS_PER_HEAD, Planner, Shot, sample_camera
from canthus.synth.recipe import Dice, SynthRecipe
from canthus.synth.renderer import Packed
from canthus.synth.sampling import Person, pose_head, sample_expression, sample_person
from canthus.synth.truth import Probes

FACES_PER_PERSON = 2
VIEWS_PER_PERSON = FACES_PER_PERSON * VIEWS_PER_HEAD


@dataclass(frozen=True)
class Take:
    """A head, the textures that only it has, and its shots, each with its probes for what hides what."""

    packed: Packed
    textures: dict[str, np.ndarray]
    shots: list[Shot]
    probes: list[Probes]


class Preparer:
    """Makes people of a recipe ready. Arguments as of `Planner`."""

    def __init__(self, assets: str | Path | None, recipe: SynthRecipe):
        self.planner = Planner(assets, recipe)

    def group(self, number: int) -> list[Take]:
        """Person `number` with FACES_PER_PERSON expressions, each seen VIEWS_PER_HEAD times. The first are the
        samples of group `number` of `SynthGenerator`."""
        planner, dice = self.planner, Dice(self.planner.recipe.seed, number)
        person = sample_person(dice, planner.assets, planner.recipe)
        return [self._take(dice, person, face * VIEWS_PER_HEAD) for face in range(FACES_PER_PERSON)]

    def _take(self, dice: Dice, person: Person, first: int) -> Take:
        planner, recipe = self.planner, self.planner.recipe
        expression = sample_expression(dice.of(first) if first else dice, planner.assets.expression_names, recipe)
        head, vertices = pose_head(planner.assets, person, expression)
        shots, probes = [], []
        for view in range(first, first + VIEWS_PER_HEAD):
            of_view = dice.of(view)
            camera = sample_camera(of_view, recipe, head.landmarks)
            shot = planner.shot(of_view, head, vertices, camera)
            # the environment is there already; it would be most of what goes through the pipe
            shots.append(replace(shot, light=replace(shot.light, surroundings=None)))
            size = planner.drawn_size
            probes.append(Probes.of(camera.resized(size / recipe.size), head.landmarks, size))
        return Take(Packed.of(head.pieces), person.textures, shots, probes)
