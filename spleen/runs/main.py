"""`spleen train`: runs Hydra and the jobs, and turns every error into a clear message and an exit code.

Exit codes: 0 success; 1 a bug, or failed or unfinished jobs of a multirun; 2 invalid input; 130 interrupted (Ctrl-C),
143 terminated.
Imports nothing heavy at the top: `--help` and `--cfg` must be instant.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import ClassVar

import hydra
import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spleen import __version__
from spleen.config.checking.checks import check
from spleen.config.overrides import key_of, with_current_key, with_literal_path
from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig
from spleen.config.untrusted import asks_for_custom_code
from spleen.errors import FolderInUse, InputError, Interrupted
from spleen.records.folder import RunFolder
from spleen.records.renamed_keys import RENAMED_KEYS
from spleen.runs.head_start import slices_prepared_meanwhile
from spleen.runs.help import help_text
from spleen.runs.launch_environment import launch_environment
from spleen.runs.messages import check_arguments, check_groups, in_words
from spleen.runs.naming import run_stamp
from spleen.runs.resume_command import asks_to_resume, log_as_hydra_does, read_resumed
from spleen.runs.sweeps.launchers import default_jobs, share_cores
from spleen.runs.sweeps.outcome import Multirun, progress_summary, report
from spleen.runs.sweeps.plan import job_folder
from spleen.runs.sweeps.studies import allow_custom_code, chosen_study
from spleen.system.files import missing_folders, remove_empty, write_text
from spleen.system.process import collector_paused
from spleen.system.progress import announced
from spleen.system.resources import conf_folder, python_path, train_command, work_folder
from spleen.system.signals import stop_on_signals
from spleen.system.terminal import readable_output, unencodable
from spleen.system.text import on_own_line

WRONG_INPUT, FAULT, INTERRUPTED = 2, 1, 130

# Hydra's flags that print something instead of running, and those that choose between one run and many.
_SHOWING = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc", "--version")
_MODES = ("--multirun", "-m", "--run", "-r")


@readable_output()
def main(arguments: list[str]) -> int:
    """Train according to the command line; returns the exit code of the process."""
    if {"--help", "-h"} & set(arguments):
        return _print_help(arguments)
    if "--version" in arguments:
        print(f"spleen {__version__}")
        return 0
    try:
        with stop_on_signals() as stop:
            stop.position = "before the end"
            _run(arguments)
    except Interrupted as interrupt:
        print(on_own_line(f"interrupted: {interrupt}{progress_summary()}"), file=sys.stderr)
        return interrupt.exit_code
    except KeyboardInterrupt:
        print(on_own_line("interrupted; what was written so far stays in the run folder"), file=sys.stderr)
        return INTERRUPTED
    except (HydraException, OmegaConfBaseException, InputError, OSError, ValueError) as error:
        if "debug=true" in map(str.lower, arguments):
            raise
        _print_error(in_words(error))
        return WRONG_INPUT
    return report() if Multirun.sweep_folder else _Process.exit_code


def _print_help(arguments: list[str]) -> int:
    try:
        text = help_text(train_command(), arguments)
    except InputError as error:
        _print_error(str(error))
        return WRONG_INPUT
    print(text)
    return 0


def _run(arguments: list[str]) -> None:
    arguments = as_understood(arguments)
    _Process.first_job_started = psutil.Process().create_time()
    if asks_to_resume(arguments):
        _resume(arguments)
        return
    custom_code, arguments = asks_for_custom_code(arguments)
    allow_custom_code(custom_code)
    check_arguments(arguments)
    # Workers of any launcher find the sweepers in hydra_plugins/, whatever folder they start in.
    os.environ["PYTHONPATH"] = python_path()
    # Hydra then raises its exceptions, instead of printing them and exiting with code 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = _with_mode(arguments)  # which Hydra reads
    hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="train")(run_job)()


def as_understood(arguments: list[str]) -> list[str]:
    """The arguments with every key under its current name and paths in quotes where Hydra's grammar needs them.

    Prints a warning for each renamed key.
    """
    for key in dict.fromkeys(map(key_of, arguments)):
        if key in RENAMED_KEYS:
            print(f"warning: {key} is now called {RENAMED_KEYS[key]}; the old name still works", file=sys.stderr)
    check_groups(arguments)
    sweep = bool({"-m", "--multirun"} & set(arguments)) or chosen_study(arguments) is not None
    return [with_literal_path(with_current_key(argument), sweep) for argument in arguments]


def _with_mode(arguments: list[str]) -> list[str]:
    """The arguments for Hydra: a study is a sweep even without -m, and -m comes before the overrides."""
    modes = [argument for argument in arguments if argument in _MODES]
    if chosen_study(arguments) and not set(arguments) & {*_SHOWING, *_MODES}:
        modes = ["--multirun"]
    return [*modes, *(argument for argument in arguments if argument not in _MODES)]


@readable_output()
def run_job(tree: DictConfig) -> None:
    """Run one job. A failure is printed and recorded in the run folder; the other jobs of a multirun continue."""
    settings = HydraConfig.instance().cfg.hydra  # type: ignore[union-attr]
    run_folder = Path(settings.runtime.output_dir)
    one_of_several = not OmegaConf.is_missing(settings.job, "num")
    if one_of_several:
        from spleen.runs.sweeps.heading import job_heading  # imports SciPy

        print(f"\n{job_heading(Path(settings.sweep.dir), run_folder)}", flush=True)

    def configure() -> TrainConfig:
        config = parse(tree)
        check(config)
        if one_of_several:
            share_cores(settings)
        return config

    _run_and_record(configure, run_folder, OmegaConf.select(tree, "debug") is True, one_of_several)


def _resume(arguments: list[str]) -> None:
    run_folder, config = read_resumed(arguments)
    if config is None:
        print(f"this run is finished; everything is in {run_folder}")
        return
    log_as_hydra_does()
    _run_and_record(lambda: config, run_folder, config.debug)


def _run_and_record(
    configure: Callable[[], TrainConfig], run_folder: Path, debug: bool, one_of_several: bool = False
) -> None:
    started = _Process.next_start()
    try:
        with announced("loading PyTorch"), collector_paused():
            config = configure()
            # Jobs of a sweep have the imports done already, or share the cores with each other.
            overlaps = not one_of_several and "pytorch_lightning" not in sys.modules
            with slices_prepared_meanwhile(config) if overlaps else nullcontext():
                from spleen.runs.train import run

        RunFolder(run_folder).drop_failure()
        run(config, run_folder, started)
    except FolderInUse as error:  # the folder belongs to another process: record nothing
        _print_error(str(error))
        _Process.exit_code = WRONG_INPUT
    except Exception as error:
        if debug:
            raise
        if isinstance(error, InputError) and not _is_worth_a_record(run_folder):
            message, _Process.exit_code = str(error), WRONG_INPUT
        else:
            message, _Process.exit_code = record_failure(error, run_folder)
        _print_error(message)
    finally:
        remove_empty(NewFolders.of_run)


def _is_worth_a_record(run_folder: Path) -> bool:
    """Whether a refused run is recorded: not if it is the only one and has not begun to read its data.

    The report of a multirun is made from the records of its jobs.
    """
    return run_folder.absolute() not in NewFolders.of_run or any(run_folder.iterdir())


class NewFolders(Callback):
    """Hydra callback that stores the folders that Hydra is about to create for a single run, innermost first."""

    of_run: ClassVar[list[Path]] = []

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Called before Hydra creates the run folder. Of several processes, the first one tidies up."""
        given = launch_environment()
        if given is None or given.process_rank.global_rank == 0:
            NewFolders.of_run = missing_folders(Path(config.hydra.run.dir))


