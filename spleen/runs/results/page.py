"""The results of a study as one HTML page: self-contained, for phone and desktop, light and dark."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spleen.reporting.html import page_file, render_page
from spleen.runs.results.arms import Arm, best_first
from spleen.runs.results.comparison import ArmComparison
from spleen.runs.results.drawings.curves import CurvesDrawing, curves_drawing
from spleen.runs.results.drawings.forest import forest
from spleen.runs.results.drawings.heat_map import heat_map
from spleen.runs.results.drawings.pairs import pairs_drawing, signed
from spleen.runs.results.drawings.parallel import parallel_drawing
from spleen.runs.results.drawings.scales import colour_scale
from spleen.runs.results.page_tables import (
    MISSING,
    Cell,
    alike,
    arms_table,
    class_table,
    clean,
    count_text,
    number_text,
    page_links,
    runs_table,
    score_cell,
    spread_text,
)
from spleen.runs.results.results import StudyResults, results
from spleen.runs.results.statistics import Score
from spleen.runs.results.text import SELECTED, conclusions, listing

_MOST_LISTED = 200


def to_page(study: StudyResults | Path | str, output: Path | None = None) -> str:
    """The page of a study, or of the runs below a folder, as text.

    `output` is where the page will be written, by default in the study's folder: links to the pages of runs are
    relative to it. Raises InputError for a folder that contains no run.
    """
    if not isinstance(study, StudyResults):
        study = results(study)
    study = _without_paths(study)
    base = study.folder if output is None else output.parent
    links = page_links(study, base)
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
        sentences=[line.replace(f"({SELECTED})", "(★)") for line in conclusions(study)],
        alike=alike(study),
        arms=arms_table(study, plots.rows, links),
        plots=plots,
        classes=class_table(study),
        scale=scale,
        heat_map=heat_map(study, scale),
        parallel=parallel_drawing(study, scale),
        by_dice=_by_dice(study, [scale.value(arm) for arm in study.arms], [scale.level(arm) for arm in study.arms]),
        curves=drawing,
        legend=_legend(study, drawing),
        comparison=study.comparison,
        pairs=_pairs(study, study.comparison),
        runs=runs_table(study, links),
        others=_others(study),
        readouts=[_readout(study, arm) for arm in study.arms],
    )


def _without_paths(study: StudyResults) -> StudyResults:
    """The study with settings and labels without the folders of this machine."""

    def shown(arm: Arm) -> Arm:
        settings = {key: clean(study, each) if isinstance(each, str) else each for key, each in arm.settings.items()}
        return replace(arm, label=clean(study, arm.label), settings=settings)

    arm_of = {id(arm): shown(arm) for arm in study.arms}
    pair = study.comparison
    return replace(
        study,
        arms=tuple(arm_of.values()),
        selected=None if study.selected is None else arm_of[id(study.selected)],
        comparison=pair and replace(pair, best=arm_of[id(pair.best)], following=arm_of[id(pair.following)]),
    )


# Words --------------------------------------------------------------------------------------------------------------


def _about(study: StudyResults) -> str:
    if not study.arms:
        return "No finished run"
    order = "best validation Dice first" if study.sort == "val" else "best test Dice first (exploratory)"
    if study.sort == "val" and study.selected is None:
        order = "nothing validated"
    return f"{count_text(study.n_finished, 'finished run')} in {count_text(len(study.arms), 'arm')}, {order}"


def _badges(study: StudyResults) -> list[tuple[str, str]]:
    """Severity and words, one for each kind of run that is missing."""
    levels = {"failed": "error", "broken": "error", "unfinished": "warning", "pruned": "note", "repeated": "note"}
    badges = []
    for state, level in levels.items():
        if n := sum(run.state == state for run in study.others):
            badges.append((level, f"{n} {state}"))
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
        (name, arm.label, count_text(arm.n_runs, "run")),
        ("test Dice", number_text(arm.test_dice.mean), _interval_note(study, arm.test_dice)),
    ]
    if study.selected:
        gap = arm.val_dice.mean - arm.test_dice.mean
        tiles.append(("validation Dice", number_text(arm.val_dice.mean), "selected by it, so it is optimistic"))
        tiles.append(("gap validation − test", MISSING if math.isnan(gap) else signed(gap), ""))
    return tiles


def _interval_note(study: StudyResults, score: Score) -> str:
    if score.interval is None:
        return "one run: no interval" if study.over == "runs" else "no interval"
    return f"95 % interval {score.interval.low:.4f} to {score.interval.high:.4f}, over {score.n} {study.over}"


def _readout(study: StudyResults, arm: Arm) -> str:
    chosen = ", chosen by validation" if arm is study.selected else ""
    spread = "" if arm.test_dice.interval is None else f" ({spread_text(study, arm.test_dice)})"
    val, test = number_text(arm.val_dice.mean), number_text(arm.test_dice.mean)
    return f"{arm.label}: validation Dice {val}, test Dice {test}{spread}, {count_text(arm.n_runs, 'run')}{chosen}"


def _others(study: StudyResults) -> list[tuple[str, list[str]]]:
    """The runs that are not in the table: a heading for each state, and a line for each run."""
    parts = listing(study, _MOST_LISTED)
    return [(heading.replace("`", ""), [clean(study, line) for line in lines]) for heading, lines in parts]


# Lists beside the drawings ------------------------------------------------------------------------------------------


def _by_dice(
    study: StudyResults, values: Sequence[float], levels: Sequence[float | None]
) -> list[tuple[int, str, str, float | None]]:
    """Number, label, Dice and place on the colour scale of each arm, best first."""
    order = sorted(range(len(values)), key=lambda number: best_first(values[number]))
    return [(number, study.arms[number].label, number_text(values[number]), levels[number]) for number in order]


def _legend(study: StudyResults, drawing: CurvesDrawing | None) -> list[tuple[int, str, str, int | None, bool]]:
    """Number, label, validation Dice, hue and dashes of each curve, from the best to the worst."""
    return [
        (
            line.number,
            study.arms[line.number].label,
            number_text(study.arms[line.number].val_dice.mean),
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
        (Cell(name), score_cell(pair.best), score_cell(pair.following), Cell(signed(pair.difference), pair.difference))
        for name, pair in zip(names, comparison.pairs, strict=True)
    ]
    interval = comparison.interval
    tiles = [
        ("mean difference", signed(comparison.difference)),
        ("95 % interval", MISSING if interval is None else f"{signed(interval.low)} to {signed(interval.high)}"),
        ("signed-rank p", MISSING if comparison.p_value is None else f"{comparison.p_value:.2g}"),
        ("higher in", f"{comparison.wins} of {len(rows)}"),
        ("lower in", f"{comparison.losses} of {len(rows)}"),
    ]
    return {"drawing": pairs_drawing(comparison, names), "rows": rows, "tiles": tiles}
