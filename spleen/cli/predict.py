"""`spleen predict`: options, a progress bar, and the table at the end."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spleen.cli.dicomweb import DicomwebUrl, HeaderFile, Store, StudyUid, parse_remote
from spleen.cli.options import (
    AllowCustomCode,
    BatchSize,
    Best,
    Device,
    Every,
    FormerTrust,
    Precision,
    RenameClasses,
    Weights,
    parse_choice,
    parse_renames,
    parse_weights,
    print_failures,
)
from spleen.errors import InputError

if TYPE_CHECKING:
    from spleen.inference.choice import Choice
    from spleen.inference.outputs import ResultWriter
    from spleen.inference.predict import Advance, PredictionReport
    from spleen.inference.settings import PredictSettings


def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN... INPUT...",
            help="RUN: run folders, checkpoints or folders of runs of one arm; several are averaged. "
            "INPUT: NIfTI files, DICOM folders, folders of either or quoted patterns; channels are CASE_0000, "
            "CASE_0001, …, or in one file.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file for one input [out.nii.gz], a folder for several [predictions]."),
    ] = None,
    format_: Annotated[
        Literal["nifti", "dicom-seg"] | None,
        typer.Option("--format", help="dicom-seg: DICOM segmentation and report. By default as --output ends."),
    ] = None,
    codes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With dicom-seg, SNOMED CT codes of further classes (YAML).")
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="Of DICOM folders with several series, the one with this number or UID.")
    ] = None,
    dicomweb: DicomwebUrl = None,
    study: StudyUid = None,
    store: Store = False,
    header_file: HeaderFile = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write float32 probabilities too.")] = False,
    best: Best = False,
    every: Every = False,
    rename: RenameClasses = None,
    weights: Weights = None,
    fit_weights: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="IMAGES LABELS", help="Fit the weights on labelled cases that no RUN was trained on."),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(help="With --fit-weights, a CSV file with the column labelled: classes that each label labels."),
    ] = None,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Predict only held-out cases, each with the RUNs that held it out."),
    ] = False,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over small shifts and the flips of the training.")
    ] = False,
    flip: Annotated[
        list[str] | None,
        typer.Option(help="With --tta, also mirror along left_right, anterior_posterior or superior_inferior."),
    ] = None,
    keep_largest: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="Keep only the largest component of CLASS, or of all.")
    ] = None,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill holes inside a class.")] = False,
    min_volume_mm3: Annotated[float, typer.Option(help="Drop components smaller than this, mm³.")] = 0.0,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    precision: Precision = None,
    allow_custom_code: AllowCustomCode = False,
    trust: FormerTrust = False,
    page: Annotated[
        bool, typer.Option("--page", help="Also write a page to look at each case, CASE_page.html beside its mask.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Compute only outputs that are missing.")
    ] = False,
) -> None:
    """Segment images with one or several trained runs, each mask on its image's own grid.

    Volumes and confidence scores are in predictions.csv beside the masks. Exit code 1 if an image or a page failed, 2
    for invalid input.
    """
    from spleen.imaging.files import with_series
    from spleen.inference.outputs import NiftiResults
    from spleen.inference.predict import predict as predict_files
    from spleen.inference.settings import PredictSettings
    from spleen.system.hardware import limit_threads
    from spleen.system.process import usable_cores
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    limit_threads(usable_cores())
    choose = parse_choice(best, every)
    runs, inputs = _split(paths, needs_input=dicomweb is None)
    remote = parse_remote(dicomweb, study, series, store, header_file, inputs)
    runs = _chosen(runs, choose, held_out)
    settings = PredictSettings(
        weights=parse_weights(weights),
        tta=tta,
        flips=tuple(flip or ()),
        probabilities=probabilities,
        keep_largest=tuple(keep_largest or ()),
        fill_holes=fill_holes,
        min_volume_mm3=min_volume_mm3,
        batch_size=batch_size,
        device=device,
        precision=precision,
        rename_classes=parse_renames(rename),
        allow_custom_code=allow_custom_code or trust,
        held_out=held_out,
        overwrite=overwrite,
        skip_existing=skip_existing,
    )
    if flip and not tta:
        raise InputError("--flip mirrors as part of the test-time augmentation; add --tta")
    writer = _writer(output, format_, codes, page, of_archive=remote is not None)
    if remote is None:
        inputs = with_series(inputs, series)
    else:
        output = output or Path("predictions")  # named by the series: the next one would have the same default name
    if remote is not None and store and isinstance(writer, NiftiResults):
        raise InputError("--store sends DICOM segmentations; leave --format and the suffix of --output to dicom-seg")
    if held_out and fit_weights:
        raise InputError("--fit-weights needs cases that no RUN was trained on, --held-out those that RUNs held out")
    if labelled and not fit_weights:
        raise InputError("--labelled says what the labels of --fit-weights hold; add --fit-weights IMAGES LABELS")
    with ExitStack() as fetched:
        with ExitStack() as stack:
            stop = fetched.enter_context(stop_on_signals())  # also while results are stored: what was fetched must go
            if remote is not None:
                inputs = [fetched.enter_context(remote.fetched())]
            bar = stack.enter_context(ProgressBar("slice", check=stop.check))
            if fit_weights is not None:
                settings = _fit((runs, inputs, output), (*fit_weights, labelled), settings, bar.advance, writer)
            report = predict_files(runs, inputs, output, settings, bar.advance, writer)
        _tell(report)
        if remote is not None:
            remote.send(report)
        has_pages = _write_pages(report) if page else True  # they show the images, so before these have gone
    if report.failures or not has_pages:
        raise typer.Exit(code=1)


def _split(paths: Sequence[Path], needs_input: bool = True) -> tuple[list[Path], list[Path]]:
    """Separate the runs, which come first, from the inputs."""
    from spleen.inference.choice import find_checkpoints
    from spleen.inference.loading import load_trained

    runs = [path for path in paths if find_checkpoints(path)]
    inputs = [path for path in paths if path not in runs]
    if not runs:
        load_trained(paths[0])  # raises InputError with the reason
    if needs_input and not inputs:
        raise InputError("nothing to predict: after the run, give NIfTI files, a folder or a pattern")
    if paths[0] not in runs:
        raise InputError(f"{paths[0]} is neither a run folder nor a checkpoint; give the runs first, then the inputs")
    return runs, inputs


def _writer(
    output: Path | None, format_: str | None, codes: Path | None, page: bool, of_archive: bool
) -> "ResultWriter":
    """What writes the results: as `format_` says, or else as the output's name ends; DICOM for those of an archive."""
    from spleen.dicom.codes import read_codes
    from spleen.dicom.results import DicomResults
    from spleen.inference.outputs import NiftiResults

    unusual = NiftiResults.suffixes if of_archive else DicomResults.suffixes
    is_unusual = output is not None and output.name.lower().endswith(unusual) and not output.is_dir()
    if format_ == "nifti" or (format_ is None and is_unusual == of_archive):
        if codes is not None:
            raise InputError("--codes belongs to DICOM segmentations; add --format dicom-seg")
        return NiftiResults()
    if page:
        raise InputError("--page shows a NIfTI mask; leave it out, or predict with --format nifti")
    return DicomResults(read_codes(codes))


