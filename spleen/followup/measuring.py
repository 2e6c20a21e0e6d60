"""Predict all scans, and read back what predictions.csv says of each; what was predicted before is kept."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spleen.errors import InputError
from spleen.evaluation.class_names import CSV_NAME
from spleen.evaluation.ignored import check_ignore_value, value_unlabelled
from spleen.evaluation.scoring import RawSettings, score_pair
from spleen.followup.course import Measured
from spleen.followup.scans import Scan
from spleen.imaging.files import ImageFiles
from spleen.imaging.geometry import GRID_TOLERANCE_MM
from spleen.inference.calibration.applies import conditions_of
from spleen.inference.calibration.ignored import ignored_value
from spleen.inference.loading import TrainedModel
from spleen.inference.outputs import Target
from spleen.inference.predict import Advance, predict_targets
from spleen.inference.record import image_text, read_record
from spleen.inference.settings import PredictSettings, postprocess_settings
from spleen.system.files import as_utf8, write_text

_CONDITIONS = "conditions.json"
_REMEDY = "add --overwrite to predict again, or give another folder"


@dataclass(frozen=True)
class Measurements:
    """What was measured in each scan, by class, and why others failed."""

    of_class: Mapping[str, Mapping[Scan, Measured]]
    failures: Mapping[Scan, str]
    masks: Mapping[Scan, Path]
    """Of the scans that were predicted."""


def measure(
    scans: Sequence[Scan],
    models: Sequence[TrainedModel],
    settings: PredictSettings,
    folder: Path,
    advance: Advance | None = None,
    ignore_value: int | None = None,
) -> Measurements:
    """Predict the scans into a folder, and score those with a reference, but where that has `ignore_value`.

    By default it is the ignore label of a dataset.json beside the reference, or the value that the runs were trained
    with. The volume of a reference that is labelled in part is unknown.

    Raises InputError, before anything is computed, for invalid settings and outputs, for runs that ignore different
    values, and for masks in the folder that were predicted otherwise; a scan that fails does not stop the others.
    """
    values = dict(zip(models[0].classes.names, models[0].classes.values, strict=True))
    if ignore_value is not None:
        check_ignore_value(ignore_value, values)
    of_runs = ignored_value(models) if ignore_value is None else None
    targets = {scan: Target(ImageFiles(scan.name, scan.images), folder / f"{scan.name}.nii.gz") for scan in scans}
    postprocess_settings(models[0].classes, settings)  # refuses wrong ones before any mask is removed
    _note_conditions(folder, models, settings, list(targets.values()))
    report = predict_targets(models, list(targets.values()), settings, advance)
    reasons = {failed.image: failed.reason for failed in report.failures}
    rows = {(row["prediction"], row["class_name"]): row for row in read_record(folder / CSV_NAME)}
    classes = models[0].classes
    of_class: dict[str, dict[Scan, Measured]] = {name: {} for name in classes.names}
    failures: dict[Scan, str] = {}
    for scan, target in targets.items():
        if target.image_path in reasons:
            failures[scan] = reasons[target.image_path]
            continue
        try:
            scores = _against_reference(scan, target.mask, values, (ignore_value, of_runs))
        except (InputError, OSError) as error:
            failures[scan] = f"its label: {error}"
            continue
        for name in classes.names:
            row = rows[target.mask.name, name]
            of_class[name][scan] = Measured(float(row["volume_mm3"]), float(row["confidence_score"]), *scores[name])
    return Measurements(of_class, failures, {scan: targets[scan].mask for scan in scans if scan not in failures})


def _note_conditions(
    folder: Path, models: Sequence[TrainedModel], settings: PredictSettings, targets: Sequence[Target]
) -> None:
    """Write down how the masks of a folder are predicted; those that were predicted otherwise are removed before.

    Raises InputError for such masks if they are to be kept.
    """
    now = json.loads(json.dumps({"classes": models[0].classes.names, **asdict(conditions_of(models, settings))}))
    path = folder / _CONDITIONS
    has_changed = path.exists() and _read_conditions(path) != now
    if settings.skip_existing and has_changed:
        raise InputError(
            f"the masks in {folder} were predicted by other runs, or with other weights, classes or test-time "
            f"augmentation; {_REMEDY}"
        )
    image_of = {row["prediction"]: row["image"] for row in read_record(folder / CSV_NAME)}
    for target in targets:
        image, before = as_utf8(image_text(target.image)), image_of.get(as_utf8(target.mask.name))
        if settings.skip_existing and before not in (None, image):
            raise InputError(f"{target.mask} was predicted from {before}, and not from {image}; {_REMEDY}")
    folder.mkdir(parents=True, exist_ok=True)
    if has_changed:
        _remove(folder, image_of.keys())
    write_text(path, json.dumps(now, indent=1) + "\n")


def _read_conditions(path: Path) -> object:
    """What was written down; None where that cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _remove(folder: Path, masks: Collection[str]) -> None:
    """Remove recorded masks and their record, so that no later call takes them for its own after an interrupted one."""
    for path in [path for path in folder.iterdir() if as_utf8(path.name) in masks]:
        path.unlink()
    (folder / CSV_NAME).unlink(missing_ok=True)


def _against_reference(
    scan: Scan, mask: Path, values: Mapping[str, tuple[int, ...]], ignore_values: tuple[int | None, int | None]
) -> dict[str, tuple[float | None, float | None]]:
    """Volume of the expert's mask in mm³, and Dice against it, by class; None without one.

    `ignore_values` are the one given and the one of the runs.
    Of a mask that is labelled in part, the Dice is that of the labelled part, and the volume unknown.
    """
    if scan.reference is None:
        return dict.fromkeys(values, (None, None))
    unlabelled = value_unlabelled(*ignore_values, values, scan.reference)
    settings = RawSettings(values, 0.0, None, False, GRID_TOLERANCE_MM, unlabelled)
    case = score_pair(scan.name, mask, scan.reference, settings)
    return {
        score.class_name: (
            None if case.n_ignored else score.volume_reference_mm3,
            None if math.isnan(score.dice) else score.dice,
        )
        for score in case.scores
    }
