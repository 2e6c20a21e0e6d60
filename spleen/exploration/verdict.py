"""The verdict on all cases: errors, warnings and notes, grouped by topic."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.findings import Finding, Severity
from spleen.exploration.outliers import Duplicates, Outlier, kinds_of
from spleen.exploration.suggestion.suggest import Suggestion
from spleen.reporting.numbers import format_number
from spleen.system.text import shortened

_SCALES_APART = 10
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Verdict:
    """Everything found, errors first."""

    findings: tuple[Finding, ...]

    @property
    def n_errors(self) -> int:
        """How many findings are errors: with one, the data are not fit for training as they are."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def n_warnings(self) -> int:
        """How many findings are warnings."""
        return sum(finding.severity == "warning" for finding in self.findings)

    def by_topic(self) -> list[tuple[Finding, ...]]:
        """The findings in groups of the same topic, errors first."""
        ordered = sorted(self.findings, key=lambda finding: (_ORDER.index(finding.severity), finding.topic))
        return [tuple(group) for _, group in groupby(ordered, lambda finding: (finding.severity, finding.topic))]


def judge(
    cases: Sequence[CaseFacts],
    outliers: Sequence[Outlier],
    duplicates: Sequence[Duplicates],
    suggestion: Suggestion | None,
) -> Verdict:
    """Put the findings of the cases and those about the set together."""
    found = [finding for case in cases for finding in case.findings]
    found += _about_copies(duplicates)
    found += _about_the_set(cases, outliers)
    if suggestion is not None and suggestion.obstacle is not None:
        found.append(Finding("warning", "too few slices", suggestion.obstacle, suggestion.case_id))
    return Verdict(tuple(sorted(found, key=lambda finding: _ORDER.index(finding.severity))))


def _about_copies(duplicates: Sequence[Duplicates]) -> Iterator[Finding]:
    for group in duplicates:
        names = shortened(group.case_ids)
        if group.what == "image":
            message = f"{names}: the same voxels; if split between training and test, the test score is inflated"
        else:
            message = f"{names}: different images share one label, voxel by voxel; was a file copied by mistake?"
        yield Finding("warning", f"duplicate {group.what}", message)


def _about_the_set(cases: Sequence[CaseFacts], outliers: Sequence[Outlier]) -> Iterator[Finding]:
    names = list(dict.fromkeys(outlier.case_id for outlier in outliers))
    if names:
        yield Finding("warning", "outliers", f"outliers: {shortened(names)}")
    yield from _about_scale(cases)
    kinds = kinds_of(cases)
    modalities, orientations = (set(kinds.get(name, {}).values()) for name in ("modality", "orientation"))
    if len(modalities) > 1:
        yield Finding(
            "warning", "mixed modalities", f"the set holds {', '.join(sorted(modalities))}; train one model for each"
        )
    if len(orientations) > 1:
        message = f"arrays run along {', '.join(sorted(orientations))}; harmless, each is read by its own affine"
        yield Finding("note", "mixed orientations", message)


def _about_scale(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    medians = [case.intensity.body.median for case in cases if case.intensity and case.intensity.modality == "MR"]
    low, high = min(medians, default=0.0), max(medians, default=0.0)
    if low > 0 and high > _SCALES_APART * low:
        message = f"median intensities of the body go from {format_number(low)} to {format_number(high)}"
        yield Finding("note", "intensity scale", f"{message}; harmless with intensity=mr, which scales each volume")
