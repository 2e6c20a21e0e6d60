"""Confidence score of a prediction, computed without a reference, and what a calibration makes of it.

How well the score ranks cases by their true Dice: docs/explanation/measured.md.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from spleen.imaging.classes import Regions, in_class
from spleen.imaging.postprocessing import components
from spleen.inference.calibration.calibration import Calibration, ClassCalibration
from spleen.inference.ensemble import VolumePrediction
from spleen.types import MaskVolume

# Without a calibration, a confidence score below this is flagged for review.
REVIEW_BELOW = 0.85
# A volume this many times smaller or larger than any of the training cases is flagged for review.
VOLUME_FACTOR = 2.0

VolumeOf = Callable[[MaskVolume], float]
"""The volume of a mask in mm³."""


@dataclass(frozen=True)
class ClassConfidence:
    """Confidence in the prediction of one class, from the mask before post-processing."""

    class_name: str
    volume_mm3: float
    n_components: int
    largest_component_fraction: float
    """Fraction of the predicted voxels in the largest connected component; NaN without any."""
    soft_dice_confidence: float
    """Soft Dice between probabilities and mask, 0 to 1."""
    agreement: float
    """Mean pairwise Dice of the views and variants, 0 to 1; NaN with a single one."""
    volume_to_training: float
    """Volume as a multiple of the nearest one among the training cases; 1 inside their range."""
    confidence_score: float
    """Product of soft_dice_confidence, agreement (unless NaN) and largest_component_fraction; 0 for an empty mask."""
    review: bool
    """Whether somebody should look at the mask: by a fixed limit of the score, or the gate of a calibration."""
    reasons: str
    """Why the mask needs a review; empty if it needs none."""
    soft_volume_mm3: float = math.nan
    """Volume weighted by probability, without probabilities below 0.05."""
    view_low_mm3: float = math.nan
    """Smallest volume in the masks of the single views; NaN with one."""
    view_high_mm3: float = math.nan
    """Largest volume in the masks of the single views; NaN with one."""
    volume_low_mm3: float = math.nan
    """Lower end of the calibrated 95 % interval of the true volume; NaN without a calibration, as all below."""
    volume_high_mm3: float = math.nan
    """Upper end of the calibrated 95 % interval of the true volume."""
    expected_dice: float = math.nan
    """Dice to expect at this confidence score."""
    dice_low: float = math.nan
    """Lower end of the 95 % interval of the Dice."""
    dice_high: float = math.nan
    """Upper end of the 95 % interval of the Dice."""


def confidence_scores(
    prediction: VolumePrediction,
    class_names: Sequence[str],
    training_volumes_mm3: Sequence[tuple[float, float]],
    volume_mm3: VolumeOf,
    calibration: Calibration | None = None,
    regions: Regions | None = None,
) -> tuple[ClassConfidence, ...]:
    """Score each class of one prediction.

    `training_volumes_mm3` contains the smallest and largest volume of each; `volume_mm3` gives the volume of a mask.
    A `calibration` adds intervals, and decides by its gate what needs a review. With `regions`, the classes
    overlap.
    """
    scores = []
    for index, name in enumerate(class_names):
        mask = in_class(prediction.mask, index + 1, regions)
        calibrated = None if calibration is None else calibration.of(name)
        signs = prediction.soft_dice_confidence[index], prediction.agreement[index]
        gated = calibrated if calibration is not None and calibration.has_scores else None
        score = _score(name, mask, *signs, training_volumes_mm3[index], volume_mm3(mask), gated)
        views = [of_view[index] for of_view in prediction.view_volumes_mm3] or [math.nan]
        spread = replace(
            score,
            soft_volume_mm3=prediction.soft_volume_mm3[index],
            view_low_mm3=min(views),
            view_high_mm3=max(views),
        )
        scores.append(spread if calibrated is None else _with_intervals(spread, calibrated, has_dice=gated is not None))
    return tuple(scores)


def _score(
    name: str,
    mask: MaskVolume,
    soft_dice: float,
    agreement: float,
    training_range_mm3: tuple[float, float],
    volume_mm3: float,
    calibration: ClassCalibration | None,
) -> ClassConfidence:
    sizes = components(mask)
    fraction = sizes[0] / sum(sizes) if sizes else math.nan
    ratio = _to_range(volume_mm3, training_range_mm3)
    signs = {"uncertain boundary": soft_dice, "views disagree": agreement, "fragmented mask": fraction}
    signs = {reason: value for reason, value in signs.items() if not math.isnan(value)}
    score = math.prod(signs.values()) if sizes else 0.0
    reasons = "; ".join(_reasons(score, signs, ratio, calibration)) if sizes else "nothing was found"
    return ClassConfidence(
        name, volume_mm3, len(sizes), fraction, soft_dice, agreement, ratio, score, bool(reasons), reasons
    )


def _with_intervals(score: ClassConfidence, calibration: ClassCalibration, has_dice: bool) -> ClassConfidence:
    """The score with the intervals that the calibration has for it; an empty mask has none."""
    if not score.volume_mm3:
        return score
    if volume := calibration.volume_interval(score.volume_mm3):
        score = replace(score, volume_low_mm3=volume[0], volume_high_mm3=volume[1])
    if has_dice and (dice := calibration.expected_dice(score.confidence_score)):
        score = replace(score, expected_dice=dice.dice, dice_low=dice.low, dice_high=dice.high)
    return score


def _to_range(volume: float, training_range_mm3: tuple[float, float]) -> float:
    smallest, largest = training_range_mm3
    if volume < smallest:
        return volume / smallest
    return volume / largest if largest and volume > largest else 1.0


def _reasons(
    score: float, signs: dict[str, float], ratio: float, calibration: ClassCalibration | None
) -> Iterator[str]:
    weakest = min(signs, key=lambda reason: signs[reason])
    if calibration is None:
        if score < REVIEW_BELOW:
            yield f"{weakest} ({signs[weakest]:.2f})"
    elif calibration.gate is None:
        yield "calibrated with too few cases for a gate"
    elif score <= calibration.gate:
        yield f"{weakest} ({signs[weakest]:.2f}): score {score:.3f}, calibrated gate {calibration.gate:.3f}"
    if not 1 / VOLUME_FACTOR <= ratio <= VOLUME_FACTOR:
        yield f"{ratio:.2g} times the volume of any training case"
