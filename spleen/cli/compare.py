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
    split: Annotated[
        str | None,
        typer.Option(help="For run folders: split of cases.csv, val or test.", show_default="test"),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="For predictions: label values to score, such as 1=spleen.",
            show_default="from predictions.csv or dataset.json, else every value but 0",
        ),
    ] = None,
    rename: RenameClasses = None,
    tolerance_mm: Annotated[
        str | None, typer.Option(help="For predictions: tolerance of the surface Dice.", show_default="1.0")
    ] = None,
    grid_tolerance_mm: Annotated[
        float | None,
        typer.Option(
            help="For predictions: largest distance allowed between the voxels of two files.", show_default="0.1"
        ),
    ] = None,
    only_predicted: Annotated[
        bool, typer.Option("--only-predicted", help="For predictions: skip references without one.")
    ] = False,
    ignore_value: Annotated[
        int | None,
        typer.Option(
            help="For predictions: label value of reference voxels that are not scored.",
            show_default="ignore in nnU-Net's dataset.json, if any",
        ),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help="For predictions: CSV file with the column labelled, the classes that each reference labels."
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one row per metric, case and class.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the summaries and every case.")] = None,
) -> None:
    """Compare B with A case by case: paired differences with interval, Wilcoxon's test, wins and losses.

    Exit code 1 where a pair of files could not be scored, 2 for a wrong input.
    """
    from spleen.cli.evaluate import print_unscored
    from spleen.cli.options import parse_classes, parse_renames, parse_tolerance
    from spleen.evaluation.compare import compare as compare_files
    from spleen.evaluation.report.files import comparison_to_csv, comparison_to_json
    from spleen.reporting.outputs import check_outputs, text_writer, write_outputs
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    outputs = {"--csv": csv, "--json": json}
    check_outputs(outputs)
    with stop_on_signals() as stop, ProgressBar("case", check=stop.check) as bar:
        comparison = compare_files(
            a,
            b,
            reference,
            metric or ["dice"],
            split=split,
            classes=parse_classes(classes),
            tolerance_mm=None if tolerance_mm is None else parse_tolerance(tolerance_mm),
            grid_tolerance_mm=grid_tolerance_mm,
            only_predicted=only_predicted,
            ignore_value=ignore_value,
            labelled=labelled,
            rename_classes=parse_renames(rename),
            progress=bar.name_case,
        )
    print(comparison, flush=True)
    print_unscored(comparison.failures)
    write_outputs(
        outputs,
        {
            "--csv": text_writer(lambda: comparison_to_csv(comparison)),
            "--json": text_writer(lambda: comparison_to_json(comparison)),
        },
    )
    if comparison.failures:
        raise typer.Exit(code=1)
