"""The table at the end of a multirun: one row per finished job, best validation Dice first."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from spleen.errors import InputError
from spleen.records.folder import RunFolder, read_summary
from spleen.records.reading import FinishedRun, read_run
from spleen.records.settings import settings_that_matter
from spleen.reporting.tables import Cell, Column, print_table, scientific
from spleen.runs.results.columns import choose_columns
from spleen.runs.sweeps.search import trial_folder
from spleen.system.files import write_text


def print_jobs(sweep_folder: Path, run_folders: Sequence[Path]) -> None:
    """Print the settings in which finished runs below `sweep_folder` differ, and their scores."""
    read = [read_run(folder) for folder in run_folders]
    runs = sorted((run for run in read if isinstance(run, FinishedRun)), key=_by_validation)
    if not runs:
        return
    settings, values = choose_columns(settings_that_matter(runs), [])
    columns: list[str | Column] = [
        *(Column(column.title, scientific if column.key == "lr" else "") for column in settings),
        "val Dice",
        "test Dice",
        "test Jaccard",
        Column("minutes", ".1f"),
    ]
    rows: list[list[Cell]] = [
        [*row.values(), run.val.dice, run.test.dice, run.test.jaccard, run.wall_seconds / 60]
        for row, run in zip(values, runs, strict=True)
    ]
    print_table(f"\n{len(rows)} finished job(s) in {sweep_folder}, best validation Dice first", columns, rows)
    does = "averages the folds and compares:" if any(column.key == "fold" for column in settings) else "compares them:"
    print(f"spleen results {sweep_folder}  {does} intervals, the best arm, curves, Markdown, CSV and LaTeX")


def write_page(sweep_folder: Path) -> None:
    """Write report.html with the results of all runs below `sweep_folder`, if there are any.

    A page that cannot be written is a warning: the runs are finished all the same.
    """
    from spleen.runs.results.page import to_page

    page = RunFolder(sweep_folder).report
    try:
        write_text(page, to_page(sweep_folder, page))
    except InputError:  # every job was refused before it started, so there is no run
        return
    except OSError as error:
        print(f"warning: {page} was not written: {error.strerror or error}", file=sys.stderr)
    else:
        print(f"{page}  shows them in a browser")


def _by_validation(run: FinishedRun) -> float:
    return math.inf if math.isnan(run.val.dice) else -run.val.dice


# More rows than this are not read on a terminal; `spleen results` shows all.
_SHOWN = 15


def print_search(trials: Sequence[FrozenTrial], folder: Path) -> None:
    """Print the best trials, the counts, and the gap between the validation and the test score of the best one.

    `trials` come best first.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    columns: list[str | Column] = [
        "trial",
        "state",
        *(Column(name, _setting) for name in names),
        "val Dice",
        "test Dice",
    ]
    rows: list[list[Cell]] = [
        [
            str(trial.number),
            trial.state.name.lower(),
            *(trial.params.get(name) for name in names),
            trial.value if trial.state == TrialState.COMPLETE else _last_report(trial),
            _test_dice(trial),
        ]
        for trial in trials[:_SHOWN]
    ]
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    print_table(f"\nSearch in {folder}, best validation Dice first", columns, rows)
    print(
        f"{counts[TrialState.COMPLETE]} complete, {counts[TrialState.PRUNED]} pruned, {counts[TrialState.FAIL]} failed"
        + (f"; the first {_SHOWN} of {len(trials)} are shown" if len(trials) > _SHOWN else "")
    )
    best = trials[0] if trials else None
    if best is None or best.state != TrialState.COMPLETE or best.value is None:
        return
    test = _test_dice(best)
    if test is not None:
        print(
            f"best by validation: trial {best.number}, validation Dice {best.value:.4f}, test Dice {test:.4f}, "
            f"gap {best.value - test:+.4f}\n"
            "The validation score is the highest of many, and too good by that choice; report the test score."
        )


def _setting(value: float) -> str:
    return scientific(value) if abs(value) < 0.01 and value else f"{value:.4g}"


def _last_report(trial: FrozenTrial) -> float | None:
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def _test_dice(trial: FrozenTrial) -> float | None:
    folder = trial_folder(trial)
    if folder is None:
        return None
    dice = read_summary(folder).get("test", {}).get("dice")
    return None if dice is None else float(dice)
