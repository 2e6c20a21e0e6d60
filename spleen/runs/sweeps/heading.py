"""What is printed before each job of a multirun: which one of how many, the best so far, and the time left."""

import logging
from pathlib import Path

from spleen.errors import InputError
from spleen.records.plan import read_plan
from spleen.runs.watching.study import Watcher, sweep_seconds_left
from spleen.runs.watching.view import best_text
from spleen.system.text import duration_text

log = logging.getLogger(__name__)


def job_heading(sweep_folder: Path, run_folder: Path) -> str:
    """The number and name of the job, and what the folders of the others tell, whichever process runs them."""
    plan = read_plan(sweep_folder)
    if plan is None:
        return run_folder.name
    try:
        snapshot = Watcher(sweep_folder).look()
    except (InputError, OSError):  # it must not cost a run
        log.debug("the other jobs cannot be read", exc_info=True)
        return run_folder.name
    others = [run for run in snapshot.runs if run.folder.name != run_folder.name]
    name = str(run_folder.relative_to(sweep_folder)) if run_folder.is_relative_to(sweep_folder) else run_folder.name
    number = plan.folders.index(name) + 1 if name in plan.folders else len(others) + 1
    lines = [f"job {number} of {max(plan.n_jobs, number)}: {run_folder.name}"]
    finished = [run.wall_seconds for run in others if run.wall_seconds is not None]
    parts = [f"{len(finished)} finished"] if finished else []
    if snapshot.best is not None:
        parts.append(f"best so far: {best_text(snapshot.best)}")
    running = [run.seconds_left for run in others if run.status == "running"]
    n_waiting = sum(path != run_folder for path in snapshot.not_started) + snapshot.n_to_choose
    n_waiting += sum(run.status == "stopped" for run in others)
    left = sweep_seconds_left(finished, [*running, None], n_waiting)
    parts += [f"about {duration_text(left)} left"] if left is not None else []
    return "\n".join([*lines, *([f"  {'; '.join(parts)}"] if parts else [])])