class _Process:
    """State of this process."""

    exit_code = 0
    first_job_started: float | None = None
    """Start of the process; its imports count as time of the first job."""

    @classmethod
    def next_start(cls) -> float:
        """Start of the next job, in seconds since the epoch."""
        started, cls.first_job_started = cls.first_job_started, None
        return started or time.time()


def record_failure(error: Exception, run_folder: Path) -> tuple[str, int]:
    """Write why a run failed into its folder, if that can be written; returns the message and the exit code."""
    files = RunFolder(run_folder)
    if isinstance(error, InputError):
        message, exit_code = str(error), WRONG_INPUT
    elif isinstance(error, UnicodeEncodeError):
        message, exit_code = unencodable(error), WRONG_INPUT
    else:
        message, exit_code = f"{type(error).__name__}: {error}", FAULT
        try:
            write_text(files.traceback, "".join(traceback.format_exception(error)))
            message += f"\nThis is a bug; the traceback is in {files.traceback}"
        except OSError:
            message += "\nThis is a bug; debug=true shows the traceback"
    record = json.dumps({"message": message, "exit_code": exit_code}, indent=1, ensure_ascii=False)
    with suppress(OSError):
        write_text(files.failure, record)
    return message, exit_code


def _print_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def register_resolvers() -> None:
    """Register the names in ${…:} of conf/ with OmegaConf."""
    stamp = run_stamp()
    OmegaConf.register_new_resolver("work_folder", lambda: str(work_folder()), replace=True)
    OmegaConf.register_new_resolver("run_stamp", lambda: stamp, replace=True)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("default_jobs", default_jobs, replace=True)


# At import: launchers import this module in their workers to run a job.
register_resolvers()
