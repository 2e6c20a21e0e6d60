"""Segmentation as a diagnostic test of each voxel: predictive values, likelihood ratios, accuracy.

"Positive" is a voxel inside the prediction, "diseased" a voxel inside the reference. Every score is NaN where it would
be 0 / 0: nothing can be said. Sensitivity, specificity and precision are in `spleen.evaluation.metrics.overlap`.
Source of the formulas: Deeks & Altman 2004, "Diagnostic tests 4: likelihood ratios", BMJ 329:168.
"""

from spleen.errors import InputError
from spleen.evaluation.metrics.overlap import ConfusionCounts, Score, sensitivity, specificity


def negative_predictive_value(counts: ConfusionCounts) -> Score:
    """TN / (TN + FN): the fraction of predicted background that is background; NaN where every voxel was predicted."""
    return counts.true_negative.double() / (counts.true_negative + counts.false_negative)


def accuracy(counts: ConfusionCounts) -> Score:
    """(TP + TN) / all voxels: the fraction of voxels labelled correctly, background included."""
    right = counts.true_positive + counts.true_negative
    return right.double() / (right + counts.false_positive + counts.false_negative)


def likelihood_ratio_positive(counts: ConfusionCounts) -> Score:
    """Sensitivity / (1 − specificity): how many times likelier organ is predicted inside the organ than outside.

    inf without false positives. NaN where the reference is empty or fills everything, or nothing was predicted.
    """
    false_positive_rate = counts.false_positive.double() / (counts.false_positive + counts.true_negative)
    return sensitivity(counts) / false_positive_rate


def likelihood_ratio_negative(counts: ConfusionCounts) -> Score:
    """(1 − sensitivity) / specificity: how many times likelier background is predicted inside the organ than outside.

    0 without false negatives. NaN where the reference is empty or fills everything, or everything was predicted.
    """
    false_negative_rate = counts.false_negative.double() / (counts.false_negative + counts.true_positive)
    return false_negative_rate / specificity(counts)


def voxel_prevalence(counts: ConfusionCounts) -> Score:
    """(TP + FN) / all voxels: the fraction of voxels that are organ in the reference."""
    organ = counts.true_positive + counts.false_negative
    return organ.double() / (organ + counts.false_positive + counts.true_negative)


def post_test_probability(likelihood_ratio: Score, prevalence: Score | float) -> Score:
    """The probability that a voxel is organ once its predicted label is known, by Bayes' theorem in odds.

    Posterior odds = prior odds × likelihood ratio, prior odds = prevalence / (1 − prevalence), and a probability is
    odds / (1 + odds). An infinite ratio gives 1, a ratio of 0 gives 0, and NaN stays NaN.
    """
    odds = prevalence / (1 - prevalence) * likelihood_ratio
    return 1 / (1 + 1 / odds)  # odds / (1 + odds), which would be inf / inf for infinite odds


def check_prevalence(prevalence: float) -> None:
    """Raise InputError unless 0 < prevalence < 1."""
    if not 0 < prevalence < 1:
        raise InputError(
            "the prevalence is the prior fraction of voxels that are organ, above 0 and "
            f"below 1, for example 0.02; got {prevalence:g}"
        )
