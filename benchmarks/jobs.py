"""Training jobs for the benchmarks: as a command in a new process, and as a configuration in this process."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from spleen.config.overrides import quoted as in_hydra_grammar
from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig
from spleen.system.files import write_text
from spleen.system.resources import conf_folder, work_folder


@dataclass(frozen=True)
class FinishedJob:
    """One successful `python train.py`."""

    summary: dict[str, Any]
    """The content of summary.json."""
    wall_seconds: float
    """From the start of the process to its end."""


def train(overrides: list[str], run_folder: Path) -> FinishedJob:
    """Run `python train.py` with these overrides in a fresh process, and read its summary.

    The job's output goes to `run_folder`/terminal.txt. Exits with that output if the job fails.
    """
    run_folder.mkdir(parents=True)
    command = train_command(overrides, run_folder)
    terminal = run_folder / "terminal.txt"
    with terminal.open("w") as output:
        before = time.perf_counter()
        exit_code = subprocess.run(command, cwd=work_folder(), stdout=output, stderr=subprocess.STDOUT).returncode
        wall_seconds = time.perf_counter() - before
    if exit_code:
        sys.exit(f"{' '.join(command)} ended with {exit_code}:\n{terminal.read_text()}")
    return FinishedJob(json.loads((run_folder / "summary.json").read_text()), wall_seconds)


def train_command(overrides: list[str], run_folder: Path) -> list[str]:
    """The command of a job with these overrides, for the folder that has train.py."""
    return [sys.executable, "train.py", *overrides, f"hydra.run.dir={quoted(run_folder)}"]


def configure(overrides: list[str]) -> TrainConfig:
    """The configuration that `python train.py` would run with these overrides.

    They must include output_dir and cache_dir, whose defaults only train.py itself can resolve.
    """
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return parse(compose("train", overrides))


def record_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of the results that will be in `folder` beside them, in settings.json.

    `settings` are what JSON can hold. Exits with a message if there are results of other, or unknown, settings already.
    """
    record, now = folder / "settings.json", json.loads(json.dumps(settings))
    if folder.exists() and any(path != record for path in folder.iterdir()):
        before = json.loads(record.read_text()) if record.exists() else {}
        changed = [name for name in before | now if before.get(name) != now.get(name)]
        if changed:
            what = "\n".join(f"{name}: {_difference(before.get(name, 'unknown'), now.get(name))}" for name in changed)
            sys.exit(f"{folder} has results of other settings; remove it, or give another folder:\n{what}")
    write_text(record, json.dumps(now, indent=1) + "\n")


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list):
        before, now = [each for each in before if each not in now], [each for each in now if each not in before]
    return f"{before}, now {now}"


def quoted(path: Path) -> str:
    """A path, made absolute from the working folder, as a value in Hydra's override grammar."""
    return in_hydra_grammar(path.absolute())
