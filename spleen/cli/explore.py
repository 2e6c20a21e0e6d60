"""`spleen explore`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from spleen.errors import InputError


def explore(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="NIfTI files, DICOM folders, folders of them, or quoted patterns."),
    ],
    label: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="LABEL", help="Their labels: a file, a folder, or a quoted pattern, paired by name; repeatable."
        ),
    ] = None,
    organ: Annotated[
        str | None,
        typer.Option(metavar="VALUES", help="Label values of the organ, such as 1 or 3,4.", show_default="all but 0"),
    ] = None,
    above: Annotated[
        str | None, typer.Option(metavar="VALUE", help="Count voxels above a value, such as 500000, and say where.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="WINDOW",
            help="How slices are shown: abdomen, lung, bone, brain (for CT), or LEVEL,WIDTH such as 40,400.",
            show_default="one that suits the image",
        ),
    ] = None,
    series: Annotated[
        str | None, typer.Option(metavar="SERIES", help="Number or UID of the series to take of each DICOM folder.")
    ] = None,
    identifying: Annotated[
        bool, typer.Option("--identifying", help="Of DICOM, also show what identifies the patient.")
    ] = False,
    ignore_value: Annotated[
        int | None,
        typer.Option(
            metavar="VALUE",
            help="Label value of voxels of unknown class, such as 255 or -1.",
            show_default="ignore in nnU-Net's dataset.json, if any",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one row per case.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything, nested.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained HTML page with pictures.")
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one picture (.png, .pdf, .svg).")] = None,
) -> None:
    """Explore data before training: grids, intensities, labels, outliers, suggested settings and a verdict.

    Exit code 0 without errors, 1 with errors, 2 for invalid input.
    """
    outputs = {"--csv": csv, "--json": json, "--output": output, "--png": png}
    if run_explore(images, label or [], organ, outputs, above, window, series, identifying, ignore_value):
        raise typer.Exit(code=1)


def run_explore(
    images: Sequence[Path],
    labels: Sequence[Path],
    organ: str | None,
    outputs: Mapping[str, Path | None],
    above: str | None = None,
    window: str | None = None,
    series: str | None = None,
    identifying: bool = False,
    ignore_value: int | None = None,
) -> bool:
    """Explore, print the text, write the files of --csv, --json, --output and --png; True if there are errors.

    `above`, `window` and `series` are what the options were given. Raises InputError for a wrong input, and before
    anything is read for an output that cannot be written.
    """
    from spleen.exploration.explore import explore as explore_files
    from spleen.exploration.report.figure import draw_exploration
    from spleen.exploration.report.files import to_csv, to_json
    from spleen.exploration.report.page import to_page
    from spleen.exploration.window import parse_window
    from spleen.imaging.files import with_series
    from spleen.reporting.outputs import check_outputs, text_writer, write_outputs
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    check_outputs(outputs, picture="--png")
    shown = parse_window(window) if window is not None else None
    if window is not None and outputs["--output"] is None and outputs["--png"] is None:
        raise InputError("--window is for the slices of --output and --png; give one of them, too")
    values, least = parse_organ(organ), parse_above(above)
    with stop_on_signals() as stop, ProgressBar("case", check=stop.check) as bar:
        exploration = explore_files(
            with_series(images, series), list(labels), values, bar.name_case, least, identifying, ignore_value
        )
    print(exploration)
    write_outputs(
        outputs,
        {
            "--csv": text_writer(lambda: to_csv(exploration)),
            "--json": text_writer(lambda: to_json(exploration)),
            "--output": text_writer(lambda: to_page(exploration, shown)),
            "--png": lambda path: draw_exploration(exploration, path, shown),
        },
    )
    return exploration.verdict.n_errors > 0


def parse_above(text: str | None) -> float | None:
    """A number such as 500000 or -1.5e3; None given, None wanted. Raises InputError for anything else."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"--above must be a number in the units of the image, such as 500000; got {text!r}")
    return value


def parse_organ(text: str | None) -> tuple[int, ...]:
    """Label values such as "1" or "3,4"; none given is none wanted. Raises InputError for anything else."""
    if text is None:
        return ()
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or 0 in values:
        raise InputError(f"--organ must be whole numbers other than 0, such as 1 or 3,4; got {text!r}")
    return values
