"""`spleen train resume=RUN_FOLDER`: resume a run with its recorded configuration, without Hydra."""

import logging
import sys
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spleen.config.checking.checks import check
from spleen.config.parsing import explain, parse
from spleen.config.schema import TrainConfig
from spleen.config.untrusted import OWN_RESOLVERS, asks_for_custom_code, check_interpolations, check_parts
from spleen.errors import InputError
from spleen.records.folder import RunFolder, is_finished, read_summary
from spleen.runs.naming import followed
from spleen.system.resources import train_command

_KEY = "resume="
_OVERRIDABLE = (
    "debug", "report", "trainer.progress", "logger.mode", "trainer.accelerator", "trainer.devices", "trainer.strategy",
    "trainer.num_nodes",
)  # fmt: skip


def asks_to_resume(arguments: list[str]) -> bool:
    """Whether a command line contains resume=…."""
    return any(argument.lstrip("+").startswith(_KEY) for argument in arguments)


def read_resumed(arguments: list[str]) -> tuple[Path, TrainConfig | None]:
    """The run folder given in `arguments`, and its configuration; None if the run is finished.

    The folder may come from somebody else: without allow_custom_code=true, its configuration names no class but those
    of trusted packages. Raises InputError for one that does, for a folder without a run, and for settings that cannot
    be combined with resume=.
    """
    custom_code, arguments = asks_for_custom_code(arguments)
    folders = [argument.split("=", 1)[1] for argument in arguments if argument.lstrip("+").startswith(_KEY)]
    others = [argument for argument in arguments if not argument.lstrip("+").startswith(_KEY)]
    wrong = [argument for argument in others if argument.split("=", 1)[0] not in _OVERRIDABLE or "=" not in argument]
    if len(folders) > 1:
        raise InputError(f"resume= takes one run folder; got {len(folders)}. To resume a study, run its command again")
    if modes := [argument for argument in others if argument.startswith("-")]:
        raise InputError(f"{modes[0]} cannot be combined with resume=, which resumes one run")
    if wrong:
        raise InputError(
            f"a run is resumed with its own settings, so {', '.join(wrong)} cannot be combined with resume=; "
            f"only {', '.join(_OVERRIDABLE)} can"
        )
    run_folder = _run_folder(folders[0])
    if is_finished(run_folder):
        return run_folder, None
    if read_summary(run_folder).get("status") == "pruned":
        raise InputError(f"{run_folder} was pruned: its search stopped it, as others were better; it is not resumed")
    return run_folder, _recorded(run_folder, others, custom_code)


def _run_folder(given: str) -> Path:
    folder = followed(Path(given).expanduser()).resolve()
    if not folder.is_dir():
        raise InputError(f"resume={given}: no such folder; expected a run folder, such as outputs/latest")
    if RunFolder(folder).config.is_file():
        return folder
    inside = sorted(run.name for run in folder.glob("*/") if RunFolder(run).config.is_file())
    if inside:
        raise InputError(
            f"resume={given}: this folder contains {len(inside)} run(s), such as {inside[0]}; choose one of them. "
            f"To resume a whole study, run its command again: {train_command()} experiment=NAME"
        )
    raise InputError(f"resume={given}: it contains no {RunFolder(folder).config.name}, so no run was started there")


def _recorded(run_folder: Path, others: list[str], custom_code: bool) -> TrainConfig:
    path = RunFolder(run_folder).config
    try:
        recorded = OmegaConf.load(path)
        assert isinstance(recorded, DictConfig)
        check_interpolations(OmegaConf.to_container(recorded), OWN_RESOLVERS)
        tree = OmegaConf.merge(recorded, OmegaConf.from_dotlist(others))
        assert isinstance(tree, DictConfig)
        config = parse(tree)
        check(config)
        if not custom_code:
            check_parts(config)
    except (yaml.YAMLError, UnicodeDecodeError, AssertionError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {explain(error)}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config


def log_as_hydra_does() -> None:
    """Print the run's messages as in a run started by Hydra (hydra/job_logging=stdout)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
