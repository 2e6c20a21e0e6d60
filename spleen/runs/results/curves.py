"""Validation Dice by epoch of the arms of a study."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from spleen.reporting.figures import DASHES, DPI, OKABE_ITO, save_figure
from spleen.runs.results.arms import Arm, best_first
from spleen.runs.results.learning_curves import Curve, dice_ticks, from_height, mean_curve, to_height, top_of_scale
from spleen.runs.results.results import StudyResults

_MOST_NAMED, _MOST_BANDS = 12, 3  # more bands would hide the lines
_HUES = ("blue", "vermillion", "bluish green", "orange", "reddish purple", "sky blue")
_STYLES: tuple[LineStyleType, ...] = ("-", DASHES)  # six hues in two styles for twelve arms
_REST = "#C4C4C4"
_FEW_POINTS = 25


def draw_validation_curves(study: StudyResults, path: Path) -> None:
    """Draw the mean validation Dice of each arm's runs over the epochs, and their range as a band.

    The best twelve by validation are labelled in that order; the others are grey. Runs with an unreadable metrics.csv
    are left out of the mean.
    """
    ranked = sorted(study.arms, key=lambda arm: best_first(arm.val_dice.mean))
    curves = [(arm, mean_curve(arm)) for arm in ranked]
    figure = Figure(figsize=(8.8, 4.8), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for _, curve in curves[_MOST_NAMED:]:
        axes.plot(curve[:, 0], curve[:, 1], color=_REST, linewidth=0.7, zorder=1)
    for rank, (arm, curve) in reversed(list(enumerate(curves[:_MOST_NAMED]))):
        _draw_arm(axes, rank, f"{arm.val_dice.mean:.4f}  {arm.label}", curve)
    _finish(axes, curves, study)
    save_figure(figure, path)


def _draw_arm(axes: Axes, rank: int, label: str, curve: Curve) -> None:
    colour = OKABE_ITO[_HUES[rank % len(_HUES)]]
    axes.plot(
        curve[:, 0],
        curve[:, 1],
        color=colour,
        linestyle=_STYLES[rank // len(_HUES)],
        linewidth=2.2 if rank == 0 else 1.4,
        marker="o" if len(curve) < _FEW_POINTS else "",
        ms=3,
        label=label,
        zorder=3 + _MOST_NAMED - rank,
    )
    if rank < _MOST_BANDS and (curve[:, 2] < curve[:, 3]).any():
        axes.fill_between(curve[:, 0], curve[:, 2], curve[:, 3], color=colour, alpha=0.13, linewidth=0, zorder=2)


def _finish(axes: Axes, curves: Sequence[tuple[Arm, Curve]], study: StudyResults) -> None:
    axes.set_title(f"Validation by epoch: {study.folder.resolve().name}", fontsize=11, loc="left")
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("validation Dice (stretched towards 1)", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _stretch_the_top(axes, [curve for _, curve in curves])
    axes.tick_params(labelsize=8.5)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        fontsize=8.5,
        frameon=False,
        handlelength=2.8,
        title="val Dice (best epoch), arm",
        title_fontsize=8.5,
        alignment="left",
    )
    notes = (
        ["line: mean of an arm's runs", "band: range of the best arms' runs"]
        if any(arm.n_runs > 1 for arm, _ in curves)
        else []
    )
    if len(curves) > _MOST_NAMED:
        notes.append(f"grey: {len(curves) - _MOST_NAMED} more, of lower validation Dice")
    if notes:
        axes.annotate("\n".join(notes), (1.02, 0.0), xycoords="axes fraction", fontsize=8, color="#555555")


def _stretch_the_top(axes: Axes, curves: Sequence[Curve]) -> None:
    """Make the step from 0.9 to 0.95 as high as that from 0.8 to 0.9, because good arms differ only there."""
    top = top_of_scale(curves)
    axes.set_yscale("function", functions=(to_height, from_height))
    axes.set_ylim(0, top)
    ticks = dice_ticks(top)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
