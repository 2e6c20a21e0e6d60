"""Checks of single values, as sentences that say what is allowed and what came."""

from collections.abc import Iterator


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> Iterator[str]:
    """A sentence unless the value is among the allowed ones."""
    if value not in allowed:
        yield f"{name} must be one of {', '.join(allowed)}; got '{value}'"


def between(
    name: str, value: float, low: float, high: float, *, low_included: bool = True, unit: str = ""
) -> Iterator[str]:
    """A sentence unless the value lies in the range."""
    if not (low <= value <= high and (low_included or value > low)):
        start = f"from {low:.12g}" if low_included else f"above {low:.12g}"
        yield f"{name} must be {start} to {high:.12g}{' ' * bool(unit)}{unit}; got {value:.12g}"
