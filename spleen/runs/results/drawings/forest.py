"""A forest plot beside the table: each arm's test Dice with its interval, and its validation Dice, on one scale."""

import math
from dataclasses import dataclass

from spleen.runs.results.arms import Arm
from spleen.runs.results.drawings.scales import Linear, dice_span
from spleen.runs.results.results import StudyResults

WIDTH, HEIGHT = 150, 16


@dataclass(frozen=True)
class ForestRow:
    """Positions in SVG units; None where there is no score or no interval."""

    test: float | None
    val: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forest:
    """A row for each arm in order, and the Dice at both ends of the scale."""

    rows: tuple[ForestRow, ...]
    low: float
    high: float


def forest(study: StudyResults) -> Forest:
    """The rows of all arms; the scale spans the scores, and intervals that are wider end at its ends."""
    means = [mean for arm in study.arms for mean in (arm.val_dice.mean, arm.test_dice.mean)]
    low, high = dice_span(means)
    room = (high - low) / 2
    ends = [end for arm in study.arms if (i := arm.test_dice.interval) for end in (i.low, i.high)]
    low, high = dice_span([*means, *(min(max(end, low - room), high + room) for end in ends)])
    scale = Linear(low, high, 5, WIDTH - 5)
    return Forest(tuple(_row(arm, scale) for arm in study.arms), low, high)


def _row(arm: Arm, scale: Linear) -> ForestRow:
    interval = arm.test_dice.interval
    return ForestRow(
        test=_place(arm.test_dice.mean, scale),
        val=_place(arm.val_dice.mean, scale),
        low=None if interval is None else scale(interval.low),
        high=None if interval is None else scale(interval.high),
    )


def _place(value: float, scale: Linear) -> float | None:
    return None if math.isnan(value) else scale(value)
