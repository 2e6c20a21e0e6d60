"""Bayesian search over settings with Optuna, its memory on disk so that processes share and resume a search."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import psutil
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from spleen.errors import InputError, Pruned

_OWNER, _RUN_FOLDER, _KILLED = "owner", "run_folder", "killed"


@dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    storage: Path
    """The file in which all trials are kept."""
    name: str
    n_trials: int
    """Trials in all, those of earlier and of other processes included."""
    seed: int
    startup_trials: int
    """Trials drawn at random before the model of the search takes over, and before anything is pruned."""
    warmup_epochs: int
    """Epochs before which no trial is pruned."""


@dataclass(frozen=True)
class Trial:
    """One trial that is to be run."""

    number: int
    overrides: tuple[str, ...]


def space_from_bounds(name: str, low: float, high: float, log: bool, whole: bool) -> BaseDistribution:
    """The distribution of a number between two bounds, both included.

    Raises InputError for bounds that do not rise, or a logarithm of what is not positive.
    """
    if not low < high or (log and low <= 0):
        raise InputError(f"{name}: the interval from {low:g} to {high:g} must rise{', above 0' * log}")
    if whole:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def space_from_choices(name: str, choices: Sequence[str]) -> BaseDistribution:
    """The distribution of one of several values, as they would be written on the command line."""
    if len(set(choices)) < 2:
        raise InputError(f"{name}: a choice needs at least two different values; got {', '.join(choices)}")
    return CategoricalDistribution(tuple(dict.fromkeys(choices)))


class Search:
    """The search as the process sees it that starts the trials."""

    def __init__(self, settings: SearchSettings, space: Mapping[str, BaseDistribution]) -> None:
        settings.storage.parent.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._settings = settings
        self._space = dict(space)
        self._study = optuna.create_study(
            storage=_storage(settings.storage),
            study_name=settings.name,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(settings),
        )
        # The sampler's own state is not kept; with the same seed it would repeat its first draws after a restart.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=settings.seed + len(self._study.trials), n_startup_trials=settings.startup_trials, multivariate=False
        )
        self._study.set_user_attr("pruner", json.dumps([settings.startup_trials, settings.warmup_epochs]))
        self.repeated = self._repeat_killed()

    def _repeat_killed(self) -> int:
        """Put the settings of trials whose process is dead at the head of the queue; their run folders continue."""
        killed = [
            t for t in self._study.get_trials(states=(TrialState.RUNNING,)) if _is_dead(t.user_attrs.get(_OWNER, ""))
        ]
        for trial in killed:
            optuna.trial.Trial(self._study, trial._trial_id).set_user_attr(_KILLED, True)
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params)
        return len(killed)

    def remaining(self) -> int:
        """How many trials are still to be started."""
        counted = [
            t
            for t in self._study.get_trials(deepcopy=False)
            if not t.user_attrs.get(_KILLED) and t.state != TrialState.WAITING
        ]
        return max(0, self._settings.n_trials - len(counted))

    def ask(self) -> Trial:
        """Choose the settings of the next trial."""
        trial = self._study.ask(self._space)
        trial.set_user_attr(_OWNER, _this_process())
        return Trial(trial.number, tuple(f"{name}={_written(value)}" for name, value in trial.params.items()))

    def tell(self, trial: Trial, dice: float | None, run_folder: Path) -> None:
        """Count a trial whose settings were run before; without a score, as where no case held the organ, it fails."""
        asked = optuna.trial.Trial(self._study, self._study.trials[trial.number]._trial_id)
        asked.set_user_attr(_RUN_FOLDER, str(run_folder))
        self._study.tell(trial.number, dice, state=TrialState.FAIL if dice is None else None)

    def close(self, trials: Sequence[Trial]) -> None:
        """Count the trials that ended without telling a result as failed."""
        for trial in trials:
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def trials(self) -> list[FrozenTrial]:
        """All trials so far, best validation Dice first; pruned ones after the complete ones."""
        done = [t for t in self._study.get_trials() if not t.user_attrs.get(_KILLED)]
        return sorted(done, key=lambda t: (t.state != TrialState.COMPLETE, -(t.value or 0.0), t.number))


class TrialReporter:
    """The search as one running trial sees it."""

    def __init__(self, storage: Path, name: str, number: int, run_folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.load_study(study_name=name, storage=_storage(storage))
        startup_trials, warmup_epochs = json.loads(self._study.user_attrs["pruner"])
        self._study.pruner = optuna.pruners.MedianPruner(startup_trials, warmup_epochs)
        self._trial = optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)
        self._trial.set_user_attr(_RUN_FOLDER, str(run_folder))

    def report(self, epoch: int, dice: float) -> None:
        """Tell the validation Dice of an epoch; raises Pruned if the trial is not worth going on."""
        if dice != dice:  # NaN: no validation case holds the organ, nothing can be said
            return
        self._trial.report(dice, epoch)
        if self._trial.should_prune():
            self._study.tell(self._trial, state=TrialState.PRUNED)
            raise Pruned(f"pruned after epoch {epoch + 1}: validation Dice {dice:.4f} lies below the median")

    def complete(self, dice: float) -> None:
        """Tell the final validation Dice."""
        self._study.tell(self._trial, dice)


def run_folder_of(trial: FrozenTrial) -> Path | None:
    """Where the trial's run is, if it came to one."""
    folder = trial.user_attrs.get(_RUN_FOLDER)
    return Path(folder) if folder else None


def _storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def _pruner(settings: SearchSettings) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(settings.startup_trials, settings.warmup_epochs)


def _this_process() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()} {os.getpid()} {process.create_time()}"


def _is_dead(owner: str) -> bool:
    """Whether a process of this machine is gone; those of other machines are taken to be alive."""
    try:
        host, pid, started = owner.split(" ")
        return host == socket.gethostname() and psutil.Process(int(pid)).create_time() != float(started)
    except psutil.NoSuchProcess:
        return True
    except ValueError:
        return False


def _written(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
