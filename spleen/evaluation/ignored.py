"""The value of reference voxels that nobody has labelled: given, or told by the files beside the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.data.layouts.dataset_json import DATASET_JSON
from spleen.data.layouts.registry import ignore_value_beside
from spleen.errors import InputError
from spleen.evaluation.class_names import CSV_NAME

_TRAINING = "the training"


@dataclass(frozen=True)
class IgnoredValue:
    """The label value of reference voxels that are not scored, and who says so."""

    value: int | None = None
    """None for none."""
    told_by: str | None = None
    """The name of the file that says so, or the training of the runs; None for the user."""

    @property
    def words(self) -> str:
        """What is not scored, for the output; empty if everything is."""
        if self.value is None:
            return ""
        source = "" if self.told_by is None else f" (ignore in {self.told_by})"
        return f"without voxels of value {self.value} in the reference{source}"


NOTHING_IGNORED = IgnoredValue()


def value_to_ignore(
    given: int | None, classes: Mapping[str, Sequence[int]] | None, classes_given: bool, reference: Path
) -> IgnoredValue:
    """The value that is `given`, else the ignore label in the dataset.json beside the folder of the reference.

    `classes` are those to score. If the user has named them (`classes_given`), one may hold the ignore label, which is
    then scored. Raises InputError if one does otherwise, for a given value that is 0 or of a class, and if the file's
    label is not one value other than 0.
    """
    if given is not None:
        check_ignore_value(given, classes or {})
        return IgnoredValue(given)
    try:
        value = ignore_value_beside(reference)
    except InputError as error:
        raise InputError(f"{error}. Correct it, or give the value with --ignore-value") from error
    named = {value: name for name, values in (classes or {}).items() for value in values}
    if value is None or (classes_given and value in named):
        return NOTHING_IGNORED
    if value in named:
        raise InputError(
            f"{value} is both the ignore label in the {DATASET_JSON} beside {reference} and, in {CSV_NAME} beside the "
            f"predictions, the class {named[value]}; say which classes count with --classes, such as 1=spleen"
        )
    return IgnoredValue(value, DATASET_JSON)


def value_unlabelled(
    given: int | None, of_runs: int | None, classes: Mapping[str, Sequence[int]], reference: Path
) -> IgnoredValue:
    """The value of unlabelled voxels in a reference of the runs' classes: the one given, the file's, or the runs'.

    The file's is the ignore label of the dataset.json beside it. Raises InputError as `value_to_ignore`.
    """
    told = value_to_ignore(given, classes, True, reference)
    return told if told.value is not None or of_runs is None else IgnoredValue(of_runs, _TRAINING)


def check_ignore_value(ignore_value: int, classes: Mapping[str, Sequence[int]]) -> None:
    """Raise InputError for a value that is 0 or belongs to a class."""
    taken = {value: f"the class {name}" for name, values in classes.items() for value in values} | {0: "the background"}
    if ignore_value in taken:
        raise InputError(
            f"{ignore_value} cannot be ignored: it is {taken[ignore_value]}; choose a value that only marks voxels of "
            "unknown class, such as 255 or -1"
        )
