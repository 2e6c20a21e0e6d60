"""Values in the grammar of Hydra's overrides."""

import re
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString


def quoted(path: Path | str, quote: Quote = Quote.single) -> str:
    """A path as a value that Hydra reads as this very text, whatever characters it holds (not yet quoted for a shell).

    Grammar: https://hydra.cc/docs/1.3/advanced/override_grammar/basic/
    """
    # Hydra's own class leaves ${ alone, which would be an interpolation; backslashes before it count, too.
    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", str(path))
    return QuotedString(text, quote).with_quotes()
