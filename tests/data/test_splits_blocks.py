from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spleen.data.splits.blocks import SliceSplitSettings, split_one_volume
from spleen.errors import InputError
from spleen.imaging.slicing import context_indices


def _organ(n_slices, first, last, holes=()):
    foreground = np.zeros(n_slices, dtype=bool)
    foreground[first : last + 1] = True
    foreground[list(holes)] = False
    return foreground


def _settings(seed=0, guard_mm=10.0, val_fraction=0.15, test_fraction=0.15, test_blocks=1):
    return SliceSplitSettings(val_fraction, test_fraction, test_blocks, guard_mm, seed)


def _blocks(indices):
    """Runs of consecutive slices."""
    return np.split(np.array(indices), np.flatnonzero(np.diff(indices) > 1) + 1)


@st.composite
def volumes(draw):
    """An organ anywhere in a volume, possibly with a few slices in between that lack it."""
    extent = draw(st.integers(8, 120))
    before, after = draw(st.integers(0, 30)), draw(st.integers(0, 30))
    holes = draw(st.lists(st.integers(before + 1, before + extent - 2), max_size=4))
    return _organ(before + extent + after, before, before + extent - 1, holes)


@given(
    foreground=volumes(),
    spacing_mm=st.floats(0.3, 6),
    context=st.integers(0, 3),
    guard_mm=st.floats(0, 12),
    fractions=st.tuples(st.floats(0.05, 0.3), st.floats(0.05, 0.3)),
    test_blocks=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_no_training_slice_is_within_the_guard_of_a_held_out_slice(
    foreground, spacing_mm, context, guard_mm, fractions, test_blocks, seed
):
    try:
        split = split_one_volume(
            foreground, spacing_mm, context, SliceSplitSettings(*fractions, test_blocks, guard_mm, seed)
        )
    except InputError:  # the organ spans too few slices, which another test covers
        return
    everything = [*split.train, *split.val, *split.test, *split.guard]
    assert sorted(everything) == list(range(len(foreground)))  # every slice exactly once

    held_out_blocks = [*_blocks(split.val), *_blocks(split.test)]
    assert len(_blocks(split.val)) == 1
    assert 1 <= len(_blocks(split.test)) <= test_blocks
    training_blocks = _blocks(split.train)
    assert len(training_blocks) == len(held_out_blocks) + 1
    assert all(foreground[block].any() for block in [*held_out_blocks, *training_blocks])

    held_out = np.concatenate(held_out_blocks)
    rounding_mm = 1e-6 * spacing_mm
    assert np.abs(np.subtract.outer(np.array(split.train), held_out)).min() * spacing_mm > guard_mm - rounding_mm
    for before, after in pairwise(sorted(held_out_blocks, key=min)):
        assert (after[0] - before[-1]) * spacing_mm > 2 * (guard_mm - rounding_mm)
    shown = context_indices(np.array(split.train), len(foreground), context)
    assert not np.isin(shown, held_out).any()
    assert not np.isin(context_indices(np.array(split.val), len(foreground), context), split.test).any()


@pytest.mark.parametrize("test_blocks", [1, 3])
@pytest.mark.parametrize(("spacing_mm", "guard"), [(5.0, 2), (3.0, 3)])
def test_split_sizes_and_guard_match_hand_computed_values(test_blocks, spacing_mm, guard):
    """50 slices of organ: 20% and 10% are 10 and 5 slices; a 10 mm guard is 2 slices of 5 mm or 3 of 3 mm per side."""
    split_settings = _settings(val_fraction=0.2, test_fraction=0.1, test_blocks=test_blocks)
    split = split_one_volume(_organ(90, 20, 69), spacing_mm, 0, split_settings)
    n_guard = 2 * guard * (1 + test_blocks)
    assert (len(split.val), len(split.test), len(split.guard)) == (10, 5, n_guard)
    assert len(_blocks(split.test)) == test_blocks
    assert len(split.train) == 90 - 10 - 5 - n_guard


def test_a_thin_organ_gets_fewer_test_blocks():
    """19 slices: 2 val, 2 test; a second test block would need two more guards of 2, and 4 training slices."""
    split_settings = _settings(val_fraction=0.1, test_fraction=0.1, test_blocks=2)
    assert len(_blocks(split_one_volume(_organ(60, 20, 39), 5.0, 0, split_settings).test)) == 2  # 20 slices
    assert len(_blocks(split_one_volume(_organ(60, 20, 38), 5.0, 0, split_settings).test)) == 1


def test_the_split_depends_only_on_the_seed():
    foreground = _organ(90, 20, 79)
    splits = [split_one_volume(foreground, 5.0, 0, _settings(seed)) for seed in range(12)]
    assert splits == [split_one_volume(foreground, 5.0, 0, _settings(seed)) for seed in range(12)]
    assert len({split.val for split in splits}) > 6
    assert {split.val < split.test for split in splits} == {True, False}  # either may come first


@pytest.mark.parametrize("n_organ", [0, 1, 12])
def test_an_organ_on_too_few_slices_is_reported_with_a_suggestion(n_organ):
    """One val and one test slice, four guards of two, three training blocks of one: 1 + 1 + 8 + 3 = 13 slices."""
    settings = _settings(val_fraction=0.01, test_fraction=0.01)
    with pytest.raises(
        InputError, match=rf"the organ is visible on {n_organ} slices, 5 mm apart.* need 13\. Choose another axis"
    ):
        split_one_volume(_organ(90, 20, 19 + n_organ), 5.0, 0, settings)
    split = split_one_volume(_organ(90, 20, 32), 5.0, 0, settings)  # 13 slices
    assert len(split.val) == len(split.test) == 1


def _drawn(every_mm, n_drawn):
    """A volume of 1 mm slices of which one in `every_mm` is labelled and shows the organ; foreground and the others."""
    foreground = np.zeros(every_mm * n_drawn, dtype=bool)
    foreground[::every_mm] = True
    return foreground, np.flatnonzero(~foreground).tolist()


@pytest.mark.parametrize(
    ("guard_mm", "context", "nearest_mm", "n_guard"), [(5.0, 0, 10, 0), (15.0, 0, 20, 4), (0.0, 12, 20, 4)]
)
def test_a_guard_reaches_through_unlabelled_slices(guard_mm, context, nearest_mm, n_guard):
    """12 labelled slices, 10 mm apart; 15 mm, or 12 slices of context, reach one of them on either side of a block."""
    foreground, ignored = _drawn(10, 12)
    split = split_one_volume(foreground, 1.0, context, _settings(guard_mm=guard_mm, test_fraction=0.1), ignored)
    assert (len(split.val), len(split.test), len(split.guard)) == (2, 1, n_guard)
    assert sorted([*split.train, *split.val, *split.test, *split.guard]) == list(range(0, 120, 10))
    held_out = [*split.val, *split.test]
    assert min(abs(one - other) for one in split.train for other in held_out) == nearest_mm
    assert not np.isin(context_indices(np.array(split.train), 120, context), held_out).any()


def test_too_few_labelled_slices_are_reported_with_how_far_a_guard_reaches():
    """25 mm reach two slices: 2 val, 1 test, four guards of two, three training blocks of one: 14 slices."""
    foreground, ignored = _drawn(10, 12)
    wide = _settings(guard_mm=25.0, test_fraction=0.1)
    with pytest.raises(InputError, match=r"visible on 12 labelled slices; .* guard gaps of 2 .* need 14\. "):
        split_one_volume(foreground, 1.0, 0, wide, ignored)
    split = split_one_volume(*_drawn(10, 14)[:1], 1.0, 0, wide, _drawn(10, 14)[1])
    assert len(split.train) == 14 - 2 - 1 - 8


@given(
    labelled=st.lists(st.booleans(), min_size=20, max_size=150),
    spacing_mm=st.floats(0.3, 6),
    context=st.integers(0, 3),
    guard_mm=st.floats(0, 12),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_no_unlabelled_slice_is_used_and_none_narrows_a_guard(labelled, spacing_mm, context, guard_mm, seed):
    foreground = np.array(labelled)
    foreground[:5] = False  # labelled, or not, without the organ
    ignored = np.flatnonzero(~np.array(labelled)).tolist()
    try:
        split = split_one_volume(foreground, spacing_mm, context, _settings(seed, guard_mm, test_blocks=2), ignored)
    except InputError:
        return
    held_out = np.array([*split.val, *split.test])
    assert not {*split.train, *split.val, *split.test, *split.guard} & set(ignored)
    assert foreground[held_out].all()
    assert foreground[list(split.train)].sum() >= 3
    apart = np.abs(np.subtract.outer(np.array(split.train), held_out)).min()
    assert apart > context
    assert apart * spacing_mm > guard_mm - 1e-6 * spacing_mm


def test_wide_context_widens_the_guard():
    split = split_one_volume(_organ(90, 10, 79), 5.0, 4, _settings(guard_mm=0.0))
    assert len(split.guard) == 4 * 4
