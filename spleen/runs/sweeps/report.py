"""The table at the end of a multirun: one row per finished job, best validation Dice first."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from spleen.errors import InputError
from spleen.records.folder import RunFolder
from spleen.records.reading import FinishedRun, read_run
from spleen.records.settings import settings_that_matter
from spleen.reporting.tables import Cell, Column, print_table, scientific
from spleen.runs.results.columns import choose_columns
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
