"""What follows the final trainings of many cases: the weights of the views, their calibration, and the one test."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spleen.config.datasets import find_dataset
from spleen.config.schema import TrainConfig
from spleen.data.cases import Case
from spleen.data.pairing import pair_to_predict
from spleen.errors import InputError
from spleen.evaluation.case_scores import ClassScore
from spleen.evaluation.ignored import IgnoredValue
from spleen.evaluation.labelled import Labelled
from spleen.evaluation.scoring import RawSettings, score_pairs
from spleen.evaluation.summary import MetricSummary, summarise
from spleen.imaging.files import SUFFIXES, ImageFiles
from spleen.inference.calibrate import calibrate
from spleen.inference.calibration.conformal import fewest_cases
from spleen.inference.calibration.ensemble_weights import FittedWeights, fit_weights
from spleen.inference.calibration.ignored import ignored_value
from spleen.inference.ensemble import predict_volume, read_for
from spleen.inference.loading import load_ensemble
from spleen.inference.outputs import plan_targets
from spleen.inference.predict import predict_targets
from spleen.inference.settings import PredictSettings
from spleen.inference.views.build import make_views
from spleen.records.folder import RunFolder

_LEVEL = 0.95
_TIMED_CASES = 2


@dataclass(frozen=True)
class HeldOut:
    """The cases that the runs were not trained on."""

    val: tuple[Case, ...]
    test: tuple[Case, ...]


@dataclass(frozen=True)
class Calibrated:
    """Whether the runs could be calibrated, in a sentence, and the masks that were predicted for it."""

    note: str
    masks: Mapping[str, Path]
    """By case; empty where they could not."""


@dataclass(frozen=True)
class Tested:
    """The test of what was chosen."""

    scores: tuple[ClassScore, ...]
    """Of each test case and class."""
    failures: tuple[str, ...]
    """Cases that could not be predicted or scored, and why."""


def held_out_cases(config: TrainConfig, run: Path) -> HeldOut:
    """The validation and the test cases of a run, which the other runs of a search share."""
    split = json.loads(RunFolder(run).split.read_bytes())
    case_of = {case.case_id: case for case in find_dataset(config).cases}
    return HeldOut(*(tuple(case_of[case_id] for case_id in split[part]) for part in ("val", "test")))


def seconds_per_case(run: Path, cases: Sequence[Case]) -> float:
    """How long this machine takes to predict one case with one run; the faster of two, as the first may compile."""
    views = make_views(load_ensemble([run], allow_custom_code=True), PredictSettings())
    seconds = []
    for case in cases[:_TIMED_CASES]:
        since = time.monotonic()
        image = read_for(views, ImageFiles(case.case_id, case.images), 0)
        predict_volume(views, image, case.case_id, PredictSettings().batch_size, False, lambda _: None)
        seconds.append(time.monotonic() - since)
    return min(seconds)


def weigh(runs: Sequence[Path], cases: Sequence[Case]) -> FittedWeights:
    """The weights of the runs with the best mean Dice over the validation cases; a run that does not help gets 0."""
    models = load_ensemble(runs, allow_custom_code=True)
    views = make_views(models, PredictSettings())
    pairs = {case.case_id: (ImageFiles(case.case_id, case.images), case.label) for case in cases}
    return fit_weights(
        views,
        pairs,
        PredictSettings().batch_size,
        lambda _name, _done, _total: None,
        of_validation=True,
        labelled=_labelled({case.case_id: case for case in cases}, models[0].classes.names),
    )


def _labelled(cases: Mapping[str, Case], class_names: tuple[str, ...]) -> Labelled | None:
    """The classes that each case labels; None if each labels all."""
    if all(case.labelled is None for case in cases.values()):
        return None
    return {name: class_names if case.labelled is None else case.labelled for name, case in cases.items()}


def calibrate_on(cases: Sequence[Case], views: Mapping[Path, float]) -> Calibrated:
    """Calibrate the runs, with their weights, on the test cases if those are enough and lie in one folder."""
    needed = fewest_cases(_LEVEL)
    if len(cases) < needed:
        return _uncalibrated(f"{len(cases)} test cases are too few for intervals, which need {needed}")
    folders = {(case.images[0].parent, case.label.parent) for case in cases}
    if len(folders) > 1:
        return _uncalibrated("the test cases are in several folders; see spleen calibrate")
    ((images, labels),) = folders
    settings = PredictSettings(
        weights=tuple(views.values()), held_out=True, overwrite=True, allow_custom_code=True
    )  # fmt: skip
    models = load_ensemble(list(views), allow_custom_code=True)
    try:
        pairs = pair_to_predict(images, labels, models[0].preprocessing.n_channels)
        name_of = {(image.paths, label): name for name, (image, label) in pairs.items()}
        if any((case.images, case.label) not in name_of for case in cases):
            return _uncalibrated("images and labels do not have the same names in their folders; see spleen calibrate")
        labelled = _labelled({name_of[case.images, case.label]: case for case in cases}, models[0].classes.names)
        report = calibrate(list(views), images, labels, settings, labelled=labelled)
    except InputError as error:
        return _uncalibrated(str(error))
    shortages = [text for each in report.calibration.classes if (text := each.shortage())]
    n_failed = len(report.failures)
    counted = f"{len(cases) - n_failed} of the {len(cases)}" if n_failed else f"the {len(cases)}"
    masks = {case.case_id: report.predictions / f"{name_of[case.images, case.label]}{SUFFIXES[0]}" for case in cases}
    return Calibrated("; ".join([f"calibrated on {counted} test cases", *shortages]), masks)


def _uncalibrated(why: str) -> Calibrated:
    return Calibrated(f"not calibrated: {why}", {})


def score_test(
    config: TrainConfig, cases: Sequence[Case], views: Mapping[Path, float], masks: Mapping[str, Path], folder: Path
) -> Tested:
    """Score each test case and class, predicted by the weighted runs into `folder` unless its mask is there already.

    `masks` are those that are, by case.
    """
    models = load_ensemble(list(views), allow_custom_code=True)
    settings = PredictSettings(weights=tuple(views.values()), skip_existing=True, allow_custom_code=True)
    planned = plan_targets([ImageFiles(case.case_id, case.images) for case in cases], folder)
    targets = [replace(target, mask=masks.get(target.case_id, target.mask)) for target in planned]
    report = predict_targets(models, targets, settings)
    failed = {failure.image: failure.reason for failure in report.failures}
    case_of = {case.case_id: case for case in cases}
    classes = models[0].classes
    values = dict(zip(classes.names, classes.values, strict=True))
    files = {
        target.case_id: (target.mask, case_of[target.case_id].label)
        for target in targets
        if target.image_path not in failed
    }
    ignored, labelled = IgnoredValue(ignored_value(models)), _labelled(case_of, classes.names)
    raw = RawSettings(values, 0.0, None, False, config.grid_tolerance_mm, ignored, labelled)
    scored, unscored = score_pairs(files, raw)
    unpredicted = (
        f"{target.case_id}: {failed[target.image_path]}" for target in targets if target.image_path in failed
    )
    failures = (*unpredicted, *(f"{each.case_id}: {each.reason}" for each in unscored))
    return Tested(tuple(score for case in scored for score in case.scores), failures)


def dice_summaries(scores: Sequence[ClassScore]) -> dict[str, MetricSummary]:
    """The Dice of each class over the cases; of several classes, "mean" is that of the mean of each case."""
    if not scores:
        return {}
    *of_classes, of_all = summarise(scores, ("dice",))
    summaries = {each.class_name: each for each in of_classes} | ({"mean": of_all} if len(of_classes) > 1 else {})
    return {name: each.metrics["dice"] for name, each in summaries.items()}
