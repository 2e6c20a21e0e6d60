"""The classes of a model and the label values of each.

Imports nothing heavy, because planning the jobs of a study uses it.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
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

MOST_CLASSES = 254
"""Class indices are stored as bytes; 0 is the background, and 255 marks voxels that are ignored."""

# Unlike left and right, these halves are not alike: mirrored, one does not look like the other.
_HALVES = {
    "anterior_posterior": {"anterior", "posterior"},
    "superior_inferior": {"superior", "inferior", "upper", "lower"},
}
_LEFT, _RIGHT = ("left", "lh", "l", "lt"), ("right", "rh", "r", "rt")
_ONLY_AT_THE_ENDS = ("l", "r", "lt", "rt")  # in the middle of a name, these mean something else
_NEW_WORD = re.compile(
    r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=^[Ll]eft)(?=[a-z])|(?<=^[Rr]ight)(?=[a-z])"
)


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
    if len(names) > MOST_CLASSES:
        raise InputError(f"data.label_values must have at most {MOST_CLASSES} classes; got {len(names)}")
    return ClassMap(_checked_names(names), values)


def renamed(names: Sequence[str], new_names: Mapping[str, str]) -> tuple[str, ...]:
    """Names of classes after renaming; `new_names` maps old names to new ones and may contain other classes too.

    Raises InputError where two classes would have the same name, and for a name that is not allowed.
    """
    changed = tuple(new_names.get(name, name) for name in names)
    for name in changed:
        if changed.count(name) > 1:
            raise InputError(f"of the classes {', '.join(names)} two would both be called '{name}'")
    return _checked_names(changed)


def check_renamed(new_names: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise InputError for an old name that is none of the `known` classes."""
    known = dict.fromkeys(known)
    for name in new_names:
        if name not in known:
            listed = ", ".join(known) or "not named; name them with --classes, such as --classes 1=spleen"
            raise InputError(f"there is no class '{name}' to rename: the classes are {listed}")


def swapped_classes(names: Sequence[str], flips: Collection[str]) -> tuple[int, ...]:
    """For each class index, 0 for the background, the class that it is in a mirrored slice; empty if all stay.

    `flips` are the directions along which slices are mirrored. Along left_right, classes with a side, such as
    left_kidney and right_kidney, kidney_l and kidney_r or L and R, change places. Raises InputError for a class with a
    side without exactly one partner, and for an anterior, posterior, superior or inferior one mirrored along that
    direction: mirroring would mislabel it.
    """
    for direction in flips:
        for name in names:
            if _HALVES.get(direction, set()) & set(_words(name)):
                raise InputError(f"{direction} mirrors the class '{name}' to where it would be wrong")
    if "left_right" not in flips:
        return ()
    parts = [_side_and_rest(name) for name in names]
    swapped = [0]
    for index, (side, rest) in enumerate(parts, start=1):
        other = {"left": "right", "right": "left"}.get(side, "")
        partners = [number for number, part in enumerate(parts, start=1) if part == (other, rest)] if other else [index]
        if len(partners) != 1:
            raise InputError(
                f"left_right mirrors the class '{names[index - 1]}', which has a side, and there is not exactly one "
                f"class of the same name on the {other} (the classes are {', '.join(names)})"
            )
        swapped += partners
    return tuple(swapped) if any(side for side, _ in parts) else ()


def _words(name: str) -> list[str]:
    return [word.lower() for word in _NEW_WORD.split(name) if word]


def _side_and_rest(name: str) -> tuple[str, tuple[str, ...]]:
    """The side of a class, left, right or none (""), and the other words of its name."""
    words = _words(name)
    sides = {
        number: "left" if word in _LEFT else "right"
        for number, word in enumerate(words)
        if word in (*_LEFT, *_RIGHT) and (word not in _ONLY_AT_THE_ENDS or number in (0, len(words) - 1))
    }
    rest = tuple(word for number, word in enumerate(words) if number not in sides)
    is_numbered = bool(rest) and all(word.isdecimal() for word in rest)  # such as the lumbar vertebra L 5
    if len(set(sides.values())) != 1 or (is_numbered and "l" in words):
        return "", tuple(words)
    return next(iter(sides.values())), rest


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
