"""`spleen train`: passes its arguments on to Hydra."""

import typer

# The arguments are Hydra's, and so are --help and all other options.
VERBATIM = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def train(context: typer.Context) -> None:
    """Train a network and score it: spleen train lr=1e-4 img_size=512.

    `spleen train --help` explains every value.
    """
    from spleen.runs.main import main

    raise typer.Exit(main(context.args))
