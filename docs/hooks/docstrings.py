"""MkDocs hook: whatever the site documents with `::: name` must have a docstring, members included."""

import logging
import re
from functools import cache
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.docstrings")
ROOT = Path(__file__).parents[2]


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Warn of each documented function, class or method without a docstring."""
    del config, files
    for name in re.findall(r"^::: ([\w.]+)", markdown, flags=re.MULTILINE):
        for path in undocumented(_package()[name.removeprefix("spleen.")]):
            log.warning("%s: %s has no docstring", page.file.src_uri, path)


def undocumented(documented: griffe.Object | griffe.Alias) -> list[str]:
    """The object and its public functions and classes that have no docstring."""
    found = [] if documented.docstring else [documented.path]
    if documented.is_class or documented.is_module:
        for member in documented.members.values():
            if not member.is_alias and (member.is_function or member.is_class) and not member.name.startswith("_"):
                found += undocumented(member)
    return found


@cache
def _package() -> griffe.Object | griffe.Alias:
    return griffe.load("spleen", search_paths=[ROOT])
