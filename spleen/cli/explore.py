"""`spleen explore`."""

from pathlib import Path
from typing import Annotated

import typer


def explore(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="NIfTI files, folders, or quoted patterns.")],
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
    from spleen.cli.actions.exploring import run_explore

    has_errors = run_explore(
        images, label or [], organ, {"--csv": csv, "--json": json, "--output": output, "--png": png}, above, window
    )
    if has_errors:
        raise typer.Exit(code=1)
