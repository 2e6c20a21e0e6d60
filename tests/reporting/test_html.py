"""Pages from templates: text is escaped, and a value that is missing is told."""

import pytest
from jinja2 import UndefinedError

from spleen.reporting.html import render_page


def test_a_value_that_the_template_needs_and_nobody_gave_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render_page("page.html.jinja", kind="exploration")


def test_text_is_escaped_also_within_the_title() -> None:
    page = render_page("page.html.jinja", kind="exploration", title="a <b> & 'c'")
    assert "<title>a &lt;b&gt; &amp; &#39;c&#39; – exploration</title>" in page
