"""Which label value is which class, as the files beside masks tell it: predictions.csv, or a dataset.json."""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from spleen.data.layouts.registry import classes_beside
from spleen.imaging.classes import check_renamed
from spleen.reporting.csv_text import CsvReader
from spleen.system.files import as_utf8

CSV_NAME = "predictions.csv"
VALUE_SEPARATOR = ";"
"""Between the label values of a class that stands for several."""
_WHOLE_NUMBER = re.compile(r"-?[0-9]+")


def recorded_classes(predictions: Path) -> dict[int, str] | None:
    """The label values and names of the classes of a mask, or of a folder of masks.

    None where nothing is told of these masks, or they have different classes.
    """
    return _agreed(_classes_by_mask(predictions))


def _classes_by_mask(predictions: Path) -> list[dict[int, str]]:
    folder, mask = (predictions, None) if predictions.is_dir() else (predictions.parent, as_utf8(predictions.name))
    by_mask: dict[str, dict[int, str]] = {}
    try:
        with (folder / CSV_NAME).open(newline="", encoding="utf-8") as file:
            for row in CsvReader(file):
                values = row["label_values"].split(VALUE_SEPARATOR)
                if mask in (None, row["prediction"]) and all(map(_WHOLE_NUMBER.fullmatch, values)):
                    by_mask.setdefault(row["prediction"], {}).update(dict.fromkeys(map(int, values), row["class_name"]))
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError):  # no such file, or something else
        return []
    return list(by_mask.values())


def classes_to_score(
    given: Mapping[int, str] | None, new_names: Mapping[str, str] | None, predictions: Iterable[Path], reference: Path
) -> dict[int, str] | None:
    """The label values and names of the classes to score, under their `new_names` (old name to new one).

    Those that are `given`, else those that predictions.csv tells of all the predictions, else those of the dataset.json
    beside the reference's folder; None where neither tells any. Raises InputError for an old name that none has.
    """
    new_names = new_names or {}
    if given is not None:
        check_renamed(new_names, given.values())
        return _renamed(given, new_names)
    masks = [_classes_by_mask(path) for path in predictions]
    beside = classes_beside(reference)
    told = [*(classes for of_path in masks for classes in of_path), *([] if beside is None else [beside])]
    check_renamed(new_names, (name for classes in told for name in classes.values()))
    agreed = _agreed(_agreed(_renamed(classes, new_names) for classes in of_path) for of_path in masks)
    return agreed or (None if beside is None else _renamed(beside, new_names))


def _renamed(classes: Mapping[int, str], new_names: Mapping[str, str]) -> dict[int, str]:
    return {value: new_names.get(name, name) for value, name in classes.items()}


def _agreed(told: Iterable[dict[int, str] | None]) -> dict[int, str] | None:
    """The classes that all who tell any agree on; None where nobody does, or they contradict each other."""
    known = [classes for classes in told if classes is not None]
    return known[0] if known and all(other == known[0] for other in known) else None
