"""A predicted volume and the Dice to expect of it, in words with their 95 % intervals."""

import math
from collections.abc import Mapping
from dataclasses import asdict

from spleen.inference.confidence import ClassConfidence

Row = Mapping[str, str | float]
"""A row of predictions.csv, or the fields of a ClassConfidence."""


def row_of(score: ClassConfidence) -> Row:
    """The fields by name."""
    return asdict(score)


def volume_text(row: Row) -> str:
    """The volume in ml, with the interval where it is calibrated: 212 (204–221)."""
    volume, interval = _number(row, "volume_mm3") / 1000, interval_text(row)
    return f"{volume:.{_decimals(volume)}f}" + (f" ({interval})" if interval else "")


def interval_text(row: Row) -> str | None:
    """The 95 % interval of the volume in ml: 204–221; None where it is not calibrated."""
    volume, low, high = (_number(row, name) / 1000 for name in ("volume_mm3", "volume_low_mm3", "volume_high_mm3"))
    decimals = _decimals(volume)
    return None if math.isnan(low) else f"{low:.{decimals}f}–{high:.{decimals}f}"


def dice_text(row: Row) -> str | None:
    """The Dice to expect, with its interval: 0.95 (0.92–0.97); None where it is not calibrated."""
    dice, low, high = (_number(row, name) for name in ("expected_dice", "dice_low", "dice_high"))
    return None if math.isnan(dice) else f"{dice:.2f} ({low:.2f}–{high:.2f})"


def estimate_text(row: Row) -> str:
    """Both in one phrase: 212 ml (95 %: 204–221), expected Dice 0.95 (0.92–0.97)."""
    volume, interval, dice = _number(row, "volume_mm3") / 1000, interval_text(row), dice_text(row)
    text = f"{volume:.{_decimals(volume)}f} ml" + (f" (95 %: {interval})" if interval else "")
    return text + (f", expected Dice {dice}" if dice else "")


def has_intervals(row: Row) -> bool:
    """Whether a calibration has said something of this prediction."""
    return not (math.isnan(_number(row, "volume_low_mm3")) and math.isnan(_number(row, "expected_dice")))


def _decimals(volume_ml: float) -> int:
    """As many as make three digits."""
    return 0 if volume_ml >= 100 else 1 if volume_ml >= 10 else 2 if volume_ml >= 1 else 3


def _number(row: Row, name: str) -> float:
    try:
        return float(row[name])
    except (TypeError, ValueError):  # a row that somebody has cut or edited
        return math.nan
