"""Training curves of one run."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from spleen.reporting.figures import DASHES, DPI, GREY, OKABE_ITO, save_figure

_FEW_POINTS = 25  # with fewer points, a curve has markers


@dataclass(frozen=True)
class _Panel:
    label: str
    height: float  # in inches
    lines: tuple[tuple[str, str, str, LineStyleType], ...]  # key, legend, hue, line style


_LOSS = _Panel(
    "loss",
    2.0,
    (("train/loss", "train", "blue", "-"), ("val/loss", "validation", "vermillion", DASHES)),
)
_SCORES = _Panel(
    "validation score",
    2.2,
    (("val/dice", "Dice", "blue", "-"), ("val/jaccard", "Jaccard", "bluish green", DASHES)),
)
_LEARNING_RATE = _Panel("learning rate", 1.1, (("lr", "", "blue", "-"),))


def draw_curves(rows: list[dict[str, float]], path: Path, title: str) -> None:
    """Draw loss, validation scores and learning rate over the epochs, and mark the epoch of the best Dice.

    Keys of a row: epoch (from 0, as in metrics.csv; drawn from 1), train/loss, val/loss, val/dice, val/jaccard, lr.
    Missing and non-finite values are skipped, and so are panels without values. The file is written atomically; its
    suffix determines the format.
    """
    all_panels = (_LOSS, _SCORES, _LEARNING_RATE)
    panels = [p for p in all_panels if any(_series(rows, key)[0].size for key, *_ in p.lines)] or [_LOSS]
    heights = [panel.height for panel in panels]
    figure = Figure(figsize=(6.4, sum(heights) + 0.8), dpi=DPI, facecolor="white", layout="constrained")
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
            if panel is _SCORES:
                _mark_best(axes, float(epochs[best]), float(dice[best]))
    stack[-1].set_xlabel("epoch", fontsize=9)
    stack[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.align_ylabels(list(stack))
    save_figure(figure, path)


def _series(rows: list[dict[str, float]], key: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The epochs, counted from 1, at which a finite value was recorded, and the values."""
    pairs = [(row.get("epoch", math.nan) + 1, row.get(key, math.nan)) for row in rows]
    points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    return points[:, 0], points[:, 1]


def _draw_lines(axes: Axes, panel: _Panel, rows: list[dict[str, float]]) -> None:
    for key, legend, hue, style in panel.lines:
        epochs, values = _series(rows, key)
        if not values.size:
            continue
        marker = "o" if values.size < _FEW_POINTS else ""
        axes.plot(
            epochs,
            values,
            color=OKABE_ITO[hue],
            linestyle=style,
            linewidth=1.6,
            marker=marker,
            ms=3,
            label=legend,
        )
    axes.set_ylabel(panel.label, fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if panel is _LEARNING_RATE:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.get_offset_text().set_fontsize(8)
    elif axes.lines:
        axes.legend(
            loc="lower right" if panel is _SCORES else "upper right",
            fontsize=8.5,
            frameon=False,
            handlelength=2.8,
        )


def _mark_best(axes: Axes, epoch: float, dice: float) -> None:
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.15 * (top - bottom))  # room for the text above the highest point
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
    text = axes.annotate(f"best: {dice:.4f} at epoch {epoch:g}", (epoch, dice), (0, 9), textcoords="offset points")
    text.set(ha=side, va="bottom", fontsize=8.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})
