"""`spleen auto`: reads the command line, searches, and turns every error into a message and an exit code.

Exit codes as those of `spleen train`. Imports nothing heavy at the top.
"""

import math
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import psutil

from spleen.config.overrides import key_of
from spleen.errors import FolderInUse, InputError, Interrupted
from spleen.system.terminal import readable_output
from spleen.system.text import on_own_line

_WRONG_INPUT, _FAULT, _INTERRUPTED = 2, 1, 130
_MOST_MINUTES = 100_000
_DECIDED = {"max_minutes": "minutes= is for all its runs together", "study": "its runs are in outputs/auto"}
"""Settings of a run that a search decides, and why."""

USAGE = """\
Find and train the best model in a given time: looks at the data, lets recipes compete by validation Dice in short
rounds, trains the winner with the rest of the time, and scores the test split once.

  spleen auto data.root=Task09_Spleen minutes=60
  spleen auto data.image=ct.nii.gz data.label=spleen.nii.gz minutes=10
  spleen auto data.root=Task09_Spleen minutes=60 fold=0 axis=axial     what you set stays as it is
  spleen auto resume=outputs/auto/FOLDER                               go on after a stop

minutes=N is from the start of the command to its end. Any setting of `spleen train` can be given as well;
`spleen train --help` explains them.
"""


@readable_output()
def main(arguments: list[str]) -> int:
    """Search according to the command line; returns the exit code of the process."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE)
        return 0
    started = psutil.Process().create_time()
    try:
        _run(arguments, started)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return _WRONG_INPUT
    except Interrupted as interrupt:
        print(on_own_line(f"interrupted: {interrupt}"), file=sys.stderr)
        return interrupt.exit_code
    except KeyboardInterrupt:
        print(on_own_line("interrupted"), file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        print(f"error: {error}; choose a writable folder with output_dir=…", file=sys.stderr)
        return _WRONG_INPUT
    except Exception as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}\nThis is a bug in spleen", file=sys.stderr)
        return _FAULT
    return 0


def _run(arguments: list[str], started: float) -> None:
    from spleen.config.untrusted import asks_for_custom_code
    from spleen.runs.messages import check_arguments

    if flags := [argument for argument in arguments if argument.startswith("-")]:
        raise InputError(f"{flags[0]}: spleen auto takes no flags, only settings such as minutes=30 and axis=axial")
    arguments = asks_for_custom_code(arguments)[1]  # for files of somebody else; on the command line, it is yours
    check_arguments(arguments)
    own = {key: _values(arguments, key) for key in ("minutes", "resume")}
    others = [argument for argument in arguments if key_of(argument) not in own]
    if decided := [key for key in map(key_of, others) if key in _DECIDED]:
        raise InputError(f"{decided[0]}= is no setting of a search: {_DECIDED[decided[0]]}")
    if own["resume"]:
        if others or own["minutes"]:
            raise InputError("resume= goes on with the search as it was begun; give it alone")
        auto(resume=Path(own["resume"][-1]), started=started)
        return
    if not own["minutes"]:
        raise InputError("spleen auto needs to know how long it may take: minutes=30")
    auto(others, minutes=own["minutes"][-1], started=started)


def auto(
    overrides: Sequence[str] = (),
    minutes: float | str | None = None,
    resume: Path | None = None,
    started: float | None = None,
) -> Path:
    """Find and train the best model in `minutes`, or go on with a search in the folder `resume`; returns its folder.

    `overrides` are those of `spleen train`; `data=` may be left out. `started` is the start of the time in seconds
    since the epoch, by default now. Raises InputError for settings or data that a training refuses and for too few
    minutes, and Interrupted after a signal, both with the folder's name once something is in it.
    """
    from spleen.auto.final import train_on_one_volume, train_views
    from spleen.auto.layout import with_layout
    from spleen.auto.page import to_text, write_pages
    from spleen.auto.record import AutoRecord, read_record
    from spleen.auto.search import choose_recipe, prepare
    from spleen.auto.session import Session
    from spleen.config.overrides import with_absolute_path
    from spleen.runs.api import compose_config
    from spleen.runs.main import as_understood
    from spleen.runs.naming import run_stamp
    from spleen.runs.resume_command import log_as_hydra_does
    from spleen.system.files import missing_folders, remove_empty
    from spleen.system.hardware import limit_threads
    from spleen.system.locks import folder_lock
    from spleen.system.process import usable_cores
    from spleen.system.signals import stop_on_signals

    started = time.time() if started is None else started
    log_as_hydra_does()
    limit_threads(usable_cores())
    if resume is not None:
        folder, record = resume, read_record(resume)
    else:
        given = [with_absolute_path(each) for each in with_layout(as_understood(list(overrides)))]
        record = AutoRecord(_checked_minutes(minutes), given)
        folder = Path(compose_config(given).output_dir) / "auto" / run_stamp()
    session, new_folders = Session(folder, record, started), missing_folders(folder)
    try:
        with stop_on_signals(), folder_lock(folder):
            prepare(session)
            choose_recipe(session)
            train = train_views if session.has_many_cases() else train_on_one_volume
            train(session)
            write_pages(session)
    except (Interrupted, KeyboardInterrupt) as interrupt:  # the latter from a training that Ctrl-C has stopped
        exit_code = interrupt.exit_code if isinstance(interrupt, Interrupted) else _INTERRUPTED
        where = str(interrupt).partition(";")[0]  # without how to resume the training alone
        raise Interrupted(f"{where}; {_how_to_go_on(folder)}", exit_code) from None
    except InputError as error:
        if isinstance(error, FolderInUse) or not record.seconds:
            raise
        raise InputError(f"{error}\nWhat is done stays; {_how_to_go_on(folder)}") from error
    finally:
        remove_empty(new_folders)
    print(to_text(session))
    return folder


def _how_to_go_on(folder: Path) -> str:
    if not (folder / "auto.json").exists():
        return "nothing is kept yet"
    return f"go on with: spleen auto {shlex.quote(f'resume={folder}')}"


def _values(arguments: Sequence[str], key: str) -> list[str]:
    return [argument.partition("=")[2] for argument in arguments if key_of(argument) == key]


def _checked_minutes(minutes: float | str | None) -> float:
    try:
        value = float(minutes or "")
    except ValueError:
        value = math.nan
    if not 0 < value <= _MOST_MINUTES:
        raise InputError(f"minutes must be a number above 0, up to {_MOST_MINUTES}; got '{minutes}'")
    return value
