"""Heads prepared in worker processes for a device that draws them: everything but the pixels. Nothing imports torch.

A person costs some fifty milliseconds of a core, and a GPU draws a thousand pictures a second; so each person makes
several faces here, and each face is seen from as many cameras as in a group of `SynthGenerator`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from canthus.synth.generator import VIEWS_PER_HEAD, Planner, View, sample_camera
from canthus.synth.person import Person, pose_head, sample_expression, sample_person
from canthus.synth.recipe import RandomStreams, SynthRecipe
from canthus.synth.scene import Packed
from canthus.synth.truth import Probes

FACES_PER_PERSON = 2
VIEWS_PER_PERSON = FACES_PER_PERSON * VIEWS_PER_HEAD


@dataclass(frozen=True)
class PreparedHead:
    """A head, the textures that only it has, and its views with their visibility probes."""

    packed: Packed
    textures: dict[str, np.ndarray]
    views: list[View]
    probes: list[Probes]


class HeadPreparer:
    """Prepares the people of a recipe. Arguments as of `Planner`."""

    def __init__(self, assets: str | Path | None, recipe: SynthRecipe):
        self.planner = Planner(assets, recipe)

    def group(self, number: int) -> list[PreparedHead]:
        """Person `number` with FACES_PER_PERSON expressions, VIEWS_PER_HEAD views of each.

        The first views are the samples of group `number` of `SynthGenerator`, where `own_expressions` is 0.
        """
        planner, streams = self.planner, RandomStreams(self.planner.recipe.seed, number)
        person = sample_person(streams, planner.assets, planner.recipe)
        return [self._prepare(streams, person, face * VIEWS_PER_HEAD) for face in range(FACES_PER_PERSON)]

    def _prepare(self, streams: RandomStreams, person: Person, first: int) -> PreparedHead:
        planner, recipe = self.planner, self.planner.recipe
        expression = sample_expression(
            streams.child(first) if first else streams, planner.assets.expression_names, recipe
        )
        head, vertices = pose_head(planner.assets, person, expression)
        views, probes = [], []
        for number in range(first, first + VIEWS_PER_HEAD):
            view_streams = streams.child(number)
            camera = sample_camera(view_streams, recipe, head.landmarks)
            view = planner.plan_view(view_streams, head, vertices, camera)
            # the renderer has the environments already; they would be most of what goes through the pipe
            views.append(replace(view, light=replace(view.light, surroundings=None)))
            size = planner.drawn_size
            probes.append(Probes.of(camera.resized(size / recipe.size), head.landmarks, size))
        return PreparedHead(Packed.of(head.pieces), person.textures, views, probes)
