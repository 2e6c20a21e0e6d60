"""The results of a study as one HTML page: self-contained, for phone and desktop, light and dark."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from spleen.records.folder import RunFolder, read_summary
from spleen.records.reading import OtherRun, Setting
from spleen.records.settings import learning_rate_text, setting_text
from spleen.reporting.html import page_file, render_page
from spleen.reporting.paths import without_folders
from spleen.runs.results.arms import Arm, best_first
from spleen.runs.results.columns import SettingColumn
from spleen.runs.results.comparison import ArmComparison
from spleen.runs.results.drawings.curves import CurvesDrawing, curves_drawing
from spleen.runs.results.drawings.forest import ForestRow, forest
from spleen.runs.results.drawings.heat_map import heat_map
from spleen.runs.results.drawings.pairs import pairs_drawing, signed
from spleen.runs.results.drawings.parallel import parallel_drawing
from spleen.runs.results.drawings.scales import colour_scale
from spleen.runs.results.results import StudyResults, results
from spleen.runs.results.statistics import Score
from spleen.runs.results.text import conclusions, count_names, counts, half_width, listing, shown_columns

_MOST_LISTED = 200
_MISSING = "–"


@dataclass(frozen=True)
class _Cell:
    """What a cell of a table says, and the number by which it is sorted."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class _Row:
    """A row that belongs to an arm, by its number in the study; `links` are the pages of runs: text and address."""

    number: int
    is_selected: bool
    cells: tuple[_Cell, ...]
    links: tuple[tuple[str, str], ...] = ()
    forest: ForestRow | None = None


@dataclass(frozen=True)
class _Table:
    """Headings, with whether numbers stand below, and rows."""

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[_Row, ...]


def to_page(study: StudyResults | Path | str, output: Path | None = None) -> str:
    """The page of a study, or of the runs below a folder, as text.

    `output` is where the page will be written, by default in the study's folder: links to the pages of runs are
    relative to it. Raises InputError for a folder that contains no run.
    """
    if not isinstance(study, StudyResults):
        study = results(study)
    base = study.folder if output is None else output.parent
    links = _links(study, base)
    scale, plots = colour_scale(study.arms), forest(study)
    drawing = curves_drawing(study)
    return render_page(
        "study.html.jinja",
        scripts=[page_file("study.js")],
        kind="study",
        title=study.folder.resolve().name,
        about=_about(study),
        badges=_badges(study),
        tiles=_tiles(study),
        sentences=[_clean(study, line) for line in conclusions(study)],
        alike=_alike(study),
        arms=_arms_table(study, plots.rows, links),
        plots=plots,
        interval_is_over=study.over,
        classes=_class_table(study),
        scale=scale,
        heat_map=heat_map(study, scale),
        parallel=parallel_drawing(study, scale),
        by_dice=_by_dice(study, [scale.value(arm) for arm in study.arms], [scale.level(arm) for arm in study.arms]),
        curves=drawing,
        legend=_legend(study, drawing),
        comparison=study.comparison,
        pairs=_pairs(study, study.comparison),
        runs=_runs_table(study, links),
        others=_others(study),
        readouts=[_readout(study, arm) for arm in study.arms],
    )


# Words --------------------------------------------------------------------------------------------------------------


def _about(study: StudyResults) -> str:
    if not study.arms:
        return "No finished run"
    order = "best validation Dice first" if study.sort == "val" else "best test Dice first (exploratory)"
    if study.sort == "val" and study.selected is None:
        order = "nothing validated"
    return f"{_count(study.n_finished, 'finished run')} in {_count(len(study.arms), 'arm')}, {order}"


def _badges(study: StudyResults) -> list[tuple[str, str]]:
    """Severity and words, one for each kind of run that is missing."""
    pruned, others = _split_pruned(study)
    levels = {"failed": "error", "broken": "error", "unfinished": "warning", "repeated": "note"}
    badges = []
    for state, level in levels.items():
        if n := sum(run.state == state for run in others):
            badges.append((level, f"{n} {state}"))
    if pruned:
        badges.append(("note", f"{len(pruned)} pruned"))
    if any(arm.folds is not None and arm.folds.missing for arm in study.arms):
        badges.append(("warning", "folds are missing"))
    return badges or [("good", "every run is finished")]


