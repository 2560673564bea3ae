"""What a training run needs to know: read from YAML, every key checked, compared with what a stopped run began with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from canthus.data.augment import Augmentation
from canthus.decode import decoding, fits, read_json
from canthus.errors import RecipeError
from canthus.io.yaml_config import parse_yaml, read_keys, refuse_unknown
from canthus.training.aligner import method_class
from canthus.training.packaged import packaged

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OPTIMIZERS = ("adamw", "adam", "rmsprop", "sgd")
SCHEDULES = ("cosine", "exponential", "multistep")
MAY_CHANGE = ("steps", "save_every", "picture_every", "tensorboard")
"""Keys that may change when a run is resumed; `steps` may only grow."""


@dataclass(frozen=True)
class StageRecipe:
    """The values of one stage of the method that differ from the rest of the recipe; see `Recipe` for the keys.

    A stage that sets anything but `share` and `batch` gets its own optimiser, and warm-up and schedule run within the
    stage. Consecutive stages that do not share one optimiser and one schedule.
    """

    share: float | None = None  # of the steps, relative to the other stages
    batch: int | None = None
    lr: float | None = None
    warmup_steps: int | None = None
    optimizer: str | None = None
    schedule: str | None = None
    final_lr_ratio: float | None = None
    lr_milestones: tuple[float, ...] | None = None
    weight_decay: float | None = None


@dataclass(frozen=True)
class Recipe:
    """All settings of a run; a recipe file holds what differs from these defaults.

    faces: folders, whose faces all come once an epoch; or folder -> weight, to draw faces with replacement.
    A folder holds rendered shards, or a data set as its authors distribute it; `synth:ASSETS` renders while training.
    stages: name of a stage of the method -> its own values (`StageRecipe`).
    """

    method: str = "swift"
    config: dict[str, Any] = field(default_factory=dict)  # of the method
    augment: dict[str, Any] = field(default_factory=dict)  # of data.augment.Augmentation
    faces: tuple[str, ...] | dict[str, float] = ()
    head_model: str = ""  # folder of the head model of 300W-LP's labels, which gives them depth (`read_3ddfa`)
    trunk_weights: str | dict[str, str] = ""  # safetensors file for the ResNet trunks, or network -> file
    weights: str = ""  # a folder of trained weights of the same method and config to go on from; none: from scratch
    steps: int = 10000
    batch: int = 128  # of all processes together
    optimizer: str = "adamw"  # or adam, rmsprop, sgd (momentum 0.9)
    lr: float = 2e-3  # peak learning rate
    warmup_steps: int = 300  # in which the learning rate rises from zero
    schedule: str = "cosine"  # or exponential, both down to final_lr_ratio; or multistep
    final_lr_ratio: float = 0.01  # learning rate at the end / lr
    lr_milestones: tuple[float, ...] = ()  # fractions of the steps at which `multistep` divides the rate by ten
    weight_decay: float = 1e-3
    grad_clip: float = 5.0  # largest norm of the gradient
    ema_decay: float = 0.998  # of the exponential moving average of the weights, per step
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    save_every: int = 250  # steps
    picture_every: int = 500  # steps; 0 for no pictures
    tensorboard: bool = False  # also log for TensorBoard
    float32: bool = False  # always; else networks use bfloat16 where the device computes it in hardware
    seed: int = 0

    def __post_init__(self) -> None:
        faces = (self.faces,) if isinstance(self.faces, str) else self.faces
        if not isinstance(faces, Mapping | Sequence | None):
            raise RecipeError(f"`faces` is {faces!r}; folders of faces are wanted")
        object.__setattr__(self, "faces", dict(faces) if isinstance(faces, Mapping) else tuple(faces or ()))
        object.__setattr__(self, "lr_milestones", _as_tuple(self.lr_milestones))
        if not all(isinstance(name, str) and name for name in self.faces):
            raise RecipeError(f"`faces` is {faces!r}; folders, or folder: weight, are wanted")
        for key in ("method", "weights", "head_model"):
            if not isinstance(getattr(self, key), str):
                raise RecipeError(f"`{key}` is {getattr(self, key)!r}; text is wanted")
        trunks = self.trunk_weights
        if not fits(trunks, str) and not fits(trunks, dict[str, str]):
            raise RecipeError(f"`trunk_weights` is {trunks!r}; a file, or network: file, is wanted")
        _check(vars(self), Recipe, "")
        _check_keys("`augment`", self.augment, Augmentation)
        _check_types("augment", self.augment, Augmentation)
        Augmentation(**self.augment)
        method = method_class(self.method).Config
        _check_keys("`config`", self.config, method)
        object.__setattr__(self, "config", _with_words(self.config, method))
        _check_types("config", self.config, method)
        if not self.faces:
            raise RecipeError("a recipe needs `faces`: a list of one or more folders of faces, or folder: weight")
        if isinstance(self.faces, dict):
            for name, weight in self.faces.items():
                if not fits(weight, float) or weight <= 0:
                    raise RecipeError(f"the weight of `faces` '{name}' is {weight!r}; a number above zero is wanted")
        if not isinstance(self.stages, dict):
            raise RecipeError(f"`stages` is {self.stages!r}; name of a stage: keys and values are wanted")
        for name, values in self.stages.items():
            if not isinstance(values, dict) or not isinstance(name, str):
                raise RecipeError(f"`stages.{name}` is {values!r}; keys and values are wanted")
            _check_keys(f"`stages.{name}`", values, StageRecipe)
            _check(values, Recipe, f"stages.{name}.")

    @classmethod
    def read(cls, path: str | Path, changes: Sequence[str] = (), **overrides: Any) -> Recipe:
        """A recipe file (YAML), or one of `packaged` by its name; an unknown key is an error that names the nearest.

        changes: texts like `lr=0.001` or `augment.scale=0.2` that replace what the file says.
        """
        values = read_keys(_file(path)) | overrides
        for change in changes:
            _change(values, change)
        _check_keys(f"the recipe '{path}'", values, cls)
        return cls(**values)

    def stage(self, name: str) -> StageRecipe:
        """The own values of stage `name` of the method."""
        values = self.stages.get(name, {})
        milestones = {k: _as_tuple(v) for k, v in values.items() if k == "lr_milestones"}
        return StageRecipe(**{**values, **milestones})


def _file(path: str | Path) -> Path:
    """A recipe file, or that of a name."""
    named = packaged()
    name = str(path).removesuffix(".yaml")
    if not Path(path).exists() and "/" not in name and "\\" not in name:
        if name in named:
            return named[name]
        near = get_close_matches(name, named, 1)
        hint = f" ('{near[0]}'?)" if near else ""
        raise RecipeError(f"there is no recipe '{path}', neither a file nor a name{hint}: see `canthus train --list`")
    return Path(path)


def refuse_changes(recipe: DataclassInstance, began: Path) -> None:
    """Raise `RecipeError` unless a run that began with the recipe in file `began` (JSON) may go on with this one."""
    with decoding(RecipeError, f"'{began}', which says how the run began, cannot be read"):
        before = read_json(began)
        if not isinstance(before, dict) or not fits(before.get("steps", 0), float):
            raise ValueError("it holds no recipe")
    now = json.loads(as_json(recipe))
    if old := before.keys() - now.keys():
        raise RecipeError(
            f"the run in '{began.parent}' began with another version of canthus, whose recipes have the key "
            f"`{min(old)}`; take another folder"
        )
    if now["steps"] < before.get("steps", 0):
        raise RecipeError(f"the run began with `steps` {before['steps']}, now {now['steps']}; fewer are not possible")
    for f in fields(recipe):
        if f.name not in MAY_CHANGE:
            default = f.default if f.default_factory is MISSING else f.default_factory()
            for key, old, new in _differences(f.name, before.get(f.name, default), now[f.name]):
                raise RecipeError(
                    f"the run in '{began.parent}' began with `{key}` {old}, now {new}; "
                    "go on with the old recipe or take another folder (`steps` may grow)"
                )


def as_json(recipe: DataclassInstance) -> str:
    """The recipe, every key of it, as JSON."""
    return json.dumps(asdict(recipe), indent=2)


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Keys, dotted, with values that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(n for n in new if n not in old)]:
            yield from _differences(f"{key}.{name}", old.get(name, "not given"), new.get(name, "not given"))
    elif old != new and list(_as_tuple(old)) != list(_as_tuple(new)):
        yield key, old, new


def _check_keys(where: str, values: dict[str, Any], options: type) -> None:
    """Raise `RecipeError` for a key that is no field of the dataclass `options`, with the nearest that is."""
    if not isinstance(values, dict):
        raise RecipeError(f"{where} is {values!r}; keys and values are wanted")
    refuse_unknown(where, values, [f.name for f in fields(options)])


def _check_types(where: str, values: dict[str, Any], options: type) -> None:
    """Raise `RecipeError` for a value of another type than the dataclass `options` says."""
    for key, kind in get_type_hints(options).items():
        if key in values and not fits(values[key], kind):
            name = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
            raise RecipeError(f"`{where}.{key}` is {values[key]!r}; {name} is wanted")


# lowest, highest
_LIMITS = {
    "steps": (1, math.inf), "batch": (1, math.inf), "save_every": (1, math.inf), "picture_every": (0, math.inf),
    "warmup_steps": (0, math.inf), "lr": (0, math.inf), "weight_decay": (0, math.inf), "final_lr_ratio": (0, 1),
    "ema_decay": (0, 1), "share": (0, math.inf), "seed": (0, 2**63 - 1), "grad_clip": (1e-6, math.inf),
    "workers": (1, math.inf), "refiner_lr": (0, math.inf),
}  # fmt: skip
_CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}


def _check(values: dict[str, Any], options: type, where: str) -> None:
    """Raise `RecipeError` for a value that makes no sense. `where` goes before the keys."""
    kinds = {f.name: f.default for f in fields(options)} | {"share": 1.0}
    for key, value in values.items():
        if key in _CHOICES and (not isinstance(value, str) or value not in _CHOICES[key]):
            raise RecipeError(f"`{where}{key}` is {value!r}; one of {', '.join(_CHOICES[key])} is wanted")
        if key == "lr_milestones" and not all(fits(v, float) and 0 < v < 1 for v in _as_tuple(value)):
            raise RecipeError(f"`{where}lr_milestones` is {value!r}; a list of fractions of the steps, 0..1, is wanted")
        if isinstance(kinds.get(key), bool):
            if not isinstance(value, bool):
                raise RecipeError(f"`{where}{key}` is {value!r}; true or false is wanted")
            continue
        if isinstance(kinds.get(key), int | float) and not fits(value, float):
            raise RecipeError(f"`{where}{key}` is {value!r}; a number is wanted (YAML reads 2e-3 as text: 2.0e-3)")
        if type(kinds.get(key)) is int and value != int(value):
            raise RecipeError(f"`{where}{key}` is {value!r}; a whole number is wanted")
    check_limits(values, where)


def check_limits(values: Mapping[str, Any], where: str = "") -> None:
    """Raise `RecipeError` for a number that is out of the range of its key. `where` goes before the keys."""
    for key, value in values.items():
        low, high = _LIMITS.get(key, (-math.inf, math.inf))
        if key in _LIMITS and not low <= value <= high:
            wanted = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise RecipeError(f"`{where}{key}` is {value!r}; {wanted} is wanted")


def _change(values: dict[str, Any], change: str) -> None:
    """Put `key=value` into `values`; dots lead into nested keys, the value is YAML."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"got the change '{change}'; key=value is wanted")
    value: Any = text
    if not _wants_text(get_type_hints(Recipe).get(key)):
        with decoding(RecipeError, f"the value in '{change}' cannot be read"):
            value = parse_yaml(text)
        with suppress(ValueError):
            value = float(value) if isinstance(value, str) else value  # 1e-3, which YAML takes for text
    *outer, last = key.split(".")
    for name in outer:
        inner = values.get(name) or {}
        if not isinstance(inner, dict):
            raise RecipeError(f"got the change '{change}', but `{name}` is {inner!r} and has no keys")
        values[name] = values = dict(inner)
    values[last] = value


def _with_words(values: dict[str, Any], options: type) -> dict[str, Any]:
    """The values, with true and false, which YAML takes for booleans, as words where `options` wants text."""
    kinds = get_type_hints(options)
    return {
        key: str(value).lower() if isinstance(value, bool) and _wants_text(kinds[key]) else value
        for key, value in values.items()
    }


def _wants_text(kind: Any) -> bool:
    return kind is str or (get_origin(kind) is Literal and all(isinstance(word, str) for word in get_args(kind)))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
