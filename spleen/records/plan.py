"""The jobs of a sweep, in a file of its folder: how many there are is not to be seen from those that have begun."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spleen.system.files import write_text

_NAME = ".plan.json"


@dataclass(frozen=True)
class SweepPlan:
    """The number of jobs, and their folders below that of the sweep; a search names none, as it chooses as it goes."""

    n_jobs: int
    folders: tuple[str, ...] = ()


def write_plan(sweep_folder: Path, plan: SweepPlan) -> None:
    """Record the jobs of the sweep that is about to begin. It only serves to show progress, so it may fail."""
    with suppress(OSError):
        content = {"n_jobs": plan.n_jobs, "folders": list(plan.folders)}
        write_text(sweep_folder / _NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_plan(sweep_folder: Path) -> SweepPlan | None:
    """The jobs of the last sweep in the folder; None if nothing readable says."""
    try:
        content = json.loads((sweep_folder / _NAME).read_bytes())
        return SweepPlan(int(content["n_jobs"]), tuple(map(str, content["folders"])))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
