"""`spleen followup`: options and a progress bar."""

from pathlib import Path
from typing import Annotated

import typer

from spleen.cli.options import AllowCustomCode, BatchSize, Best, Device, Every, Weights, parse_choice, parse_weights


def followup(
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCANS.csv|FOLDER...",
            help="A CSV file with the columns subject, date, image and optionally label; or DICOM folders; or NIfTI "
            "files called SUBJECT_2024-01-31.nii.gz.",
        ),
    ],
    run: Annotated[list[Path], typer.Option(metavar="RUN", help="As for spleen predict; may be given several times.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the report.")] = Path("followup"),
    test_retest: Annotated[
        Path | None,
        typer.Option(metavar="PAIRS.csv", help="Pairs of scans between which nothing changed, as SCANS.csv."),
    ] = None,
    ignore_value: Annotated[
        int | None,
        typer.Option(
            metavar="V",
            help="Value where nobody has labelled, in labels of the table; their Dice is that of the rest.",
            show_default="ignore in a dataset.json beside them, or as the run was trained",
        ),
    ] = None,
    best: Best = False,
    every: Every = False,
    weights: Weights = None,
    tta: Annotated[bool, typer.Option("--tta", help="Predict with --tta.")] = False,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    identifying: Annotated[
        bool, typer.Option("--identifying", help="Name patients of DICOM files by their ID instead of a number.")
    ] = False,
    allow_custom_code: AllowCustomCode = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what was predicted before.")] = False,
) -> None:
    """Follow an organ over time: volumes with intervals, changes, and whether a change means anything.

    Every scan is predicted and aligned with the subject's first one that counts. followup.html and followup.csv are
    the report; masks, maps of gain and loss, and transforms lie beside them. Calibrate the RUNs first (spleen
    calibrate), or give --test-retest, for intervals. Exit code 1 if a scan failed, 2 for invalid input.
    """
    from spleen.followup.followup import follow_up
    from spleen.inference.settings import PredictSettings
    from spleen.system.hardware import limit_threads
    from spleen.system.process import usable_cores
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    limit_threads(usable_cores())
    settings = PredictSettings(
        weights=parse_weights(weights),
        tta=tta,
        batch_size=batch_size,
        device=device,
        choose=parse_choice(best, every),
        allow_custom_code=allow_custom_code,
        overwrite=overwrite,
    )
    with stop_on_signals() as stop, ProgressBar("slice", check=stop.check) as bar:
        result = follow_up(
            scans,
            run,
            output,
            settings,
            test_retest=test_retest,
            identifying=identifying,
            ignore_value=ignore_value,
            advance=bar.advance,
        )
    print(result)
    print(f"wrote {output / 'followup.html'} and {output / 'followup.csv'}")
    if result.n_failed:
        raise typer.Exit(code=1)
