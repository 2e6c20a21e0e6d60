"""`spleen compare`."""

from pathlib import Path
from typing import Annotated

import typer

from spleen.cli.options import RenameClasses


def compare(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="Predictions (file or folder), a CSV file of `spleen evaluate`, or a run folder."
        ),
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="What to compare with A: the same kind, the same cases.")],
    reference: Annotated[
        Path | None, typer.Argument(metavar="[REFERENCE]", help="The expert's files; needed for predictions.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Such as hausdorff95_mm; may be given several times.", show_default="dice")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a run's cases.csv to compare: train, val or test.")] = "test",
    classes: Annotated[
        str | None,
        typer.Option(
            help="For predictions: label values to score, such as 1=spleen.",
            show_default="from predictions.csv or dataset.json, else every value but 0",
        ),
    ] = None,
    rename: RenameClasses = None,
    tolerance_mm: Annotated[str, typer.Option(help="For predictions: tolerance of the surface Dice.")] = "1.0",
    grid_tolerance_mm: Annotated[
        float, typer.Option(help="For predictions: largest distance allowed between the voxels of two files.")
    ] = 0.1,
    only_predicted: Annotated[
        bool, typer.Option("--only-predicted", help="For predictions: skip references without one.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write one row per metric, case and class.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the summaries and every case.")] = None,
) -> None:
    """Compare B with A case by case: paired differences with interval, Wilcoxon's test, wins and losses.

    Exit code 1 where a pair of files could not be scored, 2 for a wrong input.
    """
    from spleen.cli.actions.scoring import run_compare
    from spleen.cli.options import parse_classes, parse_renames, parse_tolerance

    all_scored = run_compare(
        a,
        b,
        reference,
        metric or ["dice"],
        split,
        parse_classes(classes),
        parse_renames(rename),
        parse_tolerance(tolerance_mm),
        grid_tolerance_mm,
        only_predicted,
        {"--csv": csv, "--json": json},
    )
    if not all_scored:
        raise typer.Exit(code=1)
