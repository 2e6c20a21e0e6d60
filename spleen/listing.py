"""Names in a sentence: all of a few, the first of many."""

from collections.abc import Iterable


def few(names: Iterable[object], most: int = 5) -> str:
    """The first names, and how many more there are: "a, b, c, d, e and 2 more"."""
    listed = list(map(str, names))
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