def _tiles(study: StudyResults) -> list[tuple[str, str, str]]:
    """Name, value and note: what to know first."""
    arm = study.selected or (study.arms[0] if len(study.arms) == 1 else None)
    if arm is None:
        return []
    name = "best by validation" if study.selected and len(study.arms) > 1 else "the only arm"
    tiles = [
        (name, arm.label, _count(arm.n_runs, "run")),
        ("test Dice", _number(arm.test_dice.mean), _interval_note(study, arm.test_dice)),
    ]
    if study.selected:
        gap = arm.val_dice.mean - arm.test_dice.mean
        tiles.append(("validation Dice", _number(arm.val_dice.mean), "selected by it, so it is optimistic"))
        tiles.append(("gap validation − test", _MISSING if math.isnan(gap) else signed(gap), ""))
    return tiles


def _interval_note(study: StudyResults, score: Score) -> str:
    if score.interval is None:
        return "one run: no interval" if study.over == "runs" else "no interval"
    return f"95 % interval {score.interval.low:.4f} to {score.interval.high:.4f}, over {score.n} {study.over}"


def _readout(study: StudyResults, arm: Arm) -> str:
    chosen = ", chosen by validation" if arm is study.selected else ""
    spread = "" if arm.test_dice.interval is None else f" ({_spread(study, arm.test_dice)})"
    val, test = _number(arm.val_dice.mean), _number(arm.test_dice.mean)
    return f"{arm.label}: validation Dice {val}, test Dice {test}{spread}, {_count(arm.n_runs, 'run')}{chosen}"


def _clean(study: StudyResults, text: str) -> str:
    return without_folders(text, {study.folder, study.folder.resolve(), Path.cwd(), Path.home()})


def _others(study: StudyResults) -> list[tuple[str, list[str]]]:
    """The runs that are not in the table: a heading for each state, and a line for each run."""
    pruned, others = _split_pruned(study)
    parts = listing(replace(study, others=others), _MOST_LISTED)
    if pruned:
        _, lines = listing(replace(study, others=pruned), _MOST_LISTED)[0]
        parts.append(
            (f"{_count(len(pruned), 'trial')} pruned: stopped early by the search, as others did better", lines)
        )
    return [(heading, [_clean(study, line) for line in lines]) for heading, lines in parts]


def _split_pruned(study: StudyResults) -> tuple[tuple[OtherRun, ...], tuple[OtherRun, ...]]:
    """The trials that a search stopped, and the other runs without results."""
    is_pruned = {
        run.folder: run.state == "unfinished" and read_summary(run.folder).get("status") == "pruned"
        for run in study.others
    }
    pruned = tuple(run for run in study.others if is_pruned[run.folder])
    return pruned, tuple(run for run in study.others if not is_pruned[run.folder])


# Tables -------------------------------------------------------------------------------------------------------------


def _alike(study: StudyResults) -> list[tuple[str, str]]:
    """The settings that all arms share; none where there is one arm, whose settings are in its row."""
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


def _arms_table(study: StudyResults, plots: Sequence[ForestRow], links: Mapping[Path, str]) -> _Table:
    settings = _differing(study)
    names = [column.title for column in settings]
    numbers = [*count_names(study), "val Dice", "test Dice", "± 95 %" if study.over == "runs" else "95 % interval"]
    rows = []
    for number, (arm, plot) in enumerate(zip(study.arms, plots, strict=True)):
        cells = [
            *(_setting(column.key, arm.settings.get(column.key)) for column in settings),
            *(_Cell(str(count), count) for count in counts(study, arm)),
            _score(arm.val_dice.mean),
            _score(arm.test_dice.mean),
            _Cell(_spread(study, arm.test_dice), half_width(arm.test_dice)),
            _score(arm.test_jaccard.mean),
            _Cell(_MISSING) if math.isnan(arm.minutes) else _Cell(f"{arm.minutes:.1f}", arm.minutes),
        ]
        rows.append(_Row(number, arm is study.selected, tuple(cells), tuple(_links_of(arm, links)), plot))
    columns = [*((name, _is_numeric(rows, n)) for n, name in enumerate(names)), *((name, True) for name in numbers)]
    return _Table((*columns, ("test Jaccard", True), ("minutes", True)), tuple(rows))


def _is_numeric(rows: Sequence[_Row], column: int) -> bool:
    return any(row.cells[column].value is not None for row in rows)


def _class_table(study: StudyResults) -> _Table | None:
    """Test Dice by arm and class; None unless there are several classes."""
    names = list(dict.fromkeys(name for arm in study.arms for name in arm.test_dice_by_class))
    if not names:
        return None
    rows = []
    for number, arm in enumerate(study.arms):
        scores = [arm.test_dice_by_class.get(name, Score(math.nan, None, 0)) for name in names]
        spreads = ["" if score.interval is None else f" ({_spread(study, score)})" for score in scores]
        cells = [_Cell(f"{_number(s.mean)}{spread}", _value(s.mean)) for s, spread in zip(scores, spreads, strict=True)]
        rows.append(_Row(number, arm is study.selected, (_Cell(arm.label), *cells)))
    return _Table((("arm", False), *((name, True) for name in names)), tuple(rows))


