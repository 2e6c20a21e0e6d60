"""`spleen calibrate`: options, a progress bar, and the table at the end."""

from pathlib import Path
from typing import Annotated

import typer

from spleen.cli.options import (
    AllowCustomCode,
    BatchSize,
    Best,
    Device,
    Every,
    Labelled,
    Precision,
    RenameClasses,
    Weights,
    parse_choice,
    parse_renames,
    parse_weights,
    print_failures,
)
from spleen.errors import InputError


def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, checkpoints or folders of runs, as for spleen predict."),
    ],
    images: Annotated[Path, typer.Option(metavar="FOLDER", help="Images that no RUN was trained on.")],
    labels: Annotated[Path, typer.Option(metavar="FOLDER", help="Their references, of the same names.")],
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Of a cross-validation: each case by the RUNs that held it out."),
    ] = False,
    best: Best = False,
    every: Every = False,
    weights: Weights = None,
    tta: Annotated[bool, typer.Option("--tta", help="Predict with --tta, and calibrate that.")] = False,
    flip: Annotated[
        list[str] | None,
        typer.Option(help="With --tta, also mirror along left_right, anterior_posterior or superior_inferior."),
    ] = None,
    min_dice: Annotated[float, typer.Option(help="A mask with a lower Dice is bad.")] = 0.8,
    error_rate: Annotated[
        float, typer.Option(help="Probability that a mask is bad and passes without a review, at most.")
    ] = 0.05,
    ignore_value: Annotated[
        int | None,
        typer.Option(
            metavar="V",
            help="Voxels with this value in the references do not count; nobody has labelled them.",
            show_default="ignore in a dataset.json beside them, or as the RUNs were trained",
        ),
    ] = None,
    labelled: Labelled = None,
    rename: RenameClasses = None,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    precision: Precision = None,
    allow_custom_code: AllowCustomCode = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a calibration that exists.")] = False,
) -> None:
    """Calibrate volumes and confidence scores on labelled cases that no RUN was trained on.

    Predict with the same RUNs and options then gives 95 % intervals of volume and Dice, and knows what needs a review.
    Interrupted, it continues where it was. Exit code 1 if a case failed, 2 for invalid input.
    """
    from spleen.inference.calibrate import calibrate as calibrate_runs
    from spleen.inference.settings import PredictSettings
    from spleen.system.hardware import limit_threads
    from spleen.system.process import usable_cores
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    limit_threads(usable_cores())
    if flip and not tta:
        raise InputError("--flip mirrors as part of the test-time augmentation; add --tta")
    settings = PredictSettings(
        weights=parse_weights(weights),
        tta=tta,
        flips=tuple(flip or ()),
        batch_size=batch_size,
        device=device,
        precision=precision,
        rename_classes=parse_renames(rename),
        choose=parse_choice(best, every),
        allow_custom_code=allow_custom_code,
        overwrite=overwrite,
        held_out=held_out,
    )
    with stop_on_signals() as stop, ProgressBar("slice", check=stop.check) as bar:
        report = calibrate_runs(
            runs,
            images,
            labels,
            settings,
            min_dice=min_dice,
            error_rate=error_rate,
            ignore_value=ignore_value,
            labelled=labelled,
            advance=bar.advance,
        )
    print(report)
    print_failures(report.failures)
    if report.failures:
        raise typer.Exit(code=1)
