"""Keys and values of a recipe, whatever it is for: read from YAML, unknown ones refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from canthus.errors import RecipeError


def read_keys(path: str | Path) -> dict[str, Any]:
    """What a YAML file says; an empty one says nothing. Raises `RecipeError` where there are no keys and values."""
    import yaml  # optional dependency of the extras train and synth

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"the recipe '{path}' cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"the recipe '{path}' is not a mapping of keys to values")
    return values


def refuse_unknown(where: str, given: Iterable[Any], names: Sequence[str]) -> None:
    """Raise `RecipeError` for a given key that is none of `names`, with the nearest that is."""
    for key in given:
        if key not in names:
            near = get_close_matches(str(key), names, 1)
            raise RecipeError(f"{where} has the unknown key '{key}'" + (f"; '{near[0]}'?" if near else ""))
