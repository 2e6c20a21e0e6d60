"""Where the jobs of a multirun run: which launcher needs which package, and how jobs share the cores of a machine."""

import importlib.util
import os
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from spleen.errors import InputError
from spleen.system.resources import conf_folder

# Most jobs at a time that joblib starts by itself: each holds a network, its optimiser and half a GB of libraries.
_MOST_JOBS = 8

# Module of the Hydra plugin → our extra in pyproject.toml that brings it, and the package by itself.
_PACKAGES = {
    "hydra_plugins.hydra_joblib_launcher": ("joblib", "hydra-joblib-launcher==1.2.0"),
    "hydra_plugins.hydra_submitit_launcher": ("slurm", "hydra-submitit-launcher==1.2.0"),
    "hydra_plugins.hydra_ray_launcher": ("ray", "hydra-ray-launcher==1.2.2"),
}


def prefer_own_files() -> None:
    """Let conf/hydra/launcher/NAME.yaml stand in the place of what the launcher's package says under the same name."""
    group = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for path in (conf_folder() / "hydra" / "launcher").glob("*.yaml"):
        group.pop(path.name, None)


def check_installed(launcher: DictConfig) -> None:
    """Raise InputError, with the command to install it, for a launcher whose package is missing."""
    target = str(launcher.get("_target_", ""))
    for module, (extra, package) in _PACKAGES.items():
        if target.startswith(f"{module}.") and importlib.util.find_spec(module) is None:
            raise InputError(
                f"the launcher that hydra/launcher names is not installed; install it with: pip install '{package}'"
                f"  (or, in the checkout: pip install -c constraints.txt -e '.[{extra}]')"
            )


def where_jobs_print(launcher: DictConfig) -> str | None:
    """The folder in which the launcher keeps what jobs print; None where it is shown here."""
    folder = launcher.get("submitit_folder")
    return None if folder is None else str(Path(folder).parent)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs() -> int:
    """How many jobs joblib runs at a time unless told otherwise: one for each core, up to eight."""
    return min(usable_cores(), _MOST_JOBS)


def fit_to_jobs(hydra: DictConfig, n_jobs: int) -> None:
    """Let joblib start no more jobs at a time than there are, so that each gets its share of all cores."""
    if _is_joblib(hydra):
        hydra.launcher.n_jobs = min(_at_once(hydra), n_jobs)


def share_cores(hydra: DictConfig) -> None:
    """Give this process its share of the cores, if joblib has started it beside others.

    Data workers are not counted: they read slices and mostly wait, and by default there are none.
    An OMP_NUM_THREADS that asks for less is kept.
    """
    if _is_joblib(hydra):
        import torch

        torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores() // _at_once(hydra))))


def _is_joblib(hydra: DictConfig) -> bool:
    target = OmegaConf.select(hydra, "launcher._target_")
    return str(target).startswith("hydra_plugins.hydra_joblib_launcher.")


def _at_once(hydra: DictConfig) -> int:
    """Jobs at a time; as joblib reads it, -1 is one for each core, -2 one less."""
    n_jobs = int(hydra.launcher.n_jobs)
    return n_jobs if n_jobs > 0 else max(1, usable_cores() + 1 + n_jobs)
