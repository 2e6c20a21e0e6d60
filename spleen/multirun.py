"""A multirun as the process sees it that starts the jobs: which ones there are, and at the end what became of them.

Hydra hands nothing from a sweeper to the end of the program, so the jobs are remembered here. What became of them is
read from their folders: they may have run in this process, in others, or on other machines.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from spleen.jobs import Job
from spleen.records.folder import MARKERS, RunFolder, State, state_of

_FAULT = 1


class Multirun(Callback):
    """Hydra callback: remembers the multirun of this process, if it is one."""

    sweep_folder: ClassVar[Path | None] = None
    jobs: ClassVar[Sequence[Job] | None] = None
    """All jobs, those included that were finished before. None for a sweeper that makes up its jobs as it goes."""
    in_study: ClassVar[bool] = False
    """Whether the folders of the jobs have no time stamp, so that the same command finds them again."""
    trouble: ClassVar[str | None] = None
    """What ended the launcher before its jobs had ended."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Called once, in the process that starts the jobs."""
        Multirun.sweep_folder = Path(config.hydra.sweep.dir)


def report() -> int:
    """Print the table of the finished jobs and what is wrong with the others; returns the exit code of the process."""
    from spleen.report.jobs import print_jobs

    assert Multirun.sweep_folder is not None
    states = _states(Multirun.sweep_folder, Multirun.jobs)
    print_jobs(Multirun.sweep_folder, [folder for folder, state in states.items() if state == "finished"])
    if at_work := [folder for folder, state in states.items() if state == "at work"]:
        print(f"{len(at_work)} job(s) are left to another process that is at work on them:", file=sys.stderr)
        _list(dict.fromkeys(at_work, ""))
    exit_code = _report_failures({folder for folder, state in states.items() if state == "failed"})
    if lost := [folder for folder, state in states.items() if state in ("unfinished", "new")]:
        _complain(f"{len(lost)} job(s) did not come to an end{_because(Multirun.trouble)}:")
        _list({folder: "begun" if states[folder] == "unfinished" else "not begun" for folder in lost})
        exit_code = max(exit_code, _FAULT)
    return exit_code


def what_is_left() -> str:
    """How far an interrupted multirun has come: half a sentence, empty where nothing was launched."""
    if not Multirun.jobs:
        return ""
    done = sum(state_of(job.folder, job.identity) == "finished" for job in Multirun.jobs)
    again = "; the same command does the rest" if Multirun.in_study else ""
    return f"; {done} of {len(Multirun.jobs)} jobs are finished{again}"


def tell_plan(jobs: Sequence[Job], combinations: int, in_study: bool) -> list[Job]:
    """Say what there is to do, and return the jobs that are not finished."""
    states = [state_of(job.folder, job.identity) for job in jobs]
    counts = Counter(states)
    if same := combinations - len(jobs):
        print(f"{same} of {combinations} combinations are the same job as another one, which is run once")
    if in_study:
        print(_what_there_is_to_do(counts, len(jobs)))
    return [job for job, state in zip(jobs, states, strict=True) if state != "finished"]


def _what_there_is_to_do(counts: Mapping[State, int], n_jobs: int) -> str:
    done = counts.get("finished", 0)
    if done + counts.get("new", 0) == n_jobs:
        if done:
            return f"{done} of {n_jobs} jobs were finished already"
        return f"{n_jobs} job{'s' if n_jobs > 1 else ''} to run"
    words: dict[State, str] = {
        "unfinished": "go on where they stopped",
        "failed": "failed before and run again",
        "pruned": "were pruned by a search and are run in full",
        "at work": "are being run by another process",
        "new": "are new",
    }
    parts = [f"{counts[state]} {text}" for state, text in words.items() if counts.get(state)]
    return f"{done} of {n_jobs} jobs were finished already; {', '.join(parts)}"


def _states(sweep_folder: Path, jobs: Sequence[Job] | None) -> dict[Path, State]:
    if jobs is not None:
        return {job.folder: state_of(job.folder, job.identity) for job in jobs}
    marked = {path.parent for marker in MARKERS for path in sweep_folder.glob(f"*/{marker}")}
    return {folder: state_of(folder) for folder in sorted(marked)}


def _report_failures(failed: set[Path]) -> int:
    if not failed:
        return 0
    notes = {folder: json.loads(RunFolder(folder).failure.read_text()) for folder in sorted(failed)}
    _complain(f"{len(notes)} job(s) of the multirun in {Multirun.sweep_folder} failed:")
    _list({folder: note["message"].splitlines()[0] for folder, note in notes.items()})
    return max(int(note["exit_code"]) for note in notes.values())


def _because(trouble: str | None) -> str:
    return f" ({trouble})" if trouble else ""


def _list(lines: dict[Path, str]) -> None:
    for folder, text in lines.items():
        print(f"  {folder.name}{f': {text}' if text else ''}", file=sys.stderr)


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
