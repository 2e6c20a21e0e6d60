"""The scores of single cases: cases.csv and split.json of a run folder."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spleen.results_folders import BrokenRunError
from spleen.results_statistics import mean_of_known

Stage = Literal["val", "test"]
Metric = Literal["dice", "jaccard"]


@dataclass(frozen=True)
class CaseRow:
    """Scores of one class in one case; NaN where reference and prediction are both empty."""

    stage: str
    case_id: str
    class_name: str
    dice: float
    jaccard: float


def read_cases(folder: Path) -> tuple[CaseRow, ...]:
    """The rows of a run's cases.csv; columns beyond those needed are ignored. Raises BrokenRunError."""
    try:
        with (folder / "cases.csv").open(newline="") as file:
            return tuple(
                CaseRow(row["split"], row["case_id"], row["class_name"], _number(row["dice"]), _number(row["jaccard"]))
                for row in csv.DictReader(file)
            )
    except FileNotFoundError as error:
        raise BrokenRunError("cases.csv is missing") from error
    except OSError as error:
        raise BrokenRunError(f"cases.csv: {error.strerror}") from error
    except KeyError as error:
        raise BrokenRunError(f"cases.csv has no column {error}") from error
    except (ValueError, TypeError, csv.Error) as error:  # TypeError: a row that ends early
        raise BrokenRunError(f"cases.csv is damaged: {error}") from error


def _number(text: str) -> float:
    return float(text) if text else math.nan


def case_means(
    runs: Iterable[Sequence[CaseRow]], stage: Stage, metric: Metric, class_name: str | None = None
) -> dict[str, float]:
    """Each case once: mean over its classes, or of one of them, then over the runs that scored it; NaN is left out."""
    of_case: dict[str, list[float]] = {}
    for rows in runs:
        by_case: dict[str, list[float]] = {}
        for row in rows:
            if row.stage == stage and class_name in (None, row.class_name):
                by_case.setdefault(row.case_id, []).append(row.dice if metric == "dice" else row.jaccard)
        for case_id, values in by_case.items():
            of_case.setdefault(case_id, []).append(mean_of_known(values))
    return {case_id: mean_of_known(values) for case_id, values in of_case.items()}


def count_folds(folder: Path) -> int | None:
    """Of how many folds a run is one: those in its splits_final.json; None where that does not tell."""
    try:
        folds = json.loads((folder / "splits_final.json").read_bytes())
    except (OSError, ValueError):
        return None
    return len(folds) if isinstance(folds, list) else None


def slices_of_test(folder: Path) -> Mapping[str, object] | None:
    """Where a run was tested, if that was in slices of a volume: the axis, and the slice indices of each case.

    None where whole cases were tested, or where split.json does not tell.
    """
    try:
        record = json.loads((folder / "split.json").read_bytes())
        if record.get("kind") != "slice_blocks":
            return None
        return {"axis": record["axis"], **{case: parts["test"] for case, parts in record["cases"].items()}}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
