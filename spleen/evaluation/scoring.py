"""Score pairs of label files, one case at a time; a pair that fails does not lose the others."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spleen.data.pairing import match_by_name
from spleen.errors import InputError
from spleen.evaluation.case_scores import (
    ClassScore,
    ScoreSettings,
    count_scored,
    label_values,
    score_absent,
    score_case,
)
from spleen.evaluation.ignored import NOTHING_IGNORED, IgnoredValue
from spleen.evaluation.labelled import Labelled, unlabelled_of
from spleen.imaging.files import case_name
from spleen.imaging.geometry import check_same_grid
from spleen.imaging.nifti import Volume, read_label
from spleen.system.repeated_warnings import folded_warnings

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Called before each case with its number from 0, the number of cases, and its name."""

# More values than this, and a file is an image rather than a label map; with negative ones, such as HU, sooner.
_MOST_VALUES, _MOST_WITH_NEGATIVE = 256, 32


@dataclass(frozen=True)
class FailedPair:
    """A case that could not be scored."""

    case_id: str
    reason: str


@dataclass(frozen=True)
class ScoredCase:
    """The scores of one case, and its grid: enough to score a class that the case does not hold."""

    case_id: str
    scores: tuple[ClassScore, ...]
    n_voxels: int
    """Those that are scored."""
    voxel_volume_mm3: float
    n_ignored: int = 0
    """Voxels with the ignored value in the reference."""


@dataclass(frozen=True)
class RawSettings:
    """What the user asked for; without `classes`, each value that a case holds is a class of its own."""

    classes: Mapping[str, tuple[int, ...]] | None
    tolerance_mm: Mapping[str, float] | float
    prevalence: float | None
    surface: bool
    grid_tolerance_mm: float
    ignored: IgnoredValue = NOTHING_IGNORED
    """The value of reference voxels that are not scored."""
    labelled: Labelled | None = None
    """The names of the classes that each reference labels; None if all of them label all classes."""

    def resolve(self, classes: Mapping[str, tuple[int, ...]]) -> ScoreSettings:
        """The settings for these classes."""
        same = self.tolerance_mm
        tolerance_mm = dict(same) if isinstance(same, Mapping) else dict.fromkeys(classes, float(same))
        return ScoreSettings(classes, tolerance_mm, self.prevalence, self.surface, self.ignored)

    def only_labelled(self, case_id: str, scores: Sequence[ClassScore]) -> list[ClassScore]:
        """The scores of a case, undefined for classes that its reference does not label.

        Raises InputError if it contains such a class, or nothing is said of the case.
        """
        names = [score.class_name for score in scores]
        present = [score.class_name for score in scores if score.volume_reference_mm3]
        unlabelled = unlabelled_of(case_id, self.labelled, names, present)
        return [score.unlabelled() if score.class_name in unlabelled else score for score in scores]


@dataclass(frozen=True)
class FilePairs:
    """What is scored, (prediction, reference) by case name, and the cases whose reference has no prediction."""

    files: dict[str, tuple[Path, Path]]
    unpredicted: tuple[str, ...]


def pair_files(prediction: Path, reference: Path, only_predicted: bool) -> FilePairs:
    """Pair two files, or two folders by name; only with `only_predicted` may a reference lack a prediction.

    Raises InputError as `spleen.data.pairing.match_by_name` does, and for files without a partner.
    """
    matched = match_by_name(prediction, reference)
    if only_predicted:
        replace(matched, unmatched_second=()).check_complete()
    elif matched.unmatched_first:
        matched.check_complete()
    else:
        matched.check_complete("add it, or leave such references out with --only-predicted")
    return FilePairs(matched.paired, tuple(map(case_name, matched.unmatched_second)))


def score_pairs(
    pairs: Mapping[str, tuple[Path, Path]], settings: RawSettings, progress: Progress | None = None
) -> tuple[list[ScoredCase], list[FailedPair]]:
    """Score (prediction, reference) files by case name; files that are wrong or damaged become failures."""
    scored, failures = [], []
    with folded_warnings("spleen.imaging.nifti"):
        for number, (case_id, (prediction, reference)) in enumerate(pairs.items()):
            if progress is not None:
                progress(number, len(pairs), case_id)
            try:
                scored.append(score_pair(case_id, prediction, reference, settings))
            except (InputError, OSError) as error:
                failures.append(FailedPair(case_id, str(error)))
    return scored, failures


