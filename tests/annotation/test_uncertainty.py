"""Entropy and confidence of slices, and the choice by them; expected values are worked by hand."""

import math

import numpy as np
import pytest

from spleen.annotation.uncertainty import slice_confidence, slice_entropy_mm2, uncertain_slices


def test_entropy_is_summed_over_a_slice_in_mm2() -> None:
    """One pixel of 0.5 has ln 2 nats, one of two classes with 0.25 each 1.5 ln 2; a coronal pixel is 2 × 5 mm."""
    probabilities = np.zeros((2, 3, 4, 2), np.float32)
    probabilities[0, 1, 1, 0] = 0.5
    probabilities[:, 2, 3, 1] = 0.25
    entropy = slice_entropy_mm2(probabilities, np.diag([2.0, 3.0, 5.0, 1.0]), "coronal")
    assert entropy == pytest.approx([0, 10 * math.log(2), 0, 15 * math.log(2)], abs=1e-6)


def test_confidence_is_the_soft_dice_of_a_slice() -> None:
    """Slice 0: 0.9 + 0.7 inside, 0.4 outside: 2 · 1.6 / (2.0 + 2) = 0.8; 0.01 elsewhere is noise; slice 1 is empty."""
    probabilities = np.zeros((1, 2, 3, 2), np.float32)
    probabilities[0, :, :, 0] = [[0.9, 0.7, 0.4], [0.01, 0.01, 0]]
    mask = (probabilities[0] > 0.5).astype(np.uint8)
    assert slice_confidence(probabilities, mask, "axial") == pytest.approx([0.8, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("entropy", "taken", "expected"),
    [
        ([0, 5, 4, 0, 0, 3], (0,), [5, 2]),  # 3 · 5 = 15 beats 4 · 2 = 8; then 4 · 2 = 8 beats 5 · 1 and 0
        ([1, 1, 9, 8, 1, 1], (), [2, 3]),  # nothing is known: the most uncertain; then 8 · 1 beats 1 · 3
        ([0, 0, 0, 0, 0, 0], (0,), [5, 2]),  # nothing is uncertain: the farthest
        ([7, 0, 0], (0, 1), [2]),  # labelled slices are never suggested
    ],
)
def test_the_next_slice_is_uncertain_and_far_from_the_known_ones(
    entropy: list[float], taken: tuple[int, ...], expected: list[int]
) -> None:
    assert [each.index for each in uncertain_slices(np.array(entropy, float), len(expected), taken)] == expected
