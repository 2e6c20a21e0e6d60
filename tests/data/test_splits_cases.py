"""Splits of many cases: properties that hold for any cases, and small examples worked out by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spleen.data.splits.cases import CaseSplitSettings, SplitCase, make_folds, split_cases
from spleen.data.splits.files import FoldCases, read_splits, write_splits
from spleen.errors import InputError

SETTINGS = CaseSplitSettings(val_fraction=0.25, test_fraction=0.25, n_folds=4, seed=0)


def case(name: str, volume: float = 1.0, group: str | None = None, fingerprint: str | None = None) -> SplitCase:
    return SplitCase(name, group or name, volume, fingerprint or name)


def cases(n: int) -> list[SplitCase]:
    """c0, c1, …: one group each, with volumes 1, 2, …"""
    return [case(f"c{number}", number + 1.0) for number in range(n)]


@st.composite
def grouped_cases(draw: st.DrawFn) -> list[SplitCase]:
    """6 to 40 cases in at least 6 groups, with arbitrary volumes, some of them 0."""
    n = draw(st.integers(6, 40))
    groups = [*range(6), *draw(st.lists(st.integers(0, n), min_size=n - 6, max_size=n - 6))]
    volumes = draw(st.lists(st.floats(0, 1e7), min_size=n, max_size=n))
    return [case(f"c{i}", volume, f"g{group}") for i, (group, volume) in enumerate(zip(groups, volumes, strict=True))]


def groups_of(case_ids: Sequence[str], all_cases: Sequence[SplitCase]) -> set[str]:
    return {split_case.group for split_case in all_cases if split_case.case_id in set(case_ids)}


# Folds --------------------------------------------------------------------------------------------------------------


@given(grouped_cases(), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_each_case_is_held_out_once_and_no_group_is_split(all_cases: list[SplitCase], n_folds: int, seed: int) -> None:
    folds = make_folds(all_cases, n_folds, seed)
    all_ids = sorted(split_case.case_id for split_case in all_cases)
    assert len(folds) == n_folds
    assert sorted(case_id for fold in folds for case_id in fold.held_out) == all_ids
    for fold in folds:
        assert fold.held_out
        assert sorted([*fold.train, *fold.held_out]) == all_ids
        assert not groups_of(fold.train, all_cases) & groups_of(fold.held_out, all_cases)


@given(st.permutations(range(23)), st.integers(0, 50))
def test_folds_depend_on_the_cases_and_the_seed_but_not_on_the_order(order: list[int], seed: int) -> None:
    ordered = cases(23)
    assert make_folds([ordered[number] for number in order], 5, seed) == make_folds(ordered, 5, seed)


def test_different_seeds_give_different_folds() -> None:
    assert len({make_folds(cases(20), 5, seed) for seed in range(5)}) > 1


@given(st.integers(0, 100))
def test_ungrouped_cases_give_folds_of_similar_size_and_volume(seed: int) -> None:
    # 23 cases of volume 1 … 23 in 5 folds: each round of five gives every fold one, so a fold has one case of 1 … 5,
    # one of 6 … 10, one of 11 … 15, one of 16 … 20, and three folds have one of 21 … 23.
    for fold in make_folds(cases(23), 5, seed):
        fifths = sorted(int(case_id[1:]) // 5 for case_id in fold.held_out)
        assert fifths in ([0, 1, 2, 3], [0, 1, 2, 3, 4])


def test_large_groups_are_assigned_to_the_fold_with_the_fewest_cases() -> None:
    # Sorted by volume: a (4 cases), b (1), c (4), d (1). The fold that gets a also gets d.
    all_cases = [
        case(f"{g}{i}", volume, g)
        for g, n, volume in (("a", 4, 1), ("b", 1, 2), ("c", 4, 3), ("d", 1, 4))
        for i in range(n)
    ]
    for seed in range(5):
        folds = make_folds(all_cases, 2, seed)
        assert sorted(sorted(groups_of(fold.held_out, all_cases)) for fold in folds) == [["a", "d"], ["b", "c"]]


def test_fewer_groups_than_folds_are_reported() -> None:
    with pytest.raises(InputError, match=r"cannot make 4 folds from 3 cases or groups; lower split\.folds"):
        make_folds([*cases(3), case("d", group="c0")], 4, 0)


# Splits -------------------------------------------------------------------------------------------------------------


@given(grouped_cases(), st.one_of(st.none(), st.just("all"), st.integers(0, 3)), st.integers(0, 99), st.booleans())
def test_no_case_and_no_group_is_in_two_splits(all_cases: list[SplitCase], fold, seed: int, with_list: bool) -> None:
    listed = tuple(split_case.case_id for split_case in all_cases if split_case.group == "g0") if with_list else ()
    split = split_cases(all_cases, fold, replace(SETTINGS, seed=seed), test_cases=listed)
    assigned = [*split.train, *split.val, *split.test]
    assert len(set(assigned)) == len(assigned)
    assert not set(listed) & {*split.train, *split.val}
    for first, second in ((split.train, split.val), (split.train, split.test), (split.val, split.test)):
        assert not groups_of(first, all_cases) & groups_of(second, all_cases)
    left_over = {split_case.case_id for split_case in all_cases} - set(assigned)
    assert left_over == (set(listed) if isinstance(fold, int) else set())
    assert bool(split.val) == (fold != "all")


def test_a_fold_tests_on_its_held_out_cases_and_validates_on_a_fraction_of_the_rest() -> None:
    all_cases = cases(16)
    folds = make_folds(all_cases, 4, 0)
    for number, fold in enumerate(folds):
        split = split_cases(all_cases, number, SETTINGS)
        assert split.test == fold.held_out
        assert len(split.val) == 3  # a quarter of 12
        assert set(split.train) | set(split.val) == set(fold.train)
        assert split_cases(all_cases, number, SETTINGS) == split


def test_validation_cases_cover_the_range_of_volumes() -> None:
    # A quarter of 12 sorted cases: one of the smallest four, one of the middle ones, one of the largest.
    for seed in range(10):
        split = split_cases(cases(12), None, CaseSplitSettings(0.25, 0, 5, seed))
        assert sorted(int(case_id[1:]) // 4 for case_id in split.val) == [0, 1, 2]


@pytest.mark.parametrize(
    ("fold", "listed", "sizes"),
    [
        (None, (), (9, 3, 4)),  # a quarter of 16 for test, a quarter of the other 12 for val
        (None, ("c1", "c2"), (10, 4, 2)),  # round(14 / 4) = 4: Python rounds halves to even
        ("all", (), (16, 0, 0)),
        ("all", ("c1", "c2"), (14, 0, 2)),
    ],
)
def test_the_sizes_of_train_val_and_test(fold, listed: tuple[str, ...], sizes: tuple[int, int, int]) -> None:
    split = split_cases(cases(16), fold, SETTINGS, test_cases=listed)
    assert (len(split.train), len(split.val), len(split.test)) == sizes
    assert not listed or split.test == listed


def test_listed_test_cases_are_excluded_from_every_fold() -> None:
    # The other 14 make folds of 4, 4, 3 and 3.
    tested = []
    for fold in range(4):
        split = split_cases(cases(16), fold, SETTINGS, test_cases=("c1", "c2"))
        assert not {"c1", "c2"} & set(split.part_of())
        tested += split.test
    assert sorted(tested) == sorted(f"c{number}" for number in range(16) if number not in (1, 2))


def test_a_fraction_of_zero_gives_an_empty_split() -> None:
    zero_fractions = CaseSplitSettings(0, 0, 4, 0)
    assert split_cases(cases(5), None, zero_fractions).train == ("c0", "c1", "c2", "c3", "c4")
    split = split_cases(cases(8), 1, zero_fractions)
    assert (len(split.train), split.val, len(split.test)) == (6, (), 2)


def test_folds_read_from_a_file_are_used_unchanged(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits_final.json", [FoldCases(("c0", "c1", "c2"), ("c3",)), FoldCases(("c3",), ("c0",))])
    given_folds = read_splits(tmp_path / "splits_final.json")
    first = split_cases(cases(6), 0, replace(SETTINGS, val_fraction=0), given_folds)
    assert (first.train, first.test) == (("c0", "c1", "c2"), ("c3",))  # c4 and c5 are in no split, as in the file
    second = split_cases(cases(6), 1, replace(SETTINGS, val_fraction=0), given_folds)
    assert (second.train, second.test) == (("c3",), ("c0",))
    with pytest.raises(InputError, match=r"fold=2, but there are 2 folds, from 0 to 1"):
        split_cases(cases(6), 2, SETTINGS, given_folds)
    with pytest.raises(InputError, match=r"split\.splits_file lists c2, c3, not found in the data"):
        split_cases(cases(2), 0, SETTINGS, given_folds)
    with pytest.raises(InputError, match=r"c3 are in both split\.test_cases and split\.splits_file"):
        split_cases(cases(6), 0, SETTINGS, given_folds, test_cases=("c3",))


# Leaks and invalid input --------------------------------------------------------------------------------------------

PAIR = (FoldCases(("a", "b"), ("c", "d")),)


@pytest.mark.parametrize(
    ("all_cases", "message"),
    [
        (
            [case("a"), case("b", fingerprint="x"), case("c", fingerprint="x"), case("d")],
            r"the same image is in two splits 1 time\(s\).*b \(train\), c \(test\)\. "
            r"Remove the copies, or put them into one group with data\.groups",
        ),
        (
            [case("a", group="p"), case("b"), case("c"), case("d", group="p")],
            r"the same group .*a \(train\), d \(test\)",
        ),
    ],
)
def test_leaks_between_the_splits_of_given_folds_are_reported(all_cases: list[SplitCase], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_cases(all_cases, 0, replace(SETTINGS, val_fraction=0), PAIR)


def test_copies_within_one_split_are_not_a_leak() -> None:
    all_cases = [case("a", fingerprint="x"), case("b", fingerprint="x"), case("c"), case("d")]
    assert split_cases(all_cases, 0, replace(SETTINGS, val_fraction=0), PAIR).train == ("a", "b")


def test_copies_in_one_group_are_never_split() -> None:
    all_cases = [
        *cases(6),
        *(
            case(f"{split_case.case_id}_again", split_case.volume_mm3, split_case.group, split_case.fingerprint)
            for split_case in cases(6)
        ),
    ]
    for fold in range(4):
        split_cases(all_cases, fold, SETTINGS)


def test_a_copy_of_a_listed_test_case_is_reported_as_a_leak_for_every_fold() -> None:
    all_cases = [*cases(8), case("copy", 3, fingerprint="c0")]
    for fold in ("all", None, 0):
        with pytest.raises(
            InputError, match=r"the same image .*c0 \((split\.test_cases|test)\), copy \((train|val|test)\)"
        ):
            split_cases(all_cases, fold, replace(SETTINGS, val_fraction=0), test_cases=("c0",))


@pytest.mark.parametrize(
    ("n", "fold", "settings", "listed", "message"),
    [
        (4, None, SETTINGS, ("c9", "d"), r"split\.test_cases lists c9, d, not found in the data"),
        (
            1,
            None,
            SETTINGS,
            (),
            r"split\.test_fraction=0\.25 is not possible: 1 cases or groups are left.*Set split\.test_fraction=0",
        ),
        (2, None, SETTINGS, (), r"split\.val_fraction=0\.25 is not possible: 1 cases .*Set split\.val_fraction=0"),
        (2, 0, replace(SETTINGS, n_folds=2), (), r"split\.val_fraction=0\.25 is not possible"),
        (3, "all", SETTINGS, ("c0", "c1", "c2"), r"none of the 3 cases is left for training: 0 val, 3 test"),
        (3, 0, SETTINGS, (), r"cannot make 4 folds from 3 cases or groups"),
    ],
)
def test_too_few_or_unknown_cases_are_reported(
    n: int, fold, settings: CaseSplitSettings, listed: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        split_cases(cases(n), fold, settings, test_cases=listed)
