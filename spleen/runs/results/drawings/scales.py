"""Scales with round ticks: straight ones, those of a Dice, which are stretched towards 1, and that of colours."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spleen.reporting.plots import round_ticks
from spleen.runs.results.arms import Arm
from spleen.runs.results.learning_curves import dice_ticks

_LEAST_ERROR = 0.001  # a Dice of 1 would be at infinity
_LEAST_APART = 14  # ticks, in SVG units
_FEW_TICKS = 3


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its position in SVG units, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Linear:
    """A straight scale from the values low to high onto the positions start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Position of a value in SVG units; values outside are drawn at the end."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self, most: int = 6) -> tuple[Tick, ...]:
        """Round values within the scale, at most `most`."""
        return tuple(Tick(self(value), number_text(value)) for value in round_ticks(self.low, self.high, most))


def span(values: Iterable[float]) -> tuple[float, float]:
    """Lowest and highest of the values with a little room, at least 0.01 apart."""
    known = list(values)
    low, high = min(known), max(known)
    room = max((high - low) * 0.06, (0.01 - (high - low)) / 2)
    return low - room, high + room


@dataclass(frozen=True)
class DiceScale:
    """A scale of Dice onto the positions start to end, stretched towards 1: good arms differ only there.

    The step from 0.9 to 0.95 is as long as that from 0.8 to 0.9.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, dice: float) -> float:
        """Position of a Dice in SVG units; values outside are drawn at the end."""
        return Linear(stretched(self.low), stretched(self.high), self.start, self.end)(stretched(dice))

    def ticks(self) -> tuple[Tick, ...]:
        """Round values within the scale that have room beside each other."""
        values = [value for value in dice_ticks(self.high) if value >= self.low]
        if len(values) < _FEW_TICKS:
            values = round_ticks(self.low, self.high, 6)
        kept: list[Tick] = []
        for value in reversed(values):
            if not kept or abs(self(value) - kept[-1].at) >= _LEAST_APART:
                kept.append(Tick(self(value), number_text(value)))
        return tuple(reversed(kept))


def stretched(dice: float) -> float:
    """−ln(1 − Dice), up to a Dice of 0.999."""
    return -math.log(max(1 - dice, _LEAST_ERROR))


def dice_span(values: Iterable[float]) -> tuple[float, float]:
    """Ends of a scale for these Dice, with a little room; 0 to 0.99 if there are none."""
    heights = [stretched(value) for value in values if math.isfinite(value)]
    if not heights:
        return 0.0, 0.99
    room = max(0.06 * (max(heights) - min(heights)), 0.02)
    return max(1 - math.exp(room - min(heights)), 0.0), 1 - math.exp(-room - max(heights))


def number_text(value: float) -> str:
    """A tick's number: short, with a true minus sign."""
    return f"{value:.6g}".replace("-", "−")


@dataclass(frozen=True)
class ColourScale:
    """The Dice by which arms are coloured, and the ends of the scale, the lowest and the highest of the study."""

    of_test: bool
    low: float
    high: float

    @property
    def name(self) -> str:
        """The name of the score."""
        return "test Dice" if self.of_test else "validation Dice"

    def value(self, arm: Arm) -> float:
        """The Dice of an arm by which it is coloured."""
        return arm.test_dice.mean if self.of_test else arm.val_dice.mean

    def level(self, arm: Arm) -> float | None:
        """Where the arm lies on the scale, from 0 to 1, stretched towards 1; None without a score."""
        value = self.value(arm)
        if math.isnan(value):
            return None
        low, high = stretched(self.low), stretched(self.high)
        return (stretched(value) - low) / (high - low) if high > low else 1.0


def colour_scale(arms: Sequence[Arm]) -> ColourScale:
    """By test Dice, unless no arm was tested."""
    of_test = any(not math.isnan(arm.test_dice.mean) for arm in arms)
    values = [arm.test_dice.mean if of_test else arm.val_dice.mean for arm in arms]
    known = [value for value in values if not math.isnan(value)]
    return ColourScale(of_test, min(known, default=0.0), max(known, default=1.0))
