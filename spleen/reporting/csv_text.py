"""CSV files that are the same after reading, and that a spreadsheet takes for text where they hold text.

A spreadsheet runs a cell that begins with = + - or @ as a formula, also if it is the name of a case, so such a text is
written with an apostrophe before it: https://owasp.org/www-community/attacks/CSV_Injection
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_QUOTED = re.compile(r"'+[=+\-@\t\r\n]")


def to_csv(rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV file; None is nothing, and line breaks within a cell are kept."""
    text = StringIO()
    for row in rows:
        line = StringIO()
        # Only with \r\n as line end does csv quote a cell that holds \r.
        csv.writer(line, lineterminator="\r\n").writerow([as_cell(cell) for cell in row])
        text.write(f"{line.getvalue()[:-2]}\n")
    return text.getvalue()


def as_cell(value: object) -> object:
    """The value as it is written: a text that a spreadsheet would run gets an apostrophe, a number does not."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value) else value


def from_cell(cell: str) -> str:
    """The text of a cell that `as_cell` has written."""
    return cell[1:] if _QUOTED.match(cell) else cell


if TYPE_CHECKING:
    _DictReader = csv.DictReader[str]
else:
    _DictReader = csv.DictReader  # takes no type arguments before Python 3.12


class CsvReader(_DictReader):
    """csv.DictReader for what `to_csv` has written; of another file it leaves every cell as it is."""

    def __next__(self) -> dict[str | Any, str | Any]:
        return {name: from_cell(cell) if isinstance(cell, str) else cell for name, cell in super().__next__().items()}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def to_csv_by_name(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """The text of a CSV file from rows by column; other keys are left out."""
    return to_csv([columns, *([row.get(name) for name in columns] for row in rows)])
