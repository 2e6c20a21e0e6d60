"""Tables of scores, for the terminal, Markdown and notebooks."""

import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Literal

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spleen.system.terminal import printable, printable_name, styled

Cell = str | int | float | None

_MISSING = "-"
_NOT_A_NUMBER = "n/a"
_TEXT_MIN_WIDTH = 10  # A text column may be folded down to this many characters, a number never.
_NAME_MIN_WIDTH = 30


@dataclass(frozen=True)
class Column:
    """A column's heading and how its numbers are written: a Python format spec or a function.

    Without a format, integers are written as they are and other numbers with four decimals.
    """

    name: str
    format: str | Callable[[float], str] = ""
    is_name: bool = False
    """Holds names that one looks for: those of up to 30 characters are not broken."""
    may_go: bool = False
    """Left out, the last such column first, where the table would be wider than the terminal; a line below says so."""


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
    a table of very many columns comes out wider, unless some of them may go. NaN reads "n/a" and None reads "-".
    Raises ValueError where a row is not as long as the heading.
    """
    parts, fitting_width = _fitted(title, columns, rows, width)
    console = Console(file=StringIO(), width=fitting_width, color_system=None)
    with console.capture() as capture:
        console.print(*parts)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def print_table(title: str, columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print the table of :func:`render_table` to standard output, headings in bold on a terminal."""
    parts, fitting_width = _fitted(title, columns, rows, None)
    Console(width=fitting_width, file=styled(sys.stdout)).print(*parts)


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


def to_html(columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]) -> str:
    """Render an HTML table for a notebook, numbers right-aligned."""
    headings, body, numeric = _format_cells(columns, rows)
    sides = ["right" if right else "left" for right in numeric]

    def line(tag: str, cells: Sequence[str]) -> str:
        inside = (f'<{tag} style="text-align: {s}">{escape(c)}</{tag}>' for c, s in zip(cells, sides, strict=True))
        return f"<tr>{''.join(inside)}</tr>"

    return f"<table>{line('th', headings)}{''.join(line('td', cells) for cells in body)}</table>"


def preformatted(text: str) -> str:
    """Text of a terminal as HTML for a notebook."""
    return f'<pre style="line-height: 1.2">{escape(text)}</pre>'


def _escape_markdown(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _format_cells(
    columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]
) -> tuple[list[str], list[list[str]], list[bool]]:
    """The headings, the cells as text, and for each column whether it holds numbers."""
    specs = _specs(columns)
    for number, row in enumerate(rows):
        if len(row) != len(specs):
            raise ValueError(f"row {number} has {len(row)} cells for {len(specs)} columns")
    body = [[_format_cell(cell, spec) for cell, spec in zip(row, specs, strict=True)] for row in rows]
    numeric = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(specs))]
    return [printable(spec.name) for spec in specs], body, numeric


def _specs(columns: Sequence[str | Column]) -> list[Column]:
    return [Column(column) if isinstance(column, str) else column for column in columns]


def _format_cell(cell: Cell, column: Column) -> str:
    if cell is None:
        return _MISSING
    if isinstance(cell, str):
        return printable_name(cell) if column.is_name else printable(cell)
    if math.isnan(cell):
        return _NOT_A_NUMBER
    if callable(column.format):
        return column.format(cell)
    if column.format:
        return format(cell, column.format)
    return str(cell) if isinstance(cell, int) else format(cell, ".4f")


def _fitted(
    title: str, columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]], width: int | None
) -> tuple[list[Table | Text], int]:
    """The table without the columns for which there is no room, a line that names these, and the width to render at.

    Every column gets a fixed width: left alone, rich would shorten a number to an ellipsis once the text columns have
    no more to give.
    """
    available = shutil.get_terminal_size().columns if width is None else width
    headings, body, numeric = _format_cells(columns, rows)
    specs = _specs(columns)
    texts = list(zip(headings, *body, strict=True))
    least = [_least_width(*column) for column in zip(specs, texts, numeric, strict=True)]
    kept = _that_fit(specs, least, available)
    table = Table(
        title=Text(printable(title), style="bold"), box=box.SIMPLE_HEAD, title_justify="left", header_style="bold"
    )
    natural = [max(map(cell_len, texts[index])) for index in kept]
    widths = _widened([least[index] for index in kept], natural, available)
    for index, column_width in zip(kept, widths, strict=True):
        justify: Literal["left", "right"] = "right" if numeric[index] else "left"
        table.add_column(Text(headings[index]), justify=justify, width=column_width, overflow="fold", vertical="bottom")
    for line in body:
        # Text objects, because rich would read brackets in a plain string as markup.
        table.add_row(*(Text(line[index]) for index in kept))
    gone = ", ".join(spec.name.strip() for index, spec in enumerate(specs) if index not in kept)
    note = [Text(f"  no room for {gone}")] if gone else []
    return [table, *note], max(available, _table_width(widths))


def _least_width(column: Column, texts: Sequence[str], is_numeric: bool) -> int:
    """How narrow a column can be: a heading is broken between words, a text anywhere, a number never."""
    heading, *cells = map(cell_len, texts)
    longest_word = max(map(cell_len, texts[0].split()), default=1)
    if is_numeric:
        return max([longest_word, *cells])
    return max(longest_word, min(max([heading, *cells]), _NAME_MIN_WIDTH if column.is_name else _TEXT_MIN_WIDTH))


def _that_fit(columns: Sequence[Column], least: Sequence[int], available: int) -> list[int]:
    """The numbers of the columns that are shown."""
    kept = list(range(len(columns)))
    for index in reversed(range(len(columns))):
        if columns[index].may_go and _table_width([least[number] for number in kept]) > available:
            kept.remove(index)
    return kept


def _widened(least: Sequence[int], natural: Sequence[int], available: int) -> list[int]:
    """Column widths: what is to spare goes to the columns that need more, the narrowest first."""
    widths = list(least)
    for _ in range(available - _table_width(least)):
        wanting = [index for index, wanted in enumerate(natural) if widths[index] < wanted]
        if not wanting:
            break
        widths[min(wanting, key=lambda index: widths[index])] += 1
    return widths


def _table_width(columns: Sequence[int]) -> int:
    """SIMPLE_HEAD gives a column one blank on each side and one between it and the next, or the table's edge."""
    return 3 * len(columns) + 1 + sum(columns)
