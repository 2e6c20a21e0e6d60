"""Differences between paired runs, with their interval over the pairs."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from scipy.stats import t as student_t


def interval(differences: Sequence[float]) -> str:
    """Mean and its 95 % t-interval; differences of few pairs are not many enough for a bootstrap."""
    n = len(differences)
    if n < 2:
        return f"{mean(differences):+.4f}"
    half = float(student_t.ppf(0.975, n - 1)) * stdev(differences) / math.sqrt(n)
    return f"{mean(differences):+.4f} ({mean(differences) - half:+.4f} to {mean(differences) + half:+.4f})"
