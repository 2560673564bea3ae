"""Keys and values of a recipe, whatever it is for: read from YAML, unknown ones refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from canthus.decode import check_plain, decoding, read_bytes
from canthus.errors import RecipeError

LONGEST = 2**18  # bytes of a recipe; PyYAML takes seconds for a megabyte
DEEPEST = 16  # lists and mappings in each other


def read_keys(path: str | Path) -> dict[str, Any]:
    """What a YAML file says; an empty one says nothing. Raises `RecipeError` where there are no keys and values, and as
    `parse_yaml`."""
    with decoding(RecipeError, f"the recipe '{path}' cannot be read"):
        values = parse_yaml(read_bytes(path).decode("utf-8"))
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError(f"the recipe '{path}' is not a mapping of keys to values")
    return values


def parse_yaml(text: str) -> Any:
    """What a text of YAML says. Raises `ValueError` for a long or deeply nested one, and for anchors and aliases, with
    which a few lines unfold to gigabytes; for a key that is there twice; for NaN and infinity; and `yaml.YAMLError`."""
    import yaml  # optional dependency of the extras train and synth

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                raise ValueError("it has an anchor or an alias; values written out are wanted")
            if self.depth == DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST} levels")
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise ValueError(f"it has the key `{twice[0]}` twice; once is wanted")
            return super().construct_mapping(node, deep)

    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text)} characters; at most {LONGEST} are wanted")
    value = yaml.load(text, Loader)
    check_plain(value)
    return value


def refuse_unknown(where: str, given: Iterable[Any], names: Sequence[str]) -> None:
    """Raise `RecipeError` for a given key that is none of `names`, with the nearest that is."""
    for key in given:
        if key not in names:
            near = get_close_matches(str(key), names, 1)
            raise RecipeError(f"{where} has the unknown key '{key}'" + (f"; '{near[0]}'?" if near else ""))
