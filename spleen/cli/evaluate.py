"""`spleen evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from spleen.cli.options import RenameClasses


def evaluate(
    prediction: Annotated[Path, typer.Argument(metavar="PREDICTION", help="A label file, or a folder of them.")],
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="The expert's file, or a folder with files of the same names.")
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            help="Label values to score, such as 1=spleen,2=liver.",
            show_default="from predictions.csv or dataset.json, else every value but 0",
        ),
    ] = None,
    rename: RenameClasses = None,
    tolerance_mm: Annotated[
        str, typer.Option(help="Tolerance of the surface Dice: one for all, or one per class, as in spleen=1,liver=2.")
    ] = "1.0",
    prevalence: Annotated[
        float | None,
        typer.Option(
            help="Prior fraction of organ voxels, for the post-test probabilities.",
            show_default="that of each case",
        ),
    ] = None,
    no_surface: Annotated[bool, typer.Option("--no-surface", help="Skip surface distances, to save time.")] = False,
    grid_tolerance_mm: Annotated[
        float, typer.Option(help="Largest distance allowed between the voxels of both files.")
    ] = 0.1,
    only_predicted: Annotated[
        bool,
        typer.Option("--only-predicted", help="Skip references without a prediction, such as those of other folds."),
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write one row per case and class.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write cases, means, intervals, medians, worst cases.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw Bland–Altman plots and a bar per case: .png, .pdf or .svg.")
    ] = None,
) -> None:
    """Score predictions against references: overlap, surface distances, volumes.

    docs/reference/metrics.md explains each metric.
    Give two files, or two folders paired by name. Exit code 1 where a pair of a folder could not be scored, 2 for a
    wrong input.
    """
    from spleen.cli.actions.scoring import run_evaluate
    from spleen.cli.options import parse_classes, parse_renames, parse_tolerance

    all_scored = run_evaluate(
        prediction,
        reference,
        parse_classes(classes),
        parse_renames(rename),
        parse_tolerance(tolerance_mm),
        prevalence,
        not no_surface,
        grid_tolerance_mm,
        only_predicted,
        {"--csv": csv, "--json": json, "--plot": plot},
    )
    if not all_scored:
        raise typer.Exit(code=1)
