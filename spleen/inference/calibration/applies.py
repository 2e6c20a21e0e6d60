"""Whether the runs of a prediction are calibrated for just such a prediction."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spleen.errors import InputError
from spleen.inference.calibration.calibration import Calibration, Conditions
from spleen.inference.calibration.stored import calibration_path, read_calibration
from spleen.inference.loading import TrainedModel
from spleen.system.hashing import file_sha256

if TYPE_CHECKING:
    from spleen.inference.settings import PredictSettings

_WEIGHT_TOLERANCE = 1e-4
NOT_CALIBRATED = (
    "volumes have no 95 % interval: the runs are not calibrated; `spleen calibrate RUN --images … --labels …` does that"
)


@dataclass(frozen=True)
class FoundCalibration:
    """The calibration that holds for a prediction, or why there is none."""

    calibration: Calibration | None
    reason: str = ""
    """What cannot be said, and why, for the user; empty if volumes and confidence scores are calibrated."""


def find_calibration(models: Sequence[TrainedModel], settings: "PredictSettings") -> FoundCalibration:
    """The calibration of these models, averaged with these settings.

    It lies beside the checkpoints; one file must name all of them, and have been made in the same way. A damaged file
    is a reason like any other, not an error.
    """
    if settings.held_out:
        return FoundCalibration(None, "volumes have no 95 % interval with --held-out, whose cases calibrate the runs")
    paths = [calibration_path(model.checkpoint) for model in models]
    existing = [path for path in dict.fromkeys(paths) if path.is_file()]
    if not existing:
        return FoundCalibration(None, NOT_CALIBRATED)
    now = conditions_of(models, settings)
    reasons = []
    for path in existing:
        try:
            calibration = read_calibration(path)
        except (InputError, OSError) as error:
            reasons.append(f"volumes have no 95 % interval: {error}")
            continue
        reason = _difference(calibration, now, models)
        if reason is None:
            return _found(calibration.renamed(models[0].classes.names), now)
        reasons.append(f"volumes have no 95 % interval: {_named(path)} {reason}")
    return FoundCalibration(None, reasons[0])


def _found(calibration: Calibration, now: Conditions) -> FoundCalibration:
    """The confidence score of an average contains the agreement of its runs, so it needs as many of them as before."""
    then = calibration.conditions
    if len(then.axes) == len(now.axes):
        return FoundCalibration(calibration)
    reason = (
        f"the Dice to expect and the gate are calibrated for {_axes(then)}, not for the scores of {_axes(now)}: "
        "predict with the runs of one fold, or calibrate the average on cases that no run was trained on"
    )
    return FoundCalibration(replace(calibration, has_scores=False), reason)


def conditions_of(
    models: Sequence[TrainedModel], settings: "PredictSettings", weights: Sequence[float] | None = None
) -> Conditions:
    """How these models predict together; `weights` are by default those of the settings. Without those of weight 0."""
    given = weights or settings.weights or [1.0] * len(models)
    used = [(model, weight / sum(given)) for model, weight in zip(models, given, strict=True) if weight > 0]
    rows = sorted((model.preprocessing.axis, file_sha256(model.checkpoint), weight) for model, weight in used)
    return Conditions(
        checkpoints=tuple(checkpoint for _, checkpoint, _ in rows),
        axes=tuple(axis for axis, _, _ in rows),
        weights=tuple(weight for _, _, weight in rows),
        tta=settings.tta,
        flips=tuple(sorted(set(settings.flips))) if settings.tta else (),
        held_out=settings.held_out,
    )


def _difference(calibration: Calibration, now: Conditions, models: Sequence[TrainedModel]) -> str | None:
    """Why the calibration does not hold for a prediction under the conditions `now`, if it does not."""
    then = calibration.conditions
    if tuple(each.label_values for each in calibration.classes) != models[0].classes.values:
        return "is for other label values"
    if unnamed := set(now.checkpoints) - set(then.checkpoints):
        some = "a run is" if len(unnamed) == 1 else f"{len(unnamed)} runs are"
        return f"does not know these checkpoints: {some} not calibrated with it, or trained again since"
    if not _same_axes(then, now):
        return f"is for {_axes(then)}; these runs are {_axes(now)}"
    if (then.tta, then.flips) != (now.tta, now.flips):
        return f"is for predictions {_augmentation(then)}; this one is {_augmentation(now)}"
    if not _same_weights(then, now):
        return "is for an average with other weights"
    return None


def _same_axes(then: Conditions, now: Conditions) -> bool:
    """Whether as many runs along each axis are averaged, or more of a cross-validation.

    The average over folds errs less than the runs of one fold, by which each case was predicted; CV+ takes this step.
    """
    before, after = Counter(then.axes), Counter(now.axes)
    return before.keys() == after.keys() and before <= after if then.held_out else before == after


def _same_weights(then: Conditions, now: Conditions) -> bool:
    if not then.held_out:
        before, after = (dict(zip(each.checkpoints, each.weights, strict=True)) for each in (then, now))
    else:
        before, after = _by_axis(then), _by_axis(now)
    return before.keys() == after.keys() and all(
        math.isclose(before[key], after[key], abs_tol=_WEIGHT_TOLERANCE) for key in before
    )


def _by_axis(conditions: Conditions) -> dict[str, float]:
    """The weight of each axis in a prediction, whichever runs share it."""
    weights: Counter[str] = Counter()
    for axis, weight in zip(conditions.axes, conditions.weights, strict=True):
        weights[axis] += weight  # type: ignore[assignment]
    return dict(weights)


def _axes(conditions: Conditions) -> str:
    counts = Counter(conditions.axes)
    words = [axis if count == 1 else f"{axis} × {count}" for axis, count in counts.items()]
    return f"{', '.join(words)} averaged" if len(conditions.axes) > 1 else f"{words[0]} alone"


def _augmentation(conditions: Conditions) -> str:
    if not conditions.tta:
        return "without --tta"
    return " ".join(["with --tta", *(f"--flip {flip}" for flip in conditions.flips)])


def _named(path: Path) -> str:
    return f"{path.name} in {path.parent.name}"
