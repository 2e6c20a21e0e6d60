"""slices.csv of a run folder: the voxels of reference, prediction and overlap in each scored slice."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from spleen.records.folder import RunFolder
from spleen.records.reading import BrokenRunError
from spleen.reporting.csv_text import from_cell, to_csv_by_name
from spleen.system.files import write_text


@dataclass(frozen=True)
class SliceRow:
    """Voxels of one class in one slice on the native grid, by the best checkpoint; slices count from 0."""

    split: str
    case_id: str
    class_name: str
    slice_index: int
    reference_voxels: int
    prediction_voxels: int
    overlap_voxels: int


def write_slices(folder: Path, rows: Iterable[SliceRow]) -> None:
    """Write slices.csv; raises OSError."""
    columns = [field.name for field in fields(SliceRow)]
    write_text(RunFolder(folder).slices, to_csv_by_name(columns, map(asdict, rows)))


def read_slices(folder: Path) -> tuple[SliceRow, ...]:
    """The rows of a run's slices.csv. Raises BrokenRunError; older runs have none."""
    path = RunFolder(folder).slices
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)  # not by name: there may be a hundred thousand rows
            header = next(reader, [])
            places = [header.index(field.name) for field in fields(SliceRow)]
            return tuple(_row([cells[place] for place in places]) for cells in reader)
    except FileNotFoundError as error:
        raise BrokenRunError(f"{path.name} is missing") from error
    except OSError as error:
        raise BrokenRunError(f"{path.name}: {error.strerror}") from error
    except (ValueError, IndexError, csv.Error) as error:  # a missing column, a row that ends early
        raise BrokenRunError(f"{path.name} is damaged: {error}") from error


def _row(cells: list[str]) -> SliceRow:
    split, case_id, class_name, *numbers = cells
    return SliceRow(split, from_cell(case_id), from_cell(class_name), *map(int, numbers))
