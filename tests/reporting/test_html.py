"""Pages from templates: text is escaped, and a missing value is an error."""

import pytest
from jinja2 import UndefinedError

from spleen.reporting.html import render_page


def test_a_missing_template_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render_page("page.html.jinja", kind="exploration")


def test_text_in_the_title_is_escaped() -> None:
    page = render_page("page.html.jinja", kind="exploration", title="a <b> & 'c'")
    assert "<title>a &lt;b&gt; &amp; &#39;c&#39; – exploration</title>" in page
