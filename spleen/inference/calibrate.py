"""`calibrate`: what predictions of labelled cases say of the next ones, stored beside the runs.

from spleen import calibrate
print(calibrate("outputs/cv", "imagesTr", "labelsTr", PredictSettings(held_out=True)))
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from spleen.data.pairing import pair_to_predict
from spleen.errors import InputError
from spleen.evaluation.case_scores import ClassScore
from spleen.evaluation.class_names import CSV_NAME, VALUE_SEPARATOR
from spleen.evaluation.ignored import IgnoredValue, value_unlabelled
from spleen.evaluation.labelled import Labelled, check_told, labelled_by_case
from spleen.evaluation.scoring import RawSettings, score_pairs, warn_if_nothing_ignored
from spleen.imaging.files import ImageFiles
from spleen.imaging.geometry import GRID_TOLERANCE_MM
from spleen.inference.calibration.applies import conditions_of
from spleen.inference.calibration.calibration import (
    ERROR_RATE,
    MIN_DICE,
    CalibratingCase,
    Calibration,
    ClassCalibration,
    Conditions,
)
from spleen.inference.calibration.ignored import ignored_value
from spleen.inference.calibration.stored import calibration_path, write_calibration
from spleen.inference.ensemble import read_for
from spleen.inference.leakage import named_like_training_cases, views_that_held_out, views_that_saw
from spleen.inference.loading import TrainedModel, load_ensemble
from spleen.inference.outputs import Target, plan_targets
from spleen.inference.predict import Advance, Paths, listed, predict_targets
from spleen.inference.record import read_record
from spleen.inference.settings import PredictSettings
from spleen.inference.views.build import make_views
from spleen.inference.views.view import View
from spleen.records.folder import run_folder_of
from spleen.reporting.tables import Cell, Column, render_table
from spleen.system.files import as_utf8
from spleen.system.text import shortened
from spleen.types import AxisName

Pairs = Mapping[str, tuple[ImageFiles, Path]]
"""Image and label by case."""


@dataclass(frozen=True)
class CalibrationReport:
    """What `calibrate` found and wrote. Its text (`print`) is what the command prints."""

    calibration: Calibration
    files: tuple[Path, ...]
    """One beside each run."""
    predictions: Path
    """The folder of the masks that were predicted for it."""
    failures: tuple[str, ...]
    """Cases that could not be predicted or scored, with the reason."""
    left_out: int
    """Images that no run held out; 0 without `held_out`."""

    def __str__(self) -> str:
        return to_text(self)


def calibrate(
    runs: Paths,
    images: str | Path,
    labels: str | Path,
    settings: PredictSettings | None = None,
    *,
    min_dice: float = MIN_DICE,
    error_rate: float = ERROR_RATE,
    ignore_value: int | None = None,
    labelled: str | Path | Mapping[str, Sequence[str]] | None = None,
    advance: Advance | None = None,
) -> CalibrationReport:
    """Calibrate the volumes and confidence scores of runs on labelled cases that they were not trained on.

    The cases are predicted with `settings`, into a folder beside the runs that is kept: an interrupted call continues
    there. calibration.json beside each run then lets `predict` with the same runs and settings give 95 % intervals of
    volume and Dice, and decide by a gate what needs a review: the probability that a mask has a Dice below `min_dice`
    and passes is at most `error_rate`. With `settings.held_out`, each case is predicted by the runs of a
    cross-validation that held it out, and other images are skipped. `settings.overwrite` replaces a calibration.

    Voxels whose label is `ignore_value` do not count; by default it is the ignore label of a dataset.json beside the
    labels, or the value that the runs were trained with. A case that has any counts for the Dice and the gate, as far
    as it is labelled; its volume is not known and calibrates nothing. `labelled` names the classes that each case
    labels, if not all do, as for `spleen.evaluate`; a case calibrates those alone.

    Raises InputError, before anything is predicted, for wrong settings, an image that a run was trained on, an existing
    calibration, an ignored value that is a class, runs that ignore different values, or `labelled` with a class that
    the runs do not have.
    """
    settings = settings or PredictSettings()
    for name, value in (("min-dice", min_dice), ("error-rate", error_rate)):
        if not 0 < value < 1:
            raise InputError(f"{name} must be between 0 and 1; got {value:g}")
    models = load_ensemble(listed(runs, "run"), settings.allow_custom_code, settings.choose, settings.rename_classes)
    files = tuple(dict.fromkeys(calibration_path(model.checkpoint) for model in models))
    existing = [path for path in files if path.exists()]
    if existing and not settings.overwrite:
        raise InputError(f"these runs are calibrated already ({shortened(existing, 2)}); add --overwrite to replace it")
    values = dict(zip(models[0].classes.names, models[0].classes.values, strict=True))
    trained = ignored_value(models) if ignore_value is None else None
    unlabelled = value_unlabelled(ignore_value, trained, values, Path(labels))
    by_case = None if labelled is None else labelled_by_case(labelled, values)
    views = make_views(models, settings)
    pairs = pair_to_predict(Path(images), Path(labels), models[0].preprocessing.n_channels)
    chosen, conditions = _chosen(views, pairs, settings)
    check_told(chosen, by_case)
    folder = _folder_of(models, conditions, Path(images), settings.precision)
    targets = plan_targets([image for image, _ in chosen.values()], folder)
    _remove_outdated(targets)
    report = predict_targets(models, targets, _kept(settings), advance)
    failed = {each.image: each.reason for each in report.failures}
    scored = {name: pair for name, pair in chosen.items() if pair[0].paths[0] not in failed}
    cases, unscored = _cases(values, folder, scored, unlabelled, by_case)
    classes = tuple(ClassCalibration(name, values[name], cases[name], min_dice, error_rate) for name in values)
    failures = (*(f"{image}: {reason}" for image, reason in failed.items()), *unscored)
    if not any(each.cases for each in classes):
        raise InputError(f"none of the {len(chosen)} cases could be predicted and scored: {failures[0]}")
    calibration = Calibration(conditions, classes)
    for path in files:
        write_calibration(path, calibration)
    return CalibrationReport(calibration, files, folder, failures, len(pairs) - len(chosen))


def _chosen(views: Sequence[View], pairs: Pairs, settings: PredictSettings) -> tuple[Pairs, Conditions]:
    """The cases to calibrate on, and how each of them is predicted. Raises InputError for one that a run has seen."""
    models = [view.model for view in views]
    weights = [view.weight for view in views]
    if not settings.held_out:
        _check_unseen(views, pairs)
        return pairs, conditions_of(models, settings, weights)
    views_of = views_that_held_out(views, list(pairs))
    by_kind: dict[tuple[tuple[AxisName, float], ...], list[str]] = {}
    for case_id, used in views_of.items():
        kind = tuple(sorted((view.model.preprocessing.axis, round(view.weight, 6)) for view in used if view.weight))
        by_kind.setdefault(kind, []).append(case_id)
    if len(by_kind) > 1:
        kinds = "; ".join(f"{', '.join(axis for axis, _ in kind)}: {len(ids)} cases" for kind, ids in by_kind.items())
        raise InputError(
            f"--held-out: the cases are not all predicted alike ({kinds}); give runs of every fold along each axis, "
            "with the same weights in each fold"
        )
    (kind,) = by_kind
    every = conditions_of(models, settings, weights)
    conditions = replace(every, axes=tuple(axis for axis, _ in kind), weights=tuple(weight for _, weight in kind))
    return {case_id: pairs[case_id] for case_id in views_of}, conditions


def _check_unseen(views: Sequence[View], pairs: Pairs) -> None:
    """Raise InputError for an image that a run was trained on, by its name or voxel by voxel."""
    seen: Collection[str] = named_like_training_cases(views, list(pairs))
    relation = "have the names of cases"
    if not seen and any(view.model.spec.seen_images for view in views):
        relation = "are, voxel by voxel, images"
        seen = [name for name, (image, _) in pairs.items() if _is_seen(views, image)]
    if seen:
        raise InputError(
            f"{len(seen)} of {len(pairs)} images {relation} that these runs were trained on ({shortened(seen, 3)}), "
            "and would calibrate them too well; leave them out, or calibrate a cross-validation with --held-out"
        )


def _is_seen(views: Sequence[View], image: ImageFiles) -> bool:
    """Whether a run was trained on this image; what cannot be read is told when it is predicted."""
    try:
        return bool(views_that_saw(views, read_for(views, image, 0)))
    except (InputError, OSError):
        return False


def _kept(settings: PredictSettings) -> PredictSettings:
    """Settings for masks before any clean-up, whose volumes are the ones that predictions.csv tells."""
    return replace(
        settings,
        overwrite=False,
        skip_existing=True,
        probabilities=False,
        choose=None,
        keep_largest=(),
        fill_holes=False,
        min_volume_mm3=0.0,
    )


def _remove_outdated(targets: Sequence[Target]) -> None:
    """Remove kept masks that are older than their images, so that they are predicted again."""
    for target in targets:
        if target.mask.exists():
            written = target.mask.stat().st_mtime
            if any(path.exists() and path.stat().st_mtime > written for path in target.image.paths):
                target.mask.unlink()


def _folder_of(models: Sequence[TrainedModel], conditions: Conditions, images: Path, precision: str | None) -> Path:
    """Where the predictions are kept: beside the runs, apart for each way of predicting and each place of images.

    Images of another place may have the same names.
    """
    folders = [run_folder_of(model.checkpoint) or model.checkpoint.parent for model in models]
    parents = {folder.parent for folder in folders}
    place = parents.pop() if len(folders) > 1 and len(parents) == 1 else folders[0]
    way = (sorted(asdict(conditions).items()), images.resolve(), *([] if precision is None else [precision]))
    key = hashlib.sha256(repr(way).encode()).hexdigest()[:8]
    return place / "calibration" / key


def _cases(
    values: Mapping[str, tuple[int, ...]], folder: Path, pairs: Pairs, ignored: IgnoredValue, labelled: Labelled | None
) -> tuple[dict[str, tuple[CalibratingCase, ...]], list[str]]:
    """The calibrating cases of each class, and the cases that could not be scored, with the reason."""
    files = {name: (folder / f"{image.case_id}.nii.gz", label) for name, (image, label) in pairs.items()}
    settings = RawSettings(values, 0.0, None, False, GRID_TOLERANCE_MM, ignored, labelled)
    scored, failed = score_pairs(files, settings)
    warn_if_nothing_ignored(settings, scored)
    rows = {(row["prediction"], row["label_values"]): row for row in read_record(folder / CSV_NAME)}
    cases: dict[str, list[CalibratingCase]] = {name: [] for name in values}
    for case in scored:
        mask = as_utf8(files[case.case_id][0].name)
        for score in (each for each in case.scores if each.is_labelled):
            row = rows[mask, VALUE_SEPARATOR.join(map(str, values[score.class_name]))]
            cases[score.class_name].append(_calibrating_case(score, row, is_whole=not case.n_ignored))
    reasons = [f"{each.case_id}: {each.reason}" for each in failed]
    return {name: tuple(of_class) for name, of_class in cases.items()}, reasons


def _calibrating_case(score: ClassScore, row: Mapping[str, str], is_whole: bool) -> CalibratingCase:
    """From the scores and the row of predictions.csv; the scores of a partly labelled case know a part of its mask."""
    predicted = score.volume_prediction_mm3 if is_whole else float(row["volume_mm3"])
    reference = score.volume_reference_mm3 if is_whole else None
    return CalibratingCase(predicted, reference, float(row["confidence_score"]), score.dice)


def to_text(report: CalibrationReport) -> str:
    """The table of the classes, what cannot be said with so few cases, and where everything lies."""
    classes = report.calibration.classes
    columns: list[str | Column] = [
        Column("class", is_name=True),
        "cases",
        Column("true volume, 95 %", is_name=True),
        Column("Dice, 95 %", is_name=True),
        "gate",
        "pass it",
    ]
    first = classes[0]
    lines = [
        render_table("", columns, [_row(each) for each in classes]),
        "The Dice is the one to expect at the median confidence score, with its interval. A mask passes with a score",
        f"above the gate; at most {first.error_rate:.1%} of all masks pass with a Dice below {first.min_dice:g}.",
    ]
    lines += [text for text in (each.shortage() for each in classes) if text]
    if n_partial := max(each.n_partial for each in classes):
        lines.append(
            f"{n_partial} of {max(len(each.cases) for each in classes)} cases are labelled in part: they count for the "
            "Dice and the gate, as far as they are\nlabelled, and not for the volume, which is not known of them"
        )
    if report.left_out:
        lines.append(f"{report.left_out} images left out that no run held out")
    lines.append(f"wrote {shortened(report.files, 2)}; predictions are kept in {report.predictions}")
    return "\n".join(lines)


def _row(each: ClassCalibration) -> list[Cell]:
    factor = each.volume_factor()
    width = None if math.isinf(factor) else f"−{1 - 1 / factor:.1%} … +{factor - 1:.1%}"
    scores = [case.confidence_score for case in each.cases if case.predicted_mm3]
    dice = each.expected_dice(float(np.median(scores))) if scores else None
    return [
        each.class_name,
        len(each.cases) - each.n_empty,
        width,
        None if dice is None else f"{dice.dice:.3f} ({dice.low:.3f}–{dice.high:.3f})",
        None if each.gate is None else f"{each.gate:.3f}" if each.gate else "any score",
        f"{each.passing_fraction:.0%}" if scores else None,
    ]
