"""Training jobs for the benchmarks: as a command in a new process, and as a configuration in this process."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from spleen.config.overrides import quoted as in_hydra_grammar
from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig
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


def quoted(path: Path) -> str:
    """A path, made absolute from the working folder, as a value in Hydra's override grammar."""
    return in_hydra_grammar(path.absolute())
