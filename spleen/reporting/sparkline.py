"""A curve in one line of text."""

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as block characters from the lowest to the highest, at most `width` of them.

    More values than that are averaged in equal stretches. What is not finite is a blank; equal values are drawn
    at half height.
    """
    means = [_mean(values[start:end]) for start, end in _stretches(len(values), width)]
    known = [mean for mean in means if not math.isnan(mean)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    return "".join(" " if math.isnan(mean) else _block(mean, low, high) for mean in means).rstrip()


def _stretches(count: int, width: int) -> list[tuple[int, int]]:
    n = min(count, width)
    return [(number * count // n, (number + 1) * count // n) for number in range(n)]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _block(value: float, low: float, high: float) -> str:
    if high <= low:
        return _BLOCKS[len(_BLOCKS) // 2 - 1]
    return _BLOCKS[min(int((value - low) / (high - low) * len(_BLOCKS)), len(_BLOCKS) - 1)]