def score_pair(case_id: str, prediction: Path, reference: Path, settings: RawSettings) -> ScoredCase:
    """Score two label files, each reoriented to RAS by its own affine.

    Raises InputError for a file that `read_label` refuses, for different grids, for a file with so many values that it
    must be an image, for a reference without a voxel to score, and for a class that is there but not said to be
    labelled.
    """
    expected = read_label(reference)
    predicted = read_label(prediction, expected.affine)
    names = f"reference {reference}", f"prediction {prediction}"
    _check_grids(names, (expected, predicted), settings.grid_tolerance_mm)
    for path, label in ((prediction, predicted), (reference, expected)):
        if label.array.min(initial=0) < -1 and len(label_values(label.array)) > _MOST_VALUES:
            raise InputError(f"{path} is an image and not a label map: it holds hundreds of values, also negative ones")
    classes = settings.classes
    if classes is None:
        labels = (prediction, predicted), (reference, expected)
        values = sorted({value for label in labels for value in _values(*label, settings.ignored.value)})
        classes = {str(value): (value,) for value in values}
    n_scored = count_scored(expected.array, settings.ignored.value)
    if n_scored == 0:
        raise InputError(f"{reference}: every voxel is {settings.ignored.value} and ignored; nothing is left to score")
    scores = score_case(case_id, predicted.array, expected.array, expected.affine, settings.resolve(classes))
    n_ignored = expected.array.size - n_scored
    scores = settings.only_labelled(case_id, scores)
    return ScoredCase(case_id, tuple(scores), n_scored, expected.voxel_volume_mm3, n_ignored)


def _check_grids(names: tuple[str, str], volumes: tuple[Volume, Volume], tolerance_mm: float) -> None:
    """As `check_same_grid`; the error tells the spacings too where it is they that differ."""
    first, second = volumes
    try:
        check_same_grid((first.array.shape, second.array.shape), (first.affine, second.affine), tolerance_mm, names)
    except InputError as error:
        if np.allclose(first.spacing_mm, second.spacing_mm, rtol=1e-4):
            raise
        spacings = " and ".join(" × ".join(f"{mm:.6g}" for mm in volume.spacing_mm) for volume in volumes)
        raise InputError(f"{error}. The spacings are {spacings} mm") from error


def _values(path: Path, label: Volume, ignore_value: int | None) -> list[int]:
    values = [value for value in label_values(label.array) if value != ignore_value]
    if len(values) > (_MOST_WITH_NEGATIVE if values and values[0] < 0 else _MOST_VALUES):
        raise InputError(
            f"{path} holds {len(values)} different values, so it seems to be an image and not a label map; if it is "
            "one, say which values count, for example --classes 1=spleen"
        )
    return values


def resolve_classes(settings: RawSettings, cases: Sequence[ScoredCase]) -> ScoreSettings:
    """The settings with the classes asked for, or else with every label value of the cases, in order.

    Raises InputError where the cases hold no value but 0.
    """
    if settings.classes is not None:
        return settings.resolve(settings.classes)
    values = {int(score.class_name) for case in cases for score in case.scores}
    if cases and not values:
        raise InputError(
            "there is nothing to score: every voxel of every file is 0. If that is right, name the class that is "
            "absent, for example --classes 1=spleen"
        )
    return settings.resolve({str(value): (value,) for value in sorted(values)})


def warn_if_nothing_ignored(settings: RawSettings, cases: Sequence[ScoredCase]) -> None:
    """Warn if no reference of the cases contains the value that the user wants ignored."""
    given = settings.ignored.value is not None and settings.ignored.told_by is None
    if given and cases and not any(case.n_ignored for case in cases):
        log.warning("no reference contains the ignored value %d; is it right?", settings.ignored.value)


def fill_in(case: ScoredCase, settings: ScoreSettings) -> ScoredCase:
    """Give a case a score for every class of the settings: both masks are empty where the case does not hold it."""
    own = {score.class_name: score for score in case.scores}
    absent = score_absent(case.case_id, case.n_voxels, case.voxel_volume_mm3, settings)
    return replace(case, scores=tuple(own.get(score.class_name, score) for score in absent))
