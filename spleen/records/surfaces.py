"""surface.csv of a run folder: how far the surfaces of prediction and reference of the test cases lie apart."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from spleen.records.reading import BrokenRunError
from spleen.reporting.csv_text import CsvReader, to_csv_by_name
from spleen.system.files import write_text


@dataclass(frozen=True)
class SurfaceScore:
    """Surface scores of one class in one case, with the tolerance of `spleen evaluate`.

    With one mask empty the distances are inf and the surface Dice is 0; with both empty all are NaN.
    """

    case_id: str
    class_name: str
    hausdorff95_mm: float
    average_surface_distance_mm: float
    surface_dice: float


def write_surfaces(path: Path, scores: Sequence[SurfaceScore]) -> None:
    """Write surface.csv, or remove it if there are no scores; raises OSError."""
    if not scores:
        path.unlink(missing_ok=True)
        return
    columns = ["split", *(field.name for field in fields(SurfaceScore))]
    write_text(path, to_csv_by_name(columns, [{"split": "test", **asdict(score)} for score in scores]))


def read_surfaces(path: Path) -> tuple[SurfaceScore, ...]:
    """The rows of surface.csv; none without the file. Raises BrokenRunError, also for an older run's fewer columns."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(_score(row) for row in CsvReader(file))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BrokenRunError(f"{path.name}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise BrokenRunError(f"{path.name} is damaged: {error}") from error


def _score(row: dict[str, str]) -> SurfaceScore:
    case_id, class_name, *numbers = (row[field.name] for field in fields(SurfaceScore))
    return SurfaceScore(case_id, class_name, *map(float, numbers))
