"""`Aligner`: the base class of trainable methods: a network, its loss, its stages. It predicts, saves and loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from canthus.data.sample import FaceBatch, Need
from canthus.decode import decoding, fits, read_bytes, read_json
from canthus.errors import RecipeError, WeightsError
from canthus.face.faces import Alignment
from canthus.face.morphable import MorphableModel
from canthus.inference.predictor import Predictor
from canthus.io.card import CARD_FILE, CROP_SCALES, CROP_SIZES, Card, sha256
from canthus.io.outputs import atomic_write, make_folder

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    terms: name of a loss term -> its weight; terms that are not named do not count.
    trains: names of the submodules that learn; empty for all. The others are frozen, batch statistics included.
    share: of the steps of the recipe, relative to the other stages.
    teacher_forcing: later networks see the true output of earlier ones instead of the predicted one.
    """

    name: str
    terms: dict[str, float]
    trains: tuple[str, ...] = ()
    share: float = 1.0
    teacher_forcing: bool = False


@dataclass(frozen=True)
class AlignerConfig:
    """What every method's configuration has.

    size: side of the crop, px. crop_scale: side of the crop / longer side of the tight landmark box. shape_aligned:
    learn from crops that the similarity to the mean shape cuts, for the tracking model of a `Tracker`. Raises
    `RecipeError` for a value of another type than the key says, and for crops out of the range that a card allows.
    """

    size: int = 112
    crop_scale: float = 1.4
    shape_aligned: bool = False

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not fits(value, kind):
                wanted = f"one of {get_args(kind)}" if get_origin(kind) is Literal else str(kind)
                raise RecipeError(f"`{name}` is {value!r}; {wanted} is wanted")
        for name, (low, high) in {"size": CROP_SIZES, "crop_scale": CROP_SCALES}.items():
            if not low <= getattr(self, name) <= high:
                raise RecipeError(f"`{name}` is {getattr(self, name)}; {low} to {high} is wanted")

    def want_positive(self, *names: str) -> None:
        """Raise `RecipeError` for the first of these numbers that is not above zero."""
        for name in names:
            if getattr(self, name) <= 0:
                raise RecipeError(f"`{name}` is {getattr(self, name)}; more than 0 is wanted")

    def want_multiple(self, unit: int) -> None:
        """Raise `RecipeError` unless `size` is a multiple of `unit`."""
        if self.size % unit:
            raise RecipeError(f"`size` is {self.size}; a multiple of {unit} is wanted")


