"""Learning curves: validation Dice by epoch of every arm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from spleen.reporting.plots import round_ticks
from spleen.runs.results.arms import best_first
from spleen.runs.results.drawings.scales import DiceScale, Linear, Tick
from spleen.runs.results.learning_curves import Curve, mean_curve, top_of_scale
from spleen.runs.results.results import StudyResults

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 50, 744, 12, 318
_COLOURED = 12
_HUES = 6
_MOST_POINTS = 300


@dataclass(frozen=True)
class CurveLine:
    """An arm: its number in the study, the path of its mean, and the area between its lowest and highest run.

    `hue` is 0 to 5 for the best twelve by validation, the second six dashed; None for the others, which are grey.
    """

    number: int
    path: str
    band: str
    hue: int | None
    is_dashed: bool
    is_selected: bool


@dataclass(frozen=True)
class CurvesDrawing:
    """The curves from the best arm by validation to the worst, and how many of them are grey."""

    lines: tuple[CurveLine, ...]
    epoch_ticks: tuple[Tick, ...]
    dice_ticks: tuple[Tick, ...]
    n_grey: int
    is_thinned: bool
    has_bands: bool


def curves_drawing(study: StudyResults) -> CurvesDrawing | None:
    """The drawing; None if no epoch was validated."""
    ranked = sorted(range(len(study.arms)), key=lambda number: best_first(study.arms[number].val_dice.mean))
    curves = [(number, curve) for number in ranked if len(curve := mean_curve(study.arms[number]))]
    if not curves:
        return None
    all_curves = [curve for _, curve in curves]
    first, last = 1.0, max(float(curve[-1, 0]) for curve in all_curves)
    x = Linear(first, max(last, first + 1), LEFT + 8, RIGHT)
    y = DiceScale(0.0, top_of_scale(all_curves), BOTTOM, TOP)
    lines = [
        _line(rank, number, curve, x, y, study.arms[number] is study.selected)
        for rank, (number, curve) in enumerate(curves)
    ]
    ticks = round_ticks(first, max(last, first + 1), 8, whole=True)
    epochs = [epoch for epoch in [1.0, *ticks] if epoch <= last]
    return CurvesDrawing(
        lines=tuple(lines),
        epoch_ticks=tuple(Tick(x(epoch), f"{epoch:g}") for epoch in _not_crowded(dict.fromkeys(epochs), last)),
        dice_ticks=y.ticks(),
        n_grey=max(len(curves) - _COLOURED, 0),
        is_thinned=any(len(curve) > _MOST_POINTS for curve in all_curves),
        has_bands=any(line.band for line in lines),
    )


def _not_crowded(epochs: Sequence[float] | dict[float, None], last: float) -> list[float]:
    """The first epoch, and those that do not stand in its way."""
    return [epoch for epoch in epochs if epoch == 1 or epoch - 1 > last / 20]


def _line(rank: int, number: int, curve: Curve, x: Linear, y: DiceScale, is_selected: bool) -> CurveLine:
    kept = curve if len(curve) <= _MOST_POINTS else curve[_thinned(len(curve))]
    has_band = bool((kept[:, 2] < kept[:, 3]).any())
    band = [*_points(kept[:, 0], kept[:, 3], x, y), *_points(kept[:, 0], kept[:, 2], x, y)[::-1]] if has_band else []
    return CurveLine(
        number=number,
        path=_polyline(_points(kept[:, 0], kept[:, 1], x, y)),
        band=f"M{'L'.join(band)}Z" if band else "",
        hue=rank % _HUES if rank < _COLOURED else None,
        is_dashed=_HUES <= rank < _COLOURED,
        is_selected=is_selected,
    )


def _thinned(n: int) -> list[int]:
    """Evenly spaced numbers of rows, with the first and the last."""
    return sorted({round(each) for each in np.linspace(0, n - 1, _MOST_POINTS)})


def _points(epochs: Float[np.ndarray, " n"], dice: Float[np.ndarray, " n"], x: Linear, y: DiceScale) -> list[str]:
    return [f"{x(epoch):.5g} {y(value):.5g}" for epoch, value in zip(epochs, dice, strict=True)]


def _polyline(points: Sequence[str]) -> str:
    return f"M{'L'.join(points)}" + ("h0" if len(points) == 1 else "")  # with round ends, a dot
