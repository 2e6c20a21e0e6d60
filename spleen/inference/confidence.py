"""Confidence score of a prediction, computed without a reference.

How well the score ranks cases by their true Dice: docs/explanation/measured.md.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from spleen.imaging.postprocessing import components
from spleen.inference.ensemble import VolumePrediction
from spleen.types import MaskVolume

# A confidence score below this is flagged for review.
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
    reasons: str
    """Why the mask needs a review; empty if it needs none."""


def confidence_scores(
    prediction: VolumePrediction,
    class_names: Sequence[str],
    training_volumes_mm3: Sequence[tuple[float, float]],
    volume_mm3: VolumeOf,
) -> tuple[ClassConfidence, ...]:
    """Score each class of one prediction.

    `training_volumes_mm3` contains the smallest and largest volume of each; `volume_mm3` gives the volume of a mask.
    """
    return tuple(
        _score(
            name,
            prediction.mask == index + 1,
            prediction.soft_dice_confidence[index],
            prediction.agreement[index],
            training_volumes_mm3[index],
            volume_mm3,
        )
        for index, name in enumerate(class_names)
    )


def _score(
    name: str,
    mask: MaskVolume,
    soft_dice: float,
    agreement: float,
    training_range_mm3: tuple[float, float],
    volume_mm3: VolumeOf,
) -> ClassConfidence:
    sizes = components(mask)
    volume = volume_mm3(mask)
    fraction = sizes[0] / sum(sizes) if sizes else math.nan
    ratio = _to_range(volume, training_range_mm3)
    signs = {"uncertain boundary": soft_dice, "views disagree": agreement, "fragmented mask": fraction}
    signs = {reason: value for reason, value in signs.items() if not math.isnan(value)}
    score = math.prod(signs.values()) if sizes else 0.0
    reasons = "; ".join(_reasons(score, signs, ratio)) if sizes else "nothing was found"
    return ClassConfidence(
        name, volume, len(sizes), fraction, soft_dice, agreement, ratio, score, bool(reasons), reasons
    )


def _to_range(volume: float, training_range_mm3: tuple[float, float]) -> float:
    smallest, largest = training_range_mm3
    if volume < smallest:
        return volume / smallest
    return volume / largest if largest and volume > largest else 1.0


def _reasons(score: float, signs: dict[str, float], ratio: float) -> Iterator[str]:
    if score < REVIEW_BELOW:
        weakest = min(signs, key=lambda reason: signs[reason])
        yield f"{weakest} ({signs[weakest]:.2f})"
    if not 1 / VOLUME_FACTOR <= ratio <= VOLUME_FACTOR:
        yield f"{ratio:.2g} times the volume of any training case"
