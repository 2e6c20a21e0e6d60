"""Names in a sentence: all of a few, the first of many."""

from collections.abc import Iterable


def few(names: Iterable[object], most: int = 5) -> str:
    """The first names, and how many there are if that is not all: "a, b, … (7 in all)"."""
    listed = list(map(str, names))
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")
