"""All that a run folder holds, read for its page; what is missing or damaged is told and not raised."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from spleen.errors import InputError
from spleen.records.folder import RunFolder, state_of
from spleen.records.reading import BrokenRunError
from spleen.records.renamed_keys import with_current_keys
from spleen.records.slices import SliceRow, read_slices
from spleen.reporting.csv_text import CsvReader

T = TypeVar("T")

_KEYS = ("split", "case_id", "class_name", "reference")


@dataclass(frozen=True)
class ScoreRow:
    """One row of cases.csv; scores by column, NaN where there is none."""

    split: str
    case_id: str
    class_name: str
    scores: Mapping[str, float]
    is_labelled: bool = True
    """Whether the case labels the class."""

    @property
    def dice(self) -> float:
        """NaN if reference and prediction are both empty."""
        return self.scores.get("dice", math.nan)

    @property
    def reference_ml(self) -> float:
        """Volume of the reference."""
        return self.scores.get("volume_reference_mm3", math.nan) / 1000

    @property
    def prediction_ml(self) -> float:
        """Volume of the prediction."""
        return self.scores.get("volume_prediction_mm3", math.nan) / 1000


@dataclass(frozen=True)
class RunRecord:
    """The content of a run folder; a part that is missing is empty, and `missing` says why."""

    folder: Path
    state: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    epochs: Sequence[Mapping[str, float]]
    """The rows of metrics.csv; their epoch counts from 0."""
    rows: Sequence[ScoreRow]
    slices: Sequence[SliceRow]
    split: Mapping[str, Any]
    data: Mapping[str, Any]
    failure: str | None
    overlays: Path | None
    missing: Sequence[str]

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of cases.csv."""
        return tuple(dict.fromkeys(row.class_name for row in self.rows))

    @property
    def headline_split(self) -> str:
        """The split whose scores stand at the top: test, or without one val."""
        return "test" if any(row.split == "test" for row in self.rows) else "val"

    def case_dice(self, split: str) -> dict[str, float]:
        """The mean Dice of each case over its classes, without cases that have none."""
        of_case: dict[str, list[float]] = {}
        for row in self.rows:
            if row.split == split and not math.isnan(row.dice):
                of_case.setdefault(row.case_id, []).append(row.dice)
        return {case_id: math.fsum(values) / len(values) for case_id, values in of_case.items()}


def read_record(folder: Path) -> RunRecord:
    """Read a run folder, of any version and in any state. Raises InputError if it holds no configuration."""
    files, missing = RunFolder(folder), []

    def tried(read: Callable[[], T], otherwise: T, consequence: str) -> T:
        try:
            return read()
        except (BrokenRunError, OSError) as error:
            reason = f"{Path(error.filename).name}: {error.strerror}" if isinstance(error, OSError) else str(error)
            missing.append(f"{reason}, {consequence}")
            return otherwise

    config = _read_config(files.config)
    overlays = files.figures / "overlays.png"
    return RunRecord(
        folder=folder,
        state=state_of(folder),
        config=config,
        summary=tried(lambda: _read_json(files.summary), {}, "so there are no timings, versions and hardware"),
        epochs=tried(lambda: _read_epochs(files.metrics), [], "so there are no curves"),
        rows=tried(lambda: _with_surfaces(_read_rows(files.cases), files.surfaces), [], "so there are no scores"),
        slices=tried(lambda: read_slices(folder), (), "so there are no errors along the axis"),
        split=tried(lambda: _read_json(files.split), {}, "so the split is unknown"),
        data=tried(lambda: _read_json(files.data), {}, "so geometry and intensities are unknown"),
        failure=_failure(files.failure),
        overlays=overlays if overlays.is_file() else None,
        missing=missing,
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} is no run folder: it holds no {path.name}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no settings")
    return with_current_keys(content)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BrokenRunError(f"{path.name} is missing") from error
    except ValueError as error:
        raise BrokenRunError(f"{path.name} is no valid JSON") from error
    if not isinstance(content, dict):
        raise BrokenRunError(f"{path.name} contains no object")
    return content


def _read_epochs(path: Path) -> list[dict[str, float]]:
    rows = _read_csv(path)
    try:
        return [{name: float(value) for name, value in row.items() if value} for row in rows]
    except (ValueError, TypeError) as error:
        raise BrokenRunError(f"{path.name} is damaged: {error}") from error


def _read_rows(path: Path) -> list[ScoreRow]:
    rows = _read_csv(path)
    try:
        return [
            ScoreRow(
                row["split"],
                row["case_id"],
                row["class_name"],
                {name: float(value or "nan") for name, value in row.items() if name not in _KEYS},
                row.get("reference") != "not labelled",
            )
            for row in rows
        ]
    except KeyError as error:
        raise BrokenRunError(f"{path.name} has no column {error}") from error
    except (ValueError, TypeError) as error:
        raise BrokenRunError(f"{path.name} is damaged: {error}") from error


def _with_surfaces(rows: Sequence[ScoreRow], path: Path) -> list[ScoreRow]:
    """The rows of cases.csv with the scores of surface.csv, which most runs have not."""
    of_row = {(row.split, row.case_id, row.class_name): row.scores for row in _read_rows(path)} if path.exists() else {}
    nothing = dict.fromkeys(next(iter(of_row.values()), {}), math.nan)
    return [
        replace(row, scores={**row.scores, **of_row.get((row.split, row.case_id, row.class_name), nothing)})
        for row in rows
    ]


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(CsvReader(file))
    except FileNotFoundError as error:
        raise BrokenRunError(f"{path.name} is missing") from error
    except (ValueError, csv.Error) as error:
        raise BrokenRunError(f"{path.name} is no valid CSV: {error}") from error


def _failure(path: Path) -> str | None:
    try:
        return str(_read_json(path).get("message"))
    except (BrokenRunError, OSError):
        return None
