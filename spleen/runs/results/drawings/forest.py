"""A forest plot beside the table: each arm's test Dice with its interval, and its validation Dice, on one scale."""

import math
from dataclasses import dataclass

from spleen.runs.results.arms import Arm
from spleen.runs.results.drawings.scales import DiceScale, dice_span, stretched
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
    """The rows of all arms; the scale spans the scores, with room for intervals; wider ones end at its ends."""
    low, high = dice_span([mean for arm in study.arms for mean in (arm.val_dice.mean, arm.test_dice.mean)])
    room = (stretched(high) - stretched(low)) / 4
    scale = DiceScale(
        max(1 - math.exp(room - stretched(low)), 0.0), 1 - math.exp(-room - stretched(high)), 5, WIDTH - 5
    )
    low, high = scale.low, scale.high
    return Forest(tuple(_row(arm, scale) for arm in study.arms), low, high)


def _row(arm: Arm, scale: DiceScale) -> ForestRow:
    interval = arm.test_dice.interval
    return ForestRow(
        test=_place(arm.test_dice.mean, scale),
        val=_place(arm.val_dice.mean, scale),
        low=None if interval is None else scale(interval.low),
        high=None if interval is None else scale(interval.high),
    )


def _place(value: float, scale: DiceScale) -> float | None:
    return None if math.isnan(value) else scale(value)
