"""The classes of a model and the label values of each.

Imports nothing heavy, because planning the jobs of a study uses it.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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

Labels = TypeVar("Labels", bound=Any)

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

    An empty tuple of values means the single non-zero value in the file. Classes that share values are regions, such as
    a whole tumour and its core: each is predicted by itself, and in a mask a later one covers an earlier one. The first
    value of each is then the one that a mask has where the region is on top.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]

    @property
    def regions(self) -> "Regions | None":
        """How the classes overlap; None if they do not."""
        return regions_of(self.values)

    @property
    def n_indices(self) -> int:
        """The largest index in a label map of these classes."""
        return count_indices(self.values)


@dataclass(frozen=True)
class Regions:
    """Overlapping classes: the classes to which each index of a label map belongs, from index 1.

    Index r is that of the first value of class r, and larger ones are those of other values in another set of classes.
    """

    of_index: tuple[frozenset[int], ...]

    def indices(self, number: int) -> tuple[int, ...]:
        """The indices of a label map that belong to the class with this number, from 1."""
        return tuple(index for index, classes in enumerate(self.of_index, start=1) if number in classes)

    def remaining(self, number: int) -> tuple[frozenset[int], ...]:
        """The classes that voxels of each index of a mask, from 0, keep where they leave the class with this number.

        They leave the classes inside it as well, which no mask has without it.
        """
        in_mask = self._in_mask()
        outside = frozenset[int]().union(*(classes for classes in in_mask if number not in classes))
        return tuple(classes & outside if number in classes else classes for classes in in_mask)

    def index_of(self, classes: frozenset[int]) -> int | None:
        """The index of a mask, from 0, whose voxels are of these classes and no other; None if there is none."""
        in_mask = self._in_mask()
        return in_mask.index(classes) if classes in in_mask else None

    def outermost_first(self) -> list[int]:
        """The numbers of the classes, each before those inside it."""
        in_mask = self._in_mask()
        return sorted(range(1, len(in_mask)), key=lambda number: -sum(number in classes for classes in in_mask))

    def _in_mask(self) -> tuple[frozenset[int], ...]:
        """The classes of each index that a prediction can have: the background, and each class on top."""
        return (frozenset(), *self.of_index[: len(frozenset().union(*self.of_index))])


def regions_of(values: Sequence[Sequence[int]]) -> Regions | None:
    """How classes with these label values overlap; None if they do not."""
    flat = [value for of_class in values for value in of_class]
    if len(set(flat)) == len(flat):
        return None

    def classes_of(value: int) -> frozenset[int]:
        return frozenset(number for number, of_class in enumerate(values, start=1) if value in of_class)

    on_top = [classes_of(of_class[0]) for of_class in values]
    others = dict.fromkeys(classes_of(value) for value in flat)
    return Regions((*on_top, *(classes for classes in others if classes not in on_top)))


def count_indices(values: Sequence[Sequence[int]]) -> int:
    """The largest index in a label map of classes with these label values."""
    regions = regions_of(values)
    return len(values) if regions is None else len(regions.of_index)


def in_class(label_map: Labels, number: int, regions: Regions | None = None) -> Labels:
    """Where the indices of a label map, an array or a tensor, belong to the class with this number, from 1."""
    first, *others = (number,) if regions is None else regions.indices(number)
    mask: Labels = label_map == first
    for index in others:
        mask = mask | (label_map == index)
    return mask


def parse_label_values(label_values: object, organ: str, regions_class_order: object = None) -> ClassMap:
    """Parse the setting `data.label_values` into a ClassMap.

    None: the file's only non-zero value is the organ. ``[1]`` or ``[3, 4]``: these values together are the organ.
    ``{left: 1, right: [2, 5]}``: several classes, which may share values if `regions_class_order` names the value of
    each in a mask. Raises InputError for anything else.
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
    alike = len({frozenset(group) for group in values}) < len(values)
    if not flat or 0 in flat or alike or any(not group or len(set(group)) < len(group) for group in values):
        raise _wrong(label_values)
    if regions_class_order is not None or len(set(flat)) < len(flat):
        values = _ordered(names, values, regions_class_order)
    if len(names) > MOST_CLASSES:
        raise InputError(f"data.label_values must have at most {MOST_CLASSES} classes; got {len(names)}")
    if (count := count_indices(values)) > MOST_CLASSES:
        raise InputError(f"data.label_values must have at most {MOST_CLASSES} combinations of classes; got {count}")
    return ClassMap(_checked_names(names), values)


def _ordered(
    names: tuple[str, ...], values: tuple[tuple[int, ...], ...], regions_class_order: object
) -> tuple[tuple[int, ...], ...]:
    """The values of overlapping classes, for each first the one that it has in a mask."""
    shared = sorted({value for group in values for value in group if sum(value in other for other in values) > 1})
    if not shared:
        raise InputError(
            f"data.regions_class_order={regions_class_order} is for classes that share label values, and these "
            "(data.label_values) share none; leave it out"
        )
    if regions_class_order is None:
        both = [name for name, group in zip(names, values, strict=True) if set(group) & set(shared)]
        raise InputError(
            f"the classes {', '.join(both)} share the label values {', '.join(map(str, shared))}, so they overlap. Say "
            "which value each class has in a mask where no later class covers it: "
            f"data.regions_class_order=[{','.join(str(group[0]) for group in values)}], or make the values disjoint"
        )
    given = regions_class_order if isinstance(regions_class_order, list | tuple) else ()
    order = tuple(value for value in given if isinstance(value, int) and not isinstance(value, bool))
    if len(order) != len(names) or len(set(order)) < len(order):
        raise InputError(
            f"data.regions_class_order must be a list of {len(names)} different label values, one for each of "
            f"{', '.join(names)}; got {regions_class_order}"
        )
    for name, value, group in zip(names, order, values, strict=True):
        if value not in group:
            raise InputError(
                f"data.regions_class_order gives '{name}' the value {value}, which is not one of its own "
                f"({', '.join(map(str, group))})"
            )
    return tuple((first, *(v for v in group if v != first)) for first, group in zip(order, values, strict=True))


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
