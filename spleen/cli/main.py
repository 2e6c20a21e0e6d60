"""The `spleen` command: a training, and what comes before and after it.

Exit codes: 0 done; 1 an input failed, or a verdict is bad; 2 a wrong input; 130 interrupted.
Nothing heavy is imported at the top, nor by the modules of `spleen.commands`: `spleen --help` must answer at once.
"""

import logging
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Annotated

import typer

from spleen import __version__
from spleen.cli.compare import compare
from spleen.cli.evaluate import evaluate
from spleen.cli.explore import explore
from spleen.cli.export import export
from spleen.cli.fetch import fetch
from spleen.cli.predict import predict
from spleen.cli.results import results
from spleen.cli.sync import sync
from spleen.cli.train import VERBATIM, train
from spleen.errors import InputError

WRONG_INPUT, FAULT, INTERRUPTED = 2, 1, 130


def main() -> None:
    """Run the command line of this process, and leave with its exit code."""
    app(prog_name="spleen")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every error told in words and turned into an exit code."""

    @wraps(command)
    def told(*arguments: object, **options: object) -> None:
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        try:
            command(*arguments, **options)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            raise _leave("interrupted; the files that were finished stay", INTERRUPTED) from None
        except (InputError, OSError) as error:
            raise _leave(f"error: {error}", WRONG_INPUT) from None
        except Exception as error:
            traceback.print_exc()
            raise _leave(f"error: {type(error).__name__}: {error}\nThis is a fault of the program", FAULT) from None

    return told


def _leave(message: str, exit_code: int) -> typer.Exit:
    print(message, file=sys.stderr)
    return typer.Exit(exit_code)


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"spleen {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train a network, predict with it, score predictions, and look at images before a training."""


# Without a guard: a training tells its own errors.
app.command(context_settings=VERBATIM, add_help_option=False)(train)
for subcommand in (predict, evaluate, compare, explore, export, results, sync, fetch):
    app.command()(guarded(subcommand))
