"""Hydra sweeper `hydra/sweeper=search`: Bayesian search of settings (spleen.runs.sweeps.search).

Imports nothing heavy at the top, because Hydra imports this at every start.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from spleen.config.overrides import quoted
from spleen.errors import InputError, Interrupted
from spleen.records.folder import is_finished, read_summary
from spleen.records.plan import SweepPlan, write_plan
from spleen.runs.sweeps.launchers import check_launcher_installed, limit_concurrency, runs_here
from spleen.runs.sweeps.outcome import Multirun
from spleen.runs.sweeps.plan import Combination, Job, check_parts, plan

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from spleen.runs.sweeps.search import Search, Trial


@dataclass
class SearchSweeperConf:
    """hydra/sweeper=search."""

    _target_: str = "hydra_plugins.spleen_search.SearchSweeper"
    n_trials: int = 30
    seed: int = 0
    startup_trials: int = 8
    warmup_epochs: int = 2
    at_once: int = 1
    params: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchSweeperConf, provider="spleen")


class SearchSweeper(Sweeper):
    """Launches jobs with settings proposed by the search until `n_trials` trials are done.

    `params` maps a key to Hydra's sweep grammar: interval(1e-4, 1e-1), tag(log, interval(…)), choice(a, b) or
    range(1, 9). `at_once` jobs are launched together. A fixed value on the command line replaces a searched one.
    """

    def __init__(
        self, n_trials: int, seed: int, startup_trials: int, warmup_epochs: int, at_once: int, params: DictConfig
    ) -> None:
        self._n_trials, self._seed, self._at_once = n_trials, seed, at_once
        self._startup_trials, self._warmup_epochs = startup_trials, warmup_epochs
        self._params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self._context, self._task, self._config = hydra_context, task_function, config
        check_launcher_installed(config.hydra.launcher)
        if importlib.util.find_spec("optuna") is None:
            raise InputError("a search needs Optuna: pip install optuna")

    def sweep(self, arguments: list[str]) -> None:
        """Run the search; `arguments` are the command-line overrides."""
        from spleen.runs.sweeps.search import Search, SearchSettings, first_values
        from spleen.runs.sweeps.search_report import print_search

        hydra = self._config.hydra
        hydra.sweep.dir = str(Path(hydra.sweep.dir).absolute())
        folder = Path(hydra.sweep.dir)
        space, fixed = self._read(arguments)
        self._plan(fixed, first_values(space))  # a wrong setting is told before anything is written
        storage, name = folder / "search.journal", str(self._config.study)
        search = Search(
            SearchSettings(storage, name, self._n_trials, self._seed, self._startup_trials, self._warmup_epochs), space
        )
        limit_concurrency(hydra, self._at_once)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task, config=self._config
        )
        Multirun.in_study, Multirun.jobs = True, []
        print(
            f"{search.remaining()} of {self._n_trials} trials remaining; {search.repeated} killed ones will be repeated"
        )
        write_plan(folder, SweepPlan(self._n_trials))
        started = 0
        while count := min(self._at_once, search.remaining()):
            trials = [search.ask() for _ in range(count)]
            try:
                jobs = [(trial, self._plan(fixed, trial.overrides)) for trial in trials]
                new = [(trial, job) for trial, job in jobs if not _known(search, trial, job)]
                Multirun.jobs = [*Multirun.jobs, *(job for _, job in new)]
                overrides = [[*job.launcher_overrides(), _trial_override(storage, name, trial)] for trial, job in new]
                if overrides and not self._launch(launcher, overrides, started):
                    break  # the trials stay open, as those of an interrupted search
                started += len(overrides)
            except Interrupted:  # the trials stay open: the next search finds their process dead and repeats them
                raise
            except BaseException:
                search.close(trials)
                raise
            search.close(trials)
        if not search.remaining():
            write_plan(folder, SweepPlan(0))  # trials with the settings of another one have no run of their own
        print_search(search.trials(), folder)

    def _launch(self, launcher: Launcher, overrides: Sequence[Sequence[str]], started: int) -> bool:
        """Run these jobs; False if the launcher itself has ended early, as where a worker was killed."""
        try:
            launcher.launch(overrides, initial_job_idx=started)
        except Exception as error:  # jobs record their own failures
            if self._config.debug is True:
                raise
            Multirun.trouble = f"{type(error).__name__}: {error}".splitlines()[0]
            return False
        return True

    def _plan(self, fixed: Sequence[str], chosen: tuple[str, ...]) -> Job:
        """The job of a trial with the chosen settings; raises InputError for invalid ones."""
        combination = Combination((*fixed, *chosen), chosen)
        tree = self._context.config_loader.load_sweep_config(self._config, list(combination.overrides))
        (job,) = plan([(combination, tree)], in_study=True, subdir_given=False)
        check_parts([job], runs_here(self._config.hydra))
        return job

    def _read(self, arguments: Sequence[str]) -> tuple[dict[str, "BaseDistribution"], list[str]]:
        """The search space, and the overrides common to all jobs."""
        parser = OverridesParser.create(config_loader=self._context.config_loader)
        searched = parser.parse_overrides([f"{key!s}={value}" for key, value in self._params.items()])
        given = parser.parse_overrides(list(arguments))
        merged = {override.get_key_element(): override for override in (*searched, *given)}
        space = {str(key): _distribution(str(key), o) for key, o in merged.items() if o.is_sweep_override()}
        fixed = [f"{key!s}={o.get_value_element_as_str()}" for key, o in merged.items() if not o.is_sweep_override()]
        if not space:
            raise InputError("nothing to search: hydra.sweeper.params names no interval, range or choice")
        return space, fixed


def _trial_override(storage: Path, name: str, trial: "Trial") -> str:
    return f"search={{storage:{quoted(storage)},name:{quoted(name)},trial:{trial.number}}}"


def _known(search: "Search", trial: "Trial", job: Job) -> bool:
    """Whether an earlier trial has finished the same job; its score is then recorded for this trial too."""
    if not is_finished(job.folder, job.identity):
        return False
    search.tell(trial, read_summary(job.folder)["val"]["dice"], job.folder)
    return True


def _distribution(key: str, override: Override) -> "BaseDistribution":
    from spleen.runs.sweeps.search import space_from_bounds, space_from_choices

    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        return space_from_bounds(key, float(sweep.start or 0), float(sweep.end or 0), "log" in sweep.tags, whole)
    return space_from_choices(key, list(override.sweep_string_iterator()))
