"""Rendered faces with exact ground truth: sample number i of a recipe is always the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canthus.synth.backdrop import Backdrop, choose_backdrop, paint_backdrop
from canthus.synth.contour import JawContour
from canthus.synth.dense import dense_head
from canthus.synth.effects import CameraEffects, apply_camera_effects, choose_camera_effects, downsample
from canthus.synth.heads import Head, HeadAssets
from canthus.synth.light import Environment, Light, procedural_environments, view_light
from canthus.synth.person import Person, lash_texture, pose_head, sample_expression, sample_person
from canthus.synth.recipe import RandomStreams, SynthRecipe
from canthus.synth.renderer import make_renderer
from canthus.synth.scene import PerspectiveCamera
from canthus.synth.shipped import ShippedHead
from canthus.synth.truth import is_visible, maps, occlusion, weak_camera

OVERSAMPLING = 1.5  # drawn this much larger, then downsampled
VIEWS_PER_HEAD = 4  # building a head is expensive, drawing it under another camera and light is cheap


@dataclass(frozen=True)
class View:
    """One view of a head: everything that determines the picture, and the truth that is known before it is drawn."""

    camera: PerspectiveCamera  # of the stored picture
    light: Light
    shadow: float
    backdrop: Backdrop
    effects: CameraEffects
    noise_streams: RandomStreams
    truth: dict[str, np.ndarray]


class Planner:
    """Decides what the samples of a recipe show, without drawing them. Arguments as of `SynthGenerator`."""

    def __init__(self, assets: str | Path | None, recipe: SynthRecipe):
        self.recipe = recipe
        self.assets = ShippedHead() if assets is None else HeadAssets(assets)
        surroundings = [] if assets is None else sorted(Path(assets, "hdri").glob("*.exr"))
        self.environments = [Environment.load(p) for p in surroundings] or procedural_environments()
        self.contour = JawContour(self.assets)
        self.dense = dense_head(self.assets) if recipe.dense else None

    @property
    def drawn_size(self) -> int:
        """The side in px of pictures before they are downsampled."""
        return round(self.recipe.size * OVERSAMPLING)

    def plan_view(
        self, streams: RandomStreams, head: Head, vertices: np.ndarray, camera: PerspectiveCamera, pan: float = 0.0
    ) -> View:
        """A view of a head under a camera; light, backdrop and effects follow from the streams.

        vertices: (V,3) of the bare head. pan: radians by which the camera has turned relative to the surroundings.
        """
        recipe, environments = self.recipe, self.environments
        light, environment = view_light(streams, recipe, environments, head.albedo, pan)
        return View(
            camera, light, streams.generator("shadow").uniform(0.3, 1.0),
            choose_backdrop(streams, recipe, light, environment, environments, pan),
            choose_camera_effects(streams, recipe),
            streams, self.truth(head, vertices, camera),
        )  # fmt: skip

    def truth(self, head: Head, vertices: np.ndarray, camera: PerspectiveCamera) -> dict[str, np.ndarray]:
        """The ground truth of a head under a camera, except for occlusion."""
        xyz = camera.project(head.landmarks)
        origin = np.array([0, 0, xyz[:, 2].mean()])
        points = head.landmarks @ self.assets.from_head
        target = camera.target @ self.assets.from_head
        out = {
            "xyz": (xyz - origin).astype(np.float32),
            "contour": (self.contour(camera, vertices, xyz) - origin).astype(np.float32),
            "head": points.astype(np.float32),
            "rotation": (camera.rotation @ self.assets.from_head).astype(np.float32),
            "camera": np.array([*target, camera.distance, camera.focal, *camera.centre], np.float32),
            **weak_camera(points, xyz),
            "identity": head.identity,
            "expression": head.expression,
        }
        if self.dense is not None:
            out["vertices"] = (camera.project(self.dense(vertices)) - origin).astype(np.float32)
        return out


class SynthGenerator(Planner):
    """Draws groups of `VIEWS_PER_HEAD` samples of one head; group g is reproducible from (recipe, g).

    assets: a folder of head assets, or None for simpler heads that need none. quality: raster, or path for path-traced
    light (`renderers.path`); the truth is the same.

    What a sample holds, arrays of one sample (a group has another axis before them). Points are in pixels of the
    stored picture, z nearer = larger with mean zero over the landmarks (docs/conventions.md):

    image (S,S,3) uint8; xyz (68,3) mesh points; contour (17,3) visible jaw line; occlusion (68,) 0 visible, 1 behind
    the head itself, 2 behind something else; visible (68,) occlusion == 0 and inside the picture; head (68,3) the
    landmarks in the canthus head frame, cm; rotation (3,3) camera-from-head; camera (7,) target in the head frame (cm),
    distance (cm), focal (px), centre (px) as of `PerspectiveCamera`; weak_rotation, weak_scale, weak_shift,
    weak_residual as of `truth.weak_camera`; identity and expression of the assets' head model, of which eyeBlink closes
    the eye as `lids.blinked` says. With `dense`, vertices (4828,3) of `MorphableModel.default()`. With `maps`, region
    and depth (S,S) as of `truth.maps`.
    """

    def __init__(self, assets: str | Path | None, recipe: SynthRecipe, quality: str = "raster"):
        super().__init__(assets, recipe)
        self.renderer = make_renderer(quality, self.drawn_size)
        for key, image in self.assets.textures.items():
            self.renderer.texture(key, image)
        self.renderer.texture("lash", lash_texture())
        self._loaded: tuple[tuple[int, ...], Head, np.ndarray] | None = None

    def group(self, number: int) -> dict[str, np.ndarray]:
        """Samples of one head: image (n,S,S,3) uint8 and the truth arrays, n = VIEWS_PER_HEAD."""
        return stack([self.sample(number * VIEWS_PER_HEAD + k) for k in range(VIEWS_PER_HEAD)])

    def sample(self, index: int) -> dict[str, np.ndarray]:
        """Sample `index` of the recipe, which is view `index % VIEWS_PER_HEAD` of its group."""
        number, view = divmod(index, VIEWS_PER_HEAD)
        of_head = RandomStreams(self.recipe.seed, number)
        streams = of_head.child(view)
        moves = of_head if streams.maybe("own expression", self.recipe.own_expressions) is None else streams
        if self._loaded is None or self._loaded[0] != moves.key:
            person = sample_person(of_head, self.assets, self.recipe)
            expression = sample_expression(moves, self.assets.expression_names, self.recipe)
            self._loaded = moves.key, *self.load(person, expression)
        _, head, vertices = self._loaded
        return self.render_view(streams, head, vertices, sample_camera(streams, self.recipe, head.landmarks))

    def load(self, person: Person, expression: np.ndarray) -> tuple[Head, np.ndarray]:
        """Load a person with an expression (E,) into the renderer; returns the head and its bare vertices (V,3)."""
        head, vertices = pose_head(self.assets, person, expression)
        for key, image in person.textures.items():
            self.renderer.texture(key, image)
        self.renderer.load(head.pieces)
        self._loaded = None
        return head, vertices

    def render_view(
        self,
        streams: RandomStreams,
        head: Head,
        vertices: np.ndarray,
        camera: PerspectiveCamera,
        pan: float = 0.0,
        noise_streams: RandomStreams | None = None,
    ) -> dict[str, np.ndarray]:
        """The picture and truth of the loaded head under a camera; light, backdrop and effects follow from the streams.

        pan: radians by which the camera has turned relative to the surroundings. noise_streams: for the noise, where it
        differs between frames that share everything else.
        """
        size, view = self.recipe.size, self.plan_view(streams, head, vertices, camera, pan)
        large = camera.resized(self.renderer.size / size)
        picture = downsample(self.renderer.draw(large, view.light, view.shadow), size)
        behind = paint_backdrop(view.backdrop, size, self.environments)
        image = picture[..., :3] + behind * (1 - picture[..., 3:] / 255)
        image = apply_camera_effects(image, view.effects, (noise_streams or streams).generator("grain"))
        hidden = occlusion(self.renderer, large, head.landmarks)
        visible = is_visible(hidden, view.truth["xyz"], size)
        out = {"image": image, **view.truth, "visible": visible, "occlusion": hidden}
        if self.recipe.maps:
            origin = float(camera.project(head.landmarks)[:, 2].mean())
            out |= maps(self.renderer, camera, size, origin)
        return out


def stack(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Samples stacked along a new first axis."""
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def head_rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Yaw about the head's own vertical, then pitch, then roll (degrees): camera-from-head (3,3)."""
    (cy, cp, cr), (sy, sp, sr) = (f(np.radians([yaw, pitch, roll])) for f in (np.cos, np.sin))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ nod @ turn


def sample_camera(streams: RandomStreams, recipe: SynthRecipe, points: np.ndarray) -> PerspectiveCamera:
    """A random camera on landmarks (68,3): their box has the recipe's share of the picture, near its middle."""
    frontal = streams.maybe("frontal", recipe.frontal_share)
    rng = streams.generator("camera")
    flat = rng.uniform(-recipe.yaw, recipe.yaw)
    yaw = flat if frontal is None else frontal.normal(0, 22)
    pitch = np.clip(rng.normal(0, recipe.pitch), -45, 45)
    roll = np.clip(rng.normal(0, recipe.roll), -60, 60)
    distance = float(np.exp(rng.uniform(np.log(35), np.log(300))))
    unit = PerspectiveCamera(head_rotation(yaw, pitch, roll), points.mean(0), distance, 1.0, np.zeros(2))
    xy = unit.project(points)[:, :2]
    low, high = xy.min(0), xy.max(0)
    focal = recipe.size * recipe.face * rng.uniform(0.92, 1.05) / (high - low).max()
    centre = (recipe.size - 1) / 2 - focal * (low + high) / 2 + rng.normal(0, 0.015 * recipe.size, 2)
    return PerspectiveCamera(unit.rotation, unit.target, distance, focal, centre)
