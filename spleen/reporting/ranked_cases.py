"""A score of every case from the worst to the best: bars with names for a few cases, dots for hundreds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from spleen.reporting.figures import OKABE_ITO

MOST_NAMED_BARS = 25
_MOST_NAMED_DOTS = 5
_LONGEST_NAME = 24
_NAME_HEAD = 15
_INK = "#222222"
_BAR = "#9AD0F0"  # sky blue, lighter: a wall of bars should not shout
_WORST, _MEAN = OKABE_ITO["vermillion"], OKABE_ITO["vermillion"]


@dataclass(frozen=True)
class RankedCase:
    """One case and its score from 0 to 1; `note` stands in place of the number, such as "false negative"."""

    name: str
    score: float
    note: str = ""


@dataclass(frozen=True)
class MeanBand:
    """The mean of the scores and its interval."""

    mean: float
    low: float
    high: float


def draw_ranked_cases(axes: Axes, cases: Sequence[RankedCase], band: MeanBand | None, score: str) -> None:
    """Draw every case, the worst first; `score` is the name of the score for the axis.

    Up to 25 cases are bars with their names. More are dots over their rank: the scale begins near the lowest score, and
    the worst five are named beside the axes, where nothing is hidden.
    """
    ranked = sorted(cases, key=lambda case: case.score)
    named = len(ranked) <= MOST_NAMED_BARS
    if named:
        _draw_bars(axes, ranked, score)
    else:
        _draw_dots(axes, ranked, score)
    if band is not None:
        draw_band, draw_line = (axes.axvspan, axes.axvline) if named else (axes.axhspan, axes.axhline)
        draw_band(band.low, band.high, color=_MEAN, alpha=0.18, linewidth=0, zorder=3 if named else 1)
        draw_line(band.mean, color=_MEAN, linewidth=1.2, zorder=4 if named else 1.5)


def panel_height(n_cases: int) -> float:
    """Height in inches that the drawing of so many cases needs."""
    return max(3.3, 0.9 + 0.22 * n_cases) if n_cases <= MOST_NAMED_BARS else 3.3


def short_name(name: str) -> str:
    """A name cut in its middle, where it is too long: most tell cases apart at one of the ends."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_NAME_HEAD]}…{name[_NAME_HEAD + 1 - _LONGEST_NAME :]}"


def _draw_bars(axes: Axes, ranked: Sequence[RankedCase], score: str) -> None:
    places = list(range(len(ranked)))
    axes.barh(places, [case.score for case in ranked], color=_BAR, height=0.72)
    axes.set_yticks(places, [short_name(case.name) for case in ranked], fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel(score, fontsize=9)
    for place, case in zip(places, ranked, strict=True):
        text = axes.annotate(case.note or f"{case.score:.3f}", (0, place), (4, 0), textcoords="offset points")
        text.set(fontsize=7.5, va="center", color=_WORST if case.note else _INK)


def _draw_dots(axes: Axes, ranked: Sequence[RankedCase], score: str) -> None:
    scores = [case.score for case in ranked]
    size = 4.5 if len(ranked) <= 100 else 3.0
    ranks = list(range(1, len(ranked) + 1))
    for part, colour, ms in (
        (slice(_MOST_NAMED_DOTS, None), OKABE_ITO["blue"], size),
        (slice(_MOST_NAMED_DOTS), _WORST, size + 1.5),
    ):
        axes.plot(ranks[part], scores[part], "o", color=colour, ms=ms, markeredgewidth=0)
    axes.set_xlim(1 - 0.02 * len(ranked), 1.02 * len(ranked))
    axes.set_ylim(_lower_end(scores[0]), 1 + 0.02 * (1 - _lower_end(scores[0])))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.6)
    axes.set_xlabel("cases, from the worst to the best", fontsize=9)
    axes.set_ylabel(score, fontsize=9)
    lines = [f"{case.score:.3f}  {short_name(case.name)}" for case in ranked[:_MOST_NAMED_DOTS]]
    text = axes.annotate("\n".join(["the worst:", *lines]), (1.02, 0), xycoords="axes fraction")
    text.set(fontsize=8, va="bottom", color=_WORST, linespacing=1.4)


def _lower_end(lowest: float) -> float:
    """Where the scale begins: a tenth at or below the lowest score, and a little lower for a dot at the very end."""
    tenth = math.floor(10 * lowest) / 10
    return tenth - 0.02 if lowest - tenth < 0.01 else tenth
