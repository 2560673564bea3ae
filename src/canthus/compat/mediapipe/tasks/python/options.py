"""Options of a MediaPipe task's model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


@dataclass
class BaseOptions:
    """Taken and not used: the weights are those of canthus, on the CPU."""

    class Delegate(IntEnum):
        """Processors."""

        CPU = 0
        GPU = 1

    model_asset_path: str | None = None
    model_asset_buffer: bytes | None = None
    delegate: Delegate | None = None
