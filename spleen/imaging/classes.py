"""The classes of a model and the label values of each.

Imports nothing heavy, because planning the jobs of a study uses it.
"""

from collections.abc import Iterable, Mapping, Sequence
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
