"""Unique identifiers, made anew or always the same from the same words."""

from uuid import UUID, uuid4, uuid5

_SPLEEN = UUID("5b1f7d0e-6c8a-4f0b-9d5e-2f6f0c0f3a11")


def new_uid() -> str:
    """A UID that no one else has (PS3.5 B.2, from a random UUID)."""
    return f"2.25.{uuid4().int}"


def uid_of(*words: str) -> str:
    """The UID that stands for these words, always the same."""
    return f"2.25.{uuid5(_SPLEEN, chr(0).join(words)).int}"
