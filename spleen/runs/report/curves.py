"""Training curves of one run."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from spleen.reporting.figures import DASHES, DPI, GREY, LABEL_COLOURS, OKABE_ITO, save_figure

_FEW_POINTS = 25  # with fewer points, a curve has markers
_INK = "#222222"
_CLASS_DICE = re.compile(r"val/.+/dice")


@dataclass(frozen=True)
class _Line:
    key: str
    legend: str
    colour: str
    style: LineStyleType
    width: float = 1.6


@dataclass(frozen=True)
class _Panel:
    label: str
    height: float  # in inches
    lines: tuple[_Line, ...]


_LOSS = _Panel(
    "loss",
    2.0,
    (
        _Line("train/loss", "train", OKABE_ITO["blue"], "-"),
        _Line("val/loss", "validation", OKABE_ITO["vermillion"], DASHES),
    ),
)
_SCORES = _Panel(
    "validation score",
    2.2,
    (
        _Line("val/dice", "Dice", OKABE_ITO["blue"], "-"),
        _Line("val/jaccard", "Jaccard", OKABE_ITO["bluish green"], DASHES),
    ),
)
_LEARNING_RATE = _Panel("learning rate", 1.1, (_Line("lr", "", OKABE_ITO["blue"], "-"),))


def draw_curves(rows: list[dict[str, float]], path: Path, title: str) -> None:
    """Draw the figure of `curves_figure`. The file is written atomically; its suffix determines the format."""
    save_figure(curves_figure(rows, title), path)


def curves_figure(rows: list[dict[str, float]], title: str) -> Figure:
    """Loss, validation scores and learning rate over the epochs, with the epoch of the best Dice marked.

    Keys of a row: epoch (from 0, as in metrics.csv; drawn from 1), train/loss, val/loss, val/dice, val/jaccard, lr, and
    val/CLASS/dice where there are several classes: each has a line, in the colour of its outline in overlays.png.
    Missing and non-finite values are skipped, and so are panels without values.
    """
    scores = _score_panel(rows)
    all_panels = (_LOSS, scores, _LEARNING_RATE)
    panels = [p for p in all_panels if any(_series(rows, line.key)[0].size for line in p.lines)] or [_LOSS]
    heights = [panel.height for panel in panels]
    figure = Figure(figsize=(7.4, sum(heights) + 0.8), dpi=DPI, facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=11)
    stack = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    all_epochs = _series(rows, "epoch")[0]
    first, last = (float(all_epochs.min()), float(all_epochs.max())) if all_epochs.size else (1.0, 2.0)
    margin = max(0.5, 0.02 * (last - first))
    stack[-1].set_xlim(first - margin, last + margin)  # of all panels: they share the axis
    epochs, dice = _series(rows, "val/dice")
    for axes, panel in zip(stack, panels, strict=True):
        _draw_lines(axes, panel, rows)
        if dice.size:
            best = int(np.argmax(dice))
            axes.axvline(epochs[best], color=GREY, linewidth=0.8, linestyle=":", zorder=1)
            if panel is scores:
                _mark_best(axes, float(epochs[best]), float(dice[best]))
    stack[-1].set_xlabel("epoch", fontsize=9)
    stack[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.align_ylabels(list(stack))
    return figure


def _score_panel(rows: list[dict[str, float]]) -> _Panel:
    """The scores of the only class, or the mean Dice with that of each class."""
    keys = dict.fromkeys(key for row in rows for key in row if _CLASS_DICE.fullmatch(key))
    if len(keys) < 2:
        return _SCORES
    lines = [_Line("val/dice", "Dice, mean", _INK, "-", 2.2)]
    for number, key in enumerate(keys):
        colour, dashed = LABEL_COLOURS[number % len(LABEL_COLOURS)], number >= len(LABEL_COLOURS)
        lines.append(_Line(key, key.removeprefix("val/").removesuffix("/dice"), colour, DASHES if dashed else "-"))
    return replace(_SCORES, height=max(_SCORES.height, 0.4 + 0.2 * len(lines)), lines=tuple(lines))


def _series(rows: list[dict[str, float]], key: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The epochs, counted from 1, at which a finite value was recorded, and the values."""
    pairs = [(row.get("epoch", math.nan) + 1, row.get(key, math.nan)) for row in rows]
    points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    return points[:, 0], points[:, 1]


def _draw_lines(axes: Axes, panel: _Panel, rows: list[dict[str, float]]) -> None:
    for line in panel.lines:
        epochs, values = _series(rows, line.key)
        if not values.size:
            continue
        marker = "o" if values.size < _FEW_POINTS else ""
        (curve,) = axes.plot(epochs, values, marker=marker, ms=3, linewidth=line.width)
        curve.set(color=line.colour, linestyle=line.style, label=line.legend)
    axes.set_ylabel(panel.label, fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if panel is _LEARNING_RATE:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        axes.yaxis.get_offset_text().set_fontsize(8)
    elif axes.lines:
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),  # beside the axes, where it hides no line
            borderaxespad=0.0,
            fontsize=8.5,
            frameon=False,
            handlelength=2.8,
        )


def _mark_best(axes: Axes, epoch: float, dice: float) -> None:
    left, right = axes.get_xlim()
    place = (epoch - left) / (right - left)
    side = "left" if place < 0.25 else "right" if place > 0.75 else "center"
    axes.plot(
        epoch,
        dice,
        marker="*",
        ms=11,
        color=OKABE_ITO["orange"],
        markeredgecolor="black",
        markeredgewidth=0.6,
    )
    above = axes.get_xaxis_transform()  # above the panel, where it hides no line
    text = axes.annotate(f"best: {dice:.4f} at epoch {epoch:g}", (epoch, 1), (0, 2), above, textcoords="offset points")
    text.set(ha=side, va="bottom", fontsize=8.5)
