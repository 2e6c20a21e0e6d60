"""Validation Dice by epoch of an arm, and the stretched axis it is shown on."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num

from spleen.records.folder import RunFolder
from spleen.runs.results.arms import Arm

_TICKS = (0, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)

# Curves of several arms are of different lengths, and a list of them is checked as one: the epochs are anonymous.
Curve = Float[np.ndarray, "_ 4"]
Scale = Num[np.ndarray, "..."]  # whatever shape matplotlib asks for


def mean_curve(arm: Arm) -> Curve:
    """Epoch, then mean, lowest and highest validation Dice of the arm's runs."""
    of_epoch: dict[float, list[float]] = {}
    for run in arm.runs.values():
        for epoch, dice in _read_dice(RunFolder(run.folder).metrics):
            of_epoch.setdefault(epoch, []).append(dice)
    points = [(epoch, sum(dice) / len(dice), min(dice), max(dice)) for epoch, dice in sorted(of_epoch.items())]
    return np.array(points, dtype=np.float64).reshape(-1, 4)


def _read_dice(path: Path) -> list[tuple[float, float]]:
    """The epochs with a validation Dice, counted from 1, and its values; empty if the file cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row.get("epoch"), row.get("val/dice")) for row in csv.DictReader(file)]
        pairs = [(float(epoch) + 1, float(dice)) for epoch, dice in rows if epoch and dice]
    except (OSError, ValueError, csv.Error):
        return []
    return [(epoch, dice) for epoch, dice in pairs if math.isfinite(dice)]


def top_of_scale(curves: Sequence[Curve]) -> float:
    """The Dice at the top of the axis: room above the best curve, and below 1, which is at infinity."""
    highest = max((float(curve[:, 1].max()) for curve in curves if len(curve)), default=0.0)
    return 1 - (1 - min(highest, 0.998)) / 1.3


def dice_ticks(top: float) -> list[float]:
    """The values to write on the axis."""
    return [tick for tick in _TICKS if tick <= top]


def to_height(dice: Scale) -> Scale:
    """Height of a Dice on an axis on which the step from 0.9 to 0.95 is as high as that from 0.8 to 0.9."""
    height: Scale = -np.log(np.maximum(1 - dice, 1e-6))
    return height


def from_height(height: Scale) -> Scale:
    """The Dice at a height."""
    dice: Scale = 1 - np.exp(-height)
    return dice
