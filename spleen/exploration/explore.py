"""`explore`: facts about images and labels before training, suggested settings, and a verdict.

    from spleen import explore
    exploration = explore("ct.nii.gz", labels="spleen.nii.gz")
    print(exploration)                                # the tables of `spleen explore`
    exploration.cases[0].labels.values[0].volume_mm3
    exploration.suggestion.command

Cases are read one at a time; at most about 22 bytes per voxel of the largest one are in memory.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.errors import InputError
from spleen.exploration.facts.case import CaseFacts, explore_case
from spleen.exploration.facts.reading import NOT_CHOSEN
from spleen.exploration.inputs import find_cases, with_ignore_values
from spleen.exploration.outliers import Distribution, Duplicates, Outlier, distributions, duplicates, outliers
from spleen.exploration.suggestion.suggest import Suggestion, suggest, typical_case
from spleen.exploration.verdict import Verdict, judge
from spleen.reporting.tables import preformatted

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, repr=False)
class Exploration:
    """Everything that was found. Its text (`print`) is what the command prints."""

    cases: tuple[CaseFacts, ...]
    organ: tuple[int, ...]
    """The label values asked for; empty for all but 0."""
    distributions: tuple[Distribution, ...]
    outliers: tuple[Outlier, ...]
    duplicates: tuple[Duplicates, ...]
    suggestion: Suggestion | None
    """None where no case is free of errors."""
    verdict: Verdict

    def __str__(self) -> str:
        from spleen.exploration.text import to_text

        return to_text(self.cases, self.distributions, self.outliers, self.suggestion, self.verdict)

    def __repr__(self) -> str:
        verdict = self.verdict
        return f"Exploration({len(self.cases)} case(s); {verdict.n_errors} errors, {verdict.n_warnings} warnings)"

    def _repr_html_(self) -> str:
        return preformatted(str(self))


def explore(
    images: Paths,
    labels: Paths = (),
    organ: Sequence[int] = (),
    progress: Callable[[int, int, str], None] | None = None,
    above: float | None = None,
    identifying: bool = False,
    ignore_value: int | None = None,
) -> Exploration:
    """Explore images, with their labels if given: files, folders or glob patterns.

    `organ` are the label values that make up the organ, by default all but 0. `progress` is called before each case
    with its number from 0, the number of cases, and its name. With `above`, the voxels above that value are counted and
    located. With `identifying`, facts of DICOM series include what identifies the patient. `ignore_value` marks voxels
    of unknown class, which belong to no organ; by default it is the ignore label of an nnU-Net dataset.json in or
    beside the folder of the labels, unless that is part of the `organ`. A file that cannot be read becomes an error of
    the verdict, the others are still explored. Raises InputError for a path that names nothing, for files without a
    partner, for a single DICOM folder that holds several series, for an organ of value 0, for `above` that is not
    finite, and for an ignored value that is the background or part of the organ.
    """
    wanted = tuple(organ)
    if 0 in wanted:
        raise InputError(f"organ must be label values other than 0, the background; got {', '.join(map(str, wanted))}")
    if above is not None and not math.isfinite(above):
        raise InputError(f"above must be a finite number in the units of the image; got {above:g}")
    files = find_cases(_paths(images), _paths(labels))
    if ignore_value is not None and ignore_value in (0, *wanted):
        raise InputError(f"{ignore_value} cannot be ignored: it is the background or a value of the organ")
    files = with_ignore_values(files, ignore_value, wanted)
    found = []
    for number, case in enumerate(files):
        if progress is not None:
            progress(number, len(files), case.case_id)
        found.append(explore_case(case, wanted, above, identifying, case.ignore_value))
    if len(found) == 1 and (several := [each for each in found[0].findings if each.topic == NOT_CHOSEN]):
        raise InputError(several[0].message)
    outlying, copies = outliers(found), duplicates(found)
    typical = typical_case(found, {outlier.case_id for outlier in outlying})
    suggestion = None
    if typical is not None:
        reason = "the ignore label of dataset.json" if ignore_value is None else "the value that was given as unknown"
        suggestion = suggest(found, typical, wanted, typical.ignore_value, ignore_reason=reason)
    return Exploration(
        cases=tuple(found),
        organ=wanted,
        distributions=distributions(found),
        outliers=outlying,
        duplicates=copies,
        suggestion=suggestion,
        verdict=judge(found, outlying, copies, suggestion),
    )


def _paths(entries: Paths) -> list[Path]:
    return [Path(entries)] if isinstance(entries, str | Path) else [Path(entry) for entry in entries]
