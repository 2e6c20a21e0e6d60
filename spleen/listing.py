"""Names in a sentence or in lines: all of a few, the first of many."""

from collections.abc import Iterable, Sequence


def few(names: Iterable[object], most: int = 5) -> str:
    """The first names, and how many more there are: "a, b, c, d, e and 2 more"."""
    listed = list(map(str, names))
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def in_lines(entries: Sequence[object], most: int = 10) -> str:
    """The first entries, each on a line of its own that starts with a line break, and how many more there are."""
    more = [f"… and {len(entries) - most} more"] * (len(entries) > most)
    return "".join(f"\n  {entry}" for entry in [*entries[:most], *more])
