"""The table at the end of a multirun: one row per finished job, best validation Dice first."""

import json
import math
from pathlib import Path

from spleen.report.table import Cell, Column, print_table, scientific


def print_jobs(sweep_folder: Path) -> None:
    """Print the scores of all finished jobs below `sweep_folder`, read from their summary.json."""
    summaries = [json.loads(path.read_text()) for path in sorted(sweep_folder.glob("*/summary.json"))]
    if not summaries:
        return
    columns: list[str | Column] = [
        "model",
        "axis",
        Column("image size", "d"),
        Column("learning rate", scientific),
        "val Dice",
        "test Dice",
        "test Jaccard",
        Column("minutes", ".1f"),
    ]
    rows: list[list[Cell]] = [
        [
            summary["model"],
            summary["axis"],
            summary["img_size"],
            summary["lr"],
            summary["val"]["dice"],
            summary["test"]["dice"],
            summary["test"]["jaccard"],
            summary["wall_seconds"] / 60,
        ]
        for summary in sorted(summaries, key=_by_validation)
    ]
    print_table(f"\n{len(rows)} finished job(s) in {sweep_folder}, best validation Dice first", columns, rows)


def _by_validation(summary: dict[str, dict[str, float | None]]) -> float:
    dice = summary["val"]["dice"]
    return math.inf if dice is None else -dice
