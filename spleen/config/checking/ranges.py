"""Checks of one value."""

from collections.abc import Iterator
from typing import TypeGuard


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def one_of(name: str, value: object, allowed: tuple[object, ...]) -> Iterator[str]:
    """An error message unless the value is one of the allowed ones."""
    if value not in allowed:
        yield f"{name} must be one of {', '.join(map(str, allowed))}; got '{value}'"


def between(
    name: str, value: float, low: float, high: float, *, low_included: bool = True, unit: str = ""
) -> Iterator[str]:
    """An error message unless the value is in the range."""
    if not (low <= value <= high and (low_included or value > low)):
        start = f"from {low:.12g}" if low_included else f"above {low:.12g}"
        yield f"{name} must be {start} to {high:.12g}{' ' * bool(unit)}{unit}; got {value:.12g}"
