"""The table at the end of a multirun: one row per finished job, best validation Dice first."""

import math
from collections.abc import Sequence
from pathlib import Path

from spleen.records.reading import FinishedRun, read_run
from spleen.report.table import Cell, Column, print_table, scientific
from spleen.results_columns import choose_columns, settings_that_matter


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


def _by_validation(run: FinishedRun) -> float:
    return math.inf if math.isnan(run.val.dice) else -run.val.dice
