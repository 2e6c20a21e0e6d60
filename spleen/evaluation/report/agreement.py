"""Pictures of an evaluation: Bland–Altman plots of the volumes, and the Dice of every case.

Bland & Altman 1986, "Statistical methods for assessing agreement between two methods of clinical measurement",
Lancet 327:307. Only matplotlib's object interface is used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from spleen.evaluation.case_scores import ClassScore
from spleen.evaluation.evaluate import Evaluation
from spleen.evaluation.summary import ClassSummary, class_words
from spleen.reporting.figures import DASHES, DPI, GREY, OKABE_ITO, save_figure
from spleen.reporting.ranked_cases import MeanBand, RankedCase, draw_ranked_cases, panel_height, short_name

_MOST_CLASSES = 4
_MOST_NAMED_POINTS = 3
_FEWEST_FOR_LIMITS = 3
_INK = "#222222"
_BAR = "#9AD0F0"  # sky blue, lighter: a wall of bars should not shout


@dataclass(frozen=True)
class _Kind:
    """How the cases of one kind are drawn."""

    name: str
    hue: str
    marker: str


_SCORED = _Kind("organ in both masks", "blue", "o")
_FALSE_NEGATIVE = _Kind("false negative", "vermillion", "X")
_FALSE_POSITIVE = _Kind("false positive", "orange", "^")


def draw_agreement(evaluation: Evaluation, path: Path) -> None:
    """Draw the figure of `agreement_figure`.

    The file appears whole or not at all; its suffix decides the format.
    """
    save_figure(agreement_figure(evaluation), path)


def agreement_figure(evaluation: Evaluation) -> Figure:
    """A row per class: the error of the volume against its size, and the Dice of each case, worst first.

    A case whose masks are both empty has neither and is left out. Of more than four classes, those with the lowest mean
    Dice are drawn. With a single case, its classes are compared instead.
    """
    single = len(evaluation.case_ids) == 1
    return _one_case(evaluation) if single else _many_cases(evaluation, _lowest(evaluation))


def _lowest(evaluation: Evaluation) -> list[str]:
    names = evaluation.class_names
    if len(names) <= _MOST_CLASSES:
        return names
    means = {name: evaluation.summary(name).metrics["dice"].mean for name in names}
    return sorted(names, key=lambda name: math.inf if math.isnan(means[name]) else means[name])[:_MOST_CLASSES]


def _many_cases(evaluation: Evaluation, names: Sequence[str]) -> Figure:
    drawn = {
        name: [s for s in evaluation.scores if s.class_name == name and s.is_labelled and not s.is_empty]
        for name in names
    }
    heights = [panel_height(len(scores)) for scores in drawn.values()]
    figure = Figure(figsize=(10.5, sum(heights) + 0.5), dpi=DPI, facecolor="white", layout="constrained")
    title = f"Agreement with the reference: {len(evaluation.case_ids)} cases, from the worst to the best"
    n_classes = len(evaluation.class_names)
    if len(names) < n_classes:
        title += f"; the {len(names)} of {n_classes} classes with the lowest mean Dice"
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(len(names), 2, squeeze=False, height_ratios=heights, width_ratios=(1.15, 1))
    for (left, right), (name, scores) in zip(panels, drawn.items(), strict=True):
        words = class_words(name)
        _draw_bland_altman(left, scores, f"{words}: volume")
        _draw_dice(right, scores, evaluation.summary(name), f"{words}: Dice")
    return figure


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def _kind(score: ClassScore) -> _Kind:
    return _FALSE_NEGATIVE if score.is_false_negative else _FALSE_POSITIVE if score.is_false_positive else _SCORED


def _draw_bland_altman(axes: Axes, scores: Sequence[ClassScore], title: str) -> None:
    _style(axes, title)
    axes.set_xlabel("mean of prediction and reference, ml", fontsize=9)
    axes.set_ylabel("prediction − reference, ml", fontsize=9)
    axes.grid(color="#E4E4E4", linewidth=0.6)
    axes.axhline(0, color=GREY, linewidth=0.8)
    if not scores:
        return
    middles = np.array([(s.volume_prediction_ml + s.volume_reference_ml) / 2 for s in scores])
    errors = np.array([s.volume_error_mm3 / 1000 for s in scores])
    for kind in (_SCORED, _FALSE_NEGATIVE, _FALSE_POSITIVE):
        of_kind = [_kind(score) is kind for score in scores]
        if any(of_kind):
            axes.plot(
                middles[of_kind],
                errors[of_kind],
                kind.marker,
                color=OKABE_ITO[kind.hue],
                markeredgecolor="white",
                markeredgewidth=0.6,
                ms=6 if kind is _SCORED else 8,
                alpha=0.8,
                label=kind.name,
            )
    if any(_kind(score) is not _SCORED for score in scores):
        figure = axes.get_figure(root=True)
        below = offset_copy(axes.transAxes, figure, x=-0.1, y=-0.4, units="inches")  # under the name of the axis
        axes.legend(
            fontsize=8,
            frameon=False,
            ncols=3,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=below,
            handletextpad=0.2,
            columnspacing=1.2,
        )
    axes.margins(x=0.08, y=0.12)
    bias = float(errors.mean())
    spread = 1.96 * float(errors.std(ddof=1)) if len(errors) >= _FEWEST_FOR_LIMITS else math.inf
    _draw_limits(axes, bias, spread)
    outside = [n for n in range(len(scores)) if abs(errors[n] - bias) > spread]
    farthest = sorted(outside, key=lambda n: -abs(errors[n] - bias))[:_MOST_NAMED_POINTS]
    _name_points(axes, [(short_name(scores[n].case_id), float(middles[n]), float(errors[n])) for n in farthest])


def _draw_limits(axes: Axes, bias: float, spread: float) -> None:
    """The mean difference and, where there is a spread, the limits between which 95 % of the differences lie."""
    lines = [(bias, "mean", "solid")]
    if 0 < spread < math.inf:
        lines += [(bias + spread, "+1.96 SD", "dashed"), (bias - spread, "−1.96 SD", "dashed")]
    size = spread if 0 < spread < math.inf else abs(bias) or 1.0
    decimals = max(0, 1 - math.floor(math.log10(size)))
    for place, words, style in lines:
        axes.axhline(place, color=OKABE_ITO["blue"], linewidth=1.2, linestyle="-" if style == "solid" else DASHES)
        value = f"{place:+.{decimals}f}".replace("-", "−")
        text = axes.annotate(f"{words}\n{value}", (1.01, place), xycoords=("axes fraction", "data"))
        text.set(fontsize=8, va="center", color=OKABE_ITO["blue"], linespacing=1.1)


def _name_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write the names beside their points, towards the middle; not where another name stands already."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    named: list[tuple[float, float]] = []
    for name, middle, error in points:
        place = (middle - left) / (right - left), (error - bottom) / (top - bottom)
        if any(abs(place[0] - x) < 0.5 and abs(place[1] - y) < 0.07 for x, y in named):
            continue
        named.append(place)
        side = 1 if place[0] < 0.5 else -1
        text = axes.annotate(name, (middle, error), (7 * side, 0), textcoords="offset points")
        text.set(fontsize=7.5, va="center", ha="left" if side > 0 else "right", color=_INK)


def _draw_dice(axes: Axes, scores: Sequence[ClassScore], summary: ClassSummary, title: str) -> None:
    dice = summary.metrics["dice"]
    cases = [RankedCase(s.case_id, s.dice, "" if _kind(s) is _SCORED else _kind(s).name) for s in scores]
    band = MeanBand(dice.mean, dice.interval.low, dice.interval.high) if dice.interval is not None else None
    if dice.interval is not None:
        title += f" · mean {dice.mean:.3f}, 95 % {dice.interval.low:.3f} … {dice.interval.high:.3f}"
    draw_ranked_cases(axes, cases, band, "Dice")
    _style(axes, title)


def _one_case(evaluation: Evaluation) -> Figure:
    scores = [score for score in evaluation.scores if score.is_labelled and not score.is_empty]
    figure = Figure(figsize=(10.5, max(2.4, 1.2 + 0.4 * len(scores))), dpi=DPI, facecolor="white", layout="constrained")
    figure.suptitle(evaluation.case_ids[0], fontsize=11)
    volumes, dice = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(scores))
    _style(volumes, "volume, ml")
    for offset, hue, name in ((-0.19, "blue", "reference"), (0.19, "sky blue", "prediction")):
        ml = [getattr(score, f"volume_{name}_ml") for score in scores]
        bars = volumes.barh(places + offset, ml, height=0.36, color=OKABE_ITO[hue], label=name)
        volumes.bar_label(bars, fmt="{:,.2f}", padding=3, fontsize=7.5)
    volumes.margins(x=0.12)
    volumes.legend(fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))  # above the bars
    volumes.set_yticks(places, [class_words(score.class_name) for score in scores], fontsize=9)
    volumes.invert_yaxis()
    _style(dice, "Dice")
    bars = dice.barh(places, [score.dice for score in scores], height=0.55, color=_BAR)
    dice.bar_label(bars, fmt="%.4f", padding=-34 if all(score.dice > 0.2 for score in scores) else 3, fontsize=8)
    dice.set_xlim(0, 1)
    return figure
