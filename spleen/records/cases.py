"""The cases of a run: their scores from cases.csv, and their split from split.json."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spleen.records.folder import RunFolder
from spleen.records.reading import BrokenRunError
from spleen.reporting.csv_text import CsvReader

ScoredSplit = Literal["val", "test"]
Metric = Literal["dice", "jaccard"]


@dataclass(frozen=True)
class CaseRow:
    """Scores of one class in one case; NaN if reference and prediction are both empty."""

    split: str
    case_id: str
    class_name: str
    dice: float
    jaccard: float


@dataclass(frozen=True)
class KnownCases:
    """The cases of a training, by case_id."""

    seen: frozenset[str]
    """Used for training, or to select the best epoch."""
    held_out: frozenset[str]


def read_cases(folder: Path) -> tuple[CaseRow, ...]:
    """The rows of a run's cases.csv; other columns are ignored. Raises BrokenRunError."""
    path = RunFolder(folder).cases
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(
                CaseRow(row["split"], row["case_id"], row["class_name"], _or_nan(row["dice"]), _or_nan(row["jaccard"]))
                for row in CsvReader(file)
            )
    except FileNotFoundError as error:
        raise BrokenRunError(f"{path.name} is missing") from error
    except OSError as error:
        raise BrokenRunError(f"{path.name}: {error.strerror}") from error
    except KeyError as error:
        raise BrokenRunError(f"{path.name} has no column {error}") from error
    except (ValueError, TypeError, csv.Error) as error:  # TypeError: a row that ends early
        raise BrokenRunError(f"{path.name} is damaged: {error}") from error


def _or_nan(text: str) -> float:
    return float(text) if text else math.nan


def case_means(
    runs: Iterable[Sequence[CaseRow]], split: ScoredSplit, metric: Metric, class_name: str | None = None
) -> dict[str, float]:
    """Score of each case: mean over its classes (or of one class), then over the runs that scored it, without NaN."""
    of_case: dict[str, list[float]] = {}
    for rows in runs:
        by_case: dict[str, list[float]] = {}
        for row in rows:
            if row.split == split and class_name in (None, row.class_name):
                by_case.setdefault(row.case_id, []).append(row.dice if metric == "dice" else row.jaccard)
        for case_id, values in by_case.items():
            of_case.setdefault(case_id, []).append(mean_of_known(values))
    return {case_id: mean_of_known(values) for case_id, values in of_case.items()}


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def read_known_cases(folder: Path) -> KnownCases | None:
    """The cases that a run has seen and held out; None if it has split one volume, or its record is missing."""
    try:
        record = json.loads(RunFolder(folder).split.read_bytes())
        if record["kind"] != "cases":
            return None
        return KnownCases(frozenset(record["train"]) | frozenset(record["val"]), frozenset(record["test"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def slices_of_test(folder: Path) -> Mapping[str, object] | None:
    """The test slices of a run that has split one volume: the axis, and the slice indices of each case.

    None if whole cases were tested, or if split.json is missing or damaged.
    """
    try:
        record = json.loads(RunFolder(folder).split.read_bytes())
        if record.get("kind") != "slice_blocks":
            return None
        return {"axis": record["axis"], **{case: parts["test"] for case, parts in record["cases"].items()}}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def count_folds(folder: Path) -> int | None:
    """Number of folds of the cross-validation that a run is part of; None without a readable splits_final.json."""
    try:
        folds = json.loads(RunFolder(folder).folds.read_bytes())
    except (OSError, ValueError):
        return None
    return len(folds) if isinstance(folds, list) else None
