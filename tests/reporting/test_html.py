"""Pages from templates: text is escaped, and a missing value is an error."""

from pathlib import Path

import pytest
from jinja2 import ChoiceLoader, DictLoader, UndefinedError

from spleen.reporting.html import render_page
from tests._helpers.browser import opened

SORTABLE = """
{% extends "page.html.jinja" %}
{% from "parts.html.jinja" import table %}
{% block main %}{{ table(["case", "Dice"], rows, sortable=true) }}{% endblock %}
{% block data %}<script type="application/json" id="data">{{ rows | as_json }}</script>{% endblock %}
"""


def test_a_missing_template_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render_page("page.html.jinja", kind="exploration")


def test_text_in_the_title_is_escaped() -> None:
    page = render_page("page.html.jinja", kind="exploration", title="a <b> & 'c'")
    assert "<title>a &lt;b&gt; &amp; &#39;c&#39; – exploration</title>" in page


@pytest.fixture
def sortable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with a table of three cases, one of which has a hostile name."""
    from spleen.reporting import html

    environment = html._environment()
    monkeypatch.setattr(environment, "loader", ChoiceLoader([DictLoader({"test": SORTABLE}), environment.loader]))
    rows = [["<script>alert(1)</script>", 0.9], ["b10", None], ["b9", 0.85]]
    path = tmp_path / "page.html"
    path.write_text(render_page("test", kind="test", title="</title><script>alert(2)</script>", rows=rows))
    return path


def test_a_click_on_a_heading_sorts_the_table_and_so_does_the_keyboard(sortable: Path) -> None:
    with opened(sortable) as page:
        column = page.locator("tbody td:nth-child(1)")
        assert column.all_inner_texts() == ["<script>alert(1)</script>", "b10", "b9"]
        page.get_by_text("case", exact=True).click()
        assert column.all_inner_texts() == ["<script>alert(1)</script>", "b9", "b10"]
        page.get_by_text("Dice", exact=True).press("Enter")
        assert page.locator("tbody td:nth-child(2)").all_inner_texts() == ["0.85", "0.9", "–"]
        page.keyboard.press("Enter")
        assert page.locator("tbody td:nth-child(2)").all_inner_texts() == ["0.9", "0.85", "–"]
        assert page.locator("th[aria-sort=descending]").inner_text().startswith("Dice")


def test_a_hostile_name_stays_text_and_data_reach_the_scripts_unchanged(sortable: Path) -> None:
    with opened(sortable) as page:
        assert page.title() == "</title><script>alert(2)</script> – test"
        data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
        assert data == [["<script>alert(1)</script>", 0.9], ["b10", None], ["b9", 0.85]]


@pytest.mark.parametrize(
    "attack",
    ["<script>document.title = 'hacked'</script>", "<img src=x onerror=\"document.title = 'hacked'\">"],
)
def test_the_policy_stops_scripts_and_requests_even_where_escaping_failed(tmp_path: Path, attack: str) -> None:
    text = render_page("page.html.jinja", kind="test", title="safe")
    (tmp_path / "page.html").write_text(text.replace("<main>", f"<main>{attack}"))
    with pytest.raises(AssertionError, match="Content Security Policy"), opened(tmp_path / "page.html") as page:
        assert page.title() == "safe – test"


def test_a_script_of_the_page_runs(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        render_page("page.html.jinja", kind="test", title="t", scripts=["document.title = 'it ran'"])
    )
    with opened(tmp_path / "page.html") as page:
        assert page.title() == "it ran"
