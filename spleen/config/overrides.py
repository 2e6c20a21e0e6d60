"""Hydra's override grammar: quoting values, and renamed keys."""

import re
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from spleen.records.renamed_keys import current_key

_OVERRIDE = re.compile(r"([+~]*)([^=@]*)(.*)", re.DOTALL)


def quoted(path: Path | str, quote: Quote = Quote.single) -> str:
    """A path as an override value that Hydra reads literally, whatever its characters (not quoted for a shell).

    Grammar: https://hydra.cc/docs/1.3/advanced/override_grammar/basic/
    """
    # Hydra's own class does not escape ${, which would start an interpolation; backslashes before it are doubled.
    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", str(path))
    return QuotedString(text, quote).with_quotes()


def key_of(override: str) -> str:
    """The key of an override as written: without `+`, `++` or `~` before it, and without its value."""
    match = _OVERRIDE.fullmatch(override)
    assert match is not None
    return match[2]


def with_current_key(override: str) -> str:
    """The override, with its key under the current name; anything else unchanged."""
    return _OVERRIDE.sub(lambda match: f"{match[1]}{current_key(match[2])}{match[3]}", override, count=1)
