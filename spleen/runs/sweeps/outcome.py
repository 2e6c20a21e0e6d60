"""The jobs of a multirun, in the process that starts them: the plan, and the report of their outcome at the end.

Hydra passes nothing from a sweeper to the end of the program, so the jobs are stored here. Their outcome is read from
their folders, because they may have run in this process, in others, or on other machines.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from spleen.records.folder import MARKERS, RunFolder, State, state_of
from spleen.runs.sweeps.plan import Job

_FAULT = 1


class Multirun(Callback):
    """Hydra callback that stores the state of this process's multirun, if it is one."""

    sweep_folder: ClassVar[Path | None] = None
    jobs: ClassVar[Sequence[Job] | None] = None
    """All jobs, including those finished earlier. None for a sweeper that creates its jobs dynamically."""
    in_study: ClassVar[bool] = False
    """Whether the job folders have no time stamp, so that the same command finds them again."""
    trouble: ClassVar[str | None] = None
    """Why the launcher ended before its jobs, if it did."""
    writes_page: ClassVar[bool] = True
    """Whether report.html is written at the end: the setting `report`."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Called once, in the process that starts the jobs."""
        Multirun.sweep_folder = Path(config.hydra.sweep.dir)
        Multirun.writes_page = bool(OmegaConf.select(config, "report", default=True))


def report() -> int:
    """Print the table of finished jobs and the problems of the others; returns the exit code of the process."""
    from spleen.runs.sweeps.report import print_jobs, write_page

    assert Multirun.sweep_folder is not None
    states = _states(Multirun.sweep_folder, Multirun.jobs)
    print_jobs(Multirun.sweep_folder, [folder for folder, state in states.items() if state == "finished"])
    if Multirun.writes_page:
        write_page(Multirun.sweep_folder)
    if running := [folder for folder, state in states.items() if state == "running"]:
        print(f"{len(running)} job(s) are being run by another process:", file=sys.stderr)
        _list(dict.fromkeys(running, ""))
    exit_code = _report_failures({folder for folder, state in states.items() if state == "failed"})
    if lost := [folder for folder, state in states.items() if state in ("unfinished", "new")]:
        _print_error(f"{len(lost)} job(s) did not finish{_because(Multirun.trouble)}:")
        _list({folder: "started" if states[folder] == "unfinished" else "not started" for folder in lost})
        exit_code = max(exit_code, _FAULT)
    return exit_code


def progress_summary() -> str:
    """Progress of an interrupted multirun, as the end of a sentence; empty if nothing was launched."""
    if not Multirun.jobs:
        return ""
    done = sum(state_of(job.folder, job.identity) == "finished" for job in Multirun.jobs)
    again = "; run the same command again for the rest" if Multirun.in_study else ""
    return f"; {done} of {len(Multirun.jobs)} jobs are finished{again}"


def print_plan(jobs: Sequence[Job], combinations: int, in_study: bool) -> list[Job]:
    """Print the plan, and return the jobs that are not finished."""
    states = [state_of(job.folder, job.identity) for job in jobs]
    counts = Counter(states)
    if same := combinations - len(jobs):
        print(f"{same} of {combinations} combinations are duplicates of another job, which is run once")
    if in_study:
        print(_plan(counts, len(jobs)))
    return [job for job, state in zip(jobs, states, strict=True) if state != "finished"]


def _plan(counts: Mapping[State, int], n_jobs: int) -> str:
    done = counts.get("finished", 0)
    if done + counts.get("new", 0) == n_jobs:
        if done:
            return f"{done} of {n_jobs} jobs are already finished"
        return f"{n_jobs} job{'s' if n_jobs > 1 else ''} to run"
    words: dict[State, str] = {
        "unfinished": "will be resumed",
        "failed": "failed and will be run again",
        "pruned": "were pruned by a search and will be run in full",
        "running": "are being run by another process",
        "new": "are new",
    }
    parts = [f"{counts[state]} {text}" for state, text in words.items() if counts.get(state)]
    return f"{done} of {n_jobs} jobs are already finished; {', '.join(parts)}"


def _states(sweep_folder: Path, jobs: Sequence[Job] | None) -> dict[Path, State]:
    if jobs is not None:
        return {job.folder: state_of(job.folder, job.identity) for job in jobs}
    marked = {path.parent for marker in MARKERS for path in sweep_folder.glob(f"*/{marker}")}
    return {folder: state_of(folder) for folder in sorted(marked)}


def _report_failures(failed: set[Path]) -> int:
    if not failed:
        return 0
    notes = {folder: json.loads(RunFolder(folder).failure.read_text(encoding="utf-8")) for folder in sorted(failed)}
    _print_error(f"{len(notes)} job(s) of the multirun in {Multirun.sweep_folder} failed:")
    _list({folder: note["message"].splitlines()[0] for folder, note in notes.items()})
    return max(int(note["exit_code"]) for note in notes.values())


def _because(trouble: str | None) -> str:
    return f" ({trouble})" if trouble else ""


def _list(lines: dict[Path, str]) -> None:
    for folder, text in lines.items():
        print(f"  {folder.name}{f': {text}' if text else ''}", file=sys.stderr)


def _print_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
