"""`follow_up`: an organ in scans of one or many subjects over time.

print(follow_up("scans.csv", "outputs/cv", "report"))
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spleen.errors import InputError
from spleen.followup.alignment import AlignedScan, Failed, aligned_scans
from spleen.followup.change import LEAST_CASES, LEAST_PAIRS, RepeatabilityLimit
from spleen.followup.course import make_course, repeatability_limit
from spleen.followup.group import group_change
from spleen.followup.measuring import Measurements, measure
from spleen.followup.pictures import draw_scan
from spleen.followup.protocol import protocol_warnings
from spleen.followup.report.page import to_page
from spleen.followup.report.table import to_csv_text
from spleen.followup.result import FollowUp, Subject, Voxelwise
from spleen.followup.scans import Scan, by_subject, read_pairs, read_scans
from spleen.imaging.classes import ClassMap
from spleen.inference.calibration.applies import find_calibration
from spleen.inference.calibration.calibration import Calibration, ClassCalibration
from spleen.inference.loading import TrainedModel, load_ensemble
from spleen.inference.predict import Advance, Paths, listed
from spleen.inference.settings import PredictSettings
from spleen.inference.views.build import make_views
from spleen.registration.grids import require_simpleitk
from spleen.system.files import write_text
from spleen.system.text import bullets, shortened

log = logging.getLogger(__name__)


def follow_up(
    scans: Paths,
    runs: Paths,
    output: str | Path,
    settings: PredictSettings | None = None,
    *,
    test_retest: str | Path | None = None,
    identifying: bool = False,
    ignore_value: int | None = None,
    advance: Advance | None = None,
) -> FollowUp:
    """Predict scans of one or many subjects, compare them over time, and write a table and a page into `output`.

    `scans` are those of `read_scans`, `runs` those of `predict`. Masks, transforms and maps of gain and loss are in
    masks/, transforms/ and changes/; masks that are there already are kept, unless `overwrite` is set. `test_retest` is
    a table of pairs of scans between which nothing changed; without it, or where fewer than three of them pass with
    their confidence, the calibration of the runs says what repeats.
    Labels of scans may have `ignore_value` where nobody has labelled: their Dice is that of the rest, their volume left
    out; by default it is the ignore label of a dataset.json beside them, or the value that the runs were trained with.
    A scan that fails does not stop the others. Raises InputError, before anything is computed, for invalid input.
    """
    require_simpleitk()
    folder = Path(output)
    if folder.is_file():
        raise InputError(f"{folder} is a file; give the name of a folder")
    read = read_scans(listed(scans, "table or folder of scans"), identifying)
    pairs = None if test_retest is None else read_pairs(Path(test_retest))
    settings = settings or PredictSettings()
    settings = replace(settings, skip_existing=not settings.overwrite)
    models = load_ensemble(listed(runs, "run"), settings.allow_custom_code, settings.choose, settings.rename_classes)
    make_views(models, settings)  # refuses wrong weights
    found = find_calibration(models, settings)
    plan = _Plan(models, settings, found.calibration, folder, advance)
    measured = measure(read, models, settings, folder / "masks", advance, ignore_value)
    limits, failed_pairs = _limits(plan, pairs, ignore_value)
    subjects = tuple(
        _subject(name, of_subject, measured, limits, plan) for name, of_subject in by_subject(read).items()
    )
    by_class = zip(*(subject.courses for subject in subjects), strict=True)
    groups = tuple(group for courses in by_class if (group := group_change(courses)) is not None)
    no_limit = "" if all(limits.values()) else _why_no_limit(pairs is not None, found.calibration)
    n_failed = len(measured.failures) + len(failed_pairs)
    result = FollowUp(subjects, groups, limits, found.reason, no_limit, n_failed)
    write_text(folder / "followup.csv", to_csv_text(result))
    write_text(folder / "followup.html", to_page(result))
    return result


@dataclass(frozen=True)
class _Plan:
    """What holds for all subjects."""

    models: Sequence[TrainedModel]
    settings: PredictSettings
    calibration: Calibration | None
    folder: Path
    advance: Advance | None

    @property
    def classes(self) -> ClassMap:
        return self.models[0].classes

    @property
    def has_scores(self) -> bool:
        """Whether the calibration holds for confidence scores, too."""
        return self.calibration is not None and self.calibration.has_scores

    def calibration_of(self, class_name: str) -> ClassCalibration | None:
        return None if self.calibration is None else self.calibration.of(class_name)


def _limits(
    plan: _Plan, pairs: Sequence[tuple[Scan, Scan]] | None, ignore_value: int | None
) -> tuple[dict[str, RepeatabilityLimit | None], Mapping[Scan, str]]:
    """By class, from test–retest pairs, which are predicted for that, or else from the calibration; and what failed."""
    if pairs is None:
        of_calibration = {
            name: repeatability_limit(None, plan.calibration_of(name), plan.has_scores) for name in plan.classes.names
        }
        return of_calibration, {}
    scans = [scan for pair in pairs for scan in pair]
    measured = measure(scans, plan.models, plan.settings, plan.folder / "test_retest", plan.advance, ignore_value)
    limits = {}
    for name, found in measured.of_class.items():
        both = [(found[first], found[second]) for first, second in pairs if first in found and second in found]
        limits[name] = repeatability_limit(both, plan.calibration_of(name), plan.has_scores)
    if measured.failures:
        shown = bullets([f"{scan.name}: {reason}" for scan, reason in measured.failures.items()])
        log.warning("%d of %d scans of the test–retest pairs failed:%s", len(measured.failures), len(scans), shown)
    if fallen_back := [name for name, limit in limits.items() if limit is not None and limit.source == "calibration"]:
        log.warning(
            "fewer than %d test–retest pairs pass with their confidence, so the limit is that of the calibration: %s",
            LEAST_PAIRS,
            shortened(fallen_back),
        )
    return limits, measured.failures


def _subject(
    name: str,
    scans: Sequence[Scan],
    measured: Measurements,
    limits: Mapping[str, RepeatabilityLimit | None],
    plan: _Plan,
) -> Subject:
    courses = tuple(
        make_course(
            each,
            scans,
            measured.of_class[each],
            measured.failures,
            plan.calibration_of(each),
            limits[each],
            plan.has_scores,
        )
        for each in plan.classes.names
    )
    values = dict(zip(plan.classes.names, plan.classes.values, strict=True))
    voxelwise: dict[Scan, Voxelwise] = {}
    not_aligned: dict[Scan, str] = {}
    first: AlignedScan | None = None
    baselines = {course.class_name: course.counted[0].scan for course in courses if course.counted}
    n_channels = plan.models[0].preprocessing.n_channels
    for aligned in aligned_scans(scans, measured.masks, values, baselines, plan.folder, n_channels):
        if plan.advance is not None:
            plan.advance(f"aligning {name}", 1, len(scans))
        if isinstance(aligned, Failed):
            not_aligned[aligned.scan] = aligned.reason
            continue
        first = first or aligned
        pictures = draw_scan(first, aligned)
        voxelwise[aligned.scan] = Voxelwise(aligned.gain_ml, aligned.loss_ml, aligned.motion, pictures)
    return Subject(name, tuple(scans), courses, voxelwise, not_aligned, protocol_warnings(scans))


def _why_no_limit(from_pairs: bool, calibration: Calibration | None) -> str:
    few_pairs = "no test–retest pairs are given"
    if from_pairs:
        few_pairs = f"fewer than {LEAST_PAIRS} test–retest pairs pass with their confidence"
    if calibration is None:
        return f"the runs are not calibrated for this, and {few_pairs}"
    return f"too few calibrating cases pass the gate ({LEAST_CASES} are needed), or one has an empty mask; {few_pairs}"
