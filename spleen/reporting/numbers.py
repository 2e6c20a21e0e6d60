"""Numbers in the files that `spleen evaluate` and `spleen compare` write, and how such a file is written."""

import csv
import math
from collections.abc import Sequence
from io import StringIO


def json_number(value: float) -> float | str | None:
    """A number for strict JSON: NaN is null, inf the string "Infinity" (read by float() and Number())."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return _rounded(value)


def csv_text(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """The content of a CSV file; NaN is written nan and infinity inf, as pandas reads them."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_rounded(cell) if isinstance(cell, float) else cell for cell in row] for row in rows)
    return text.getvalue()


def _rounded(value: float) -> float:
    """Without the noise of the last bits: 24 voxels of 3.2 mm³ are 76.8 and not 76.80000000000001."""
    return float(f"{value:.12g}")
