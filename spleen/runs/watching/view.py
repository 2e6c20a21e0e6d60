"""A snapshot as text."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from spleen.reporting.sparkline import sparkline
from spleen.reporting.tables import Cell, Column, render_table
from spleen.runs.watching.status import STALE_SECONDS, Status, WatchedRun
from spleen.runs.watching.study import BestArm, Snapshot
from spleen.system.terminal import printable_name
from spleen.system.text import duration_text, shortened

_ORDER: tuple[Status, ...] = ("running", "stale", "broken", "failed", "stopped", "finished", "pruned")
_USUAL = ("training", "validating")
_STUCK_SECONDS = 600.0
_CURVE_WIDTH, _LONG_CURVE_WIDTH = 12, 40
_FEWEST_TABLE_LINES = 4  # heading, rule, a row, and how many more there are


def to_text(snapshot: Snapshot, width: int | None = None, height: int | None = None) -> str:
    """The overview, one row per run, and why runs failed; a single run gets a list of its own.

    `width` is in columns, by default those of the terminal. Where all that is higher than `height` lines, the runs
    that change least are left out.
    """
    if snapshot.is_one_run:
        return "\n".join([_one_run(snapshot.runs[0], snapshot.taken_at), *_remarks(snapshot)])
    above, below = overview(snapshot), _remarks(snapshot)
    runs = sorted(snapshot.runs, key=lambda run: _ORDER.index(run.status))
    table = _table(runs, snapshot, width).splitlines() if runs else []
    if height is not None:
        room = max(_FEWEST_TABLE_LINES, height - len(above) - len(below) - 1)
        if len(table) > room:
            table = [*table[: room - 1], f"  … {len(table) - room + 1} more lines; --once shows them all"]
    return "\n".join([*above, *table, *below])


def overview(snapshot: Snapshot) -> list[str]:
    """How many of how many, the best arm, and the time left."""
    n_jobs = len(snapshot.runs) + snapshot.n_waiting
    counts = snapshot.counts
    parts = [f"{counts['finished']} of {n_jobs} finished"]
    parts += [f"{counts[status]} {status}" for status in _ORDER if status != "finished" and counts[status]]
    parts += [f"{snapshot.n_waiting} not started"] if snapshot.n_waiting else []
    lines = [printable_name(str(_common_folder(snapshot))), ", ".join(parts)]  # the path may be cut
    if snapshot.best is not None:
        lines.append(f"best so far: {best_text(snapshot.best)}")
    if snapshot.seconds_left is not None:
        lines.append(f"about {duration_text(snapshot.seconds_left)} left")
    return lines


def _common_folder(snapshot: Snapshot) -> Path:
    """The innermost folder that contains all runs."""
    if not snapshot.runs:
        return snapshot.folder
    return Path(os.path.commonpath([run.folder.parent for run in snapshot.runs]))


def best_text(best: BestArm) -> str:
    """The best arm in words."""
    runs = f"{best.n_runs} run{'s' if best.n_runs > 1 else ''}"
    return f"{printable_name(best.label)} (val Dice {best.val_dice:.4f}, {runs})"


def _table(runs: Sequence[WatchedRun], snapshot: Snapshot, width: int | None) -> str:
    columns: list[str | Column] = [
        "run",
        "status",
        "epochs",
        "val Dice",
        "best",
        Column("curve", is_name=True, may_go=True),
        Column("left", may_go=True, is_name=True),
        Column("loss", may_go=True),
        Column("last sign", may_go=True, is_name=True),
        Column("slices/s", ".3g", may_go=True),
    ]
    folder = _common_folder(snapshot)
    rows: list[list[Cell]] = [
        [
            _name(run, folder),
            _status(run, snapshot.taken_at),
            _epochs(run),
            _known(run.last_dice),
            _known(run.best_dice),
            sparkline(run.val_dice, _CURVE_WIDTH) or None,
            _left(run),
            _known(run.loss),
            _ago(run, snapshot.taken_at),
            run.slices_per_second,
        ]
        for run in runs
    ]
    return render_table("", columns, rows, width).strip("\n")


def _one_run(run: WatchedRun, now: float) -> str:
    step = f", at step {run.step}" if run.step is not None else ""
    step += f" of {run.steps}" if run.steps is not None else ""
    entries = {
        "status": _status(run, now),
        "epochs": f"{_epochs(run)} done{step}",
        "loss": _number(run.loss),
        "val Dice": f"{_number(run.last_dice)}, best {_number(run.best_dice)}",
        "curve": sparkline(run.val_dice, _LONG_CURVE_WIDTH) or "-",
        "slices/s": "-" if run.slices_per_second is None else f"{run.slices_per_second:.3g}",
        "left": _left(run) or "-",
        "last sign": _ago(run, now) or "-",
    }
    return "\n".join([printable_name(str(run.folder)), *(f"  {name:9}  {text}" for name, text in entries.items())])


def _name(run: WatchedRun, folder: Path) -> str:
    return printable_name(str(run.folder.relative_to(folder)) if run.folder.is_relative_to(folder) else str(run.folder))


def _status(run: WatchedRun, now: float) -> str:
    if run.status == "stale":
        return f"stale: silent for {duration_text(now - (run.sign_of_life or now))}"
    if run.status != "running":
        return run.status
    if run.moved_at is not None and now - run.moved_at > _STUCK_SECONDS:
        return f"{printable_name(run.doing)}: no progress for {duration_text(now - run.moved_at)}"
    return "running" if run.doing in ("", *_USUAL) else printable_name(run.doing)


def _left(run: WatchedRun) -> str | None:
    """The time left of a training; scoring and reporting are not estimated."""
    return duration_text(run.seconds_left) if run.seconds_left else None


def _epochs(run: WatchedRun) -> str:
    return f"{run.epochs_done}/{run.epochs if run.epochs is not None else '?'}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _ago(run: WatchedRun, now: float) -> str | None:
    return None if run.sign_of_life is None else f"{duration_text(now - run.sign_of_life)} ago"


def _remarks(snapshot: Snapshot) -> list[str]:
    """Why runs failed, each reason once, and what "stale" means."""
    by_reason: dict[str, list[str]] = {}
    for run in snapshot.runs:
        if run.reason:
            by_reason.setdefault(printable_name(run.reason), []).append(_name(run, _common_folder(snapshot)))
    lines = [f"{shortened(names, 1)}: {reason}" for reason, names in by_reason.items()]
    if any(run.status == "stale" for run in snapshot.runs):
        lines.append(
            f"stale: a run of another machine that has written nothing for {duration_text(STALE_SECONDS)} or longer; "
            "its process may be dead"
        )
    return lines
