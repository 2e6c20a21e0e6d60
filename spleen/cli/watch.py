"""`spleen watch`."""

from pathlib import Path
from typing import Annotated

import typer


def watch(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|STUDY",
            help="A run folder, such as outputs/latest, or a folder of runs, such as outputs/size_and_rate.",
            show_default=False,
        ),
    ],
    every: Annotated[float, typer.Option(metavar="SECONDS", help="Time between two looks at the folder.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the present state as a table and exit.")] = False,
) -> None:
    """Watch runs while they are at work, from their folders alone: from another terminal, or another machine.

    It ends by itself once nothing can change any more; Ctrl-C leaves the runs alone. Without a terminal it prints the
    present state. Exit code 0, 2 for invalid input, 130 after Ctrl-C.
    """
    from spleen.errors import Interrupted
    from spleen.runs.watching.live import watch as watch_folder
    from spleen.system.signals import stop_on_signals

    try:
        with stop_on_signals():
            watch_folder(folder, every, once)
    except Interrupted as interrupt:  # nothing is lost, so nothing is said
        raise typer.Exit(interrupt.exit_code) from None
