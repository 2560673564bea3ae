"""What a checkpoint holds of a network in training: weights, averaged weights, and the optimiser's moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pack(network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All of it as tensors by name, copied to the CPU."""
    out = {f"model.{k}": v for k, v in network.state_dict().items()}
    out |= {f"ema.{k}": v for k, v in average.items()}
    for i, moments in optimizer.state_dict()["state"].items():
        out |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in moments.items() if v is not None}
    return {k: v.detach().cpu().contiguous().clone() for k, v in out.items()}


def unpack(tensors: dict[str, Tensor], network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Put the tensors of `pack` into a network and a fresh optimiser; returns the averaged weights."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    network.load_state_dict(part("model."))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return part("ema.")
