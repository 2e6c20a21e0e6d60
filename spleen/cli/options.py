"""Options shared by several subcommands, parsers of option values, and how failures are listed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spleen.errors import InputError

if TYPE_CHECKING:
    from spleen.inference.choice import Choice

AllowCustomCode = Annotated[
    bool, typer.Option("--allow-custom-code", help="Build a network of any class that RUN names; this runs its code.")
]
FormerTrust = Annotated[bool, typer.Option("--trust", hidden=True)]
"""The name of --allow-custom-code in earlier versions."""

Best = Annotated[bool, typer.Option("--best", help="Of a sweep of settings, take the best arm by validation Dice.")]
Every = Annotated[bool, typer.Option("--all", help="Average all runs of a folder, whatever their settings.")]
Labelled = Annotated[
    Path | None,
    typer.Option(help="CSV file with the column labelled, as of data=table: classes that each reference labels."),
]
Weights = Annotated[str | None, typer.Option(help="Weight of each RUN in the average, such as 2,1,1.")]
BatchSize = Annotated[int, typer.Option(help="Slices per batch.")]
Device = Annotated[Literal["auto", "cpu", "gpu", "mps"], typer.Option(help="Where to run.")]
Precision = Annotated[
    Literal["auto", "32", "bf16", "16"] | None,
    typer.Option(help="Precision of the network; that of the training by default."),
]

RenameClasses = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="OLD=NEW", help="Call class OLD NEW; may be given several times."),
]


def parse_choice(best: bool, every: bool) -> "Choice | None":
    """What --best and --all choose of a folder of runs; InputError for both."""
    if best and every:
        raise InputError("give either --best or --all, not both")
    return "best" if best else "all" if every else None


def parse_renames(options: Sequence[str] | None) -> dict[str, str]:
    """The new name of each old one from "organ=spleen"; InputError for anything else, and for a repeated old name."""
    new_names: dict[str, str] = {}
    for option in options or ():
        old, _, new = (word.strip() for word in option.partition("="))
        if not old or not new or old in new_names:
            raise InputError(
                f"--class must be the old and the new name of a class, each old one once, such as organ=spleen; got "
                f"'{option}'"
            )
        new_names[old] = new
    return new_names


def parse_classes(text: str | None) -> dict[int, str] | dict[str, tuple[int, ...]] | None:
    """Label values and their names from "1=spleen,2=liver"; a value without a name is its own name.

    A value with several names, as in "1=whole,2=whole,2=core", makes classes that overlap, by their names. Raises
    InputError for anything else, and for a repeated pair.
    """
    if text is None:
        return None
    wrong = InputError(
        f"--classes must be unique label values with their names, such as 1=spleen,2=liver; got '{text}'"
    )
    pairs: list[tuple[int, str]] = []
    for part in text.split(","):
        value, _, name = (word.strip() for word in part.partition("="))
        is_valid = value.removeprefix("-").isdecimal() and not ("=" in part and not name)
        if not is_valid or (int(value), name or value) in pairs:
            raise wrong
        pairs.append((int(value), name or value))
    names = dict(pairs)
    if len(names) == len(pairs):
        return names
    classes = {name: tuple(value for value, other in pairs if other == name) for _, name in pairs}
    if len({frozenset(values) for values in classes.values()}) < len(classes):
        raise wrong
    return classes


def parse_tolerance(text: str) -> float | dict[str, float]:
    """One length for all classes from "1.5", or one per class from "spleen=1,liver=2"; InputError for anything else."""
    try:
        if "=" not in text:
            return float(text)
        named = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(length) for name, length in named}
    except ValueError as error:
        raise InputError(
            f"--tolerance-mm must be a length in mm, or one per class, such as spleen=1,liver=2; got '{text}'"
        ) from error


def parse_weights(text: str | None) -> tuple[float, ...] | None:
    """The numbers of "2,1,1"; InputError for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--weights must be numbers separated by commas, such as 2,1,1; got '{text}'") from error


_MOST_FAILURES = 20


def print_failures(failures: Sequence[str]) -> None:
    """List on standard error what failed, shortened."""
    for failure in failures[:_MOST_FAILURES]:
        print(f"failed: {failure}", file=sys.stderr)
    if (more := len(failures) - _MOST_FAILURES) > 0:
        print(f"failed: {more} more", file=sys.stderr)
