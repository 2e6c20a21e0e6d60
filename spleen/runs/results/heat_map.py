"""Test Dice over image size and learning rate, one panel for each combination of the other settings."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from spleen.reporting.figures import DPI, OKABE_ITO, save_figure
from spleen.reporting.tables import scientific
from spleen.runs.results.arms import Arm
from spleen.runs.results.results import StudyResults
from spleen.runs.results.size_and_rate import MOST_PANELS, rate_of, size_and_rate, size_of

_MOST_ACROSS = 3
_CELL = (0.82, 0.5)  # inches
COLOURS = "viridis"
_EQUAL_CONTRAST = 0.436  # the level at which black and white contrast equally with it
_MISSING = "#EEEEEE"

Grid = Float[np.ndarray, "rate size"]


def draw_heat_map(study: StudyResults, path: Path) -> bool:
    """Draw the figure and return True; return False without a figure unless both size and rate vary.

    Every cell shows its arm's mean test Dice; the arm selected by validation is framed, missing cells are grey. Of more
    than twelve combinations, those with the best validation Dice are drawn.
    """
    grid = size_and_rate(study.arms)
    if grid is None:
        return False
    sizes, rates = grid.sizes, grid.rates
    panels = grid.panels[:MOST_PANELS]
    across = min(len(panels), _MOST_ACROSS)
    down = math.ceil(len(panels) / across)
    width, height = _CELL[0] * len(sizes) + 0.5, _CELL[1] * len(rates) + 0.6
    figure = Figure(
        figsize=(max(4.2, across * width + 1.6), down * height + 1.2), dpi=DPI, facecolor="white", layout="constrained"
    )
    stack = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    known = [arm.test_dice.mean for _, members in panels for arm in members if not math.isnan(arm.test_dice.mean)]
    scale = Normalize(min(known, default=0.0), max(known, default=1.0))
    for axes, (name, members) in zip(stack.flat, panels, strict=False):
        image = _draw_panel(axes, members, sizes, rates, scale, study.selected)
        axes.set_title(name, fontsize=9.5)
    for axes in stack.flat[len(panels) :]:
        axes.set_visible(False)
    _finish(figure, stack, image, study, len(grid.panels))
    save_figure(figure, path)
    return True


def _draw_panel(
    axes: Axes,
    arms: Sequence[Arm],
    sizes: Sequence[float],
    rates: Sequence[float],
    scale: Normalize,
    selected: Arm | None,
) -> AxesImage:
    grid: Grid = np.full((len(rates), len(sizes)), np.nan)
    for arm in arms:
        row, column = rates.index(rate_of(arm)), sizes.index(size_of(arm))
        grid[row, column] = arm.test_dice.mean
        if arm is selected:
            frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, clip_on=False, zorder=4)
            frame.set(edgecolor=OKABE_ITO["vermillion"], linewidth=2.6)
            axes.add_patch(frame)
    axes.set_facecolor(_MISSING)
    image = axes.imshow(grid, cmap=COLOURS, norm=scale, aspect="auto", origin="lower")
    for (row, column), value in np.ndenumerate(grid):
        text = "–" if math.isnan(value) else f"{value:.4f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=text_colour(float(scale(value))))
    axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
    axes.set_yticks(range(len(rates)), [scientific(rate) for rate in rates])
    axes.tick_params(labelsize=8.5, length=0)
    axes.set_xticks(np.arange(len(sizes) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(rates) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    return image


def text_colour(level: float) -> str:
    """Black or white, whichever contrasts more with the colour at this level of the scale, or with a missing cell."""
    return "white" if level < _EQUAL_CONTRAST else "black"


def _finish(
    figure: Figure, stack: NDArray[np.object_], image: AxesImage, study: StudyResults, n_combinations: int
) -> None:
    notes = [] if study.selected is None else ["framed: chosen by validation"]
    if any(arm.n_runs > 1 for arm in study.arms):
        notes.append("each value: mean of an arm's runs")
    if n_combinations > MOST_PANELS:
        notes.append(f"the best {MOST_PANELS} of {n_combinations} combinations by validation")
    figure.suptitle(f"Test Dice: {study.folder.resolve().name}", fontsize=11, wrap=True)
    figure.supxlabel("\n".join(["image size, pixels", *notes]), fontsize=8.5)
    figure.supylabel("learning rate", fontsize=9)
    bar = figure.colorbar(image, ax=stack.ravel().tolist(), shrink=0.9, pad=0.02, aspect=24)
    bar.set_label("test Dice", fontsize=9)
    bar.ax.tick_params(labelsize=8.5)
    bar.outline.set_visible(False)
