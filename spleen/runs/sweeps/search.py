"""Bayesian hyperparameter search with Optuna, stored on disk so that processes can share and resume a search."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from spleen.errors import InputError, Pruned
from spleen.records.renamed_keys import current_key
from spleen.system.locks import is_claimed
from spleen.system.process import is_alive, this_process

_OWNER, _RUN_FOLDER, _KILLED = "owner", "run_folder", "killed"


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search."""

    storage: Path
    """File that stores all trials."""
    name: str
    n_trials: int
    """Total number of trials, including those of earlier and other processes."""
    seed: int
    startup_trials: int
    """Random trials before the sampler's model is used and before any trial is pruned."""
    warmup_epochs: int
    """Epochs before which no trial is pruned."""


@dataclass(frozen=True)
class Trial:
    """One trial to be run."""

    number: int
    overrides: tuple[str, ...]


def space_from_bounds(name: str, low: float, high: float, log: bool, whole: bool) -> BaseDistribution:
    """The distribution of a number between two bounds, both inclusive.

    Raises InputError if the lower bound is not below the upper bound, or not positive on a log scale.
    """
    if not low < high or (log and low <= 0):
        raise InputError(
            f"{name}: the lower bound must be below the upper bound{' and positive' * log}; got {low:g} to {high:g}"
        )
    if whole:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def space_from_choices(name: str, choices: Sequence[str]) -> BaseDistribution:
    """The distribution over several values, as written on the command line."""
    if len(set(choices)) < 2:
        raise InputError(f"{name}: a choice needs at least two different values; got {', '.join(choices)}")
    return CategoricalDistribution(tuple(dict.fromkeys(choices)))


def first_values(space: Mapping[str, BaseDistribution]) -> tuple[str, ...]:
    """Overrides that any search of this space may choose: the first choice, or the lower bound, of each setting."""
    first = {
        name: each.choices[0] if isinstance(each, CategoricalDistribution) else each.low  # type: ignore[attr-defined]
        for name, each in space.items()
    }
    return tuple(f"{name}={_written(value)}" for name, value in first.items())


class Search:
    """The search, in the process that starts the trials."""

    def __init__(self, settings: SearchSettings, space: Mapping[str, BaseDistribution]) -> None:
        settings.storage.parent.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._settings = settings
        self._space = dict(space)
        self._study = _open_study(settings)
        _check_same_space(self._study, self._space)
        # The sampler's state is not stored; with the same seed it would repeat its first draws after a restart.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=settings.seed + len(self._study.trials), n_startup_trials=settings.startup_trials, multivariate=False
        )
        self._study.set_user_attr("pruner", json.dumps([settings.startup_trials, settings.warmup_epochs]))
        self.repeated = self._repeat_killed()

    def _repeat_killed(self) -> int:
        """Enqueue the settings of trials whose process is dead; their run folders are resumed."""
        killed = [t for t in self._study.get_trials(states=(TrialState.RUNNING,)) if _is_dead(t)]
        for trial in killed:
            optuna.trial.Trial(self._study, trial._trial_id).set_user_attr(_KILLED, True)
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial({current_key(name): value for name, value in trial.params.items()})
        return len(killed)

    def remaining(self) -> int:
        """Number of trials still to be started."""
        counted = [
            t
            for t in self._study.get_trials(deepcopy=False)
            if not t.user_attrs.get(_KILLED) and t.state != TrialState.WAITING
        ]
        return max(0, self._settings.n_trials - len(counted))

    def ask(self) -> Trial:
        """Choose the settings of the next trial."""
        trial = self._study.ask(self._space)
        trial.set_user_attr(_OWNER, this_process())
        # The storage may hold further parameters, which are nobody's business: they would become overrides.
        return Trial(trial.number, tuple(f"{name}={_written(trial.params[name])}" for name in self._space))

    def tell(self, trial: Trial, dice: float | None, run_folder: Path) -> None:
        """Record a trial whose settings were run before; without a score (no case with the organ) it fails."""
        asked = optuna.trial.Trial(self._study, self._study.trials[trial.number]._trial_id)
        asked.set_user_attr(_RUN_FOLDER, str(run_folder))
        self._study.tell(trial.number, dice, state=TrialState.FAIL if dice is None else None)

    def close(self, trials: Sequence[Trial]) -> None:
        """Mark the trials that ended without a result as failed."""
        for trial in trials:
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def trials(self) -> list[FrozenTrial]:
        """All trials so far, best validation Dice first; pruned ones after the complete ones."""
        done = [t for t in self._study.get_trials() if not t.user_attrs.get(_KILLED)]
        return sorted(done, key=lambda t: (t.state != TrialState.COMPLETE, -(t.value or 0.0), t.number))


