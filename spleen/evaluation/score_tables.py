"""Scores read back from CSV: what `spleen evaluate --csv` writes, and the cases.csv of a run."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from spleen.errors import InputError
from spleen.imaging.classes import check_renamed, renamed
from spleen.records.folder import CASES, RunFolder
from spleen.reporting.csv_text import CsvReader
from spleen.system.text import bullets

CaseClass = tuple[str, str]
"""Name of the case, name of the class."""
ScoreTable = Mapping[CaseClass, Mapping[str, float]]

_KEYS = ("case_id", "class_name")


def find_table(path: Path) -> Path:
    """The CSV file that a path stands for: itself, or the cases.csv of a run folder; InputError if there is none."""
    if path.is_dir():
        if (table := RunFolder(path).cases).exists():
            return table
        raise InputError(
            f"{path} holds no {CASES}, so it is no finished run; to compare two folders of predictions, give "
            "their REFERENCE too"
        )
    if not path.exists():
        raise InputError(f"{path}: no such file or folder (relative to {Path.cwd()})")
    if path.suffix.lower() != ".csv":
        raise InputError(
            f"{path} is no .csv file; to compare predictions, give their REFERENCE too, and to compare scores give two "
            "CSV files of `spleen evaluate` or two run folders"
        )
    return path


def read_table(path: Path, split: str, metrics: Sequence[str]) -> dict[CaseClass, dict[str, float]]:
    """The `metrics` of each case and class in a file; of a run's cases.csv the rows of one split.

    Raises InputError for a file of another kind, a metric or split that it does not hold, and a case that comes twice.
    """
    rows, columns = _read_rows(path)
    missing = [name for name in metrics if name not in columns]
    if missing:
        known = ", ".join(name for name in columns if name not in (*_KEYS, "split"))
        raise InputError(f"{path} has no column {', '.join(missing)}; it has {known}")
    if "split" in columns:
        splits = dict.fromkeys(row["split"] for row in rows)
        rows = [row for row in rows if row["split"] == split]
        if not rows:
            raise InputError(f"{path} has no row of the split '{split}'; it has {', '.join(splits) or 'no row'}")
    table: dict[CaseClass, dict[str, float]] = {}
    for row in rows:
        key = row["case_id"], row["class_name"]
        if key in table:
            raise InputError(f"{path} holds case {key[0]}, class {key[1]} twice; which one counts?")
        table[key] = {name: _number(path, key, name, row[name]) for name in metrics}
    if not table:
        raise InputError(f"{path} holds no case")
    return table


def rename_in_tables(
    tables: tuple[ScoreTable, ScoreTable], new_names: Mapping[str, str]
) -> tuple[ScoreTable, ScoreTable]:
    """Both tables with the new names of classes.

    Raises InputError for an old name that neither has, and where two classes of a table would have the same name.
    """
    check_renamed(new_names, (class_name for table in tables for _, class_name in table))
    first, second = (_renamed(table, new_names) for table in tables)
    return first, second


def _renamed(table: ScoreTable, new_names: Mapping[str, str]) -> ScoreTable:
    names = list(dict.fromkeys(class_name for _, class_name in table))
    name_of = dict(zip(names, renamed(names, new_names), strict=True))
    return {(case_id, name_of[name]): scores for (case_id, name), scores in table.items()}


def _read_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = CsvReader(file)
            rows, columns = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error
    if any(key not in columns for key in _KEYS):
        raise InputError(
            f"{path} has no columns {' and '.join(_KEYS)}: it is neither written by `spleen evaluate --csv` nor the "
            f"{CASES} of a run"
        )
    return rows, columns


def _number(path: Path, key: CaseClass, name: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise InputError(f"{path}: {name} of case {key[0]}, class {key[1]} is no number: {text!r}") from None


def check_same_cases(names: tuple[str, str], tables: tuple[ScoreTable, ScoreTable]) -> None:
    """Raise InputError that lists the cases, or else the classes of a case, that only one side has."""
    for part, word in ((slice(0, 1), "case"), (slice(0, 2), "case and class")):
        first, second = ([" ".join(key[part]) for key in table] for table in tables)
        check_same_names(names, (first, second), word)


def check_same_names(names: tuple[str, str], sides: tuple[Sequence[str], Sequence[str]], word: str) -> None:
    """Raise InputError that lists what only one side has; each is a `word`, such as case."""
    first, second = (dict.fromkeys(side) for side in sides)
    lonely = [f"only in {names[0]}: {_unlike(key, second)}" for key in first if key not in second]
    lonely += [f"only in {names[1]}: {_unlike(key, first)}" for key in second if key not in first]
    if lonely:
        told = bullets(lonely, 20)
        raise InputError(f"both sides must hold the same cases and classes; each {word} that only one has:{told}")


def _unlike(name: str, others: Iterable[str]) -> str:
    """The name; in ASCII if another one only looks the same, such as é in one character or as e with an accent."""
    composed = normalize("NFC", name)
    return ascii(name) if any(normalize("NFC", other) == composed for other in others) else name
