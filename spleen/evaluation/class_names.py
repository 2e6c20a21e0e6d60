"""Which label value is which class, as the files beside masks tell it: predictions.csv, or a dataset.json."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from spleen.data.layouts.registry import label_values_beside
from spleen.errors import InputError
from spleen.imaging.classes import check_renamed
from spleen.reporting.csv_text import CsvReader
from spleen.system.files import as_utf8

CSV_NAME = "predictions.csv"
VALUE_SEPARATOR = ";"
"""Between the label values of a class that stands for several."""
_WHOLE_NUMBER = re.compile(r"-?[0-9]+")


ClassValues = dict[str, tuple[int, ...]]
"""The label values of each class by its name; classes may share values."""


def _classes_by_mask(predictions: Path) -> list[ClassValues]:
    folder, mask = (predictions, None) if predictions.is_dir() else (predictions.parent, as_utf8(predictions.name))
    by_mask: dict[str, ClassValues] = {}
    try:
        with (folder / CSV_NAME).open(newline="", encoding="utf-8") as file:
            for row in CsvReader(file):
                values = row["label_values"].split(VALUE_SEPARATOR)
                if mask in (None, row["prediction"]) and all(map(_WHOLE_NUMBER.fullmatch, values)):
                    by_mask.setdefault(row["prediction"], {})[row["class_name"]] = tuple(map(int, values))
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError):  # no such file, or something else
        return []
    return list(by_mask.values())


def classes_to_score(
    given: Mapping[int, str] | Mapping[str, Sequence[int]] | None,
    new_names: Mapping[str, str] | None,
    predictions: Iterable[Path],
    reference: Path,
) -> ClassValues | None:
    """The label values of the classes to score, by their names under `new_names` (old name to new one).

    Those that are `given`, as names of values or as values of names, which may overlap; else those that predictions.csv
    tells of all the predictions, else those of the dataset.json beside the reference's folder; None where neither tells
    any. Raises InputError for an old name that none has.
    """
    new_names = new_names or {}
    if given is not None:
        classes = _by_name(given)
        check_renamed(new_names, classes)
        return _renamed(classes, new_names)
    masks = [_classes_by_mask(path) for path in predictions]
    beside = label_values_beside(reference)
    told = [*(classes for of_path in masks for classes in of_path), *([] if beside is None else [beside])]
    check_renamed(new_names, (name for classes in told for name in classes))
    agreed = _agreed(_agreed(_renamed(classes, new_names) for classes in of_path) for of_path in masks)
    return agreed or (None if beside is None else _renamed(beside, new_names))


def _by_name(given: Mapping[int, str] | Mapping[str, Sequence[int]]) -> ClassValues:
    classes: ClassValues = {}
    for key, entry in given.items():
        if isinstance(key, str) and not isinstance(entry, str):
            classes[key] = tuple(entry)
        elif isinstance(entry, str) and not isinstance(key, str):
            classes[entry] = (*classes.get(entry, ()), key)
        else:
            raise InputError(
                f"classes must be names of label values, {{1: 'spleen'}}, or label values of names, "
                f"{{'spleen': [1]}}; got {key!r}: {entry!r}"
            )
    return classes


def _renamed(classes: Mapping[str, tuple[int, ...]], new_names: Mapping[str, str]) -> ClassValues:
    renamed: ClassValues = {}
    for name, values in classes.items():
        new_name = new_names.get(name, name)
        renamed[new_name] = tuple(dict.fromkeys((*renamed.get(new_name, ()), *values)))
    return renamed


def _agreed(told: Iterable[ClassValues | None]) -> ClassValues | None:
    """The classes that all who tell any agree on; None where nobody does, or they contradict each other."""
    known = [classes for classes in told if classes is not None]
    return known[0] if known and all(_as_sets(other) == _as_sets(known[0]) for other in known) else None


def _as_sets(classes: ClassValues) -> dict[str, frozenset[int]]:
    return {name: frozenset(values) for name, values in classes.items()}
