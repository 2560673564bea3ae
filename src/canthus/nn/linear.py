"""Linear layers that begin with no say."""

from __future__ import annotations

from torch import nn


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that says 0 at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
