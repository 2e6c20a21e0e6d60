"""The tables of the study page: cells as text, with the numbers by which they are sorted, and links to runs' pages."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from spleen.records.folder import RunFolder
from spleen.records.reading import Setting
from spleen.records.settings import learning_rate_text, setting_text
from spleen.reporting.paths import without_folders
from spleen.runs.results.arms import Arm
from spleen.runs.results.columns import SettingColumn
from spleen.runs.results.drawings.forest import ForestRow
from spleen.runs.results.results import StudyResults
from spleen.runs.results.statistics import Score
from spleen.runs.results.text import count_names, counts, half_width, shown_columns

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """What a cell of a table says, and the number by which it is sorted."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A row that belongs to an arm, by its number in the study; `links` are the pages of runs: text and address."""

    number: int
    is_selected: bool
    cells: tuple[Cell, ...]
    links: tuple[tuple[str, str], ...] = ()
    forest: ForestRow | None = None


@dataclass(frozen=True)
class Table:
    """Headings, with whether numbers stand below, and rows."""

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[Row, ...]


def alike(study: StudyResults) -> list[tuple[str, str]]:
    """The settings that all of several arms share, by title."""
    return [
        (column.title, _setting(column.key, study.arms[0].settings.get(column.key)).text)
        for column in shown_columns(study)[0]
        if column not in _differing(study)
    ]


def _differing(study: StudyResults) -> list[SettingColumn]:
    shown = shown_columns(study)[0]
    if len(study.arms) == 1:
        return shown
    return [column for column in shown if len({arm.settings.get(column.key) for arm in study.arms}) > 1]


def arms_table(study: StudyResults, plots: Sequence[ForestRow], links: Mapping[Path, str]) -> Table:
    """One row for each arm: the settings that differ, counts, scores and the links to the pages of its runs."""
    settings = _differing(study)
    names = [column.title for column in settings]
    interval = "± 95 %" if study.over == "runs" else "95 % interval"
    has_interval = any(arm.test_dice.interval is not None for arm in study.arms)
    numbers = [*count_names(study), "val Dice", "test Dice", *([interval] if has_interval else [])]
    rows = []
    for number, (arm, plot) in enumerate(zip(study.arms, plots, strict=True)):
        cells = [
            *(_setting(column.key, arm.settings.get(column.key)) for column in settings),
            *(Cell(str(count), count) for count in counts(study, arm)),
            score_cell(arm.val_dice.mean),
            score_cell(arm.test_dice.mean),
            *([Cell(spread_text(study, arm.test_dice), half_width(arm.test_dice))] if has_interval else []),
            score_cell(arm.test_jaccard.mean),
            _minutes(arm.minutes),
        ]
        rows.append(Row(number, arm is study.selected, tuple(cells), tuple(_links_of(arm, links)), plot))
    columns = [*((name, _is_numeric(rows, n)) for n, name in enumerate(names)), *((name, True) for name in numbers)]
    return Table((*columns, ("test Jaccard", True), ("minutes", True)), tuple(rows))


def _is_numeric(rows: Sequence[Row], column: int) -> bool:
    return any(row.cells[column].value is not None for row in rows)


def class_table(study: StudyResults) -> Table | None:
    """Test Dice by arm and class; None unless there are several classes."""
    names = list(dict.fromkeys(name for arm in study.arms for name in arm.test_dice_by_class))
    if not names:
        return None
    rows = []
    for number, arm in enumerate(study.arms):
        scores = [arm.test_dice_by_class.get(name, Score(math.nan, None, 0)) for name in names]
        spreads = ["" if score.interval is None else f" ({spread_text(study, score)})" for score in scores]
        cells = [
            Cell(f"{number_text(s.mean)}{spread}", _value(s.mean)) for s, spread in zip(scores, spreads, strict=True)
        ]
        rows.append(Row(number, arm is study.selected, (Cell(arm.label), *cells)))
    return Table((("arm", False), *((name, True) for name in names)), tuple(rows))


def runs_table(study: StudyResults, links: Mapping[Path, str]) -> Table:
    """One row for each run in the table of arms, with the folder's name and the link to its page."""
    rows = []
    for number, arm in enumerate(study.arms):
        for repeat, run in arm.runs.items():
            name = clean(study, os.path.relpath(run.folder, study.folder)) if run.folder != study.folder else "."
            cells = [
                Cell(arm.label),
                *(_setting(key, value) for key, value in zip(study.repeat_keys, repeat, strict=True)),
                score_cell(run.val.dice),
                score_cell(run.test.dice),
                _minutes(run.wall_seconds / 60),
                Cell(name),
            ]
            link = links.get(run.folder)
            rows.append(Row(number, arm is study.selected, tuple(cells), (("page", link),) if link else ()))
    repeats = [(key, True) for key in study.repeat_keys]
    scores = [("val Dice", True), ("test Dice", True), ("minutes", True)]
    return Table((("arm", False), *repeats, *scores, ("folder", False)), tuple(rows))


def _setting(key: str, value: Setting) -> Cell:
    text = learning_rate_text(value) if key == "lr" else setting_text(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(MISSING if value is None else text, float(value or 0) if is_number else None)


def _minutes(minutes: float) -> Cell:
    return Cell(MISSING) if math.isnan(minutes) else Cell(f"{minutes:.1f}", minutes)


def score_cell(mean: float) -> Cell:
    """A score with four decimals."""
    return Cell(number_text(mean), _value(mean))


def number_text(value: float) -> str:
    """A score with four decimals, or a dash for NaN."""
    return MISSING if math.isnan(value) else f"{value:.4f}"


def _value(value: float) -> float | None:
    return None if math.isnan(value) else value


def spread_text(study: StudyResults, score: Score) -> str:
    """The 95 % interval: as ± over runs, by its ends over cases."""
    if score.interval is None:
        return MISSING
    if study.over == "runs":
        return f"± {score.interval.high - score.mean:.4f}"
    return f"{score.interval.low:.4f} to {score.interval.high:.4f}"


def count_text(number: int, one: str) -> str:
    """A number of things, such as "2 runs"."""
    return f"{number} {one if number == 1 else one + 's'}"


# Links --------------------------------------------------------------------------------------------------------------


def page_links(study: StudyResults, base: Path) -> dict[Path, str]:
    """The addresses of the runs' pages that exist, relative to the folder of this page, so that both can be moved."""
    pages = {run.folder: RunFolder(run.folder).report for arm in study.arms for run in arm.runs.values()}
    return {
        folder: quote(Path(os.path.relpath(page.absolute(), base.absolute())).as_posix())
        for folder, page in pages.items()
        if page.is_file()
    }


def _links_of(arm: Arm, links: Mapping[Path, str]) -> list[tuple[str, str]]:
    names = {run.folder: ", ".join(map(setting_text, repeat)) for repeat, run in arm.runs.items()}
    return [(names[folder] or "page", links[folder]) for folder in names if folder in links]


def clean(study: StudyResults, text: str) -> str:
    """The text without the folders of this machine."""
    return without_folders(text, {study.folder, study.folder.resolve(), Path.cwd(), Path.home()})
