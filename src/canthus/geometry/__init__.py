"""Pure functions on arrays, with no face in them.

Everything here is written once against the Python array API, so the same functions take NumPy arrays and
torch tensors; gradients flow through. Arrays are floating point and batched over their leading dimensions.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""A NumPy array or a torch tensor; the array API has no common type to name."""
