"""The heat map of size and rate as tables: a number and a place on the colour scale for each cell."""

from dataclasses import dataclass

from spleen.records.settings import learning_rate_text
from spleen.runs.results.arms import Arm
from spleen.runs.results.drawings.scales import ColourScale
from spleen.runs.results.results import StudyResults
from spleen.runs.results.size_and_rate import MOST_PANELS, SizeAndRate, rate_of, size_and_rate, size_of

_MOST_LEVELS, _LEAST_FILLED = 12, 1 / 3  # a search draws rates freely: the cells of such a grid are mostly empty


@dataclass(frozen=True)
class HeatCell:
    """An arm, by its number in the study: its Dice, and where that lies on the colour scale."""

    number: int
    dice: float
    level: float | None
    is_selected: bool


@dataclass(frozen=True)
class HeatPanel:
    """Rows from the highest rate to the lowest; None where no arm has this size and rate."""

    name: str
    rows: tuple[tuple[str, tuple[HeatCell | None, ...]], ...]


@dataclass(frozen=True)
class HeatMap:
    """Panels with the same sizes and rates, and how many more there are."""

    sizes: tuple[str, ...]
    panels: tuple[HeatPanel, ...]
    n_left_out: int


def heat_map(study: StudyResults, scale: ColourScale) -> HeatMap | None:
    """The tables; None unless size and rate both vary and at least a third of the cells would be filled."""
    grid = size_and_rate(study.arms)
    if grid is None or not _is_readable(grid):
        return None
    number_of = {id(arm): number for number, arm in enumerate(study.arms)}
    panels = []
    for name, arms in grid.panels[:MOST_PANELS]:
        at = {(rate_of(arm), size_of(arm)): _cell(number_of[id(arm)], arm, study, scale) for arm in arms}
        rows = [
            (learning_rate_text(rate), tuple(at.get((rate, size)) for size in grid.sizes))
            for rate in reversed(grid.rates)
        ]
        panels.append(HeatPanel(name, tuple(rows)))
    sizes = tuple(f"{size:g}" for size in grid.sizes)
    return HeatMap(sizes, tuple(panels), max(len(grid.panels) - MOST_PANELS, 0))


def _cell(number: int, arm: Arm, study: StudyResults, scale: ColourScale) -> HeatCell:
    return HeatCell(number, scale.value(arm), scale.level(arm), arm is study.selected)


def _is_readable(grid: SizeAndRate) -> bool:
    if max(len(grid.sizes), len(grid.rates)) > _MOST_LEVELS:
        return False
    n_cells = len(grid.panels) * len(grid.sizes) * len(grid.rates)
    return sum(len(arms) for _, arms in grid.panels) >= n_cells * _LEAST_FILLED
