"""Lists in messages, inline or one entry per line, shortened if they are long; durations; messages on a terminal."""

import sys
from collections.abc import Iterable, Mapping, Sequence


def shortened(names: Iterable[object], most: int = 5) -> str:
    """The first names and the number of the others: "a, b, c, d, e and 2 more"."""
    listed = list(map(str, names))
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def bullets(entries: Sequence[object], most: int = 10) -> str:
    """The first entries, each on its own line with a leading line break, and the number of the others."""
    more = [f"… and {len(entries) - most} more"] * (len(entries) > most)
    return "".join(f"\n  {entry}" for entry in [*entries[:most], *more])


def first_problem(problems: Mapping[str, str], total: int) -> str:
    """The problem of the first image (`problems` is keyed by name), and the number of images with such a problem."""
    name, problem = next(iter(problems.items()))
    return f"{name}: {problem}{f' (same problem in {len(problems)} of {total} images)' if len(problems) > 1 else ''}"


def on_own_line(message: str) -> str:
    """The message for standard error, after the ^C and the progress bar that a terminal may show in its line."""
    return f"\n{message}" if sys.stderr.isatty() else message


def duration_text(seconds: float) -> str:
    """A duration in the largest unit of which it has at least two: 119 s, 2 min, 90 min, 3 h, 2 days."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
