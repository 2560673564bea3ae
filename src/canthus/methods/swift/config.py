"""The sizes of swift."""

from __future__ import annotations

from dataclasses import dataclass

from canthus.errors import RecipeError
from canthus.training.aligner import AlignerConfig

LANDMARKS = 68


@dataclass(frozen=True)
class SwiftConfig(AlignerConfig):
    """Sizes of the network. Raises `RecipeError` for some that do not fit each other, as `AlignerConfig` does."""

    widths: tuple[int, ...] = (16, 32, 64, 96)  # channels of the four resolutions, S/2 to S/16
    depths: tuple[int, ...] = (1, 2, 3, 3)  # residual blocks at each
    features: int = 160  # of the last hidden layer
    places: int = 24  # channels of the map that is kept whole
    heatmaps: int = 0  # channels of the branch that draws them; 0: none
    modes: int = 0  # in which the head model's landmarks move; 0: no answer from the model
    details: bool = True  # look at eyes and mouth a second time, and give expressions
    eye_features: int = 96  # of the network on a patch around an eye
    mouth_features: int = 128
    lids: int = 0  # hidden units of what moves the lids by the expressions; 0: they stay

    def __post_init__(self) -> None:
        super().__post_init__()
        least = dict.fromkeys(("features", "places", "eye_features", "mouth_features"), 1)
        least |= dict.fromkeys(("heatmaps", "modes", "lids"), 0)
        for name, low in least.items():
            if getattr(self, name) < low:
                raise RecipeError(f"`{name}` is {getattr(self, name)}; {low} or more is wanted")
        if len(self.widths) < 2 or len(self.widths) != len(self.depths) or min(*self.widths, *self.depths) < 1:
            got = f"`widths` is {self.widths} and `depths` {self.depths}"
            raise RecipeError(f"{got}; as many numbers above zero in each, two or more, are wanted")
        if self.lids and not self.details:
            raise RecipeError("`lids` are moved by expressions; `details: true` is wanted, which gives these")
        self.want_multiple(2 ** len(self.widths))
