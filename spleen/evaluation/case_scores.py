"""All metrics of one case, class by class, from its two label maps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import UInt16
from scipy.ndimage import find_objects

from spleen.evaluation.ignored import NOTHING_IGNORED, IgnoredValue
from spleen.evaluation.metrics.diagnostic import (
    accuracy,
    likelihood_ratio_negative,
    likelihood_ratio_positive,
    negative_predictive_value,
    post_test_probability,
    voxel_prevalence,
)
from spleen.evaluation.metrics.overlap import ConfusionCounts, dice, jaccard, precision, sensitivity, specificity
from spleen.evaluation.metrics.surface import (
    SurfaceDistances,
    average_surface_distance_mm,
    grown,
    hausdorff95_mm,
    hausdorff_mm,
    surface_dice,
    surface_distances,
)
from spleen.imaging.classes import regions_of
from spleen.imaging.geometry import distance_axes_mm, voxel_volume_mm3
from spleen.types import Affine, LabelVolume, MaskVolume

Box = tuple[slice, slice, slice]

# A table from label values to something else is used up to this range of values.
_WIDEST_TABLE = 2**16

COUNTED_SCORES = {
    "dice": dice,
    "jaccard": jaccard,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "precision": precision,
    "negative_predictive_value": negative_predictive_value,
    "accuracy": accuracy,
    "likelihood_ratio_positive": likelihood_ratio_positive,
    "likelihood_ratio_negative": likelihood_ratio_negative,
}


@dataclass(frozen=True)
class ScoreSettings:
    """What the scores need to know beside the masks."""

    classes: Mapping[str, tuple[int, ...]]
    """The label values of each class."""
    tolerance_mm: Mapping[str, float]
    """For the surface Dice, one for each class."""
    prevalence: float | None = None
    """The prior fraction of organ voxels; None for that of each case."""
    surface: bool = True
    """False leaves the surface metrics NaN."""
    ignored: IgnoredValue = NOTHING_IGNORED
    """The value of reference voxels that are not scored."""


@dataclass(frozen=True)
class ClassScore:
    """Every metric of one class in one case: docs/reference/metrics.md.

    NaN is undefined, inf a surface without a partner. All are NaN if the reference does not label the class.
    """

    case_id: str
    class_name: str
    dice: float
    jaccard: float
    sensitivity: float
    specificity: float
    precision: float
    negative_predictive_value: float
    accuracy: float
    likelihood_ratio_positive: float
    likelihood_ratio_negative: float
    post_test_probability_positive: float
    post_test_probability_negative: float
    hausdorff95_mm: float
    hausdorff_mm: float
    average_surface_distance_mm: float
    surface_dice: float
    volume_prediction_mm3: float
    volume_reference_mm3: float
    volume_prediction_ml: float
    volume_reference_ml: float
    volume_error_mm3: float
    volume_error_relative: float

    def value(self, metric: str) -> float:
        """A metric by its name in `spleen.evaluation.metrics.catalogue`."""
        return float(getattr(self, metric))

    @property
    def is_labelled(self) -> bool:
        """Whether the reference labels the class."""
        return not math.isnan(self.volume_reference_mm3)

    def unlabelled(self) -> "ClassScore":
        """Of a class that the reference does not label: nothing is known."""
        return ClassScore(self.case_id, self.class_name, **dict.fromkeys(METRIC_NAMES, math.nan))

    @property
    def is_empty(self) -> bool:
        """Neither mask has a voxel."""
        return self.volume_reference_mm3 == 0 == self.volume_prediction_mm3

    @property
    def is_false_negative(self) -> bool:
        """The reference has voxels, the prediction none."""
        return self.volume_reference_mm3 > 0 == self.volume_prediction_mm3

    @property
    def is_false_positive(self) -> bool:
        """The prediction has voxels, the reference none."""
        return self.volume_prediction_mm3 > 0 == self.volume_reference_mm3


@dataclass(frozen=True)
class _Surface:
    hausdorff95_mm: float = math.nan
    hausdorff_mm: float = math.nan
    average_surface_distance_mm: float = math.nan
    surface_dice: float = math.nan


def score_case(
    case_id: str,
    prediction: LabelVolume,
    reference: LabelVolume,
    affine: Affine,
    settings: ScoreSettings,
) -> list[ClassScore]:
    """Score two label maps on one grid with this affine, one record for each class in the order of the settings.

    Only the box around the voxels that either map labels is looked at; what lies outside adds true negatives. Voxels
    whose reference is `ignored` are left out of counts and volumes, and no surface is taken where a mask borders
    on them.
    """
    if not settings.classes:
        return []
    values = list(settings.classes.values())
    if regions_of(values) is not None:  # a voxel may be of several classes
        each = [replace(settings, classes={name: of_class}) for name, of_class in settings.classes.items()]
        return [score for one in each for score in score_case(case_id, prediction, reference, affine, one)]
    n_voxels = count_scored(reference, settings.ignored.value)
    labelled = _box_around_labels(prediction, reference)
    predicted, expected = _class_indices(prediction[labelled], values), _class_indices(reference[labelled], values)
    ignored = None if settings.ignored.value is None else reference[labelled] == settings.ignored.value
    if ignored is not None:
        predicted[ignored] = 0
    boxes = zip(find_objects(predicted, len(values)), find_objects(expected, len(values)), strict=True)
    counts, surfaces = [], []
    axes_mm = distance_axes_mm(affine)
    for index, (name, found) in enumerate(zip(settings.classes, boxes, strict=True), start=1):
        box = _around(*found) if ignored is None else grown(_around(*found))
        masks = predicted[box] == index, expected[box] == index
        counts.append(_count(*masks, n_voxels))
        if not settings.surface:
            surfaces.append(_Surface())
            continue
        distances = surface_distances(*masks, axes_mm, None if ignored is None else ignored[box])
        surfaces.append(_surface_scores(distances, settings.tolerance_mm[name]))
    return _records(case_id, torch.tensor([counts]).unbind(-1), surfaces, voxel_volume_mm3(affine), settings)


def score_absent(case_id: str, n_voxels: int, voxel_volume_mm3: float, settings: ScoreSettings) -> list[ClassScore]:
    """The scores of classes without a voxel in either map of a case."""
    counts = torch.tensor([[(0, 0, 0, n_voxels)] * len(settings.classes)])
    return _records(case_id, counts.unbind(-1), [_Surface()] * len(settings.classes), voxel_volume_mm3, settings)


def count_scored(reference: LabelVolume, ignore_value: int | None) -> int:
    """Voxels of a reference that are scored: all but those with `ignore_value`."""
    return reference.size if ignore_value is None else int(np.count_nonzero(reference != ignore_value))


def label_values(label: LabelVolume) -> list[int]:
    """The values other than 0 that a label map holds, sorted."""
    labelled = label[label != 0]
    if labelled.size == 0:
        return []
    low, high = int(labelled.min()), int(labelled.max())
    if high - low > _WIDEST_TABLE:
        return [int(value) for value in np.unique(labelled)]
    present = np.zeros(high - low + 1, dtype=bool)
    present[labelled - low] = True  # far faster than sorting every voxel
    return [int(value) for value in np.flatnonzero(present) + low]


def _box_around_labels(prediction: LabelVolume, reference: LabelVolume) -> Box:
    labelled = (prediction != 0) | (reference != 0)
    box = []
    for axis in range(3):
        occupied = np.flatnonzero(labelled.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0))
    return box[0], box[1], box[2]


def _class_indices(label: LabelVolume, classes: Sequence[tuple[int, ...]]) -> UInt16[np.ndarray, "i j k"]:
    """The number of the class of each voxel, from 1, and 0 for none."""
    low, high = (int(label.min()), int(label.max())) if label.size else (0, 0)
    numbers = np.zeros(label.shape, dtype=np.uint16)
    if high - low > _WIDEST_TABLE:
        for index, values in enumerate(classes, start=1):
            numbers[np.isin(label, values)] = index
        return numbers
    table = np.zeros(high - low + 1, dtype=np.uint16)
    for index, values in enumerate(classes, start=1):
        table[[value - low for value in values if low <= value <= high]] = index
    numbers[...] = table[label - low]
    return numbers


def _around(first: Box | None, second: Box | None) -> Box:
    """The smallest box around two boxes; None is no box, and nothing lies around nothing."""
    if first is None or second is None:
        return first or second or (slice(0, 0),) * 3
    i, j, k = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    return i, j, k


def _count(predicted: MaskVolume, expected: MaskVolume, n_voxels: int) -> tuple[int, int, int, int]:
    """True positive, false positive, false negative, true negative."""
    hits = int(np.count_nonzero(predicted & expected))
    false_positives, false_negatives = int(np.count_nonzero(predicted)) - hits, int(np.count_nonzero(expected)) - hits
    return hits, false_positives, false_negatives, n_voxels - hits - false_positives - false_negatives


def _surface_scores(distances: SurfaceDistances, tolerance_mm: float) -> _Surface:
    return _Surface(
        hausdorff95_mm=hausdorff95_mm(distances),
        hausdorff_mm=hausdorff_mm(distances),
        average_surface_distance_mm=average_surface_distance_mm(distances),
        surface_dice=surface_dice(distances, tolerance_mm),
    )


def _records(
    case_id: str,
    four_counts: Sequence[torch.Tensor],
    surfaces: Sequence[_Surface],
    voxel_volume_mm3: float,
    settings: ScoreSettings,
) -> list[ClassScore]:
    counts = ConfusionCounts(*four_counts)
    scores = {name: score(counts) for name, score in COUNTED_SCORES.items()}
    prevalence = voxel_prevalence(counts) if settings.prevalence is None else settings.prevalence
    for sign in ("positive", "negative"):
        ratio = scores[f"likelihood_ratio_{sign}"]
        scores[f"post_test_probability_{sign}"] = post_test_probability(ratio, prevalence)
    predicted = (counts.true_positive + counts.false_positive)[0].tolist()
    expected = (counts.true_positive + counts.false_negative)[0].tolist()
    return [
        ClassScore(
            case_id=case_id,
            class_name=name,
            **{metric: float(values[0, organ]) for metric, values in scores.items()},
            **asdict(surfaces[organ]),
            **_volumes(predicted[organ], expected[organ], voxel_volume_mm3),
        )
        for organ, name in enumerate(settings.classes)
    ]


def _volumes(predicted: int, expected: int, voxel_volume_mm3: float) -> dict[str, float]:
    """Volumes and their error; relative to an empty reference it is inf, or NaN if both are empty."""
    error = predicted - expected
    beside_nothing = math.inf if predicted else math.nan
    return {
        "volume_prediction_mm3": predicted * voxel_volume_mm3,
        "volume_reference_mm3": expected * voxel_volume_mm3,
        "volume_prediction_ml": predicted * voxel_volume_mm3 / 1000,
        "volume_reference_ml": expected * voxel_volume_mm3 / 1000,
        "volume_error_mm3": error * voxel_volume_mm3,
        "volume_error_relative": error / expected if expected else beside_nothing,
    }


METRIC_NAMES = tuple(field.name for field in fields(ClassScore))[2:]
