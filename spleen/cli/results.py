"""`spleen results`."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def results(
    folder: Annotated[
        Path, typer.Argument(help="A folder of runs, such as outputs/size_and_rate, or one run.", show_default=False)
    ],
    sort: Annotated[Literal["val", "test"], typer.Option(help="Order the table by validation or test Dice.")] = "val",
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Settings that define an arm, such as axis or lr,augment; averages over all others. "
            "By default, only seeds and folds are averaged.",
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table and its summary as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one row per arm, in full precision.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write a LaTeX table (booktabs).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write all of it as one page, to look at and to share.")] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw validation curves, and size × rate if both vary.")
    ] = None,
) -> None:
    """Summarise the runs of a study: a table, the best arm, how certain that is, and which runs are missing.

    Reads run folders only. Exit code 0 with at least one finished run, 1 with none, 2 for invalid input.
    """
    from spleen.reporting.outputs import check_outputs
    from spleen.runs.results.files import output_files, write_results
    from spleen.runs.results.results import results as read_results
    from spleen.runs.results.text import print_results

    names = [name.strip() for part in group_by or () for name in part.split(",") if name.strip()]
    outputs = output_files(markdown, csv, latex, plots, html)
    check_outputs(outputs)
    study = read_results(folder, sort, names)
    print_results(study)
    if not study.arms:
        raise typer.Exit(code=1)
    write_results(study, outputs)
