"""Nested values: what JSON holds, and a tree of mappings as a flat one."""

from collections.abc import Callable, Mapping
from typing import Any

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a tree of mappings by dotted key, in the tree's order; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def map_texts(tree: Any, change: Callable[[str], str]) -> Any:
    """The tree with every text changed, but for the keys."""
    if isinstance(tree, Mapping):
        return {key: map_texts(value, change) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [map_texts(value, change) for value in tree]
    return change(tree) if isinstance(tree, str) else tree
