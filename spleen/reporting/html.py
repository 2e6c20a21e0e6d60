"""HTML pages from the templates in `pages/`: escaped, in one file each, without network."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from spleen.reporting.numbers import format_number
from spleen.reporting.tables import Cell


def render_page(template: str, **values: object) -> str:
    """Fill a template of `spleen/reporting/pages` with values; all text is escaped."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    loader = PackageLoader("spleen.reporting", "pages")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _shown
    return environment


def _shown(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    return f"{cell:,d}" if isinstance(cell, int) else format_number(cell)
