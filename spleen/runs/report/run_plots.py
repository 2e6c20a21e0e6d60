"""The plots of a run's page, from the values of its run folder."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spleen.reporting.numbers import format_number
from spleen.reporting.plots import N_STYLES, Bar, Bars, Dots, Line, Plot, PlotDrawing, Rule, draw_plot
from spleen.runs.report.record import RunRecord, ScoreRow

_FEW_POINTS = 40  # with fewer points, a curve has markers
_FEWEST_FOR_LIMITS = 3
_MOST_CLASSES = 4


def loss_plot(record: RunRecord) -> PlotDrawing | None:
    """Losses over the epochs."""
    lines = _curves(record, {"train/loss": "training", "val/loss": "validation"})
    return _over_epochs("Loss by epoch", "loss", lines, record, (None, None)) if lines else None


def score_plot(record: RunRecord) -> PlotDrawing | None:
    """Validation scores over the epochs; of the classes where there are several."""
    of_class = {f"val/{name}/dice": f"Dice, {name}" for name in _recorded_classes(record)[: N_STYLES - 2]}
    names = {"val/dice": "mean Dice" if of_class else "Dice", "val/jaccard": "Jaccard", **of_class}
    lines = _curves(record, names)
    lowest = None if all(score > 0.5 for line in lines for _, score, _ in line.points) else 0
    return _over_epochs("Validation scores by epoch", "score", lines, record, (lowest, 1)) if lines else None


def rate_plot(record: RunRecord) -> PlotDrawing | None:
    """The learning rate at the end of each epoch."""
    lines = _curves(record, {"lr": "learning rate"})
    return _over_epochs("Learning rate by epoch", "learning rate", lines, record, (0, None)) if lines else None


def best_epoch(record: RunRecord) -> tuple[int, float] | None:
    """The epoch of best.ckpt, from 1, and its validation Dice; None without validation."""
    scores = [(row["val/dice"], row["epoch"]) for row in record.epochs if "val/dice" in row and "epoch" in row]
    known = [(score, -epoch) for score, epoch in scores if not math.isnan(score)]
    if not known:
        return None
    score, epoch = max(known)
    return int(-epoch) + 1, score


def _recorded_classes(record: RunRecord) -> list[str]:
    keys = dict.fromkeys(key for row in record.epochs for key in row)
    return [key[len("val/") : -len("/dice")] for key in keys if re.fullmatch("val/.+/dice", key)]


def _curves(record: RunRecord, names: Mapping[str, str]) -> list[Line]:
    lines: list[Line] = []
    for key, name in names.items():
        points = [
            (row["epoch"] + 1, row[key], f"epoch {row['epoch'] + 1:g}, {name} {format_number(row[key])}")
            for row in record.epochs
            if "epoch" in row and math.isfinite(row.get(key, math.nan))
        ]
        if points:
            lines.append(Line(name, points, len(lines), has_markers=len(points) < _FEW_POINTS))
    return lines


def _over_epochs(
    title: str, label: str, lines: Sequence[Line], record: RunRecord, y_range: tuple[float | None, float | None]
) -> PlotDrawing:
    best = best_epoch(record)
    rules = [Rule("x", best[0], f"best: epoch {best[0]}")] if best else []
    return draw_plot(Plot(title, "epoch", label, lines, rules=rules, y_range=y_range, has_whole_x=True))


def bland_altman_plots(record: RunRecord, split: str) -> list[tuple[str, PlotDrawing]]:
    """For each class with at least three cases: the error of the volume against its size.

    Bland & Altman 1986, Lancet 327:307. Cases whose masks are both empty are left out. Of many classes, the four with
    the lowest mean Dice.
    """
    plots = []
    for name in _lowest_classes(record, split):
        rows = [row for row in record.rows if (row.split, row.class_name) == (split, name)]
        rows = [row for row in rows if row.reference_ml + row.prediction_ml > 0]
        if len(rows) >= _FEWEST_FOR_LIMITS:
            plots.append((name, _bland_altman(name, rows)))
    return plots


def _lowest_classes(record: RunRecord, split: str) -> list[str]:
    def mean_dice(name: str) -> float:
        known = [row.dice for row in record.rows if (row.split, row.class_name) == (split, name)]
        known = [value for value in known if not math.isnan(value)]
        return float(np.mean(known)) if known else math.inf

    names = list(record.class_names)
    return names if len(names) <= _MOST_CLASSES else sorted(names, key=mean_dice)[:_MOST_CLASSES]


def _bland_altman(name: str, rows: Sequence[ScoreRow]) -> PlotDrawing:
    errors = np.array([row.prediction_ml - row.reference_ml for row in rows])
    points = [
        (
            (row.prediction_ml + row.reference_ml) / 2,
            row.prediction_ml - row.reference_ml,
            f"{row.case_id}: {format_number(row.reference_ml)} ml in the reference, "
            f"{format_number(row.prediction_ml)} ml predicted",
        )
        for row in rows
    ]
    bias, spread = float(errors.mean()), 1.96 * float(errors.std(ddof=1))
    rules = [Rule("y", bias, f"mean {_signed(bias)}", is_dashed=False)]
    if spread > 0:
        rules += [Rule("y", bias + side * spread, f"{_signed(bias + side * spread)}") for side in (1, -1)]
    return draw_plot(
        Plot(
            f"Bland–Altman plot of the volume of {name}: mean difference {_signed(bias)} ml, limits of agreement "
            f"{_signed(bias - spread)} to {_signed(bias + spread)} ml",
            "mean of reference and prediction, ml",
            "prediction − reference, ml",
            dots=[Dots("", points)],
            rules=rules,
            width=420,
            height=240,
            right_margin=74,
        )
    )


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def histogram_plot(histogram: Mapping[str, Any]) -> PlotDrawing:
    """Percentages of pixels by intensity within the window, of the image and of the organ."""
    low, high, unit = histogram["low"], histogram["high"], histogram["unit"]
    image, organ = (_percentages(histogram[part]) for part in ("image", "organ"))
    edges = np.linspace(low, high, len(image) + 1).tolist()
    bins = list(zip(edges[:-1], edges[1:], image, organ, strict=True))
    bars = [
        Bar(
            left,
            right,
            percentage,
            f"{format_number(left)} to {format_number(right)} {unit}: {percentage:.2f} % of all pixels, "
            f"{of_organ:.2f} % of the organ",
        )
        for left, right, percentage, of_organ in bins
    ]
    steps = [(x, of_organ, "") for left, right, _, of_organ in bins for x in (left, right)]
    title = f"Histogram of intensities from {format_number(low)} to {format_number(high)} {unit}"
    return draw_plot(
        Plot(
            title,
            unit,
            "% of pixels per bin",
            bars=[Bars("all pixels", bars, 0)],
            lines=[Line("organ", steps, 1, has_markers=False)] if any(organ) else [],
            x_range=(low, high),
            y_range=(0, None),
            width=420,
            height=240,
        )
    )


def _percentages(part: Mapping[str, Any]) -> list[float]:
    total = sum(part["counts"]) + part["below"] + part["above"]
    return [100 * count / total if total else 0.0 for count in part["counts"]]
