"""Several runs at work: how many of how many, the best so far, and how long the rest will take."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.errors import InputError
from spleen.records.plan import SweepPlan, read_plan
from spleen.records.reading import FinishedRun, find_runs
from spleen.runs.results.arms import group_runs
from spleen.runs.watching.status import WatchedRun, read_watched

_LASTING = ("finished", "pruned")


@dataclass(frozen=True)
class BestArm:
    """The arm with the highest validation Dice among the finished runs."""

    label: str
    val_dice: float
    n_runs: int


@dataclass(frozen=True)
class Snapshot:
    """A folder of runs, or a single run, at one moment."""

    folder: Path
    taken_at: float
    """In seconds since the epoch."""
    runs: tuple[WatchedRun, ...]
    not_started: tuple[Path, ...]
    """Folders of planned jobs that do not exist yet."""
    n_to_choose: int
    """Trials that searches have not chosen yet."""
    best: BestArm | None

    @property
    def is_one_run(self) -> bool:
        """Whether the folder is that of a run."""
        return [run.folder for run in self.runs] == [self.folder]

    @property
    def n_waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self.not_started) + self.n_to_choose

    @property
    def counts(self) -> Counter[str]:
        """Number of runs of each status."""
        return Counter(run.status for run in self.runs)

    @property
    def goes_on(self) -> bool:
        """Whether anything may still change by itself."""
        return bool(self.n_waiting or self.counts["running"] or self.counts["stale"])

    @property
    def seconds_left(self) -> float | None:
        """See `sweep_seconds_left`; a stopped job is one that is still to be resumed."""
        return sweep_seconds_left(
            [run.wall_seconds for run in self.runs if run.wall_seconds is not None],
            [run.seconds_left for run in self.runs if run.status == "running"],
            self.n_waiting + (0 if self.is_one_run else self.counts["stopped"]),
        )


class Watcher:
    """Takes snapshots of a folder; what is finished is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lasting: dict[Path, tuple[WatchedRun, FinishedRun | None]] = {}
        self._best: tuple[int, BestArm | None] = (0, None)

    def look(self) -> Snapshot:
        """The runs as they are now. Raises InputError for a folder that does not exist, or that contains no run."""
        now = time.time()
        found = find_runs(self._folder)
        read = {folder: self._read(folder, now) for folder in found}
        not_started, n_to_choose = _not_begun(self._folder, found)
        if not (read or not_started or n_to_choose):
            raise InputError(
                f"{self._folder} and the folders up to three levels below it contain no run; expected a run folder, "
                "or a folder of runs such as outputs/size_and_rate"
            )
        finished = [run for _, run in read.values() if run is not None]
        if len(finished) != self._best[0]:
            self._best = len(finished), _best_arm(finished)
        runs = tuple(run for run, _ in read.values())
        return Snapshot(self._folder, now, runs, not_started, n_to_choose, self._best[1])

    def _read(self, folder: Path, now: float) -> tuple[WatchedRun, FinishedRun | None]:
        known = self._lasting.get(folder)
        read = known or read_watched(folder, now)
        if read[0].status in _LASTING:
            self._lasting[folder] = read
        return read


def _not_begun(folder: Path, found: Sequence[Path]) -> tuple[tuple[Path, ...], int]:
    if list(found) == [folder]:
        return (), 0
    plans: dict[Path, SweepPlan] = {}
    for place in dict.fromkeys([folder, *(run.parent for run in found)]):
        if plan := read_plan(place):
            plans[place] = plan
    begun = set(found)
    named = [place / name for place, plan in plans.items() for name in plan.folders]
    open_ended = [
        plan.n_jobs - sum(run.parent == place for run in found) for place, plan in plans.items() if not plan.folders
    ]
    return tuple(path for path in named if path not in begun), sum(max(0, rest) for rest in open_ended)


def _best_arm(finished: Sequence[FinishedRun]) -> BestArm | None:
    arms = group_runs(finished).arms
    if not arms or math.isnan(arms[0].val_dice.mean):
        return None
    return BestArm(arms[0].label, arms[0].val_dice.mean, arms[0].n_runs)


def sweep_seconds_left(finished: Sequence[float], running: Sequence[float | None], n_waiting: int) -> float | None:
    """Seconds until all jobs are done, if as many as now keep running at the same time.

    `finished` are the durations of finished jobs, whose mean is expected of the others; `running` the times left of
    the running ones, None where unknown. None if nothing is running, or nothing tells how long a job takes.
    """
    if not running:
        return None
    mean = sum(finished) / len(finished) if finished else None
    known = [left for left in (mean if each is None else each for each in running) if left is not None]
    if len(known) < len(running) or (n_waiting and mean is None):
        return None
    return max(max(known), (sum(known) + n_waiting * (mean or 0.0)) / len(known))
