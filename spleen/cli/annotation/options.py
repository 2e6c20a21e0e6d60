"""Options that the commands of this folder share."""

from typing import Annotated

import typer

from spleen.errors import InputError

IgnoreValue = Annotated[int, typer.Option(metavar="V", help="Label value of voxels that nobody has labelled.")]
DrawnSlices = Annotated[
    str | None,
    typer.Option(
        "--drawn",
        metavar="LIST",
        help="The slices of LABEL that are drawn completely, such as 12,30,48, from 0 in its own array; all others are "
        "unknown, whatever LABEL holds there. Needs --axis.",
    ),
]


def parse_slices(text: str | None) -> tuple[int, ...] | None:
    """The numbers of "12,30,48"; InputError for anything else."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InputError(f"--drawn must be numbers separated by commas, such as 12,30,48; got '{text}'") from error
