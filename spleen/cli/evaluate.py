"""`spleen evaluate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spleen.cli.options import Labelled, RenameClasses

if TYPE_CHECKING:
    from spleen.evaluation.scoring import FailedPair


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
    ignore_value: Annotated[
        int | None,
        typer.Option(
            help="Label value of reference voxels that are not scored, such as 255 or -1.",
            show_default="ignore in nnU-Net's dataset.json, if any",
        ),
    ] = None,
    labelled: Labelled = None,
    csv: Annotated[Path | None, typer.Option(help="Write one row per case and class.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write cases, means, intervals, medians, worst cases.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw Bland–Altman plots and every case's Dice: .png, .pdf or .svg.")
    ] = None,
) -> None:
    """Score predictions against references: overlap, surface distances, volumes.

    docs/reference/metrics.md explains each metric.
    Give two files, or two folders paired by name. Exit code 1 where a pair of a folder could not be scored, 2 for a
    wrong input.
    """
    from spleen.cli.options import parse_classes, parse_renames, parse_tolerance
    from spleen.evaluation.evaluate import evaluate as evaluate_files
    from spleen.evaluation.report.files import to_csv, to_json
    from spleen.reporting.outputs import check_outputs, text_writer, write_outputs
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    outputs = {"--csv": csv, "--json": json, "--plot": plot}
    check_outputs(outputs, picture="--plot")
    with stop_on_signals() as stop, ProgressBar("case", check=stop.check) as bar:
        evaluation = evaluate_files(
            prediction,
            reference,
            parse_classes(classes),
            tolerance_mm=parse_tolerance(tolerance_mm),
            prevalence=prevalence,
            surface=not no_surface,
            grid_tolerance_mm=grid_tolerance_mm,
            only_predicted=only_predicted,
            ignore_value=ignore_value,
            labelled=labelled,
            rename_classes=parse_renames(rename),
            progress=bar.name_case,
        )
    print(evaluation, flush=True)  # before the files, so that nothing is lost where one cannot be written
    print_unscored(evaluation.failures)
    if evaluation.scores:
        from spleen.evaluation.report.agreement import draw_agreement

        write_outputs(
            outputs,
            {
                "--csv": text_writer(lambda: to_csv(evaluation)),
                "--json": text_writer(lambda: to_json(evaluation)),
                "--plot": lambda path: draw_agreement(evaluation, path),
            },
        )
    if evaluation.failures:
        raise typer.Exit(code=1)


def print_unscored(failures: "Sequence[FailedPair]") -> None:
    """The cases that could not be scored, last and on the error stream."""
    if failures:
        print(f"\n{len(failures)} case(s) could not be scored:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure.case_id}: {failure.reason}", file=sys.stderr)
