"""`spleen auto`: passes its arguments on."""

import typer


def auto(context: typer.Context) -> None:
    """Find and train the best model in a given time: spleen auto data.root=Task09_Spleen minutes=60.

    `spleen auto --help` explains it; it takes the settings of `spleen train`.
    """
    from spleen.auto.main import main

    raise typer.Exit(main(context.args))