class Aligner(nn.Module, Predictor):
    """Base class of the methods. A method defines `Config`, `forward`, `loss` and, if it needs them, `stages`."""

    Config: ClassVar[type[AlignerConfig]] = AlignerConfig
    stage_names: ClassVar[tuple[str, ...]] = ()
    """The stages of all configurations: a recipe may name one that its configuration leaves out."""
    parity: ClassVar[float] = 1e-3  # px; more between torch and ONNX is a fault
    unrolled: ClassVar[bool] = False  # of so many steps that an export has to trace them
    needs: ClassVar[Mapping[str, tuple[Need, ...]]] = {}
    """Loss term -> what of a face's truth it cannot do without; faces that lack it do not count there. Points that are
    not known are masked in `loss` itself."""
    without: Mapping[str, tuple[Need, str]] = {}
    """Loss term -> something that it would rather not do without, and in words how it counts where that lacks."""
    tells_sigma = False
    scheme: str = "ibug68"  # of the points that the network learns and gives
    starter: str | None = None  # weights whose points `forward` takes for its `start`, where it cannot do without

    def __init__(self, config: AlignerConfig):
        super().__init__()
        self.config = config
        self.card = Card(
            name=self.method, version="untrained", method=self.method,
            crop_size=config.size, crop_scale=config.crop_scale, licence="", commercial_use=False,
            training_data="", recipe="", commit="",
            mean_shape=_mean_shape(config.crop_scale) if config.shape_aligned else None, scheme=self.scheme,
        )  # fmt: skip

    @property
    def method(self) -> str:
        """The name of the file or folder in methods/."""
        return type(self).__module__.removeprefix("canthus.methods.").partition(".")[0]

    def forward(self, crops: Tensor, start: Tensor | None = None) -> Alignment:
        """Align crops (B,3,S,S) RGB 0..1; `start` (B,L,3) are crop pixels to start from, where a method uses them."""
        raise NotImplementedError

    def loss(self, alignment: Alignment, truth: FaceBatch) -> dict[str, Tensor]:
        """Named loss terms, each (B,)."""
        raise NotImplementedError

    def training_terms(self, truth: FaceBatch, stage: Stage) -> dict[str, Tensor]:
        """What one training step minimises: the terms that `stage` names, each (B,).

        Here: the loss of the network's output. A method overrides it if its networks see ground truth in training, as
        when a later one learns from the true maps of an earlier one.
        """
        return self.loss(self(truth.crops), truth)

    def prepare(self, xyz: Tensor) -> None:
        """Initialise from training shapes (N,68,3) in crop pixels, once before the first step; by default nothing."""

    def sampling_weights(self, xyz: Tensor) -> Tensor | None:
        """How often each of the training shapes (N,68,3), in pixels of the stored pictures, is to be drawn: weights
        (N,) up to a factor, for batches that are balanced over poses, say. None: all alike, once an epoch."""
        return None

    def stages(self) -> tuple[Stage, ...]:
        """The stages of training, in order."""
        raise NotImplementedError

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`."""
        return self.finish(self.answer(crops))

    def answer(self, crops: np.ndarray) -> Alignment:
        """What the network says of crops (B,S,S,3) uint8 RGB, before `finish`."""
        self.eval()
        device = next(self.parameters()).device
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            with torch.inference_mode():
                out = self(torch.as_tensor(crops, device=device).permute(0, 3, 1, 2).float() / 255)
        finally:
            torch.set_num_threads(before)
        return out.map(lambda values: values.float().cpu().numpy())

    def save(self, folder: str | Path) -> Path:
        """Write config, weights and card into a folder; returns it. Raises `OutputError`."""
        folder = make_folder(folder)
        text = json.dumps({"method": self.method, "config": asdict(self.config)}, indent=2)
        atomic_write(folder / CONFIG_FILE, text.encode())
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        atomic_write(folder / WEIGHTS_FILE, save(tensors))
        self.card.files.update({name: sha256(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)})
        atomic_write(folder / CARD_FILE, self.card.to_json().encode())
        return folder

    @staticmethod
    def load(folder: str | Path) -> Aligner:
        """The aligner that was saved into a folder. Raises `WeightsError`."""
        folder = Path(folder)
        card = Card.read(folder)
        weights = card.checked(folder, WEIGHTS_FILE)
        if CONFIG_FILE in card.files:  # cards of the first versions do not list it
            card.checked(folder, CONFIG_FILE)
        with decoding(WeightsError, f"'{folder}' holds no aligner that this version can load"):
            described = read_json(folder / CONFIG_FILE)
            tensors = load(read_bytes(weights))
            if not all(values.isfinite().all() for values in tensors.values()):
                raise ValueError("its weights hold NaN or infinity")
            aligner = build(described["method"], described["config"])
            aligner.load_state_dict(tensors)
        aligner.card = card
        return aligner.eval()


def _mean_shape(crop_scale: float) -> list[list[float]]:
    """As of `MorphableModel.frontal_shape`, for a card."""
    return MorphableModel.default().frontal_shape(crop_scale).round(5).tolist()


def method_class(method: str) -> type[Aligner]:
    """The one `Aligner` subclass of methods/<method>.py, or of the folder methods/<method>. Raises `WeightsError`."""
    try:
        module = import_module(f"canthus.methods.{method}" if method.isidentifier() else "canthus.methods.?")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("canthus.methods."):
            raise  # an optional package
        raise WeightsError(f"no method {method!r}: a file methods/{method}.py is wanted") from error
    return next(
        c for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Aligner) and c.__module__.startswith(module.__name__)
    )  # fmt: skip


def build(method: str, config: dict[str, Any]) -> Aligner:
    """A new aligner of methods/<method>.py, given its config. Raises `WeightsError`."""
    cls = method_class(method)
    return cls(cls.Config(**config))
