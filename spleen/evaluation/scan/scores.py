"""The scores of a scan whose reference and prediction are there."""

from spleen.evaluation.case_scores import ClassScore, ScoreSettings, score_case
from spleen.evaluation.ignored import NOTHING_IGNORED, IgnoredValue
from spleen.evaluation.scan.case import UNKNOWN, Scan


def scan_scores(scan: Scan, tolerance_mm: float, surface: bool = True) -> list[ClassScore]:
    """The scores of each class, without unlabelled voxels; none unless there are both masks.

    `tolerance_mm` is that of the surface Dice; `surface=False` saves the time of the surface metrics.
    """
    reference = scan.scored_reference
    if reference is None or scan.prediction is None:
        return []
    settings = ScoreSettings(
        dict(scan.scored_classes),
        dict.fromkeys(scan.scored_classes, tolerance_mm),
        surface=surface,
        ignored=NOTHING_IGNORED if scan.unlabelled is None else IgnoredValue(UNKNOWN),
    )
    return score_case(scan.case_id, scan.prediction, reference, scan.affine, settings)
