"""Hydra plugins: the sweeper behind every `-m`, and the studies and launchers of this project.

Imports nothing heavy at the top, because Hydra imports this at every start.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from spleen.records.plan import SweepPlan, write_plan
from spleen.runs.sweeps.launchers import (
    check_launcher_installed,
    job_output_folder,
    limit_concurrency,
    runs_here,
    use_own_launcher_configs,
)
from spleen.runs.sweeps.outcome import Multirun, print_plan
from spleen.runs.sweeps.plan import Job, check_parts, combinations, plan
from spleen.runs.sweeps.studies import GROUP, register_studies
from spleen.system.progress import announced

log = logging.getLogger(__name__)


class StudiesAndLaunchers(SearchPathPlugin):
    """Registers the studies of experiments/ after Hydra has found all plugins and before it composes anything."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:  # noqa: ARG002 (defined by Hydra)
        """Called by Hydra at every start."""
        register_studies()
        use_own_launcher_configs()


@dataclass
class JobSweeperConf:
    """hydra/sweeper=basic, the default for -m; replaces Hydra's own."""

    _target_: str = "hydra_plugins.spleen_jobs.JobSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, list[str]] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=JobSweeperConf, provider="spleen")


class JobSweeper(Sweeper):
    """Plans the jobs, and passes the unfinished ones to the launcher.

    The jobs are all combinations of the values of `params` (key: 64,128 or choice(a,b) or range(1,4)), for each of the
    `arms` if there are any (name: [override, …]).
    """

    def __init__(self, params: DictConfig, arms: DictConfig) -> None:
        self._params = params
        self._arms = arms

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self._context, self._task, self._config = hydra_context, task_function, config
        check_launcher_installed(config.hydra.launcher)

    def sweep(self, arguments: list[str]) -> None:
        """Run the unfinished jobs; `arguments` are the command-line overrides."""
        hydra = self._config.hydra
        hydra.sweep.dir = str(Path(hydra.sweep.dir).absolute())  # resolved once, for a single time stamp
        in_study = bool(hydra.runtime.choices.get(GROUP))
        loader = self._context.config_loader
        found = combinations(
            OverridesParser.create(config_loader=loader),
            {str(key): value for key, value in self._params.items()},
            {str(name): list(arm) for name, arm in self._arms.items()},
            arguments,
        )
        composed = [(each, loader.load_sweep_config(self._config, list(each.overrides))) for each in found]
        subdir_given = any(text.startswith("hydra.sweep.subdir=") for text in hydra.overrides.hydra)
        Multirun.in_study = in_study
        Multirun.jobs = plan(composed, in_study, subdir_given)
        if todo := print_plan(Multirun.jobs, len(found), in_study):
            with announced("checking the settings of all jobs"):
                check_parts(todo, runs_here(hydra))
            write_plan(Path(hydra.sweep.dir), _plan_of(Multirun.jobs, Path(hydra.sweep.dir)))
            limit_concurrency(hydra, len(todo))
            if place := job_output_folder(hydra.launcher):
                print(f"output of the jobs: {place}", flush=True)
            self._launch([job.launcher_overrides() for job in todo])

    def _launch(self, overrides: list[list[str]]) -> None:
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task, config=self._config
        )
        try:
            returns = launcher.launch(overrides, initial_job_idx=0)
        except Exception as error:  # from the launcher: jobs record their own failures
            if self._config.debug is True:
                raise
            log.debug("the launcher ended early", exc_info=True)
            Multirun.trouble = f"{type(error).__name__}: {error}".splitlines()[0]
            return
        if self._config.debug is True:
            for job in returns:
                _ = job.return_value  # raises the job's exception


def _plan_of(jobs: Sequence[Job], sweep_folder: Path) -> SweepPlan:
    return SweepPlan(len(jobs), tuple(str(job.folder.relative_to(sweep_folder)) for job in jobs))
