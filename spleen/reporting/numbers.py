"""How numbers are written: for people, in strict JSON, and in CSV as pandas reads it."""

import json
import math
from collections.abc import Mapping, Sequence

from spleen.reporting.csv_text import to_csv

Value = str | int | float | None


def format_number(value: float) -> str:
    """A number with four digits, or all digits before the point, and a true minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def json_text(content: Mapping[str, object]) -> str:
    """The content of a JSON file: NaN is null, inf the string "Infinity" (read by float() and Number()).

    Keys and whatever JSON has no type for, such as paths, become text.
    """
    return json.dumps(_strict(content), indent=1, allow_nan=False, ensure_ascii=False, default=str) + "\n"


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> str:
    """The content of a CSV file; NaN is written nan and infinity inf, as pandas reads them, None as nothing."""
    return to_csv([header, *([_rounded(cell) if isinstance(cell, float) else cell for cell in row] for row in rows)])


def _strict(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return _rounded(value)


def _rounded(value: float) -> float:
    """Without the noise of the last bits: 24 voxels of 3.2 mm³ are 76.8 and not 76.80000000000001."""
    return float(f"{value:.12g}")
