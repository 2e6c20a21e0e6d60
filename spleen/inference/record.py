"""predictions.csv beside the masks: what each prediction is of, its classes, and how sure it is."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from spleen.errors import InputError
from spleen.evaluation.class_names import CSV_NAME, VALUE_SEPARATOR
from spleen.imaging.files import ImageFiles
from spleen.inference.confidence import ClassConfidence
from spleen.reporting.csv_text import CsvReader, to_csv_by_name
from spleen.system.files import as_utf8, create_text, temporary_sibling, write_text
from spleen.system.locks import file_lock

CHANNEL_SEPARATOR = ";"
"""Separates the files of a multi-channel image in predictions.csv, as in data.table of a training."""
_COLUMNS = ["case_id", "image", "prediction", "label_values", *(field.name for field in fields(ClassConfidence))]
# Earlier versions wrote the columns up to `reasons`.
_FEWEST_COLUMNS = _COLUMNS.index("reasons") + 1
# Columns of predictions.csv as written by earlier versions, and their names today.
_RENAMED_COLUMNS = {
    "largest_component_share": "largest_component_fraction",
    "confidence": "soft_dice_confidence",
    "trust": "confidence_score",
}


def check_folder(folder: Path) -> None:
    """Create the folder of predictions if needed, and check that it is writable.

    Raises InputError if it is not, or contains a predictions.csv of another origin.
    """
    probe = temporary_sibling(folder / CSV_NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"nothing can be written into {folder} ({error.strerror}); give another --output") from error
    read_record(folder / CSV_NAME)


def image_text(image: ImageFiles) -> str:
    """The files of an image as predictions.csv names them."""
    return CHANNEL_SEPARATOR.join(str(file.absolute()) for file in image.paths)


def record(
    image: ImageFiles, mask: Path, scores: Sequence[ClassConfidence], label_values: Sequence[tuple[int, ...]]
) -> None:
    """Write the rows of one prediction to predictions.csv beside its mask, keeping those of other predictions.

    `label_values` are those of each class in `scores`.
    """
    path = mask.with_name(CSV_NAME)
    images = image_text(image)
    added = []
    for score, values in zip(scores, label_values, strict=True):
        cells = {name: _cell(value) for name, value in asdict(score).items()}
        cells["label_values"] = VALUE_SEPARATOR.join(map(str, values))
        added.append({"case_id": image.case_id, "image": images, "prediction": mask.name, **cells})
    create_text(path, _as_csv([]))
    with file_lock(path):  # other processes may be predicting into the same folder
        kept = [row for row in read_record(path) if row["prediction"] != as_utf8(mask.name)]
        write_text(path, _as_csv([*kept, *added]))


def _as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    return to_csv_by_name(_COLUMNS, rows)


def read_record(path: Path) -> list[dict[str, str]]:
    """The rows of a predictions.csv, "nan" where an earlier version had no column; none if there is no such file.

    Raises InputError for a file of another origin.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = CsvReader(file)
            reader.fieldnames = [_RENAMED_COLUMNS.get(name, name) for name in reader.fieldnames or ()]
            names = list(reader.fieldnames)
            if len(names) >= _FEWEST_COLUMNS and names == _COLUMNS[: len(names)]:
                return [{**dict.fromkeys(_COLUMNS, "nan"), **row} for row in reader]
    except (UnicodeDecodeError, csv.Error):
        pass  # not a CSV file
    raise InputError(f"{path} was not written by this version of `spleen predict`; move it away first")


def _cell(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
