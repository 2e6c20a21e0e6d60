"""Tables of a page."""

from collections.abc import Sequence
from html import escape

from spleen.exploration.quantities import format_number
from spleen.report.table import Cell


def html_table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], is_sortable: bool = False, code_first: bool = False
) -> str:
    """A table with numbers to the right; None reads "–". The text is escaped.

    `is_sortable` gives cells the value by which the page's script sorts; `code_first` sets the first column as code.
    """
    numeric = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(columns))]
    kinds = [' class="number"' if right else "" for right in numeric]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    lines = []
    for row in rows:
        cells = [
            f"<td{kind}{_sort_value(cell)}>{_shown_cell(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)
        ]
        if code_first:
            cells[0] = f"<td><code>{_shown_cell(row[0])}</code></td>"
        lines.append(f"<tr>{''.join(cells)}</tr>")
    sortable = ' class="sortable"' if is_sortable else ""
    return f"<table{sortable}><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _sort_value(cell: Cell) -> str:
    return f' data-value="{cell!r}"' if isinstance(cell, int | float) else ""


def _shown_cell(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return escape(cell)
    return f"{cell:,d}" if isinstance(cell, int) else format_number(cell)
