"""Leakage-safe splits: one volume is cut into contiguous blocks of slices with a guard gap between them."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from spleen.errors import InputError


@dataclass(frozen=True)
class SplitSettings:
    """How one volume is split. Shares are of the slices that hold foreground; the guard gap is in mm."""

    val_share: float
    test_share: float
    guard_mm: float
    seed: int


@dataclass(frozen=True)
class SliceSplit:
    """Slice indices of one volume by what they may be used for; `guard` belongs to nothing."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    guard: tuple[int, ...]


def split_one_volume(
    foreground: Bool[np.ndarray, " n"], slice_spacing_mm: float, context_slices: int, settings: SplitSettings
) -> SliceSplit:
    """Split the slices of one volume into train | held out | train | held out | train along the axis.

    Validation and test are one contiguous block each, placed inside the organ so that all five blocks hold foreground;
    the seed decides which comes first and shifts them a little. Slices whose centre lies within `guard_mm` of a
    held-out slice, and slices whose context would show one, are left out of training.

    Raises InputError if the organ spans too few slices for that.
    """
    organ = np.flatnonzero(foreground)
    guard = max(math.floor(settings.guard_mm / slice_spacing_mm + 1e-6), context_slices)
    n_val, n_test = (max(1, round(share * len(organ))) for share in (settings.val_share, settings.test_share))
    n_train = len(organ) - n_val - n_test - 4 * guard
    if n_train < 3:
        raise InputError(
            f"the organ shows on {len(organ)} slices, {slice_spacing_mm:.3g} mm apart; validation ({n_val}), test "
            f"({n_test}), two guard gaps of {guard} slices on either side and three training blocks need "
            f"{n_val + n_test + 4 * guard + 3}. Choose another axis, or a smaller split.guard_mm "
            f"(now {settings.guard_mm:g} mm), context_slices (now {context_slices}) or share"
        )
    val, test = _place_blocks(organ, n_val, n_test, n_train, guard, np.random.default_rng(settings.seed))
    held_out = np.concatenate([val, test])
    index = np.arange(len(foreground))
    distance = np.abs(index[:, None] - held_out[None, :]).min(axis=1)
    return SliceSplit(
        train=_tuple(index[distance > guard]),
        val=_tuple(val),
        test=_tuple(test),
        guard=_tuple(index[(distance > 0) & (distance <= guard)]),
    )


def _place_blocks(
    organ: np.ndarray, n_val: int, n_test: int, n_train: int, guard: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Slice indices of the validation and the test block; `n_train` foreground slices lie around and between them."""
    val_first = bool(random.integers(2))
    shares = 1 / 3 + random.uniform(-0.08, 0.08, size=2)
    before, between = (min(max(1, round(share * n_train)), n_train - 2) for share in shares)
    between = min(between, n_train - before - 1)
    first_size, second_size = (n_val, n_test) if val_first else (n_test, n_val)
    first_start = before + guard
    second_start = first_start + first_size + guard + between + guard
    first, second = (
        np.arange(organ[start], organ[start + size - 1] + 1)
        for start, size in ((first_start, first_size), (second_start, second_size))
    )
    return (first, second) if val_first else (second, first)


def _tuple(indices: np.ndarray) -> tuple[int, ...]:
    return tuple(int(index) for index in indices)