def _chosen(runs: Sequence[Path], choose: "Choice | None", held_out: bool) -> list[Path]:
    """The checkpoints to average; says which, and why."""
    from spleen.inference.choice import choose_runs

    chosen = choose_runs(runs, choose)
    for reason in chosen.reasons:
        print(f"{reason}; for each case those that held it out" if held_out else reason, flush=True)
    return list(chosen.checkpoints)


def _fit(
    files: tuple[Sequence[Path], Sequence[Path], Path | None],
    cases: tuple[Path, Path, Path | None],
    settings: "PredictSettings",
    advance: "Advance",
    writer: "ResultWriter",
) -> "PredictSettings":
    """The settings with weights fitted on the cases: images, labels, and the file that tells what each label labels.

    `files` are the runs, the inputs and the output.
    """
    from dataclasses import replace

    from spleen.data.pairing import pair_images
    from spleen.evaluation.labelled import check_told, labelled_by_case
    from spleen.inference.calibration.ensemble_weights import fit_weights
    from spleen.inference.loading import load_ensemble
    from spleen.inference.predict import find_targets, to_compute
    from spleen.inference.settings import postprocess_settings
    from spleen.inference.views.build import make_views

    if settings.weights is not None:
        raise InputError("give either --weights or --fit-weights, not both")
    runs, inputs, output = files
    models = load_ensemble(runs, settings.allow_custom_code, new_names=settings.rename_classes)
    n_channels = models[0].preprocessing.n_channels
    targets = find_targets(inputs, output, n_channels, writer)
    postprocess_settings(models[0].classes, settings)  # fails before anything is computed, as does
    to_compute(targets, models[0].classes, settings, writer)
    views = make_views(models, settings)
    images, labels, labelled = cases
    by_case = None if labelled is None else labelled_by_case(labelled, models[0].classes.names)
    pairs = pair_images(images, labels, n_channels)
    check_told(pairs, by_case)
    fitted = fit_weights(views, pairs, settings.batch_size, advance, labelled=by_case)
    names = ", ".join(f"{view.model.name} {weight:.2f}" for view, weight in zip(views, fitted.weights, strict=True))
    print(
        f"weights fitted on {len(pairs)} case(s): {names}; mean Dice {fitted.dice:.4f} there, "
        f"{fitted.dice_equal:.4f} with equal weights\n"
        f"to reuse them: --weights {','.join(f'{weight:g}' for weight in fitted.weights)}"
    )
    return replace(settings, weights=fitted.weights)


def _tell(report: "PredictionReport") -> None:
    """The table of all predictions, what it cost, and what failed."""
    from spleen.inference.report.table import print_predictions

    print_predictions(report)
    print_failures(
        [
            failure.reason if str(failure.image) in failure.reason else f"{failure.image}: {failure.reason}"
            for failure in report.failures
        ]
    )


def _write_pages(report: "PredictionReport") -> bool:
    """A page beside each new mask, and beside each kept one without a page; False if one failed."""
    from spleen.inference.report.masks import page_of, write_case_pages
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    with stop_on_signals() as stop, ProgressBar("page", check=stop.check) as bar:
        masks = [*(case.mask for case in report.cases), *(m for m in report.kept_masks if not page_of(m).exists())]
        pages, failures = write_case_pages(masks, progress=bar.name_case)
    if pages:
        print(f"  {len(pages)} page(s), such as {pages[0]}")
    print_failures([f"page {failure}" for failure in failures])
    return not failures
