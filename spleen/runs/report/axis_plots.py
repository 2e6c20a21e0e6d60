"""Dice and errors of each slice along the axis, beside the blocks and guard gaps of the split."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from spleen.records.slices import SliceRow
from spleen.reporting.numbers import format_number
from spleen.reporting.plots import Band, Bar, Bars, Line, Plot, PlotDrawing, draw_aligned
from spleen.runs.report.record import RunRecord

_KINDS = {"train": "training", "val": "validation", "test": "test", "guard": "guard"}
_MOST_CLASSES = 4


@dataclass(frozen=True)
class AxisPlots:
    """One case: Dice by slice, and false positives above and false negatives below zero."""

    heading: str
    dice: PlotDrawing
    errors: PlotDrawing


@dataclass(frozen=True)
class _Slice:
    """The voxels of one slice, of one class or of several together."""

    index: int
    split: str
    reference: int
    prediction: int
    overlap: int

    @property
    def dice(self) -> float:
        total = self.reference + self.prediction
        return 2 * self.overlap / total if total else math.nan


def axis_plots(record: RunRecord) -> list[AxisPlots]:
    """The plots of one volume, or of the best, the median and the worst of many cases."""
    if record.split.get("kind") == "slice_blocks":
        return [_of_case(record, case_id, case_id, None) for case_id in dict.fromkeys(r.case_id for r in record.slices)]
    split = record.headline_split
    ranked = sorted(record.case_dice(split).items(), key=lambda each: -each[1])
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1} if len(ranked) > 2 else {}
    chosen = [(name, *ranked[place]) for name, place in places.items()] or [("", *each) for each in ranked]
    known = {row.case_id for row in record.slices}
    return [
        _of_case(record, case_id, f"{name + ': ' if name else ''}{case_id}, Dice {format_number(dice)}", split)
        for name, case_id, dice in chosen
        if case_id in known
    ]


def bands_of(parts: Mapping[str, Sequence[int]]) -> Iterator[Band]:
    """The blocks of consecutive slices of each split."""
    for part, kind in _KINDS.items():
        indices = sorted(parts.get(part, ()))
        for _, run in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
            block = [index for _, index in run]
            words = f"slice {block[0]}" if len(block) == 1 else f"slices {block[0]} to {block[-1]}"
            yield Band(block[0] - 0.5, block[-1] + 0.5, kind, f"{kind}: {words}")


def _of_case(record: RunRecord, case_id: str, heading: str, split: str | None) -> AxisPlots:
    rows = [row for row in record.slices if row.case_id == case_id and split in (None, row.split)]
    together = _sums(rows)
    bands: tuple[Band, ...] = ()
    if split is None:
        bands = tuple(bands_of(record.split.get("cases", {}).get(case_id, {})))
    shown_bands = tuple(band for band in bands if band.kind != "training")
    x_range = _x_range(together, shown_bands, max((band.right for band in bands), default=math.inf))
    axis = f"{record.config.get('axis', '')} slice".strip()
    present = {row.class_name for row in rows}
    names = [name for name in record.class_names if name in present] or sorted(present)
    pixel_mm2 = _pixel_mm2(record, case_id)
    width, height = (860.0, 180.0) if split is None else (340.0, 165.0)
    by_class = {name: _sums([r for r in rows if r.class_name == name]) for name in names[:_MOST_CLASSES]}
    lines = [
        line
        for style, (name, slices) in enumerate(by_class.items())
        for line in _dice_lines(name if len(names) > 1 else "Dice", slices, style)
    ]
    dice = Plot(
        f"Dice by {axis} of {case_id}",
        axis,
        "Dice",
        lines,
        bands=shown_bands,
        x_range=x_range,
        y_range=(0, 1),
        has_whole_x=True,
        width=width,
        height=height,
    )
    errors = Plot(
        f"False positives and false negatives by {axis} of {case_id}",
        axis,
        "mm²" if pixel_mm2 else "voxels",
        bars=_error_bars(together, pixel_mm2),
        bands=shown_bands,
        x_range=x_range,
        has_whole_x=True,
        width=width,
        height=height,
    )
    return AxisPlots(heading, *draw_aligned([dice, errors]))


def _sums(rows: Sequence[SliceRow]) -> list[_Slice]:
    """The slices with all classes of the rows together, in order."""
    of_slice: dict[tuple[int, str], list[SliceRow]] = {}
    for row in rows:
        of_slice.setdefault((row.slice_index, row.split), []).append(row)
    return [
        _Slice(
            index,
            split,
            sum(row.reference_voxels for row in same),
            sum(row.prediction_voxels for row in same),
            sum(row.overlap_voxels for row in same),
        )
        for (index, split), same in sorted(of_slice.items())
    ]


def _dice_lines(name: str, slices: Sequence[_Slice], style: int) -> Iterator[Line]:
    """A line that breaks wherever a slice was not scored or has no organ."""
    points: list[tuple[float, float, str]] = []
    for each in slices:
        if points and each.index > points[-1][0] + 1:
            points.append((each.index - 1, math.nan, ""))
        points.append((each.index, each.dice, f"slice {each.index} ({_KINDS[each.split]}): {name} {each.dice:.4f}"))
    if points:
        yield Line(name, points, style)


def _error_bars(slices: Sequence[_Slice], pixel_mm2: float | None) -> tuple[Bars, Bars]:
    scale, unit = (pixel_mm2, "mm²") if pixel_mm2 else (1.0, "voxels")

    def bar(index: int, voxels: int, name: str) -> Bar:
        title = f"slice {index}: {name} {format_number(scale * abs(voxels))} {unit}"
        return Bar(index - 0.4, index + 0.4, scale * voxels, title)

    return (
        Bars("false positives", [bar(s.index, s.prediction - s.overlap, "false positives") for s in slices], 2),
        Bars("false negatives", [bar(s.index, s.overlap - s.reference, "false negatives") for s in slices], 3),
    )


def _x_range(slices: Sequence[_Slice], bands: Sequence[Band], end: float) -> tuple[float, float]:
    edges = [each.index + side for each in slices for side in (-0.5, 0.5)]
    edges += [edge for band in bands for edge in (band.left, band.right)]
    low, high = min(edges, default=0.0), max(edges, default=1.0)
    margin = max(1.0, 0.06 * (high - low))
    return max(-0.5, low - margin), min(end, high + margin)


def _pixel_mm2(record: RunRecord, case_id: str) -> float | None:
    """The area of a native pixel of the plane; None if the run has not recorded it."""
    for case in record.data.get("cases", ()):
        if case.get("case_id") == case_id:
            _, row_mm, column_mm = case["spacing_mm"]
            return float(row_mm * column_mm)
    return None
