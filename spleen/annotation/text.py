"""What a propagation says: a few lines and two tables for the terminal, and all slices as CSV."""

import math
from collections.abc import Iterator

from spleen.annotation.propagate import FilledSlice, Propagation
from spleen.annotation.suggest import suggestion_table
from spleen.reporting.csv_text import to_csv
from spleen.reporting.tables import Column, render_table

_SHOWN = 8
_NOT_CALIBRATED = (
    "confidence is the network's own, the soft Dice between its probabilities and its mask. It is not calibrated, and\n"
    "no drawn slice was held out to check it: look at the slices before you use them"
)


def to_text(result: Propagation) -> str:
    """Counts, the least sure slices with an organ, and what to label next."""
    predicted = [each for each in result.slices if each.source != "drawn"]
    shown = [each for each in predicted if not math.isnan(each.confidence)]
    least = sorted(shown, key=lambda each: each.confidence)[:_SHOWN]
    parts = [
        f"{len(result.slices)} {result.axis} slices: {len(result.slices) - len(predicted)} drawn and kept as they are, "
        f"{len(predicted)} filled, {sum(any(each.organ_mm2) for each in predicted)} of these with an organ"
    ]
    if least:
        areas = [Column(f"{name} mm²", ",.0f") for name in result.class_names]
        columns = [Column("slice"), Column("mm", ".1f"), *areas, Column("confidence", ".3f")]
        rows = [[each.slice_index, each.position_mm, *each.organ_mm2, each.confidence] for each in least]
        parts.append(render_table("The least sure slices", columns, rows))
    parts.append(_NOT_CALIBRATED)
    if result.next_slices:
        parts.append(suggestion_table("To label next", result.next_slices))
    return "\n\n".join(parts)


def to_csv_text(result: Propagation) -> str:
    """One row per slice of the label."""
    areas = [f"{name}_mm2" for name in result.class_names]
    header = ["slice_index", "position_mm", "source", *areas, "confidence", "entropy_mm2", "label_next"]
    return to_csv([header, *_rows(result)])


def _rows(result: Propagation) -> Iterator[list[object]]:
    rank = {each.slice_index: number for number, each in enumerate(result.next_slices, start=1)}
    for each in result.slices:
        yield [*_cells(each), rank.get(each.slice_index)]


def _cells(row: FilledSlice) -> list[object]:
    confidence = None if math.isnan(row.confidence) else row.confidence
    return [row.slice_index, row.position_mm, row.source, *row.organ_mm2, confidence, row.entropy_mm2]
