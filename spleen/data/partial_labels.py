"""Cases in which only some classes are labelled, such as those of several merged datasets.

What is background in their labels may be one of the other classes. For the loss it gets a code of its own in the label
map, one for each set of classes that it may be; references keep 0, and the scores leave the unlabelled classes out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from spleen.data.cases import Case
from spleen.data.store.entry import StoredCase
from spleen.errors import InputError
from spleen.imaging.classes import MOST_CLASSES
from spleen.imaging.labels import IGNORED
from spleen.system.text import bullets, shortened

Unlabelled = Mapping[int, frozenset[int]]
"""The classes that a background may also be, by its code in a label map."""


def check_labelled(cases: Sequence[Case], class_names: Sequence[str]) -> None:
    """Raise InputError for unknown classes, cases without any labelled one, and classes that no case labels."""
    for case in cases:
        if case.labelled is None:
            continue
        if unknown := [name for name in case.labelled if name not in class_names]:
            raise InputError(
                f"case '{case.case_id}' is said to be labelled for '{unknown[0]}', but the classes are "
                f"{shortened(class_names, 20)}; correct the column labelled, or data.labelled_classes"
            )
        if not case.labelled:
            raise InputError(f"case '{case.case_id}' is labelled for no class; leave it out")
    for name in class_names:
        if all(case.labelled is not None and name not in case.labelled for case in cases):
            raise InputError(
                f"'{name}' is labelled in none of the {len(cases)} cases, so it cannot be learned; leave the class out "
                "of data.label_values, or correct which classes are labelled"
            )


def mark_unlabelled(
    opened: Sequence[StoredCase], cases: Sequence[Case], class_names: Sequence[str]
) -> tuple[StoredCase, ...]:
    """The opened cases with their unlabelled classes, and the code of their background.

    Raises InputError for a label that contains a class which the case does not label.
    """
    labelled = {case.case_id: case.labelled for case in cases}
    numbers = dict(enumerate(class_names, start=1))
    marked, wrong = [], []
    for case in opened:
        names = labelled[case.case_id]
        unlabelled = frozenset(number for number, name in numbers.items() if names is not None and name not in names)
        found = [numbers[number] for number in sorted(unlabelled) if case.volumes_mm3[number - 1]]
        if found:
            wrong.append(f"{case.case_id}: {shortened(found, 8)}")
        marked.append(replace(case, unlabelled=unlabelled))
    if wrong:
        raise InputError(
            f"{len(wrong)} label(s) contain classes that are not said to be labelled in them; add them to the labelled "
            f"ones, or remove them from the labels:{bullets(wrong)}"
        )
    codes = _coded({case.unlabelled for case in marked} - {frozenset()}, len(class_names))
    code_of = {classes: code for code, classes in codes.items()}
    return tuple(replace(case, background_code=code_of.get(case.unlabelled, 0)) for case in marked)


def unlabelled_codes(cases: Sequence[StoredCase]) -> Unlabelled:
    """The codes of the cases' backgrounds; empty if every class is labelled in every case."""
    return {case.background_code: case.unlabelled for case in cases if case.background_code}


def with_mirrored(codes: Unlabelled, swapped: Sequence[int]) -> tuple[Unlabelled, tuple[int, ...]]:
    """The codes and the class indices after mirroring: an unlabelled left kidney becomes an unlabelled right one.

    `swapped` are the class indices after mirroring along left_right; empty if none changes.
    """
    if not codes or not swapped:
        return codes, tuple(swapped)
    mirrored = {code: frozenset(swapped[number] for number in classes) for code, classes in codes.items()}
    added = {*mirrored.values()} - {*codes.values()}
    codes = {**codes, **_coded(added, len(swapped) - 1, highest=min(codes) - 1)}
    code_of = {classes: code for code, classes in codes.items()}
    exchanged = list(range(IGNORED + 1))
    exchanged[: len(swapped)] = swapped
    for code, classes in codes.items():
        exchanged[code] = code_of[frozenset(swapped[number] for number in classes)]
    return codes, tuple(exchanged)


def _coded(sets: Collection[frozenset[int]], n_classes: int, highest: int = IGNORED - 1) -> dict[int, frozenset[int]]:
    """A code for each set, from `highest` down. Raises InputError if they do not fit above the class indices."""
    if highest - len(sets) < n_classes:
        raise InputError(
            f"the cases have too many different sets of labelled classes for {n_classes} classes: a label map holds "
            f"{MOST_CLASSES} class indices and sets together"
        )
    return {highest - number: classes for number, classes in enumerate(sorted(sets, key=sorted))}
