"""Scores of a run in words and tables for its page: headline, classes, cases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spleen.evaluation.metrics.statistics import bootstrap_mean_interval
from spleen.reporting.numbers import format_number
from spleen.reporting.tables import Cell
from spleen.runs.report.record import RunRecord, ScoreRow
from spleen.runs.report.run_plots import best_epoch

Table = tuple[list[str], list[list[Cell]]]

SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}
_DERIVED = ("volume_prediction_mm3", "volume_reference_mm3")
# Column of cases.csv → heading; other columns keep their names.
_HEADINGS = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "hausdorff95_mm": "HD95, mm",
    "average_surface_distance_mm": "ASSD, mm",
    "surface_dice": "surface Dice",
}


@dataclass(frozen=True)
class Tile:
    """One number of the headline."""

    label: str
    value: str
    note: str


def tiles(record: RunRecord) -> list[Tile]:
    """Dice of each scored split, the worst case or slice, and the cost."""
    shown = [_dice_tile(record, split) for split in ("test", "val") if any(row.split == split for row in record.rows)]
    if worst := _worst(record):
        shown.append(worst)
    seconds = record.summary.get("wall_seconds")
    if isinstance(seconds, int | float):
        rate = (record.summary.get("train") or {}).get("slices_per_second")
        speed = f"{format_number(rate)} training slices per second" if rate else ""
        shown.append(Tile("Wall time", duration(seconds), speed))
    return shown


def duration(seconds: float) -> str:
    """Seconds as 12.3 s, 4 min 5 s or 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _dice_tile(record: RunRecord, split: str) -> Tile:
    values = list(record.case_dice(split).values())
    n_cases = len({row.case_id for row in record.rows if row.split == split})
    by_slices = record.split.get("kind") == "slice_blocks"
    label = f"{SPLIT_WORDS[split].capitalize()} Dice"
    if not values:
        return Tile(label, "–", "reference and prediction are empty")
    mean = math.fsum(values) / len(values)
    if by_slices:
        note = "held-out slices of one volume: no interval"
    elif (interval := bootstrap_mean_interval(values)) is None:
        note = f"{n_cases} case: no interval"
    else:
        note = f"95 % interval {interval.low:.3f} to {interval.high:.3f}, {n_cases} cases"
    best = best_epoch(record)
    if split == "val" and best:
        note += f"; best epoch {best[0]} of {len(record.epochs)}"
    return Tile(label, f"{mean:.4f}", note)


def _worst(record: RunRecord) -> Tile | None:
    split = record.headline_split
    dice = record.case_dice(split)
    if len(dice) > 1:
        case_id = min(dice, key=lambda each: dice[each])
        return Tile("Worst case", f"{dice[case_id]:.4f}", f"{case_id}, {SPLIT_WORDS[split]}")
    of_slice: dict[int, list[int]] = {}
    for row in record.slices:
        if row.split == split:
            sums = of_slice.setdefault(row.slice_index, [0, 0])
            sums[0] += row.overlap_voxels
            sums[1] += row.reference_voxels + row.prediction_voxels
    if not of_slice:
        return None
    index = min(of_slice, key=lambda each: of_slice[each][0] / of_slice[each][1])
    overlap, total = of_slice[index]
    return Tile("Worst slice", f"{2 * overlap / total:.4f}", f"{SPLIT_WORDS[split]} slice {index}")


def class_table(record: RunRecord) -> Table | None:
    """Mean Dice and interval of each class and split; None with a single class, which the headline shows."""
    if len(record.class_names) < 2:
        return None
    rows: list[list[Cell]] = []
    for split in ("test", "val"):
        for name in record.class_names:
            of_class = [row for row in record.rows if (row.split, row.class_name) == (split, name)]
            if of_class:
                rows.append([SPLIT_WORDS[split], name, *_summary(of_class)])
    return ["split", "class", "Dice", "95 % interval", "lowest", "highest", "cases", "both empty", "missed"], rows


def _summary(rows: Sequence[ScoreRow]) -> list[Cell]:
    rows = [row for row in rows if row.is_labelled]
    known = [row.dice for row in rows if not math.isnan(row.dice)]
    interval = bootstrap_mean_interval(known)
    return [
        math.fsum(known) / len(known) if known else None,
        f"{interval.low:.3f} to {interval.high:.3f}" if interval else None,
        min(known, default=None),
        max(known, default=None),
        len(rows),
        len(rows) - len(known),
        sum(row.reference_ml > 0 and row.prediction_ml == 0 for row in rows),
    ]


def case_table(record: RunRecord) -> Table:
    """One row for each scored case and class, the test split first and the lowest Dice on top."""
    columns = list(dict.fromkeys(name for row in record.rows for name in row.scores if name not in _DERIVED))
    has_classes = len(record.class_names) > 1
    headings = ["split", "case", *(["class"] if has_classes else []), *(_HEADINGS.get(name, name) for name in columns)]
    headings += ["reference, ml", "prediction, ml", "error, ml", "error, %"]
    ranked = sorted(record.rows, key=lambda row: (row.split, math.inf if math.isnan(row.dice) else row.dice))
    ordered = [row for split in ("test", "val") for row in ranked if row.split == split]
    return headings, [
        [
            SPLIT_WORDS[row.split],
            row.case_id,
            *([row.class_name] if has_classes else []),
            *(_known(row.scores.get(name, math.nan)) for name in columns),
            *_volumes(row),
        ]
        for row in ordered
    ]


def _volumes(row: ScoreRow) -> list[Cell]:
    if not row.is_labelled:
        return ["not labelled", None, None, None]
    error = row.prediction_ml - row.reference_ml
    relative = 100 * error / row.reference_ml if row.reference_ml else math.nan
    return [_known(value) for value in (row.reference_ml, row.prediction_ml, error, relative)]


def _known(value: float) -> Cell:
    return value if math.isfinite(value) else None if math.isnan(value) else "∞" if value > 0 else "−∞"