def _runs_table(study: StudyResults, links: Mapping[Path, str]) -> _Table:
    """One row for each run in the table of arms, with the folder's name and the link to its page."""
    rows = []
    for number, arm in enumerate(study.arms):
        for repeat, run in arm.runs.items():
            name = _clean(study, os.path.relpath(run.folder, study.folder)) if run.folder != study.folder else "."
            cells = [
                _Cell(arm.label),
                *(_setting(key, value) for key, value in zip(study.repeat_keys, repeat, strict=True)),
                _score(run.val.dice),
                _score(run.test.dice),
                _Cell(f"{run.wall_seconds / 60:.1f}", run.wall_seconds / 60),
                _Cell(name),
            ]
            link = links.get(run.folder)
            rows.append(_Row(number, arm is study.selected, tuple(cells), (("page", link),) if link else ()))
    repeats = [(key, True) for key in study.repeat_keys]
    scores = [("val Dice", True), ("test Dice", True), ("minutes", True)]
    return _Table((("arm", False), *repeats, *scores, ("folder", False)), tuple(rows))


def _setting(key: str, value: Setting) -> _Cell:
    text = learning_rate_text(value) if key == "lr" else setting_text(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return _Cell(_MISSING if value is None else text, float(value or 0) if is_number else None)


def _score(mean: float) -> _Cell:
    return _Cell(_number(mean), _value(mean))


def _number(value: float) -> str:
    return _MISSING if math.isnan(value) else f"{value:.4f}"


def _value(value: float) -> float | None:
    return None if math.isnan(value) else value


def _spread(study: StudyResults, score: Score) -> str:
    if score.interval is None:
        return _MISSING
    if study.over == "runs":
        return f"± {score.interval.high - score.mean:.4f}"
    return f"{score.interval.low:.4f} to {score.interval.high:.4f}"


def _count(number: int, one: str) -> str:
    return f"{number} {one if number == 1 else one + 's'}"


# Links --------------------------------------------------------------------------------------------------------------


def _links(study: StudyResults, base: Path) -> dict[Path, str]:
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


# Lists beside the drawings ------------------------------------------------------------------------------------------


def _by_dice(
    study: StudyResults, values: Sequence[float], levels: Sequence[float | None]
) -> list[tuple[int, str, str, float | None]]:
    """Number, label, Dice and place on the colour scale of each arm, best first."""
    order = sorted(range(len(values)), key=lambda number: best_first(values[number]))
    return [(number, study.arms[number].label, _number(values[number]), levels[number]) for number in order]


def _legend(study: StudyResults, drawing: CurvesDrawing | None) -> list[tuple[int, str, str, int | None, bool]]:
    """Number, label, validation Dice, hue and dashes of each curve, from the best to the worst."""
    return [
        (
            line.number,
            study.arms[line.number].label,
            _number(study.arms[line.number].val_dice.mean),
            line.hue,
            line.is_dashed,
        )
        for line in (drawing.lines if drawing else ())
    ]


def _pairs(study: StudyResults, comparison: ArmComparison | None) -> dict[str, object] | None:
    """The drawing and the table of the pairs; None where there are none."""
    if comparison is None or not comparison.pairs:
        return None
    start = f"{', '.join(study.repeat_keys)} " if comparison.unit == "run" else ""
    names = [f"{start}{pair.name}" for pair in comparison.pairs]
    rows = [
        (_Cell(name), _score(pair.best), _score(pair.following), _Cell(signed(pair.difference), pair.difference))
        for name, pair in zip(names, comparison.pairs, strict=True)
    ]
    interval = comparison.interval
    tiles = [
        ("mean difference", signed(comparison.difference)),
        ("95 % interval", _MISSING if interval is None else f"{signed(interval.low)} to {signed(interval.high)}"),
        ("signed-rank p", _MISSING if comparison.p_value is None else f"{comparison.p_value:.2g}"),
        ("higher in", f"{comparison.wins} of {len(rows)}"),
        ("lower in", f"{comparison.losses} of {len(rows)}"),
    ]
    return {"drawing": pairs_drawing(comparison, names), "rows": rows, "tiles": tiles}
