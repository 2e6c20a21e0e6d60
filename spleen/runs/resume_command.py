"""`spleen train resume=RUN_FOLDER`: go on with a run from what its folder says, without Hydra."""

import logging
import sys
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spleen.config.checks import check
from spleen.config.parsing import explain, parse
from spleen.config.schema import TrainConfig
from spleen.errors import InputError
from spleen.records.folder import RunFolder, is_finished
from spleen.system.resources import train_command

_KEY = "resume="
_MAY_BE_GIVEN = (
    "debug", "trainer.progress", "logger.mode", "trainer.accelerator", "trainer.devices", "trainer.strategy",
    "trainer.num_nodes",
)  # fmt: skip


def asks_to_resume(arguments: list[str]) -> bool:
    """Whether a command line holds resume=…."""
    return any(argument.lstrip("+").startswith(_KEY) for argument in arguments)


def read_resumed(arguments: list[str]) -> tuple[Path, TrainConfig | None]:
    """The run folder that `arguments` name, and its configuration; None for that of a finished run.

    Raises InputError for a folder that holds no run, and for other settings beside resume=.
    """
    folders = [argument.split("=", 1)[1] for argument in arguments if argument.lstrip("+").startswith(_KEY)]
    others = [argument for argument in arguments if not argument.lstrip("+").startswith(_KEY)]
    wrong = [argument for argument in others if argument.split("=", 1)[0] not in _MAY_BE_GIVEN or "=" not in argument]
    if len(folders) > 1:
        raise InputError(f"resume= takes one run folder; got {len(folders)}. A study goes on by its own command")
    if modes := [argument for argument in others if argument.startswith("-")]:
        raise InputError(f"{modes[0]} cannot be given beside resume=, which goes on with one run")
    if wrong:
        raise InputError(
            f"a run goes on with its own settings, so {', '.join(wrong)} cannot be given beside resume=; "
            f"only {', '.join(_MAY_BE_GIVEN)} can"
        )
    run_folder = _run_folder(folders[0])
    if is_finished(run_folder):
        return run_folder, None
    return run_folder, _recorded(run_folder, others)


def _run_folder(given: str) -> Path:
    folder = Path(given).expanduser()
    if folder.is_file() and folder.name == "latest":  # what stands for the link on a system without links
        folder = Path(folder.read_text())
    folder = folder.resolve()
    if not folder.is_dir():
        raise InputError(f"resume={given}: no such folder; give a run folder, such as outputs/latest")
    if RunFolder(folder).config.is_file():
        return folder
    inside = sorted(run.name for run in folder.glob("*/") if RunFolder(run).config.is_file())
    if inside:
        raise InputError(
            f"resume={given}: this folder holds {len(inside)} run(s), such as {inside[0]}; give one of them. "
            f"A whole study goes on by its own command: {train_command()} experiment=NAME"
        )
    raise InputError(f"resume={given}: there is no {RunFolder(folder).config.name} in it, so no run has begun there")


def _recorded(run_folder: Path, others: list[str]) -> TrainConfig:
    path = RunFolder(run_folder).config
    try:
        tree = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(others))
        assert isinstance(tree, DictConfig)
        config = parse(tree)
        check(config)
    except (yaml.YAMLError, AssertionError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {explain(error)}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config


def log_as_hydra_does() -> None:
    """Show the run's messages as in a run that Hydra starts (hydra/job_logging=stdout)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
