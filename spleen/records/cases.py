"""The cases of a run: their scores from cases.csv, and their split from split.json."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spleen.records.folder import RunFolder
from spleen.records.reading import BrokenRunError
from spleen.reporting.csv_text import CsvReader


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
