"""The Dice of every case of a run, per class and split."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spleen.evaluation.metrics.per_case import CaseScore, class_means
from spleen.evaluation.metrics.statistics import bootstrap_mean_interval
from spleen.reporting.figures import DPI, save_figure
from spleen.reporting.ranked_cases import MeanBand, RankedCase, draw_ranked_cases, panel_height
from spleen.runs.summary import Scores

_MOST_CLASSES = 6


def draw_cases(scores: Scores, path: Path, title: str) -> None:
    """Draw the figure of `cases_figure`, if there is one. The file is written atomically."""
    figure = cases_figure(scores, title)
    if figure is not None:
        save_figure(figure, path)


def cases_figure(scores: Scores, title: str) -> Figure | None:
    """A row per class and a column per split that has several cases; None without such a split.

    A case whose masks are both empty has no Dice and is left out. Of more than six classes, those with the lowest mean
    Dice are drawn.
    """
    splits = {split: cases for split, cases in scores.items() if len({score.case_id for score in cases}) > 1}
    if not splits:
        return None
    names = _lowest([score for cases in splits.values() for score in cases])
    drawn = {(name, split): _scored(cases, name) for name in names for split, cases in splits.items()}
    heights = [max(panel_height(len(drawn[name, split])) for split in splits) for name in names]
    width = 1.5 + 5.5 * len(splits)
    figure = Figure(figsize=(width, sum(heights) + 0.5), dpi=DPI, facecolor="white", layout="constrained")
    n_classes = len({score.class_name for cases in splits.values() for score in cases})
    left_out = f"; the {len(names)} of {n_classes} classes with the lowest mean" if len(names) < n_classes else ""
    figure.suptitle(f"{title}: Dice of each case{left_out}", fontsize=11)
    panels = figure.subplots(len(names), len(splits), squeeze=False, height_ratios=heights)
    for row, name in zip(panels, names, strict=True):
        for axes, split in zip(row, splits, strict=True):
            _draw_panel(axes, drawn[name, split], f"{_SPLITS[split]}, {name}")
    return figure


_SPLITS = {"val": "validation", "test": "test"}


def _lowest(scores: Sequence[CaseScore]) -> list[str]:
    means = {name: mean.dice for name, mean in class_means(scores).items()}
    if len(means) <= _MOST_CLASSES:
        return list(means)
    return sorted(means, key=lambda name: math.inf if math.isnan(means[name]) else means[name])[:_MOST_CLASSES]


def _scored(scores: Sequence[CaseScore], name: str) -> list[RankedCase]:
    return [
        RankedCase(score.case_id, score.dice, _note(score))
        for score in scores
        if score.class_name == name and not math.isnan(score.dice)
    ]


def _note(score: CaseScore) -> str:
    if score.volume_prediction_mm3 == 0:
        return "false negative"
    return "false positive" if score.volume_reference_mm3 == 0 else ""


def _draw_panel(axes: Axes, cases: Sequence[RankedCase], title: str) -> None:
    dice = [case.score for case in cases]
    interval = bootstrap_mean_interval(dice)
    band = None
    if interval is not None:
        band = MeanBand(sum(dice) / len(dice), interval.low, interval.high)
        title += f" · mean {band.mean:.3f}, 95 % {band.low:.3f} … {band.high:.3f}"
    draw_ranked_cases(axes, cases, band, "Dice")
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
