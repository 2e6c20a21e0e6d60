"""Parallel coordinates (Inselberg 1985, The Visual Computer 1:69): an axis for each differing setting, and the Dice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from spleen.records.reading import Setting
from spleen.records.settings import differing_keys, learning_rate_text, setting_text
from spleen.runs.results.drawings.scales import ColourScale, DiceScale, Linear, Tick, dice_span, number_text
from spleen.runs.results.results import StudyResults
from spleen.runs.results.text import shown_columns

HEIGHT = 330
_SIDE, _TOP, _BOTTOM = 70, 46, 308
_WIDTH, _LEAST_APART, _MOST_APART = 1040, 140, 300
_MOST_LEVELS = 10  # of more numbers, not each is written
_LONGEST = 18
_LOGARITHMIC_FROM = 30  # the largest of the values over the smallest


@dataclass(frozen=True)
class Axis:
    """A vertical axis at x, its ticks by y, and the y of each arm; None where the arm has no value."""

    title: str
    x: float
    ticks: tuple[Tick, ...]
    ys: tuple[float | None, ...]


@dataclass(frozen=True)
class Line:
    """An arm: its number in the study, its path, and where it lies on the colour scale."""

    number: int
    path: str
    level: float | None
    is_selected: bool


@dataclass(frozen=True)
class ParallelDrawing:
    """Axes from left to right, and lines from the lowest Dice to the highest, which is drawn last."""

    width: float
    axes: tuple[Axis, ...]
    lines: tuple[Line, ...]


def parallel_drawing(study: StudyResults, scale: ColourScale) -> ParallelDrawing | None:
    """The drawing; None where fewer than two arms, or no shown setting, differ."""
    keys = differing_keys([arm.settings for arm in study.arms])
    columns = [column for column in shown_columns(study)[0] if column.key in keys]
    if not columns or len(study.arms) < 2:
        return None
    scores = {
        "val Dice": [arm.val_dice.mean for arm in study.arms],
        "test Dice": [arm.test_dice.mean for arm in study.arms],
    }
    scores = {title: values for title, values in scores.items() if not all(map(math.isnan, values))}
    n_axes = len(columns) + len(scores)
    apart = min(max((_WIDTH - 2 * _SIDE) / max(n_axes - 1, 1), _LEAST_APART), _MOST_APART)
    xs = [_SIDE + number * apart for number in range(n_axes)]
    axes = [
        setting_axis(column.title, column.key, [arm.settings.get(column.key) for arm in study.arms], x)
        for column, x in zip(columns, xs, strict=False)
    ]
    axes += [
        _dice_axis(title, values, x) for (title, values), x in zip(scores.items(), xs[len(columns) :], strict=True)
    ]
    lines = [
        Line(number, _path([(axis.x, axis.ys[number]) for axis in axes]), scale.level(arm), arm is study.selected)
        for number, arm in enumerate(study.arms)
    ]
    lines.sort(key=lambda line: (line.is_selected, -1.0 if line.level is None else line.level))
    return ParallelDrawing(axes[-1].x + _SIDE, tuple(axes), tuple(lines))


def setting_axis(title: str, key: str, values: Sequence[Setting], x: float) -> Axis:
    """An axis of a setting: numbers ascending upwards; few values evenly spaced, many to scale; words in order."""
    numbers = [float(value) for value in values if _is_number(value)]
    if len(numbers) == len(values) and len(set(numbers)) > _MOST_LEVELS:
        return _continuous_axis(title, key, numbers, x)
    levels = sorted(set(values), key=lambda value: _rank(key, value))
    places = [(number + 0.5) / len(levels) for number in range(len(levels))]
    y_of = {level: _BOTTOM - place * (_BOTTOM - _TOP) for level, place in zip(levels, places, strict=True)}
    every = math.ceil(len(levels) / 20)
    ticks = [Tick(y_of[level], _short(_text(key, level))) for level in levels[::every]]
    return Axis(title, x, tuple(ticks), tuple(y_of[value] for value in values))


def _rank(key: str, value: Setting) -> tuple[bool, float, str]:
    """Numbers ascending, then words in alphabetical order."""
    return (False, float(value), "") if _is_number(value) else (True, 0.0, _text(key, value))


def _continuous_axis(title: str, key: str, numbers: Sequence[float], x: float) -> Axis:
    low, high = min(numbers), max(numbers)
    if low > 0 and high / low >= _LOGARITHMIC_FROM:
        scale = Linear(math.log10(low), math.log10(high), _BOTTOM, _TOP)
        powers = range(math.ceil(scale.low), math.floor(scale.high) + 1)
        ticks = tuple(
            Tick(scale(power), learning_rate_text(10.0**power) if key == "lr" else f"{10.0**power:g}")
            for power in powers
        )
        return Axis(title, x, ticks, tuple(scale(math.log10(number)) for number in numbers))
    scale = Linear(low, high, _BOTTOM, _TOP)
    return Axis(title, x, scale.ticks(), tuple(map(scale, numbers)))


def _dice_axis(title: str, values: Sequence[float], x: float) -> Axis:
    scale = DiceScale(*dice_span(values), _BOTTOM, _TOP)
    return Axis(title, x, scale.ticks(), tuple(None if math.isnan(value) else scale(value) for value in values))


def _is_number(value: Setting) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(key: str, value: Setting) -> str:
    if key == "lr":
        return learning_rate_text(value)
    return number_text(value) if isinstance(value, float) else setting_text(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _path(points: Sequence[tuple[float, float | None]]) -> str:
    """A smooth line that is level at each axis, broken where a value is missing."""
    parts: list[str] = []
    before: tuple[float, float] | None = None
    for x, y in points:
        if y is None:
            before = None
            continue
        if before is None:
            parts.append(f"M{x:.6g} {y:.5g}")
        else:
            middle = (before[0] + x) / 2
            parts.append(f"C{middle:.6g} {before[1]:.5g} {middle:.6g} {y:.5g} {x:.6g} {y:.5g}")
        before = x, y
    return "".join(parts)
