"""How the minutes are spent: rounds of short trainings, the number of views, and the length of epochs."""

import math
from dataclasses import dataclass

SEARCH_FRACTION = 0.3
"""Of the time, what the rounds get that choose a recipe; the rest trains the chosen one."""
LEAST_ARM_FRACTION = 0.05
"""Of the final training: shorter ones say little about it, so that fewer recipes compete."""
PASSES_PER_VIEW = 15
"""A view of an ensemble sees every training slice at least so often. In experiments/hippocampus_views, two views with
12 passes each were no better than one with 28, and three with 28 to 40 were; between them, nothing is measured."""
VALIDATION_COST = 0.5
"""Seconds of a predicted and scored slice per second of a training slice."""
VALIDATIONS_OF_AN_ARM = 2
_OVERHEAD_SECONDS = 8.0
"""Of a run, for what is neither training nor validation."""
_VALIDATION_FRACTION = 0.05
_FEWEST_VALIDATIONS, _MOST_VALIDATIONS = 3, 8


@dataclass(frozen=True)
class Round:
    """Trainings of the same length, of which the better half goes on."""

    n_arms: int
    minutes_each: float


def halving_rounds(n_candidates: int, minutes: float, least_minutes: float) -> tuple[Round, ...]:
    """Rounds of successive halving (Jamieson and Talwalkar 2016) that together take `minutes`.

    Each round gets the same time and keeps the better half, rounded up, until one is left. As many of the candidates
    take part as can train for `least_minutes` each; no round at all where that is fewer than two.
    """
    for n_arms in range(n_candidates, 1, -1):
        counts = [n_arms]
        while counts[-1] > 2:
            counts.append(math.ceil(counts[-1] / 2))
        if minutes / len(counts) / n_arms >= least_minutes:
            return tuple(Round(count, minutes / len(counts) / count) for count in counts)
    return ()


def least_minutes(n_val_slices: int, slices_per_second: float) -> float:
    """For an arm that trains for half of its time: it is validated, and its best epoch is scored once more."""
    validation = VALIDATION_COST * n_val_slices / slices_per_second
    return 2 * (_OVERHEAD_SECONDS + (VALIDATIONS_OF_AN_ARM + 1) * validation) / 60


def affordable_views(most: int, slices: float, n_training_slices: int) -> int:
    """How many views to train, 1 to `most`, if all together see so many `slices`."""
    return max(1, min(most, int(slices / (PASSES_PER_VIEW * n_training_slices))))


def affordable_validations(seconds: float, n_val_slices: int, slices_per_second: float) -> int:
    """How often to validate a final training of so many seconds: 3 to 8 times, if it may cost a twentieth of them."""
    each = VALIDATION_COST * n_val_slices / slices_per_second
    affordable = int(_VALIDATION_FRACTION * seconds / each) if each else _MOST_VALIDATIONS
    return max(_FEWEST_VALIDATIONS, min(_MOST_VALIDATIONS, affordable))


def epoch_length(slices_per_second: float, minutes: float, validations: int, batch_size: int) -> int:
    """Slices of an epoch of whole batches, so that a training of so many minutes has about so many validations."""
    batches = slices_per_second * minutes * 60 / validations / batch_size
    return batch_size * max(1, int(batches))


def fitting_batch_size(side: int, slices_per_epoch: int | None) -> int:
    """Slices of `side` × `side` pixels that make a step of about 65,000 pixels: a power of 2, 4 to 32.

    An epoch of fewer slices bounds it.
    """
    size = int(min(32, max(4, 2 ** round(math.log2(65_536 / side**2)))))
    while slices_per_epoch is not None and slices_per_epoch < size:
        size //= 2
    return size
