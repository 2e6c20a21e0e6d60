"""Style and script of the exploration page: no other file, no network, light and dark."""

from collections.abc import Sequence
from html import escape

from spleen.reporting.tables import Cell
from spleen.system.text import format_number

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #ffffff; --text: #1b1f24; --soft: #5b6470;
  --line: #dde1e7; --error: #c62828; --warning: #b26a00; --note: #3c6e9f; --good: #1b7f4d; --accent: #0072B2; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --card: #1d2127; --text: #e6e9ed; --soft: #9aa4b1;
  --line: #333a44; --error: #ff7b72; --warning: #e3a94a; --note: #7fb3e6; --good: #5cc98f; --accent: #56B4E9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 36px 0 12px; } h3 { font-size: 1rem; margin: 20px 0 8px; }
.soft { color: var(--soft); } .small { font-size: 0.87rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.card + .card { margin-top: 12px; }
.badge { display: inline-block; border-radius: 99px; padding: 1px 10px; font-size: 0.85rem; font-weight: 600;
  border: 1px solid currentColor; white-space: nowrap; }
.error { color: var(--error); } .warning { color: var(--warning); }
.note { color: var(--note); } .good { color: var(--good); }
.finding { display: grid; grid-template-columns: 84px minmax(0, 1fr); gap: 2px 12px; padding: 9px 0;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.finding:first-child { border-top: 0; } .finding ul { margin: 2px 0 0; padding-left: 18px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } .tall { max-height: 70vh; overflow: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.tall th { position: sticky; top: 0; background: var(--card); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
table.sortable td { white-space: nowrap; }
table.sortable th { cursor: pointer; } table.sortable th:hover { color: var(--text); }
code, pre { font: 0.88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: 0; padding: 12px 14px; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--ground);
  border: 1px solid var(--line); border-radius: 8px; }
button { font: inherit; font-size: 0.85rem; color: var(--accent); background: none; border: 1px solid var(--line);
  border-radius: 8px; padding: 3px 12px; cursor: pointer; }
button:hover { border-color: var(--accent); }
.slices { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(240px, 100%), 1fr)); gap: 10px; }
.slices figure { margin: 0; background: #000; border-radius: 8px; overflow: hidden; display: flex;
  flex-direction: column; }
.slices svg { display: block; width: 100%; flex: 1; max-height: 420px; }
.shown h3 { margin-top: 0; } .shown .slices { margin-top: 12px; } .shown .slices svg { max-height: 250px; }
.slices figcaption { color: #cfd5dc;
  background: #14171b; font-size: 0.83rem; padding: 4px 10px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr)); gap: 12px; }
.grid .card { margin: 0; } .plot { display: block; width: 100%; height: auto; }
.plot text { fill: var(--soft); font: 11px system-ui, sans-serif; } .plot .axis { stroke: var(--line); }
.plot .body { fill: var(--soft); opacity: 0.35; } .plot .organ { fill: #E69F00; opacity: 0.75; }
.plot .dot { fill: var(--accent); opacity: 0.45; } .plot .out { fill: #D55E00; }
.plot .box { fill: var(--soft); opacity: 0.16; }
.plot .median { stroke: var(--text); stroke-width: 1.5; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 12px; }
.two .card { margin: 0; }
.chip { display: inline-flex; align-items: center; gap: 6px; margin-right: 14px; }
.chip i { width: 14px; height: 4px; border-radius: 2px; }
details > summary { cursor: pointer; color: var(--accent); padding: 6px 0; }
@media (max-width: 560px) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; }
  .finding { grid-template-columns: 1fr; } h1 { font-size: 1.4rem; } }
@media print { .tall { max-height: none; } button { display: none; } }
"""


SCRIPT = """
for (const button of document.querySelectorAll('button[data-copy]')) button.onclick = async () => {
  const text = document.getElementById(button.dataset.copy).textContent;
  try { await navigator.clipboard.writeText(text); button.textContent = 'Copied'; }
  catch { getSelection().selectAllChildren(document.getElementById(button.dataset.copy)); }
};
for (const table of document.querySelectorAll('table.sortable')) for (const head of table.querySelectorAll('th'))
  head.onclick = () => {
    const column = head.cellIndex, body = table.tBodies[0], down = head.dataset.down !== '1';
    const key = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
    const inWords = (a, b) => isNaN(a) || isNaN(b) ? String(a).localeCompare(b, undefined, {numeric: true}) : 0;
    const compare = (a, b) => (a - b) || inWords(a, b);
    const rows = [...body.rows].sort((a, b) => compare(key(a), key(b)) * (down ? 1 : -1));
    head.dataset.down = down ? '1' : '0';
    body.append(...rows);
  };
"""


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
