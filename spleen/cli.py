"""The `spleen` command: what comes before and after a training run.

Exit codes: 0 done; 1 an input failed, or a verdict is bad; 2 a wrong input; 130 interrupted.
Nothing heavy is imported at the top, nor by the modules of `spleen.commands`: `spleen --help` must answer at once.
"""

import logging
import sys
import traceback
from collections.abc import Callable
from functools import wraps

import typer

from spleen.commands.compare import compare
from spleen.commands.evaluate import evaluate
from spleen.commands.explore import explore
from spleen.commands.export import export
from spleen.commands.fetch import fetch
from spleen.commands.predict import predict
from spleen.commands.results import results
from spleen.commands.sync import sync
from spleen.errors import InputError

WRONG_INPUT, FAULT, INTERRUPTED = 2, 1, 130


def main() -> None:
    """Run the command line of this process, and leave with its exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    app(prog_name="spleen")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every error told in words and turned into an exit code."""

    @wraps(command)
    def told(*arguments: object, **options: object) -> None:
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
    help="Predict with a trained run, score predictions, and look at images before a training.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for subcommand in (predict, evaluate, compare, explore, export, results, sync, fetch):
    app.command()(guarded(subcommand))
