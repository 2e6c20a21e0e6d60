"""A training from Python: `spleen.train("data=phantom", axis="axial", epochs=2)`."""

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from spleen.config.checks import check
from spleen.config.overrides import quoted
from spleen.config.parsing import parse
from spleen.errors import InputError
from spleen.records.cases import CaseRow, read_cases
from spleen.records.folder import RunFolder, read_summary
from spleen.reporting.tables import to_html
from spleen.runs.main import register_resolvers, replace_renamed_keys
from spleen.runs.messages import in_words
from spleen.runs.naming import run_stamp
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
        with RunFolder(self.folder).metrics.open(newline="") as file:
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

    `overrides` are those of the command line, such as "data=nifti" or "data.image=ct.nii.gz"; `settings` are top-level
    values and groups by name, such as `axis="axial"`, `epochs=20`, `logger="none"`; a mapping sets keys of a group:
    `data={"image": path}`. Outputs are in a new folder under outputs/.
    Raises InputError for settings or data that are wrong, with the message of the command.
    """
    wanted = [*overrides, *(text for name, value in settings.items() for text in _as_overrides(name, value))]
    if chosen_study(wanted):
        raise InputError("a study is several runs; run it by its command: spleen train experiment=…")
    register_resolvers()
    try:
        with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
            tree = compose("train", replace_renamed_keys(wanted))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(in_words(error)) from error
    config = parse(tree)
    check(config)
    folder = Path(config.output_dir) / config.study / run_stamp()
    run(config, folder, time.time())
    return TrainedRun(folder, read_summary(folder))


def _as_overrides(name: str, value: object) -> list[str]:
    """A Python value as overrides in Hydra's grammar."""
    if isinstance(value, Mapping):
        return [text for key, inner in value.items() for text in _as_overrides(f"{name}.{key}", inner)]
    return [f"{name}={_as_value(value)}"]


def _as_value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_as_value, value))}]"
    return quoted(str(value))
