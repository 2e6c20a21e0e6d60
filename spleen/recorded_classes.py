"""Which label value is which class, as predictions.csv tells it beside the masks that `spleen predict` writes."""

import csv
import re
from pathlib import Path

CSV_NAME = "predictions.csv"
VALUE_SEPARATOR = ";"
"""Between the label values of a class that stands for several."""
_WHOLE_NUMBER = re.compile(r"-?[0-9]+")


def recorded_classes(predictions: Path) -> dict[int, str] | None:
    """The label values and names of the classes of a mask, or of a folder of masks.

    None where nothing is told of these masks, or they have different classes.
    """
    folder, mask = (predictions, None) if predictions.is_dir() else (predictions.parent, predictions.name)
    by_mask: dict[str, dict[int, str]] = {}
    try:
        with (folder / CSV_NAME).open(newline="") as file:
            for row in csv.DictReader(file):
                values = row["label_values"].split(VALUE_SEPARATOR)
                if mask in (None, row["prediction"]) and all(map(_WHOLE_NUMBER.fullmatch, values)):
                    by_mask.setdefault(row["prediction"], {}).update(dict.fromkeys(map(int, values), row["class_name"]))
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError):  # no such file, or something else
        return None
    classes = list(by_mask.values())
    return classes[0] if classes and all(other == classes[0] for other in classes) else None
