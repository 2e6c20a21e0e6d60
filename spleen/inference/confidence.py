"""How far a prediction can be trusted when there is no reference to compare it with.

Nothing here has seen a reference. How well the score ranks cases by their true Dice: docs/explanation/measured.md.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spleen.imaging.postprocessing import components
from spleen.inference.ensemble import VolumePrediction

# A score below this is worth a look.
REVIEW_BELOW = 0.85
# A volume this many times smaller or larger than any of the training cases is worth a look.
VOLUME_FACTOR = 2.0


@dataclass(frozen=True)
class ClassTrust:
    """Signs of a good or a doubtful prediction of one class, from the mask before any post-processing."""

    class_name: str
    volume_mm3: float
    n_components: int
    largest_component_fraction: float
    """Share of the predicted voxels that lie in the largest connected component."""
    confidence: float
    """Soft Dice between probabilities and mask, 0 to 1."""
    agreement: float
    """Mean pairwise Dice of the views and variants, 0 to 1; NaN where there was only one."""
    volume_to_training: float
    """Volume as a multiple of the nearest one among the training cases; 1 inside their range."""
    trust: float
    """The product of confidence, agreement (where known) and largest_component_fraction; 0 where nothing was found."""
    review: bool
    reasons: str
    """Why a person should look at it; empty without review."""


def trust_scores(
    prediction: VolumePrediction,
    class_names: Sequence[str],
    training_volumes_mm3: Sequence[tuple[float, float]],
    voxel_volume_mm3: float,
) -> tuple[ClassTrust, ...]:
    """Judge each class of one prediction; `training_volumes_mm3` holds the smallest and largest volume of each."""
    return tuple(
        _judge(
            name,
            components(prediction.mask == number),
            prediction.confidence[number - 1],
            prediction.agreement[number - 1],
            training_volumes_mm3[number - 1],
            voxel_volume_mm3,
        )
        for number, name in enumerate(class_names, start=1)
    )


def _judge(
    name: str,
    sizes: Sequence[int],
    confidence: float,
    agreement: float,
    training_range_mm3: tuple[float, float],
    voxel_volume_mm3: float,
) -> ClassTrust:
    volume = sum(sizes) * voxel_volume_mm3
    share = sizes[0] / sum(sizes) if sizes else math.nan
    ratio = _to_range(volume, training_range_mm3)
    known = [value for value in (confidence, agreement, share) if not math.isnan(value)]
    trust = math.prod(known) if sizes else 0.0
    reasons = "; ".join(_reasons(trust, confidence, agreement, share, ratio)) if sizes else "nothing was found"
    return ClassTrust(name, volume, len(sizes), share, confidence, agreement, ratio, trust, bool(reasons), reasons)


def _to_range(volume: float, training_range_mm3: tuple[float, float]) -> float:
    smallest, largest = training_range_mm3
    if volume < smallest:
        return volume / smallest
    return volume / largest if largest and volume > largest else 1.0


def _reasons(trust: float, confidence: float, agreement: float, share: float, ratio: float) -> Iterator[str]:
    if trust < REVIEW_BELOW:
        signs = {"unsure borders": confidence, "the views disagree": agreement, "scattered pieces": share}
        known = {sign: value for sign, value in signs.items() if not math.isnan(value)}
        weakest = min(known, key=lambda sign: known[sign])
        yield f"{weakest} ({known[weakest]:.2f})"
    if not 1 / VOLUME_FACTOR <= ratio <= VOLUME_FACTOR:
        yield f"{ratio:.2g} times the volume of any training case"
