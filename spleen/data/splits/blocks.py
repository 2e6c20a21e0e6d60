"""Leakage-safe split of one volume: contiguous blocks of slices, separated by guard gaps."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from spleen.errors import InputError

Indices = Int64[np.ndarray, " _"]


@dataclass(frozen=True)
class SliceSplitSettings:
    """How one volume is split. `*_fraction` are fractions of the slices with foreground; the guard gap is in mm."""

    val_fraction: float
    test_fraction: float
    test_blocks: int
    guard_mm: float
    seed: int


@dataclass(frozen=True)
class SliceSplit:
    """Slice indices of one volume by split; slices in `guard` are discarded (guard gap)."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    guard: tuple[int, ...]

    def without(self, ignored: Collection[int]) -> "SliceSplit":
        """The split without these slices, which belong to no split then."""
        parts = (self.train, self.val, self.test, self.guard)
        return SliceSplit(*(tuple(index for index in part if index not in set(ignored)) for part in parts))

    def shifted(self, by: int) -> "SliceSplit":
        """The split with the numbers of its slices in a stack that begins so many slices earlier."""
        parts = (self.train, self.val, self.test, self.guard)
        return SliceSplit(*(tuple(index + by for index in part) for part in parts))


def split_one_volume(
    foreground: Bool[np.ndarray, " n"],
    slice_spacing_mm: float,
    context_slices: int,
    settings: SliceSplitSettings,
    ignored_slices: Collection[int] = (),
) -> SliceSplit:
    """Split the slices of one volume into train | held out | train | held out | … | train along the axis.

    There is one validation block and there are `test_blocks` test blocks, spread over the organ so that every block,
    training blocks included, contains foreground. The seed decides their order and shifts them slightly. Slices whose
    centre is within `guard_mm` of a held-out slice, or whose context would include one, are excluded from training. If
    the organ is too thin for `test_blocks` blocks, fewer are made. `ignored_slices`, of which nothing is labelled, are
    in no split; distances are measured through them.

    Raises InputError if the organ spans too few slices even for one test block.
    """
    organ = np.flatnonzero(foreground)
    guard = max(math.floor(settings.guard_mm / slice_spacing_mm + 1e-6), context_slices)
    within = _reached(organ, guard) if ignored_slices else guard
    n_val, n_test = (
        max(1, round(fraction * len(organ))) for fraction in (settings.val_fraction, settings.test_fraction)
    )
    for n_blocks in range(min(settings.test_blocks, n_test), 0, -1):
        n_train = len(organ) - n_val - n_test - 2 * within * (n_blocks + 1)
        if n_train >= n_blocks + 2:
            random = np.random.default_rng(settings.seed)
            val, test = _place_blocks(organ, n_val, _divide(n_test, n_blocks), n_train, within, random)
            return _around(len(foreground), val, test, guard).without(ignored_slices)
    slices = "labelled slices" if ignored_slices else f"slices, {slice_spacing_mm:.3g} mm apart"
    raise InputError(
        f"the organ is visible on {len(organ)} {slices}; validation ({n_val}), test "
        f"({n_test}), guard gaps of {within} slices on either side of both and three training blocks need "
        f"{n_val + n_test + 4 * within + 3}. Choose another axis, or a smaller split.guard_mm "
        f"(now {settings.guard_mm:g} mm), context_slices (now {context_slices}), val_fraction or test_fraction"
    )


def _reached(organ: Indices, guard: int) -> int:
    """The most labelled slices with the organ that lie within `guard` slices of one of them, on one side of it."""
    last = np.searchsorted(organ, organ + guard, side="right") - 1
    return int((last - np.arange(len(organ))).max(initial=0))


def _place_blocks(
    organ: Indices, n_val: int, test_sizes: list[int], n_train: int, guard: int, random: np.random.Generator
) -> tuple[Indices, Indices]:
    """Slice indices of val and test; `n_train` foreground slices are left around and between their blocks.

    `guard` counts slices with foreground, on either side of a block.
    """
    sizes = [n_val, *test_sizes]
    order = random.permutation(len(sizes))  # which block comes first along the axis; 0 is validation
    gaps = _divide(n_train, len(sizes) + 1)
    blocks: dict[int, Indices] = {}
    position = 0
    for place, block in enumerate(order):
        shift = int(random.integers(-(gaps[place] // 4), gaps[place] // 4 + 1))
        gaps[place], gaps[place + 1] = gaps[place] + shift, gaps[place + 1] - shift
        start = position + gaps[place] + guard
        last = start + sizes[block] - 1
        blocks[int(block)] = np.arange(organ[start], organ[last] + 1)
        position = last + 1 + guard
    return blocks[0], np.concatenate([blocks[number] for number in sorted(blocks) if number])


def _around(n_slices: int, val: Indices, test: Indices, guard: int) -> SliceSplit:
    """Assign all slices outside the held-out blocks and guard gaps to training."""
    index = np.arange(n_slices)
    distance = np.abs(index[:, None] - np.concatenate([val, test])[None, :]).min(axis=1)
    return SliceSplit(
        train=_tuple(index[distance > guard]),
        val=_tuple(val),
        test=_tuple(np.sort(test)),
        guard=_tuple(index[(distance > 0) & (distance <= guard)]),
    )


def _divide(total: int, parts: int) -> list[int]:
    """Integers that sum to `total` and differ by at most one."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _tuple(indices: Indices) -> tuple[int, ...]:
    return tuple(int(index) for index in indices)
