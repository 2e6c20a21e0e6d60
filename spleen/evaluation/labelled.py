"""Which classes the reference of each case labels, where not all of them label every class."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from spleen.data.layouts.table import read_labelled
from spleen.errors import InputError
from spleen.system.text import shortened

Labelled = Mapping[str, tuple[str, ...]]
"""The names of the classes that each case labels, by case."""


def labelled_by_case(given: str | Path | Mapping[str, Sequence[str]], class_names: Iterable[str]) -> Labelled:
    """What is given, or read from a CSV file with the column labelled; raises InputError for unknown classes."""
    by_case = read_labelled(Path(given)) if isinstance(given, str | Path) else given
    names = list(class_names)
    for case_id, of_case in by_case.items():
        if unknown := [name for name in of_case if name not in names]:
            known = ", ".join(names) or "(none named)"
            raise InputError(f"'{case_id}' is said to be labelled for '{unknown[0]}', but the classes are {known}")
    return {case_id: tuple(of_case) for case_id, of_case in by_case.items()}


def check_told(case_ids: Iterable[str], labelled: Labelled | None) -> None:
    """Raise InputError for cases of which nothing says what they label; None: each case labels all classes."""
    if labelled is not None and (untold := [case_id for case_id in case_ids if case_id not in labelled]):
        raise InputError(f"nothing says which classes are labelled in {shortened(untold, 5)}; add a line for each case")


def unlabelled_of(
    case_id: str, labelled: Labelled | None, class_names: Iterable[str], present: Iterable[str]
) -> frozenset[str]:
    """The classes that a case does not label; none if `labelled` is None.

    `present` are the classes that its reference contains. Raises InputError if one of them is not said to be labelled,
    or nothing is said of the case.
    """
    if labelled is None:
        return frozenset()
    if case_id not in labelled:
        raise InputError(f"nothing says which classes are labelled in '{case_id}'; known are {shortened(labelled, 5)}")
    unlabelled = frozenset(class_names) - set(labelled[case_id])
    if wrong := [name for name in present if name in unlabelled]:
        raise InputError(
            f"the reference contains {wrong[0]}, which is not said to be labelled in '{case_id}'; "
            "correct the reference, or which classes are labelled"
        )
    return unlabelled
