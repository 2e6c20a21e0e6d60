"""The classes of a model and the label values of each.

Imports nothing heavy, because planning the jobs of a study uses it.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from spleen.errors import InputError

# Keys next to the class names in summary.json.
_RESERVED = {
    "dice",
    "jaccard",
    "sensitivity",
    "specificity",
    "precision",
    "n_cases",
    "n_empty",
    "n_missed",
    "background",
}


@dataclass(frozen=True)
class ClassMap:
    """Foreground classes in order (class index 1, 2, …) and the label values of each.

    An empty tuple of values means the single non-zero value in the file.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]


def parse_label_values(label_values: object, organ: str) -> ClassMap:
    """Parse the setting `data.label_values` into a ClassMap.

    None: the file's only non-zero value is the organ. ``[1]`` or ``[3, 4]``: these values together are the organ.
    ``{left: 1, right: [2, 5]}``: several classes. Raises InputError for anything else.
    """
    if label_values is None:
        return ClassMap(_checked_names((organ,)), ((),))
    if isinstance(label_values, Mapping):
        names = tuple(str(name) for name in label_values)
        values = tuple(_whole_numbers(entry) for entry in label_values.values())
    elif isinstance(label_values, Sequence) and not isinstance(label_values, str):
        names, values = (organ,), (_whole_numbers(label_values),)
    else:
        raise _wrong(label_values)
    flat = [value for group in values for value in group]
    if not flat or any(not group for group in values) or 0 in flat or len(set(flat)) < len(flat):
        raise _wrong(label_values)
    return ClassMap(_checked_names(names), values)


# Words of class names that a mirrored image makes wrong, by the direction of the flip.
_SIDES = {
    "left_right": {"left", "right", "l", "r"},
    "anterior_posterior": {"anterior", "posterior"},
    "superior_inferior": {"superior", "inferior", "upper", "lower"},
}


def check_flips(class_names: Sequence[str], flips: Collection[str], name: str) -> None:
    """Raise InputError for a flip under which a class would change its side; `name` is the setting's.

    In a mirrored image a left kidney lies where right kidneys do, so that the network learns both as one.
    """
    for direction in flips:
        for class_name in class_names:
            if _SIDES.get(direction, set()) & set(re.findall(r"[a-z]+", class_name.lower())):
                raise InputError(
                    f"{name}={direction} mirrors the class '{class_name}' to its other side, where it would be wrong; "
                    "leave this flip out, or merge the two sides into one class"
                )


def _checked_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name in _RESERVED or not name:
            raise InputError(f"'{name}' is not allowed as a class name: it has another meaning in the results")
    return names


def _whole_numbers(entry: object) -> tuple[int, ...]:
    numbers = entry if isinstance(entry, Sequence) and not isinstance(entry, str) else [entry]
    whole = tuple(number for number in numbers if isinstance(number, int) and not isinstance(number, bool))
    if len(whole) < len(numbers):
        raise _wrong(entry)
    return whole


def _wrong(label_values: object) -> InputError:
    return InputError(
        "data.label_values must be a list of non-zero integers such as [1], a mapping from class names to "
        f"integers such as {{left: 1, right: [2,3]}}, without duplicates, or null; got {label_values}"
    )
