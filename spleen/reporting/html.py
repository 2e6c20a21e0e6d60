"""HTML pages from the templates in `pages/`: escaped, in one file each, without network."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spleen.reporting.numbers import format_number
from spleen.reporting.tables import Cell


def render_page(template: str, *, scripts: Sequence[str] = (), **values: object) -> str:
    """Fill a template of `spleen/reporting/pages` with values; all text is escaped.

    `scripts` are JavaScript sources that run after page.js, in this order. The page's Content-Security-Policy allows
    these scripts only, told by their hashes, and nothing from the network.
    """
    environment = _environment()
    sources = [page_file("page.js"), *scripts]
    return environment.get_template(template).render(
        values, page_scripts=[Markup(each) for each in sources], policy=_policy(sources)
    )


def page_file(name: str) -> str:
    """The text of a file of `spleen/reporting/pages`, such as a script for `render_page`."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy (W3C, level 3) under which nothing is loaded and no other script runs."""
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {allowed}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "connect-src data: blob:",  # a script may read what the page itself holds
            "worker-src blob:",
            "font-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


@cache
def _environment() -> Environment:
    loader = PackageLoader("spleen.reporting", "pages")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _shown
    environment.filters["as_json"] = _as_json
    return environment


def _as_json(value: object) -> Markup:
    """JSON for a <script type="application/json"> element, which no value can end early."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _shown(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    return f"{cell:,d}" if isinstance(cell, int) else format_number(cell)
