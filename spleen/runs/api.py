"""A training from Python: `spleen.train("data=phantom", axis="axial", epochs=2)`."""

import csv
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.seed import isolate_rng

from spleen.config.checking.checks import check
from spleen.config.override_values import as_overrides
from spleen.config.overrides import key_of
from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig
from spleen.config.untrusted import asks_for_custom_code
from spleen.errors import FolderInUse, InputError, Interrupted
from spleen.records.cases import CaseRow, read_cases
from spleen.records.folder import RunFolder, read_summary
from spleen.reporting.tables import to_html
from spleen.runs.main import INTERRUPTED, as_understood, record_failure, register_resolvers
from spleen.runs.messages import in_words
from spleen.runs.naming import run_stamp
from spleen.runs.resume_command import asks_to_resume, read_resumed
from spleen.runs.sweeps.studies import chosen_study
from spleen.runs.train import run
from spleen.system.resources import conf_folder


@dataclass(frozen=True, repr=False)
class TrainedRun:
    """A finished training, read from its run folder."""

    folder: Path
    summary: Mapping[str, Any]
    """Content of summary.json: scores, timings, versions, hardware."""

    @property
    def dice(self) -> float:
        """Mean test Dice per case and class, on the native grid; NaN without a test split."""
        value = self.summary.get("test", {}).get("dice")
        return float("nan") if value is None else float(value)

    @property
    def cases(self) -> tuple[CaseRow, ...]:
        """Scores of each val and test case and class, from cases.csv."""
        return read_cases(self.folder)

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per epoch: learning rate, loss, validation scores; from metrics.csv."""
        with RunFolder(self.folder).metrics.open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]

    def __repr__(self) -> str:
        return f"TrainedRun({self.folder}, test Dice {self.dice:.4f})"

    def _repr_html_(self) -> str:
        scores = {split: self.summary.get(split, {}) for split in ("val", "test")}
        names = [name for name, value in scores["test"].items() if not isinstance(value, Mapping)]
        return to_html(
            [self.folder.name, *scores], [[name, *(each.get(name) for each in scores.values())] for name in names]
        )


def train(*overrides: str, **settings: object) -> TrainedRun:
    """Train one network in this process, exactly as `spleen train` does.

    `overrides` are those of the command line, such as "data=nifti" or "data.image=ct.nii.gz"; `settings` are the same
    as Python values: `axis="axial"`, `epochs=20`, `logger="none"`; a mapping sets keys of a section:
    `data={"image": path, "label_values": {"liver": 1}}`. Outputs are in a new folder under outputs/;
    `resume=FOLDER` resumes an interrupted run. The random number generators, environment
    variables and Hydra's state are left as they were.
    Raises InputError for settings or data that are wrong, with the message of the command, and KeyboardInterrupt, which
    says what is kept, when the kernel of a notebook is interrupted.
    """
    if "resume" in settings:
        overrides = (*overrides, f"resume={settings.pop('resume')}")
    arguments = _understood([*overrides, *as_overrides(settings)])
    if not asks_to_resume(arguments):
        return train_composed(_composed(arguments))
    folder, config = read_resumed(arguments)
    if config is not None:
        run_here(config, folder)
    return TrainedRun(folder, read_summary(folder))


def train_composed(config: TrainConfig) -> TrainedRun:
    """Train in a new folder under outputs/, as `train` does."""
    folder = Path(config.output_dir) / config.study / run_stamp()
    run_here(config, folder)
    return TrainedRun(folder, read_summary(folder))


def run_here(config: TrainConfig, folder: Path) -> None:
    """Run one training in this process, and leave its random number generators and environment as they were.

    A failure is recorded in the folder and raised.
    """
    try:
        with isolate_rng(), _same_environment():
            run(config, folder, time.time())
    except Interrupted as interrupt:
        if interrupt.exit_code == INTERRUPTED:
            raise KeyboardInterrupt(str(interrupt)) from None
        raise
    except Exception as error:
        if not isinstance(error, FolderInUse) and folder.is_dir():
            record_failure(error, folder)
        raise


@contextmanager
def _same_environment() -> Iterator[None]:
    """Restore the environment variables, of which Lightning and wandb set some."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def compose_typed(arguments: Sequence[str]) -> TrainConfig:
    """As `compose_config`, of arguments as they are typed: with renamed keys, bare paths and allow_custom_code."""
    return _composed(_understood(arguments))


def _understood(arguments: Sequence[str]) -> list[str]:
    return as_understood([*map(_checked, arguments)])


def _composed(understood: list[str]) -> TrainConfig:
    return compose_config(asks_for_custom_code(understood)[1])


def compose_config(overrides: Sequence[str]) -> TrainConfig:
    """The checked configuration that `spleen train OVERRIDES` would run, also where Hydra is in use already.

    Raises InputError for settings that are wrong, and for those of a sweep.
    """
    if chosen_study(list(overrides)):
        raise InputError("a study is several runs; run it by its command: spleen train experiment=…")
    if own := [override for override in overrides if key_of(override).split(".")[0] == "hydra"]:
        raise InputError(f"{own[0]}: settings of Hydra are for the command: spleen train {own[0]}")
    before = Singleton.get_state()
    try:
        GlobalHydra.instance().clear()
        register_resolvers()
        with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
            tree = compose("train", list(overrides))
        config = parse(tree)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if "--multirun" in str(error):
            raise InputError(f"{str(error).splitlines()[0]}: this is one run, which takes one value of each") from error
        raise InputError(in_words(error)) from error
    finally:
        Singleton.set_state(before)
    check(config)
    return config


def _checked(override: str) -> str:
    if not isinstance(override, str) or override.startswith("-") or not {"=", "~"} & set(override):
        raise InputError(f"an override is a string such as 'axis=axial'; got {override!r}")
    return override