class TrialReporter:
    """The search, in the process of a running trial; of one that has ended nothing is reported."""

    def __init__(self, storage: Path, name: str, number: int, run_folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.load_study(study_name=name, storage=_storage(storage))
        startup_trials, warmup_epochs = json.loads(self._study.user_attrs["pruner"])
        self._study.pruner = optuna.pruners.MedianPruner(startup_trials, warmup_epochs)
        self._trial = optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)
        if not self._has_ended():
            self._trial.set_user_attr(_RUN_FOLDER, str(run_folder))

    def report(self, epoch: int, dice: float) -> None:
        """Report the validation Dice of an epoch; raises Pruned if the trial should not continue."""
        if dice != dice or self._has_ended():  # NaN: no validation case contains the organ
            return
        self._trial.report(dice, epoch)
        if self._trial.should_prune():
            self._study.tell(self._trial, state=TrialState.PRUNED)
            raise Pruned(f"pruned after epoch {epoch + 1}: validation Dice {dice:.4f} is below the median")

    def complete(self, dice: float) -> None:
        """Report the final validation Dice, unless the trial has ended."""
        self._study.tell(self._trial, dice, skip_if_finished=True)

    def _has_ended(self) -> bool:
        """Whether the search counts the trial as ended already, as where it failed and its run is resumed by hand."""
        return self._study.trials[self._trial.number].state.is_finished()


def _is_dead(trial: FrozenTrial) -> bool:
    """Whether a running trial runs no longer; a job on a cluster may outlive the process that asked for it."""
    folder = trial_folder(trial)
    return is_alive(trial.user_attrs.get(_OWNER, "")) is False and not (folder is not None and is_claimed(folder))


def _check_same_space(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> None:
    """Raise InputError where trials of the search have chosen from other values than these."""
    for trial in study.get_trials(deepcopy=False):
        for name in space.keys() & trial.distributions.keys():
            try:
                check_distribution_compatibility(trial.distributions[name], space[name])
            except ValueError as error:
                raise InputError(
                    f"{name}: the trials of this search were chosen from {_in_words(trial.distributions[name])}, and "
                    f"now from {_in_words(space[name])}, which cannot be compared; give the same, or study=ANOTHER_NAME"
                ) from error


def _in_words(space: BaseDistribution) -> str:
    if isinstance(space, CategoricalDistribution):
        return f"the values {', '.join(map(str, space.choices))}"
    kind = "whole numbers" if isinstance(space, IntDistribution) else "numbers"
    return f"{kind}{' on a log scale' if getattr(space, 'log', False) else ''}"


def trial_folder(trial: FrozenTrial) -> Path | None:
    """The trial's run folder, if its run was started."""
    folder = trial.user_attrs.get(_RUN_FOLDER)
    return Path(folder) if folder else None


def _open_study(settings: SearchSettings) -> optuna.Study:
    """The study in the file, or a new one. Raises InputError for a file that is no journal of trials."""
    try:
        return optuna.create_study(
            storage=_storage(settings.storage),
            study_name=settings.name,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(settings),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # what Optuna raises for damaged lines
        raise InputError(
            f"{settings.storage} is damaged, or was not written by a search ({error}); "
            "remove it to start the search anew"
        ) from error


def _storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def _pruner(settings: SearchSettings) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(settings.startup_trials, settings.warmup_epochs)


def _written(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
