"""Reading the header of a DICOM file: bounded, without its pixels, and with one kind of error."""

import math
import mmap
import warnings
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from spleen.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

Keyword = str | int
"""Keyword of an element, or for a private one its tag."""
_MOST_SHOWN = 60
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


class _Content(mmap.mmap):
    """A file that is never read as a whole, which pydicom does only to inflate it.

    Deflate shrinks a thousandfold, so what such a file needs would be known only once it is there.
    """

    def read(self, n: int | None = None) -> bytes:
        if n is None:
            raise InputError("it is deflated as a whole, which is not read; inflate it: dcmconv +te IN OUT")
        return super().read(n)


class Header(NamedTuple):
    """Some elements of a file, and the place of its pixels."""

    dataset: "Dataset"
    pixel_offset: int | None
    """Byte of the file at which the element Pixel Data starts; None without pixels."""


def read_header(path: Path, keywords: Sequence[Keyword]) -> Header:
    """The elements of a file with these keywords, up to its pixels.

    Raises InputError for a file that cannot be parsed.
    """
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    offset: int | None = None
    with damage_as_error(path), _mapped(path) as content, _quiet():

        def at_pixels(tag: int, _vr: str | None, _length: int) -> bool:
            return tag in _PIXEL_TAGS

        dataset = read_partial(
            cast(BinaryIO, content), at_pixels, force=True, specific_tags=[Tag(each) for each in keywords]
        )
        start = content.tell()
        little = dataset.original_encoding[1] is not False
        if content[start : start + 4] == (b"\xe0\x7f\x10\x00" if little else b"\x7f\xe0\x00\x10"):
            offset = start
        if len(dataset) == 0:
            raise InputError(f"{path} is not DICOM: it has none of the elements that are needed")
        _parse_all(dataset)
    return Header(dataset, offset)


def read_whole(path: Path) -> "Dataset":
    """A file with its pixels. Raises InputError for a file that cannot be parsed."""
    from pydicom.filereader import read_partial

    with damage_as_error(path), _mapped(path) as content, _quiet():
        return read_partial(cast(BinaryIO, content), force=True)


@contextmanager
def damage_as_error(path: Path) -> Iterator[None]:
    """Turn whatever pydicom and the decoders raise for damaged bytes into InputError."""
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        raise InputError(f"{path} is a damaged DICOM file: {error or type(error).__name__}; copy it again") from error


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """The file as bytes that are read on demand: no declared length can allocate more than the file holds."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise InputError(f"{path} is empty; copy it again")
        with _Content(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


@contextmanager
def _quiet() -> Iterator[None]:
    """Without pydicom's remarks on values that break the standard: those that matter are checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parse_all(dataset: "Dataset") -> None:
    """Convert the values now, where damage is caught; pydicom would do so when they are first used."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _parse_all(item)


def text(levels: Sequence["Dataset"], keyword: Keyword) -> str:
    """A value as text, several joined by a backslash; empty if it is missing."""
    return "\\".join(str(each).strip() for each in _values(levels, keyword))


def numbers(levels: Sequence["Dataset"], keyword: Keyword, count: int) -> tuple[float, ...] | None:
    """A value of `count` finite numbers; None if it is missing or empty. Raises InputError for anything else."""
    values = _values(levels, keyword)
    if not values:
        return None
    try:
        found = tuple(float(each) for each in values)
    except (TypeError, ValueError):
        found = ()
    if len(found) != count or not all(map(math.isfinite, found)):
        shown = "\\".join(map(str, values))[:_MOST_SHOWN]
        raise InputError(f"{_name(keyword)} must be {count} number(s); got {shown!r}")
    return found


def number(levels: Sequence["Dataset"], keyword: Keyword) -> float | None:
    """A single finite number; None if it is missing. Raises InputError for anything else."""
    found = numbers(levels, keyword, 1)
    return found[0] if found is not None else None


def whole(levels: Sequence["Dataset"], keyword: Keyword, default: int) -> int:
    """A whole number, or the default if it is missing. Raises InputError for anything else."""
    found = number(levels, keyword)
    if found is not None and found != int(found):
        raise InputError(f"{_name(keyword)} must be a whole number; got {found:g}")
    return default if found is None else int(found)


def _values(levels: Sequence["Dataset"], keyword: Keyword) -> list[Any]:
    """The values of an element, in the first level that has it; empty if it is missing or has none."""
    for level in levels:
        if keyword in level:
            value = level[keyword].value
            if value is None or (isinstance(value, str | bytes) and not value.strip()):
                return []
            return list(value) if isinstance(value, MutableSequence) else [value]  # a PersonName iterates its letters
    return []


def _name(keyword: Keyword) -> str:
    return keyword if isinstance(keyword, str) else f"({keyword >> 16:04x},{keyword & 0xFFFF:04x})"
