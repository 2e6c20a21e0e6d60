"""The best two arms pair by pair: a dot for each difference in test Dice, and the mean with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spleen.runs.results.comparison import ArmComparison
from spleen.runs.results.drawings.scales import Linear, Tick, span

WIDTH, LEFT, RIGHT = 720, 24, 696
_RADIUS, _APART, _MOST_HIGH = 4.5, 9.5, 12


@dataclass(frozen=True)
class PairDot:
    """A pair, in SVG units, and what it says when pointed at."""

    x: float
    y: float
    title: str
    winner: str
    """"best", "following" or "none"."""


@dataclass(frozen=True)
class PairsDrawing:
    """Dots piled up above the axis; `mean`, `low` and `high` are positions, the last two None without an interval."""

    dots: tuple[PairDot, ...]
    ticks: tuple[Tick, ...]
    zero: float
    mean: float
    low: float | None
    high: float | None
    axis_y: float


def pairs_drawing(comparison: ArmComparison, names: Sequence[str]) -> PairsDrawing | None:
    """The drawing; `names` are those of the pairs, in order. None without pairs."""
    if not comparison.pairs:
        return None
    interval = comparison.interval
    ends = [] if interval is None else [max(interval.low, -1.0), min(interval.high, 1.0)]
    low, high = span([0.0, *ends, *(pair.difference for pair in comparison.pairs)])
    x = Linear(low, high, LEFT, RIGHT)
    heights = piled([x(pair.difference) for pair in comparison.pairs])
    axis_y = 16 + (max(heights) + 1) * _APART + 24
    dots = [
        PairDot(
            x=x(pair.difference),
            y=axis_y - 28 - height * _APART,
            title=f"{name}: {pair.best:.4f} and {pair.following:.4f}, difference {signed(pair.difference)}",
            winner="best" if pair.difference > 0 else "following" if pair.difference < 0 else "none",
        )
        for pair, name, height in zip(comparison.pairs, names, heights, strict=True)
    ]
    return PairsDrawing(
        dots=tuple(dots),
        ticks=x.ticks(8),
        zero=x(0.0),
        mean=x(comparison.difference),
        low=None if interval is None else x(interval.low),
        high=None if interval is None else x(interval.high),
        axis_y=axis_y,
    )


def piled(xs: Sequence[float]) -> list[int]:
    """For dots at these positions, the lowest row in which each covers no other; more than twelve rows overlap."""
    last_in_row: list[float] = []
    rows = [0] * len(xs)
    for number in sorted(range(len(xs)), key=lambda number: xs[number]):
        free = (row for row, last in enumerate(last_in_row) if xs[number] - last >= 2 * _RADIUS)
        row = next(free, len(last_in_row))
        if row == len(last_in_row):
            last_in_row.append(-math.inf)
        last_in_row[row] = xs[number]
        rows[number] = row % _MOST_HIGH
    return rows


def signed(value: float) -> str:
    """A difference with its sign and four decimals."""
    return f"{value:+.4f}".replace("-", "−")
