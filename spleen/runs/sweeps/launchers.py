"""Launchers of multirun jobs: the packages they need, and how jobs share the cores of a machine."""

import importlib.util
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from spleen.errors import InputError
from spleen.system.process import usable_cores
from spleen.system.resources import conf_folder

# Default limit of concurrent joblib jobs: each needs memory for a network, its optimiser and 0.5 GB of libraries.
_MOST_JOBS = 8

# Module of the Hydra plugin → extra in pyproject.toml that installs it, and the package.
_PACKAGES = {
    "hydra_plugins.hydra_joblib_launcher": ("joblib", "hydra-joblib-launcher==1.2.0"),
    "hydra_plugins.hydra_submitit_launcher": ("slurm", "hydra-submitit-launcher==1.2.0"),
    "hydra_plugins.hydra_ray_launcher": ("ray", "hydra-ray-launcher==1.2.2"),
}


def use_own_launcher_configs() -> None:
    """Let conf/hydra/launcher/NAME.yaml replace the launcher package's configuration of the same name."""
    group = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for path in (conf_folder() / "hydra" / "launcher").glob("*.yaml"):
        group.pop(path.name, None)


def check_launcher_installed(launcher: DictConfig) -> None:
    """Raise InputError, with the install command, if the launcher's package is missing."""
    target = str(launcher.get("_target_", ""))
    for module, (extra, package) in _PACKAGES.items():
        if target.startswith(f"{module}.") and importlib.util.find_spec(module) is None:
            raise InputError(
                f"the selected hydra/launcher is not installed; install it with: pip install '{package}'"
                f"  (or, in a checkout: pip install -c constraints.txt -e '.[{extra}]')"
            )


def job_output_folder(launcher: DictConfig) -> str | None:
    """The folder for the jobs' output; None if it is printed here."""
    folder = launcher.get("submitit_folder")
    return None if folder is None else str(Path(folder).parent)


def default_jobs() -> int:
    """Default number of concurrent joblib jobs: one per core, up to eight."""
    return min(usable_cores(), _MOST_JOBS)


def limit_concurrency(hydra: DictConfig, n_jobs: int) -> None:
    """Limit joblib's concurrency to the number of jobs, so that together they use all cores."""
    if _is_joblib(hydra):
        hydra.launcher.n_jobs = min(_at_once(hydra), n_jobs)
        # Each job composes its configuration from these, and takes its share of the cores by it.
        hydra.overrides.hydra.append(f"hydra.launcher.n_jobs={hydra.launcher.n_jobs}")


def share_cores(hydra: DictConfig) -> None:
    """Limit this process to its share of the cores, if it is a joblib job.

    Data workers are not counted: they mostly wait for reads, and by default there are none.
    A lower OMP_NUM_THREADS is respected.
    """
    if _is_joblib(hydra):
        from spleen.system.hardware import limit_threads  # imports PyTorch

        limit_threads(usable_cores() // _at_once(hydra))


def _is_joblib(hydra: DictConfig) -> bool:
    target = OmegaConf.select(hydra, "launcher._target_")
    return str(target).startswith("hydra_plugins.hydra_joblib_launcher.")


def runs_here(hydra: DictConfig) -> bool:
    """Whether the launcher runs the jobs on this machine."""
    return _is_joblib(hydra) or str(OmegaConf.select(hydra, "launcher._target_")).endswith(".BasicLauncher")


def _at_once(hydra: DictConfig) -> int:
    """Concurrent jobs, by joblib's convention: -1 is one per core, -2 one less."""
    n_jobs = int(hydra.launcher.n_jobs)
    return n_jobs if n_jobs > 0 else max(1, usable_cores() + 1 + n_jobs)
