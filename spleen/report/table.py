"""Tables of scores, for the terminal and for Markdown."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Cell = str | int | float | None

_MISSING = "-"
_NOT_A_NUMBER = "n/a"
_TEXT_MIN_WIDTH = 10  # A text column may be folded down to this many characters, a number never.
_UNLIMITED_WIDTH = 100_000


@dataclass(frozen=True)
class Column:
    """A column's heading and how its numbers are written: a Python format spec or a function.

    Without a format, integers are written as they are and other numbers with four decimals.
    """

    name: str
    format: str | Callable[[float], str] = ""


def scientific(value: float) -> str:
    """Write a number as 1e-04 or 1.5e-04, with the digits it needs and at most four: learning rates."""
    return np.format_float_scientific(value, precision=3, trim="-", exp_digits=2)


def render_table(
    title: str,
    columns: Sequence[str | Column],
    rows: Sequence[Sequence[Cell]],
    width: int | None = None,
) -> str:
    """Render plain text without colour codes, numbers right-aligned.

    ``width`` is in characters, by default the terminal's. Text columns fold to fit; a number is never cut, so
    a table of very many columns comes out wider. NaN reads "n/a" and None reads "-".
    Raises ValueError where a row is not as long as the heading.
    """
    table = _build(title, columns, rows)
    console = Console(file=StringIO(), width=_fit(table, width), color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def print_table(title: str, columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print the table of :func:`render_table` to standard output, headings in bold on a terminal."""
    table = _build(title, columns, rows)
    Console(width=_fit(table, None)).print(table)


def to_markdown(columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]) -> str:
    """Render a GitHub-flavoured Markdown table, numbers right-aligned, readable as source too."""
    headings, body, numeric = _format_cells(columns, rows)
    lines = [[_escape_markdown(cell) for cell in line] for line in [headings, *body]]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (w - 1) + ":" if right else "-" * w for w, right in zip(widths, numeric, strict=True)]
    padded = [
        [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def _escape_markdown(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _format_cells(
    columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]
) -> tuple[list[str], list[list[str]], list[bool]]:
    """The headings, the cells as text, and for each column whether it holds numbers."""
    specs = [Column(column) if isinstance(column, str) else column for column in columns]
    for number, row in enumerate(rows):
        if len(row) != len(specs):
            raise ValueError(f"row {number} has {len(row)} cells for {len(specs)} columns")
    body = [[_format_cell(cell, spec) for cell, spec in zip(row, specs, strict=True)] for row in rows]
    numeric = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(specs))]
    return [spec.name for spec in specs], body, numeric


def _format_cell(cell: Cell, column: Column) -> str:
    if cell is None:
        return _MISSING
    if isinstance(cell, str):
        return cell
    if math.isnan(cell):
        return _NOT_A_NUMBER
    if callable(column.format):
        return column.format(cell)
    if column.format:
        return format(cell, column.format)
    return str(cell) if isinstance(cell, int) else format(cell, ".4f")


def _build(title: str, columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]) -> Table:
    headings, body, numeric = _format_cells(columns, rows)
    table = Table(title=Text(title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
    for heading, right in zip(headings, numeric, strict=True):
        table.add_column(Text(heading), justify="right" if right else "left", overflow="fold", vertical="bottom")
    for line in body:
        # Text objects, because rich would read brackets in a plain string as markup.
        table.add_row(*(Text(cell) for cell in line))
    return table


def _fit(table: Table, width: int | None) -> int:
    """Fix the widths of the number columns where the table is too wide, and return the width to render at.

    Left alone, rich would shorten a number to an ellipsis once the text columns have no more to give.
    """
    available = shutil.get_terminal_size().columns if width is None else width
    console = Console(file=StringIO(), width=_UNLIMITED_WIDTH)
    if Measurement.get(console, console.options, table).maximum <= available:
        return available
    # SIMPLE_HEAD gives a column one blank on each side and one between it and the next, or the table's edge.
    needed = 3 * len(table.columns) + 1
    for column in table.columns:
        texts = [text for text in (column.header, *column.cells) if isinstance(text, Text)]
        longest = max(text.cell_len for text in texts)
        longest_word = max((Text(word).cell_len for word in texts[0].plain.split()), default=1)
        if column.justify == "right":
            column.width = max(longest_word, *(text.cell_len for text in texts[1:]))
            needed += column.width
        else:
            column.min_width = max(longest_word, min(longest, _TEXT_MIN_WIDTH))
            needed += column.min_width
    return max(available, needed)
