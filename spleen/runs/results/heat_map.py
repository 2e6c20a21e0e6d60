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

from spleen.records.reading import Setting
from spleen.records.settings import setting_text
from spleen.reporting.figures import DPI, OKABE_ITO, save_figure
from spleen.reporting.tables import scientific
from spleen.runs.results.arms import Arm, best_first
from spleen.runs.results.results import StudyResults

_SIZE, _RATE = "img_size", "lr"
_MOST_PANELS, _MOST_ACROSS = 12, 3
_CELL = (0.82, 0.5)  # inches
_COLOURS = "viridis"
_MISSING = "#EEEEEE"
_ALWAYS_NAMED = ("model.name", "axis")

Grid = Float[np.ndarray, "rate size"]


def draw_heat_map(study: StudyResults, path: Path) -> bool:
    """Draw the figure and return True; return False without a figure unless both size and rate vary.

    Every cell shows its arm's mean test Dice; the arm selected by validation is framed, missing cells are grey. Of more
    than twelve combinations, those with the best validation Dice are drawn.
    """
    arms = [arm for arm in study.arms if all(_is_number(arm.settings.get(key)) for key in (_SIZE, _RATE))]
    sizes, rates = (sorted({_number(arm, key) for arm in arms}) for key in (_SIZE, _RATE))
    if len(sizes) < 2 or len(rates) < 2:
        return False
    combinations = _panels(arms)
    panels = combinations[:_MOST_PANELS]
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
    _finish(figure, stack, image, study, len(combinations))
    save_figure(figure, path)
    return True


def _is_number(value: Setting) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(arm: Arm, key: str) -> float:
    return float(arm.settings[key] or 0)


def _panels(arms: Sequence[Arm]) -> list[tuple[str, list[Arm]]]:
    """The arms by their other settings, named by those that differ, best validation first."""
    others = [key for key in arms[0].settings if key not in (_SIZE, _RATE)]
    groups: dict[tuple[Setting, ...], list[Arm]] = {}
    for arm in arms:
        groups.setdefault(tuple(arm.settings[key] for key in others), []).append(arm)
    naming = [n for n, key in enumerate(others) if len({values[n] for values in groups}) > 1 or key in _ALWAYS_NAMED]
    panels = [(", ".join(_words(others[n], values[n]) for n in naming), members) for values, members in groups.items()]
    panels.sort(key=lambda panel: min(best_first(arm.val_dice.mean) for arm in panel[1]))
    return panels


def _words(key: str, value: Setting) -> str:
    return setting_text(value) if key in _ALWAYS_NAMED else f"{key.rsplit('.', 1)[-1]} {setting_text(value)}"


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
        row, column = rates.index(_number(arm, _RATE)), sizes.index(_number(arm, _SIZE))
        grid[row, column] = arm.test_dice.mean
        if arm is selected:
            frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, clip_on=False, zorder=4)
            frame.set(edgecolor=OKABE_ITO["vermillion"], linewidth=2.6)
            axes.add_patch(frame)
    axes.set_facecolor(_MISSING)
    image = axes.imshow(grid, cmap=_COLOURS, norm=scale, aspect="auto", origin="lower")
    for (row, column), value in np.ndenumerate(grid):
        text = "–" if math.isnan(value) else f"{value:.4f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=_ink(float(scale(value)), value))
    axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
    axes.set_yticks(range(len(rates)), [scientific(rate) for rate in rates])
    axes.tick_params(labelsize=8.5, length=0)
    axes.set_xticks(np.arange(len(sizes) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(rates) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    return image


def _ink(level: float, value: float) -> str:
    """Black on the bright half of the scale, white on the dark one."""
    return "black" if math.isnan(value) or level > 0.6 else "white"


def _finish(
    figure: Figure, stack: NDArray[np.object_], image: AxesImage, study: StudyResults, n_combinations: int
) -> None:
    notes = [] if study.selected is None else ["framed: chosen by validation"]
    if any(arm.n_runs > 1 for arm in study.arms):
        notes.append("each value: mean of an arm's runs")
    if n_combinations > _MOST_PANELS:
        notes.append(f"the best {_MOST_PANELS} of {n_combinations} combinations by validation")
    figure.suptitle(f"Test Dice: {study.folder.resolve().name}", fontsize=11, wrap=True)
    figure.supxlabel("\n".join(["image size, pixels", *notes]), fontsize=8.5)
    figure.supylabel("learning rate", fontsize=9)
    bar = figure.colorbar(image, ax=stack.ravel().tolist(), shrink=0.9, pad=0.02, aspect=24)
    bar.set_label("test Dice", fontsize=9)
    bar.ax.tick_params(labelsize=8.5)
    bar.outline.set_visible(False)
