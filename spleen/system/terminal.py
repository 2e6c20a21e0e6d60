"""What is printed: control characters of names are shown as text, and what the encoding lacks is replaced.

A file name may hold the control sequences of a terminal, which hide, overwrite or forge lines. A cluster's locale or a
redirected Windows console may be ASCII or Latin-1, where printing × or µ would end a command.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# All control characters but line breaks and tabs, those that reverse the direction of text, and bytes of a file name
# that are no text.
_CONTROL = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAK = re.compile(r"[\n\t\r]")
_SUBSTITUTES = {
    "×": "x", "µ": "u", "μ": "u", "²": "2", "³": "3", "−": "-", "–": "-", "—": "-", "…": "...", "°": " deg", "±": "+/-",
    "≥": ">=", "≤": "<=", "≈": "~", "→": "->", "·": ".", "’": "'", "‘": "'", "“": '"', "”": '"', "∞": "inf", "⁻": "-",
    "▁": "_", "▂": ".", "▃": "-", "▄": "~", "▅": "=", "▆": "+", "▇": "*", "█": "#",
}  # fmt: skip


def printable(text: str) -> str:
    """The text with control characters as \\x1b and bytes of a file name that are no text as \\xff."""
    return _CONTROL.sub(lambda match: _escaped(match[0]), text)


def printable_name(name: str) -> str:
    """The name in one line: its line breaks and tabs are escaped too."""
    return _BREAK.sub(lambda match: _escaped(match[0]), printable(name))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python represents it
        return f"\\x{code - 0xDC00:02x}"
    return ascii(character)[1:-1]


def encodable(text: str, encoding: str) -> str:
    """The text with whatever the encoding lacks replaced by something like it, or by a question mark."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_encodable(character, encoding) for character in text)
    return text


def _encodable(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return _SUBSTITUTES.get(character, "?")
    return character


def unencodable(error: UnicodeEncodeError) -> str:
    """The message for a text that cannot be the name of a file, or be written, in an encoding."""
    if error.encoding.startswith("utf"):
        return f"{printable(ascii(error.object))} contains bytes that are not UTF-8 text; rename it"
    return (
        f"{error.object!r} cannot be the name of a file in the encoding '{error.encoding}' of this locale; set "
        "PYTHONUTF8=1 or LC_ALL=C.UTF-8"
    )


class _Shown:
    """A text stream that never fails for what is written, and escapes control characters if it is to."""

    def __init__(self, stream: Any, escapes: bool) -> None:
        self.stream, self._escapes = stream, escapes

    def write(self, text: str) -> int:
        shown = printable(text) if self._escapes else text
        self.stream.write(encodable(shown, self.stream.encoding or "utf-8"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def readable_output() -> Iterator[None]:
    """Print in this way to standard output and standard error, while the block runs."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_shown, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def unescaped_output() -> Iterator[None]:
    """Standard output and standard error as they are without `readable_output`, while the block runs.

    For what replaces the `write` of a stream: it then sees all texts for as long as the process lives.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream.stream if isinstance(stream, _Shown) else stream for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _shown(stream: Any) -> Any:
    return stream if stream is None or isinstance(stream, _Shown) else _Shown(stream, escapes=True)


def styled(stream: Any) -> Any:
    """The stream for what uses control sequences itself, such as a progress bar; its texts must be `printable`."""
    return _Shown(stream.stream if isinstance(stream, _Shown) else stream, escapes=False)
