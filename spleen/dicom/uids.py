"""Unique identifiers: made anew, or always the same from the same words; and what is one."""

import re
from collections.abc import Callable
from uuid import UUID, uuid4, uuid5

_SPLEEN = UUID("5b1f7d0e-6c8a-4f0b-9d5e-2f6f0c0f3a11")

LONGEST_UID = 64
_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)

MakeUid = Callable[[str], str]
"""Gives the UID of a part of a result, such as "series"."""


def is_uid(text: str) -> bool:
    """Whether a text is a UID and so may become a name: digits and single dots between them, at most 64 characters."""
    return len(text) <= LONGEST_UID and _UID.fullmatch(text) is not None


def new_uid() -> str:
    """A UID that no one else has (PS3.5 B.2, from a random UUID)."""
    return f"2.25.{uuid4().int}"


def uid_of(*words: str) -> str:
    """The UID that stands for these words, always the same."""
    return f"2.25.{uuid5(_SPLEEN, chr(0).join(words)).int}"


def uid_maker(seed: str | None, *words: str) -> MakeUid:
    """UIDs that follow from a seed and these words, so that a result made again has them again; new ones without."""
    return (lambda _part: new_uid()) if seed is None else (lambda part: uid_of(seed, *words, part))
