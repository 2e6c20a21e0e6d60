"""Numbers in the files that `spleen evaluate` and `spleen compare` write, and how such a file is written."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

from spleen.atomic import temporary_sibling, write_text
from spleen.errors import InputError
from spleen.metrics.statistics import Interval

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
PICTURES = (".png", ".pdf", ".svg")


def json_number(value: float) -> float | str | None:
    """A number for strict JSON: NaN is null, inf the string "Infinity" (read by float() and Number())."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return _rounded(value)


def json_interval(interval: Interval | None) -> Json:
    """Both bounds as a list, or null."""
    return None if interval is None else [json_number(interval.low), json_number(interval.high)]


def csv_text(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """The content of a CSV file; NaN is written nan and infinity inf, as pandas reads them."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_rounded(cell) if isinstance(cell, float) else cell for cell in row] for row in rows)
    return text.getvalue()


def _rounded(value: float) -> float:
    """Without the noise of the last bits: 24 voxels of 3.2 mm³ are 76.8 and not 76.80000000000001."""
    return float(f"{value:.12g}")


def check_outputs(outputs: Mapping[str, Path | None]) -> None:
    """Find out before the long work whether files can be written; the keys are the names of the options.

    Raises InputError for a folder, a place that cannot be written, one name given twice, and a --plot that is no
    picture.
    """
    given = {option: path for option, path in outputs.items() if path is not None}
    for option, path in given.items():
        twice = [other for other, same in given.items() if other != option and same.absolute() == path.absolute()]
        if twice:
            raise InputError(f"{option} and {twice[0]} would both write {path}; give them different names")
        if path.is_dir():
            raise InputError(f"{option}: {path} is a folder; give the name of a file to write")
        if option == "--plot" and path.suffix.lower() not in PICTURES:
            raise InputError(f"{option}: {path} must end in one of {', '.join(PICTURES)}")
        trial = temporary_sibling(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            trial.touch()
        except OSError as error:
            raise InputError(f"{option}: {path} cannot be written: {error.strerror or error}") from error
        finally:
            with suppress(OSError):  # a parent that is a file
                trial.unlink(missing_ok=True)


def write_outputs(outputs: Mapping[str, tuple[Path | None, Callable[[Path], None]]]) -> None:
    """Write every file that was asked for, whole or not at all; one that fails does not keep the others from it.

    Raises InputError at the end, naming those that could not be written.
    """
    failed = []
    for option, (path, write) in outputs.items():
        if path is None:
            continue
        try:
            write(path)
            print(f"wrote {path}")
        except OSError as error:
            failed.append(f"{option}: {path} could not be written: {error.strerror or error}")
    if failed:
        raise InputError("\n".join([*failed, "the tables above are complete; free some space or give another place"]))


def text_writer(make_text: Callable[[], str]) -> Callable[[Path], None]:
    """A function for `write_outputs` that writes a text, made only when it is its turn."""
    return lambda path: write_text(path, make_text())
