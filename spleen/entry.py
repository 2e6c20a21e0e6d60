"""Between Hydra and the training: one clear message and an exit code for whatever goes wrong.

Exit codes: 0 done; 1 a fault of the program, or failed jobs in a multirun; 2 a wrong input; 130 interrupted.
Nothing heavy is imported at the top: `--help` and `--cfg` must answer at once.
"""

import hashlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spleen.atomic import write_text
from spleen.config import explain, parse, project_root, unknown_key
from spleen.config_checks import check
from spleen.errors import InputError
from spleen.help_text import help_text

FAILURE_FILE = "failed.json"
WRONG_INPUT, FAULT, INTERRUPTED = 2, 1, 130
_LONGEST_FOLDER_NAME = 120


def launch(main: Callable[[], None], arguments: list[str]) -> int:
    """Run Hydra's main function and return the exit code of the process."""
    if {"--help", "-h"} & set(arguments):
        print(help_text())
        return 0
    register_resolvers()
    # Hydra then hands its exceptions on instead of printing and leaving with code 1 itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except (KeyboardInterrupt, SystemExit) as leaving:
        # The trainer turns an interrupt into SystemExit once it has torn itself down.
        if not isinstance(leaving, KeyboardInterrupt) and not isinstance(leaving.__context__, KeyboardInterrupt):
            raise
        print("interrupted; what was written so far stays in the run folder", file=sys.stderr)
        return INTERRUPTED
    except (HydraException, OmegaConfBaseException, InputError, OSError, ValueError) as error:
        if "debug=true" in map(str.lower, arguments):
            raise
        _complain(_in_words(error))
        return WRONG_INPUT
    return FailedJobs.report()


def run_job(tree: DictConfig) -> None:
    """Run one job; a failure is told, and written into the run folder, and stops no other job of a multirun."""
    run_folder = Path(HydraConfig.get().runtime.output_dir)
    started = next(_job_starts)
    try:
        config = parse(tree)
        check(config)
        from spleen.run import run

        run(config, run_folder, started)
    except Exception as error:
        if OmegaConf.select(tree, "debug") is True:
            raise
        FailedJobs.exit_codes.append(_record_failure(error, run_folder))


def _starts() -> Iterator[float]:
    """Start of each job of this process in seconds since the epoch: the first one starts with the process itself."""
    yield psutil.Process().create_time()
    while True:
        yield time.time()


_job_starts = _starts()


class FailedJobs(Callback):
    """Hydra callback: remembers the folder of a multirun, so that its failed jobs can be listed at the end."""

    exit_codes: ClassVar[list[int]] = []
    _sweep_folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Called once in the process that starts the jobs, which may themselves run elsewhere."""
        FailedJobs._sweep_folder = Path(config.hydra.sweep.dir)

    @classmethod
    def report(cls) -> int:
        """Print the finished and the failed jobs of the multirun, if there was one, and return the exit code."""
        if cls._sweep_folder is None:
            return max(cls.exit_codes, default=0)
        from spleen.report.jobs import print_jobs

        print_jobs(cls._sweep_folder)
        notes = sorted(cls._sweep_folder.glob(f"*/{FAILURE_FILE}"))
        failures = [(note.parent.name, json.loads(note.read_text())) for note in notes]
        if failures:
            _complain(f"{len(failures)} job(s) of the multirun in {cls._sweep_folder} failed:")
        for name, failure in failures:
            print(f"  {name}: {failure['message'].splitlines()[0]}", file=sys.stderr)
        return max([*cls.exit_codes, *(int(failure["exit_code"]) for _, failure in failures)], default=0)


def _record_failure(error: Exception, run_folder: Path) -> int:
    if isinstance(error, InputError):
        message, exit_code = str(error), WRONG_INPUT
    else:
        message, exit_code = f"{type(error).__name__}: {error}", FAULT
        write_text(run_folder / "traceback.txt", traceback.format_exc())
        message += f"\nThis is a fault of the program; the traceback is in {run_folder / 'traceback.txt'}"
    _complain(message)
    write_text(run_folder / FAILURE_FILE, json.dumps({"message": message, "exit_code": exit_code}, indent=1))
    return exit_code


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def _in_words(error: Exception) -> str:
    """Hydra's and OmegaConf's messages, in the words of this program."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(error, HydraException) and "not in struct" in f"{error} {cause}":
        key = re.search(r"Could not override '([^']*)'", str(error))
        return unknown_key(key.group(1)) if key else str(error)
    if isinstance(cause, OmegaConfBaseException):
        return explain(cause)
    missing = re.search(
        r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']*':\n(.*?)(?:\n\n|\nConfig|\Z)",
        str(error),
        re.S,
    )
    if missing:
        group, option, available = missing.groups()
        return f"{group}={option}: no such option; available are {', '.join(available.split())}"
    if isinstance(error, ValueError):  # the only one that Hydra lets out while it composes
        return f"{error}; a group (data, model, …) needs the name of one of its options, `--help` lists them"
    if isinstance(error, OSError):
        return f"{error}; give a folder that can be written with output_dir=…"
    return str(error)


def register_resolvers() -> None:
    """Register the names in ${…:} of conf/train.yaml with OmegaConf."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
    OmegaConf.register_new_resolver("project_root", lambda: str(project_root()), replace=True)
    OmegaConf.register_new_resolver("run_stamp", lambda: stamp, replace=True)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def job_folder(overrides: str) -> str:
    """A folder name from a job's overrides: no path separators, and short enough for any file system."""
    name = re.sub(r"[^\w.,=+\-\[\]]", "_", overrides) or "defaults"
    if len(name) <= _LONGEST_FOLDER_NAME:
        return name
    return f"{name[: _LONGEST_FOLDER_NAME - 9]}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"
