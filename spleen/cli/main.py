"""The `spleen` command and its subcommands.

Exit codes: 0 done; 1 an input failed, or the verdict contains errors; 2 invalid input; 130 or 143 interrupted.
Neither this module nor the subcommands import heavy packages at the top: `spleen --help` must answer at once.
"""

import logging
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Annotated

import typer

from spleen import __version__
from spleen.cli import dicom
from spleen.cli.annotation.propagate import propagate
from spleen.cli.annotation.suggest_slices import suggest_slices
from spleen.cli.compare import compare
from spleen.cli.evaluate import evaluate
from spleen.cli.explore import explore
from spleen.cli.export import export
from spleen.cli.fetch import fetch
from spleen.cli.followup.calibrate import calibrate
from spleen.cli.followup.followup import followup
from spleen.cli.followup.phantom import phantom
from spleen.cli.followup.reformat import reformat
from spleen.cli.followup.register import register
from spleen.cli.predict import predict
from spleen.cli.report import report
from spleen.cli.results import results
from spleen.cli.tracking.dashboard import dashboard
from spleen.cli.tracking.sync import sync
from spleen.cli.train import VERBATIM, auto, train
from spleen.cli.watch import watch
from spleen.errors import InputError, Interrupted
from spleen.system.terminal import readable_output, unencodable
from spleen.system.text import on_own_line

INVALID_INPUT, BUG, INTERRUPTED = 2, 1, 130


def main() -> None:
    """Run the command line of this process and exit with its code."""
    with readable_output():
        app(prog_name="spleen")


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that every error becomes a message and an exit code."""

    @wraps(command)
    @readable_output()
    def wrapper(*arguments: object, **options: object) -> None:
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        try:
            command(*arguments, **options)
        except typer.Exit:
            raise
        except (KeyboardInterrupt, Interrupted) as interrupt:
            exit_code = interrupt.exit_code if isinstance(interrupt, Interrupted) else INTERRUPTED
            raise _exit(on_own_line("interrupted; finished files are kept"), exit_code) from None
        except (InputError, OSError) as error:
            raise _exit(f"error: {error}", INVALID_INPUT) from None
        except UnicodeEncodeError as error:
            raise _exit(f"error: {unencodable(error)}", INVALID_INPUT) from None
        except Exception as error:
            traceback.print_exc()
            raise _exit(f"error: {type(error).__name__}: {error}\nThis is a bug in spleen", BUG) from None

    return wrapper


def _exit(message: str, exit_code: int) -> typer.Exit:
    print(message, file=sys.stderr)
    return typer.Exit(exit_code)


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> bool:
    if requested:
        print(f"spleen {__version__}")
        raise typer.Exit
    return requested


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train a network, predict with it, score predictions, and explore images before training."""


# Not guarded: they report their own errors.
for verbatim in (train, auto):
    app.command(context_settings=VERBATIM, add_help_option=False)(verbatim)
for subcommand in (
    predict, evaluate, compare, explore, report, export, results, watch, sync, dashboard, fetch,
    calibrate, register, reformat, followup, phantom,
    suggest_slices, propagate
):  # fmt: skip
    app.command()(_guarded(subcommand))

dicom_app = typer.Typer(no_args_is_help=True, help="Receive, segment and send series as a node in a DICOM network.")
for node_command in (dicom.serve, dicom.status, dicom.release):
    dicom_app.command()(_guarded(node_command))
app.add_typer(dicom_app, name="dicom")
