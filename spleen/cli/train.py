"""`spleen train` and `spleen auto`: pass their arguments on, which are those of Hydra."""

import typer

# The arguments are Hydra's, and so are --help and all other options.
VERBATIM = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def train(context: typer.Context) -> None:
    """Train a network and score it: spleen train lr=1e-4 img_size=512.

    `spleen train --help` explains every value.
    """
    from spleen.runs.main import main

    raise typer.Exit(main(context.args))


def auto(context: typer.Context) -> None:
    """Find and train the best model in a given time: spleen auto data.root=Task09_Spleen minutes=60.

    `spleen auto --help` explains it; it takes the settings of `spleen train`.
    """
    from spleen.auto.main import main

    raise typer.Exit(main(context.args))
